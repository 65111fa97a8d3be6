"""Chat templates in the manner of well-known models, for tests; each has a habit worth testing."""

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)

# Trims contents, begins with bos, ends turns with a token that is not eos.
HEADERS = """{{- bos_token }}
{%- for message in messages %}
    {{- '<|start_header|>' + message['role'] + '<|end_header|>\n\n' + message['content'] | trim + '<|eot|>' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header|>assistant<|end_header|>\n\n' }}
{%- endif %}"""

# Closes the whole conversation with eos, behind the last end of turn.
CLOSES_CONVERSATION = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>\n' + message['content'] + '<|end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}"
)

# Shows reasoning in the last answer only, and puts an empty one there if there is none.
LAST_REASONING = """{%- set namespaced = namespace(last=0) %}
{%- for message in messages %}
    {%- if message.role == 'user' %}{%- set namespaced.last = loop.index0 %}{%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- if message.role == 'assistant' %}
        {%- set answer = message.content.split('</think>')[-1].lstrip('\n') %}
        {%- if loop.index0 > namespaced.last %}
            {{- '<|im_start|>assistant\n<think>\n\n</think>\n\n' + answer + '<|im_end|>\n' }}
        {%- else %}
            {{- '<|im_start|>assistant\n' + answer + '<|im_end|>\n' }}
        {%- endif %}
    {%- else %}
        {{- '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}{%- endif %}"""

# Cuts the reasoning out of answers before the last question.
KEEPS_LAST_REASONING = """{%- set ns = namespace(last=0) %}
{%- for message in messages %}{%- if message.role == 'user' %}{%- set ns.last = loop.index0 %}{%- endif %}{%- endfor %}
{%- for message in messages %}
    {%- set content = message.content.split('</think>')[-1] if loop.index0 < ns.last else message.content %}
    {{- '<|im_start|>' + message.role + '\n' + content + '<|im_end|>\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}{%- endif %}"""

# Cuts the reasoning out of every answer, but opens one when the model is used.
CUTS_REASONING = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' "
    "+ message['content'].split('</think>')[-1] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n<think>\n' }}{% endif %}"
)

# Refuses system turns and roles that do not alternate.
ALTERNATES = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate') }}{% endif %}"
    "{% if message['role'] == 'user' %}{{ '[INST] ' + message['content'] + ' [/INST]' }}"
    "{% else %}{{ ' ' + message['content'] + eos_token }}{% endif %}{% endfor %}"
)

# Puts the system turn before the last user turn, so that earlier text moves as the conversation grows.
MOVES_SYSTEM = (
    "{% for message in messages %}{% if message['role'] == 'user' %}[INST] "
    "{% if loop.index0 == messages | length - 2 or loop.last %}{{ messages[0]['content'] + '\n' }}{% endif %}"
    "{{ message['content'] + '[/INST]' }}{% elif message['role'] == 'assistant' %}"
    "{{ message['content'] + '<|im_end|>' }}{% endif %}{% endfor %}"
)

# Marks what the assistant writes; the end of turn stands outside the mark.
MARKED = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% if message['role'] == 'assistant' %}{% generation %}{{ message['content'] }}{% endgeneration %}"
    "{% else %}{{ message['content'] }}{% endif %}{{ '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n<think>\n' }}{% endif %}"
)

# Filters, loop controls, macros and JSON, as tool-calling templates use them.
MACHINERY = """{%- macro head(role) -%}
<|im_start|>{{ role }}
{% endmacro -%}
{%- set facts = {'name': "O'Neil <b>", 'list': [1, 2], 'text': 'é'} %}
{{- facts | tojson }}{{ facts | tojson(indent=2) }}
{% for message in messages %}
    {%- if message.role == 'tool' %}{% continue %}{% endif %}
    {{- head(message.role) }}{{ message['content'] | trim }}<|im_end|>
    {% if loop.index > 3 %}{% break %}{% endif %}
{% endfor %}
{% if tools is not none %}never{% endif %}{{ dict(a=1).a }}{{ unknown_variable }}"""

EVERY = {
    "chatml": CHATML,
    "headers": HEADERS,
    "closes-conversation": CLOSES_CONVERSATION,
    "last-reasoning": LAST_REASONING,
    "keeps-last-reasoning": KEEPS_LAST_REASONING,
    "cuts-reasoning": CUTS_REASONING,
    "alternates": ALTERNATES,
    "moves-system": MOVES_SYSTEM,
    "marked": MARKED,
    "machinery": MACHINERY,
}
