"""Serving what was trained: the training template in Ollama's language, and commands that can be pasted."""

from __future__ import annotations

import shlex
from pathlib import Path

import chat_templates
import pytest

from qlora_tui.config import DataSection, ModelSection, RunConfig
from qlora_tui.data.go_template import NotExpressible, TurnPieces, turn_pieces
from qlora_tui.data.template import PLAIN_SOURCE, ChatTemplate
from qlora_tui.runs.serving import adapter_snippets, merged_snippets, modelfile, served_name

TOKENS = {"bos_token": "<s>", "eos_token": "</s>"}
TALKS = (
    [("user", "hi")],
    [("system", "Be kind."), ("user", "hi")],
    [("user", "one"), ("assistant", "two"), ("user", "three")],
    [("system", "S"), ("user", "one"), ("assistant", "two"), ("user", "three"), ("assistant", "4"), ("user", "5")],
)
INSTRUCT = (
    "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}{{ '[INST] ' + message['content'] + "
    "' [/INST]' }}{% elif message['role'] == 'system' %}{{ raise_exception('no system') }}{% else %}"
    "{{ ' ' + message['content'] + eos_token }}{% endif %}{% endfor %}"
)
TURNS = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{% set first = messages[0]['content'] + '\n\n' %}"
    "{% set rest = messages[1:] %}{% else %}{% set first = '' %}{% set rest = messages %}{% endif %}"
    "{% for message in rest %}{{ '<start>' + ('model' if message['role'] == 'assistant' else message['role']) + '\n' "
    "+ (first if loop.first else '') + message['content'] + '<end>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start>model\n' }}{% endif %}"
)


def template_of(source: str) -> ChatTemplate:
    return ChatTemplate(source, TOKENS, "test")


def in_go(pieces: TurnPieces, talk: list[tuple[str, str]]) -> str:
    """What Go's template engine makes of it, for the little of its language that is used."""
    template = pieces.go_template()
    head, _, rest = template.partition("{{ range .Messages }}")
    body, _, tail = rest.partition("{{ end }}{{ end }}")
    branches = {}
    for branch in body.split("{{ else if ") if "{{ else if " in body else [body]:
        role, _, text = branch.removeprefix("{{ if ").removeprefix('eq .Role "').partition('" }}')
        branches[role] = text
    said = "".join(branches[role].replace("{{ .Content }}", content) for role, content in talk)
    return (head + said + tail).replace('{{ "{{" }}', "{{")


@pytest.mark.parametrize(
    ("source", "end"),
    [
        (chat_templates.CHATML, "<|im_end|>"),
        (chat_templates.HEADERS, "<|eot|>"),
        (chat_templates.CLOSES_CONVERSATION, "<|end|>"),
        (PLAIN_SOURCE, "</s>"),
        (TURNS, "<end>"),
        (TURNS, None),
        (INSTRUCT, "</s>"),
    ],
)
def test_ollama_writes_what_the_template_writes(source: str, end: str | None) -> None:
    template = template_of(source)
    pieces = turn_pieces(template, end)
    for talk in TALKS:
        if talk[0][0] == "system" and "system" not in pieces.around:
            continue
        messages = [{"role": role, "content": content} for role, content in talk]
        assert in_go(pieces, talk) == template.render(messages, add_generation_prompt=True)


def test_turns_are_cut_behind_their_end() -> None:
    pieces = turn_pieces(template_of(chat_templates.CHATML), "<|im_end|>")
    assert pieces.around == {
        "system": ("<|im_start|>system\n", "<|im_end|>\n"),
        "user": ("<|im_start|>user\n", "<|im_end|>\n"),
        "assistant": ("<|im_start|>assistant\n", "<|im_end|>\n"),
    }
    assert pieces.opening == "<|im_start|>assistant\n"


def test_a_beginning_that_the_server_writes_is_left_out() -> None:
    assert turn_pieces(template_of(chat_templates.HEADERS), "<|eot|>", "<s>").head == ""
    assert turn_pieces(template_of(chat_templates.HEADERS), "<|eot|>").head == "<s>"


@pytest.mark.parametrize(
    "source",
    [
        "{% for message in messages %}{{ message['content'] }}|{{ loop.index }}{% endfor %}",
        "{% for message in messages %}{{ message['content'] | upper }}{% endfor %}",
        "always the same",
    ],
)
def test_a_template_that_does_more_is_refused_not_approximated(source: str) -> None:
    with pytest.raises(NotExpressible):
        turn_pieces(template_of(source))


def test_braces_are_not_taken_for_go() -> None:
    source = "{% for message in messages %}{{ '{{' + message['role'] + '}}' + message['content'] }}{% endfor %}"
    pieces = turn_pieces(template_of(source))
    assert '{{ "{{" }}' in pieces.go_template()
    assert in_go(pieces, TALKS[0]) == "{{user}}hi"


def test_the_modelfile_of_the_bundled_model(tokenizer_folder: Path) -> None:
    text = modelfile(tokenizer_folder, DataSection(source="x"))
    assert text.splitlines()[1] == "FROM ."
    assert "<|im_start|>user\n{{ .Content }}<|im_end|>\n" in text
    assert 'SYSTEM """You are a helpful AI assistant named SmolLM' in text, "which its template adds of its own accord"
    assert 'PARAMETER stop "<|im_end|>"' in text
    own = modelfile(tokenizer_folder, DataSection(source="x", system_prompt="Be brief."))
    assert 'SYSTEM """Be brief."""' in own


def config_named(name: str, **sections: object) -> RunConfig:
    return RunConfig.model_validate(
        {"name": name, "model": ModelSection(source="owner/base"), "data": {"source": "x"}, **sections}
    )


def test_snippets_quote_what_they_are_given(tmp_path: Path) -> None:
    folder = tmp_path / "it's a $(folder)"
    config = config_named("spam", data={"source": "x", "system_prompt": 'Don\'t "panic"'})
    for snippet in [*adapter_snippets(folder, config, "owner/base"), *merged_snippets(folder, config)]:
        if snippet.language == "python":
            compile(snippet.text, "snippet", "exec")
            assert repr(str(folder)) in snippet.text
        else:
            words = shlex.split(snippet.text.replace("\\\n", " "), comments=True)
            assert any(str(folder) in word for word in words) or snippet.title == "Ollama"


def test_vllm_keeps_adapters_at_the_next_rank(tmp_path: Path) -> None:
    texts = {snippet.title: snippet.text for snippet in adapter_snippets(tmp_path, config_named("x"), "owner/base")}
    assert "--max-lora-rank 16" in texts["vLLM"]
    config = config_named("x", adapter={"rank": 48})
    texts = {snippet.title: snippet.text for snippet in adapter_snippets(tmp_path, config, "owner/base")}
    assert "--max-lora-rank 64" in texts["vLLM"]


def test_ollama_is_offered_only_with_a_modelfile(tmp_path: Path) -> None:
    assert merged_snippets(tmp_path, config_named("x"))[-1].text.startswith("# ")
    (tmp_path / "Modelfile").write_text("FROM .")
    assert "ollama create x" in merged_snippets(tmp_path, config_named("x"))[-1].text


def test_names_that_servers_take() -> None:
    assert served_name("a b/c\x1b[31m!") == "a-b-c"
    assert served_name("…") == "model"
