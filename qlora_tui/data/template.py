"""The chat template of a model folder: where it is found, and conversations rendered through it.

Rendering gives the very text that transformers 5.23 gives for the same folder. A base model without a template of its
own gets :data:`PLAIN_SOURCE`; whoever saves an adapter saves that source along with it.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2

from qlora_tui.data.model_files import named_special_tokens, read_json, read_text
from qlora_tui.data.sandbox import MAX_OUTPUT_CHARS, GenerationMarks, chat_environment
from qlora_tui.errors import DataError, ModelError
from qlora_tui.text import one_line

Message = Mapping[str, Any]

MAX_SOURCE_CHARS = 512 * 1024
"""Longest template source compiled; the longest published ones stay below a tenth of it."""

PLAIN_SOURCE = (
    "{% for message in messages %}"
    "{% if not loop.first %}{{ '\\n\\n' }}{% endif %}"
    "{{ '### ' + (message['role'] | capitalize) + ':\\n' + message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '\\n\\n### Assistant:\\n' }}{% endif %}"
)
"""The template of models that have none: headed paragraphs in plain text, each answer closed by the eos token.

It needs no token that a base model has not learnt already. A beginning-of-text token comes first if the tokenizer puts
one before every text.
"""

_MARK = re.compile(r"\{%-?\s*generation\s*-?%\}")


class TemplateRefusal(DataError):
    """The template itself refuses a conversation, such as one whose roles do not alternate."""


class ChatTemplate:
    """A compiled chat template.

    Args:
        source: The jinja2 text.
        special_tokens: Named special tokens the template may use, such as ``eos_token``.
        origin: Where the source comes from, for people: a file name, or ``"plain"``.
        tool_source: The template for conversations with tools, if the model has one of its own for them.

    Raises:
        ModelError: if the source is too long or is not valid jinja2.
    """

    def __init__(
        self, source: str, special_tokens: Mapping[str, str], origin: str, tool_source: str | None = None
    ) -> None:
        if len(source) > MAX_SOURCE_CHARS:
            raise _unusable(origin, f"It is {len(source)} characters long, more than {MAX_SOURCE_CHARS}.")
        self.source = source
        self.special_tokens = dict(special_tokens)
        self.origin = origin
        self.has_marks = _MARK.search(source) is not None
        self.uses_date = "strftime_now" in source
        sources = source if tool_source is None else f"{source}\0{tool_source}"
        self.fingerprint = hashlib.sha256(sources.encode("utf-8", "surrogatepass")).hexdigest()
        self.with_tools = None if tool_source is None else ChatTemplate(tool_source, special_tokens, origin)
        environment = chat_environment()
        marks = next(found for found in environment.extensions.values() if isinstance(found, GenerationMarks))
        try:
            self._compiled = environment.from_string(source)
        except (jinja2.TemplateError, RecursionError, ValueError) as error:
            raise _unusable(origin, f"jinja2 says: {one_line(str(error))}.") from error
        self._marks = marks
        self._in_parts = False
        # Merged once: jinja would merge its globals into the variables on every rendering, at half of its whole cost.
        self._variables = {**self._compiled.globals, **self.special_tokens, "tools": None, "documents": None}
        self._in_parts = self._wants_parts()

    @classmethod
    def from_folder(cls, folder: Path, adds_bos: bool = False) -> ChatTemplate:
        """The template a model folder carries, or the plain one.

        ``chat_template.jinja`` comes before the ``chat_template`` of ``tokenizer_config.json`` (a text, or a list of
        named ones of which ``default`` counts, and ``tool_use`` where there are tools), and that before
        ``chat_template.json``. A further one for tools may stand in ``additional_chat_templates/tool_use.jinja``.

        Args:
            adds_bos: Whether the tokenizer puts a beginning-of-text token before texts; so does the plain template.

        Raises:
            ModelError: if a file cannot be read, the template is invalid, or a model without one has no eos token.
        """
        tokens = named_special_tokens(folder)
        if (folder / "chat_template.jinja").is_file():
            further = folder / "additional_chat_templates" / "tool_use.jinja"
            for_tools = read_text(further) if further.is_file() else None
            return cls(read_text(folder / "chat_template.jinja"), tokens, "chat_template.jinja", for_tools)
        for name in ("tokenizer_config.json", "chat_template.json"):
            source, for_tools = _named_sources(read_json(folder / name).get("chat_template"), name)
            if source is not None:
                return cls(source, tokens, name, for_tools)
        if "eos_token" not in tokens:
            raise ModelError(
                "The model has no chat template and no end-of-text token.",
                "Without one of them an answer would have no end to learn.",
                "Choose a model whose tokenizer_config.json names an eos_token.",
            )
        return cls(("{{ bos_token }}" if adds_bos and "bos_token" in tokens else "") + PLAIN_SOURCE, tokens, "plain")

    def for_tools(self, tools: object) -> ChatTemplate:
        """The template for a conversation with these tools, or with None."""
        return self.with_tools if tools is not None and self.with_tools is not None else self

    def render(
        self,
        messages: Sequence[Message],
        add_generation_prompt: bool = False,
        variables: Mapping[str, Any] | None = None,
    ) -> str:
        """The conversation as text; ``add_generation_prompt`` opens an answer at its end.

        Args:
            variables: What the template may read besides, such as ``tools``.

        Raises:
            TemplateRefusal: if the template raises an error for this conversation.
            DataError: if the text grows beyond 64 Mi characters.
        """
        return "".join(self._blocks(messages, add_generation_prompt, variables, []))

    def render_marked(
        self, messages: Sequence[Message], variables: Mapping[str, Any] | None = None
    ) -> tuple[str, list[tuple[int, int]]]:
        """The conversation as text, and the character spans inside ``{% generation %}`` marks.

        Raises:
            TemplateRefusal, DataError: as :meth:`render`.
        """
        written: list[str] = []
        with self._marks.record(written) as spans:
            self._blocks(messages, False, variables, written)
            return "".join(written), list(spans)

    def _wants_parts(self) -> bool:
        """Whether contents have to be lists of parts: some templates for pictures show no other, and say nothing."""
        probe = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Good morning"}]
        if "content" not in self.source or self._shows(probe):
            return False
        return self._shows([_parted(message) for message in probe])

    def _shows(self, messages: Sequence[Message]) -> bool:
        try:
            text = self.render(messages)
        except DataError:
            return False
        return "Hello" in text and "Good morning" in text

    def _blocks(
        self,
        messages: Sequence[Message],
        add_generation_prompt: bool,
        variables: Mapping[str, Any] | None,
        written: list[str],
    ) -> list[str]:
        size = 0
        if self._in_parts:
            messages = [_parted(message) for message in messages]
        known = {**self._variables, "messages": messages, "add_generation_prompt": add_generation_prompt}
        if variables:
            known.update(variables)
        try:
            for block in self._compiled.root_render_func(self._compiled.new_context(known, shared=True)):
                written.append(block)
                size += len(block)
                if size > MAX_OUTPUT_CHARS:
                    raise DataError(
                        "A conversation grows too long when rendered.",
                        f"The chat template writes more than {MAX_OUTPUT_CHARS} characters for it.",
                        "Shorten the row, or choose another model.",
                    )
        except DataError:
            raise
        except jinja2.TemplateError as error:
            raise _refusal(one_line(error.message or type(error).__name__)) from error
        except Exception as error:  # a template is a program: any Python error can come out of its expressions
            raise _refusal(f"{type(error).__name__}: {one_line(str(error))}") from error
        return written


def _parted(message: Message) -> Message:
    """A message whose text is the only part of its content."""
    content = message.get("content")
    return {**message, "content": [{"type": "text", "text": content}]} if isinstance(content, str) else message


def _named_sources(value: object, name: str) -> tuple[str | None, str | None]:
    """The default template and the one for tools."""
    if value is None or isinstance(value, str):
        return value, None
    named: dict[Any, Any] = {}
    if isinstance(value, dict):
        named = value
    elif isinstance(value, list):
        named = {item.get("name"): item.get("template") for item in value if isinstance(item, dict)}
    source, for_tools = named.get("default"), named.get("tool_use")
    if not isinstance(source, str):
        raise _unusable(name, "It holds several templates and none named default.")
    return source, for_tools if isinstance(for_tools, str) else None


def _unusable(origin: str, why: str) -> ModelError:
    return ModelError(
        f"The model's chat template ({origin}) cannot be used.", why, "Download the model again, or choose another one."
    )


def _refusal(reason: str) -> TemplateRefusal:
    return TemplateRefusal(
        "The model's chat template refuses a conversation.",
        f"It says: {reason}.",
        "Bring the turns into an order the model knows: user and assistant by turns, a system turn only if it has one.",
    )
