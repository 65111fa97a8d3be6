"""The formats of rows, and what a row becomes: turns of a conversation, text, or token ids.

:func:`qlora_tui.data.detection.detect` finds the format of data once, as a :class:`RowMapping`;
:class:`qlora_tui.data.mapping.RowMapper` then turns each row into an :class:`Example`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

Format = Literal[
    "messages", "sharegpt", "prompt-completion", "alpaca", "preference", "text", "segments", "pre-tokenised"
]
Role = Literal["system", "user", "assistant", "tool"]

REQUIRED: dict[Format, tuple[str, ...]] = {
    "messages": ("messages",),
    "sharegpt": ("conversations",),
    "prompt-completion": ("prompt", "completion"),
    "alpaca": ("instruction", "output"),
    "preference": ("chosen",),
    "text": ("text",),
    "segments": ("segments",),
    "pre-tokenised": ("input_ids",),
}
"""The roles that columns must play in each format."""

_SURROUNDINGS = ("system", "history", "tools", "template_values", "label")
OPTIONAL: dict[Format, tuple[str, ...]] = {
    "messages": ("system", "tools", "template_values", "label"),
    "sharegpt": ("system", "tools", "template_values", "label"),
    "prompt-completion": (*_SURROUNDINGS, "reasoning"),
    "alpaca": ("input", *_SURROUNDINGS, "reasoning"),
    "preference": ("prompt", "input", "rejected", "system", "tools", "template_values"),
    "text": (),
    "segments": (),
    "pre-tokenised": ("labels", "mask", "attention_mask"),
}
"""The roles that columns may play besides."""

ROLES: dict[Format, tuple[str, ...]] = {name: REQUIRED[name] + OPTIONAL[name] for name in REQUIRED}
"""All roles that columns play in each format."""

SPEAKERS: tuple[Role, ...] = ("system", "user", "assistant", "tool")
MESSAGE_KEYS = ("role", "content")
IN_MESSAGES = (*MESSAGE_KEYS, *SPEAKERS[1:])
"""Entries of ``data.columns`` that name no column but a key of each message, or what a speaker is called in it."""

Settings = dict[str, Any]
"""Settings of the config's ``data`` section."""


@dataclass(frozen=True, slots=True)
class Turn:
    """One message of a conversation.

    ``fields`` is what else a chat template may read of it, such as ``tool_calls``, ``reasoning_content`` or ``name``;
    a field that is None is hidden from the template, also ``content``. A turn that is not ``trained`` is only read.
    """

    role: Role
    content: str
    fields: dict[str, Any] | None = None
    trained: bool = True


@dataclass(frozen=True, slots=True)
class Example:
    """A row ready to encode: a conversation, plain text or token ids.

    Plain text has ``text`` and no ``turns``; only its ``spans`` are trained (characters, from and to), or all of it.
    Token ids have ``ids`` with their mask. The first ``context`` turns of a conversation are its prompt: read, never
    trained, even where the assistant speaks in them. ``tools`` and ``values`` are for the chat template.
    """

    number: int
    turns: tuple[Turn, ...]
    text: str | None = None
    context: int = 0
    tools: list[dict[str, Any]] | None = None
    values: dict[str, Any] | None = None
    spans: tuple[tuple[int, int], ...] | None = None
    ids: tuple[list[int], list[bool]] | None = None


@dataclass(frozen=True, slots=True)
class RowMapping:
    """How rows are read: ``columns`` maps role to column, ``reason`` is one sentence for people.

    With a ``template`` the prompt is made from it, and only the completion has a column. ``keys`` are the keys of a
    message that hold speaker and text, where the config names them; ``speakers`` what it says speakers are called.
    ``notes`` are things to know before training, one sentence each.
    """

    format: Format
    columns: dict[str, str] = field(default_factory=dict)
    reason: str = ""
    template: str | None = None
    keys: tuple[str | None, str | None] = (None, None)
    speakers: dict[str, Role] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
