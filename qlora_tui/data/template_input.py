"""An example as a chat template takes it: messages, and what it may read besides."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from qlora_tui.data.formats import Example, Turn
from qlora_tui.data.problems import RowProblem
from qlora_tui.data.template import Message


def as_messages(example: Example) -> list[Message]:
    """The turns as a chat template takes them."""
    return [
        {"role": turn.role, "content": turn.content} if turn.fields is None else _with_fields(turn)
        for turn in example.turns
    ]


def template_variables(example: Example) -> dict[str, Any] | None:
    """What the chat template may read besides the messages."""
    if example.tools is None and example.values is None:
        return None
    return {"tools": example.tools, **(example.values or {})}


def with_written_arguments(example: Example) -> Example | None:
    """The example with the arguments of its tool calls as JSON text, which some templates want; None without calls."""
    if not any((turn.fields or {}).get("tool_calls") for turn in example.turns):
        return None
    turns = []
    for turn in example.turns:
        calls = (turn.fields or {}).get("tool_calls")
        if calls:
            written = [
                {**call, "function": {**call["function"], "arguments": _written(call["function"]["arguments"])}}
                for call in calls
            ]
            turn = Turn(turn.role, turn.content, {**(turn.fields or {}), "tool_calls": written}, turn.trained)
        turns.append(turn)
    return Example(example.number, tuple(turns), None, example.context, example.tools, example.values)


def _written(arguments: Any) -> str:
    return arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)


def _with_fields(turn: Turn) -> Message:
    message = {"role": turn.role, "content": turn.content, **(turn.fields or {})}
    return {name: value for name, value in message.items() if value is not None}


def reasoning_of(turn: Turn) -> str | None:
    """What the assistant thought before it spoke; None if that is not told."""
    value = (turn.fields or {}).get("reasoning_content")
    return value.strip() if isinstance(value, str) and value.strip() else None


def check_shown(example: Example, text: str) -> None:
    """Raise if tools or tool calls are not in the text: answers would be learnt that nothing leads to."""
    for kind, names in (("tools", _tool_names(example)), ("tool calls", _call_names(example))):
        missing = next((name for name in names if name not in text), None)
        if missing is not None:
            raise RowProblem(
                example.number,
                f"{kind} that the chat template does not show",
                f"It names {missing!r}, which the model would not see.",
                "Choose a model whose chat template knows tools, or write the calls into the text.",
            )


def _tool_names(example: Example) -> Iterable[str]:
    for tool in example.tools or ():
        function = tool.get("function", tool)
        if isinstance(function, dict) and isinstance(function.get("name"), str):
            yield function["name"]


def _call_names(example: Example) -> Iterable[str]:
    for turn in example.turns:
        for call in (turn.fields or {}).get("tool_calls") or ():
            yield call["function"]["name"]
