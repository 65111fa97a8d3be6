"""Lists of messages as turns, whatever their keys and speakers are called."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NoReturn

from qlora_tui.data.formats import SPEAKERS, Role, Turn
from qlora_tui.data.problems import RowProblem
from qlora_tui.text import one_line

SPEAKER_KEYS = ("role", "from", "speaker", "author", "sender")
TEXT_KEYS = ("content", "value", "text", "message", "utterance")

_TOOL_CALL = "tool call"
"""Stands for a speaker whose text is the JSON of a tool call that the assistant makes."""
# As published data spells them, in lower case.
_SPEAKERS: dict[str, Role | str] = {
    **{name: name for name in SPEAKERS},
    **dict.fromkeys(("human", "prompter", "instruction", "input", "customer", "usr"), "user"),
    **dict.fromkeys(
        ("gpt", "chatgpt", "gpt-3.5", "gpt-4", "bing", "bard", "claude", "gemini", "ai", "bot", "chatbot", "model",
         "output", "response", "agent"), "assistant"),
    **dict.fromkeys(("developer", "sys", "system_prompt"), "system"),
    **dict.fromkeys(("function", "observation", "ipython", "tool_response", "function_response", "tool_result",
                     "function-response", "tool-response", "environment"), "tool"),
    **dict.fromkeys(("function_call", "tool_call", "function-call", "tool-call"), _TOOL_CALL),
}  # fmt: skip
_TRAIN_FLAGS = ("weight", "train", "training", "trained")
_REASONING = ("reasoning_content", "thinking", "reasoning")
_PLAIN_PARTS = (None, "text", "input_text", "output_text")

Keys = tuple[str | None, str | None]


def read_turns(number: int, messages: list[Any], keys: Keys = (None, None), speakers: Mapping[str, Role] | None = None,
               ) -> tuple[Turn, ...]:  # fmt: skip
    """The turns of a conversation.

    Args:
        number: The row's number, for its problems.
        keys: The keys that hold speaker and text; None finds them among the usual ones.
        speakers: What speakers are called besides the usual names.

    Raises:
        RowProblem: if a message is no object, its speaker is unknown, or it holds anything but text.
    """
    turns = []
    for message in messages:
        if not isinstance(message, dict):
            raise wrong_type(number, message, "a message", "an object with role and content")
        if is_exchange(message) and "role" not in message:
            turns += [Turn("user", message["input"]), Turn("assistant", message["output"])]
            continue
        speaker_key = keys[0] or next((key for key in SPEAKER_KEYS if key in message), "role")
        text_key = keys[1] or next((key for key in TEXT_KEYS if key in message), "content")
        role = _role(number, message.get(speaker_key), speakers or {})
        content = message.get(text_key)
        if len(message) == 2 and type(content) is str and role != _TOOL_CALL:
            turns.append(Turn(role, content))  # type: ignore[arg-type]
        else:
            rest = {key: value for key, value in message.items() if key not in (speaker_key, text_key)}
            turns.append(_turn(number, role, content, rest))
    return tuple(turns)


def is_message(value: object) -> bool:
    """Whether ``value`` looks like a message: a speaker, and a text or a tool call."""
    if not isinstance(value, dict) or not any(key in value for key in SPEAKER_KEYS):
        return False
    return any(key in value for key in (*TEXT_KEYS, "tool_calls", "function_call"))


def is_from_value(value: object) -> bool:
    """Whether ``value`` is a message in ShareGPT's manner."""
    return isinstance(value, dict) and "from" in value and "value" in value


def is_exchange(value: object) -> bool:
    """Whether ``value`` holds a question with its answer, as two messages in one."""
    return isinstance(value, dict) and isinstance(value.get("input"), str) and isinstance(value.get("output"), str)


def tool_definitions(number: int, value: Any) -> list[dict[str, Any]] | None:
    """The tools of a conversation as chat templates take them; None if there are none.

    Raises:
        RowProblem: if they are not a list of objects, or text that is not the JSON of one.
    """
    if isinstance(value, str):
        value = _parsed(number, value, "the tools") if value.strip() else None
    if not value:
        return None
    if isinstance(value, dict):
        value = [value]
    if not isinstance(value, list):
        raise wrong_type(number, value, "the tools", "a list of objects")
    tools = []
    for tool in value:
        tool = _parsed(number, tool, "a tool") if isinstance(tool, str) else tool
        if not isinstance(tool, dict):
            raise wrong_type(number, tool, "a tool", "an object")
        is_plain = "function" not in tool and "name" in tool and "parameters" in tool
        tools.append({"type": "function", "function": tool} if is_plain else tool)
    return tools


def with_reasoning(fields: dict[str, Any]) -> dict[str, Any]:
    """``fields`` with reasoning under every name that chat templates read, as transformers fills them in."""
    reasoning = next((fields[key] for key in _REASONING if fields.get(key) is not None), None)
    return fields if reasoning is None else {"thinking": reasoning, **fields, "reasoning_content": reasoning}


def string(number: int, value: object, where: str) -> str:
    """``value`` as text; numbers are written out.

    Raises:
        RowProblem: if it is neither.
    """
    if isinstance(value, str):
        return value
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return str(value)
    raise wrong_type(number, value, where, "text")


def wrong_type(number: int, value: object, where: str, wanted: str) -> RowProblem:
    """The problem of a row that holds another kind of value than is needed."""
    kinds = {"NoneType": "nothing", "str": "text", "dict": "an object", "list": "a list", "bool": "a boolean"}
    kind = kinds.get(type(value).__name__, "a number")
    return RowProblem(number, "wrong type", f"{where[0].upper()}{where[1:]} holds {kind} where {wanted} is needed.")


def _role(number: int, name: object, speakers: Mapping[str, Role]) -> Role | str:
    if isinstance(name, str):
        known = speakers.get(name) or _SPEAKERS.get(name) or _SPEAKERS.get(name.strip().lower())
        if known is not None:
            return known
    raise RowProblem(
        number,
        "unknown role",
        f"The role {one_line(repr(name), 60)} is none of {', '.join(SPEAKERS)} or their usual other names.",
        "Say who it is, under data: columns: {user: NAME, assistant: NAME}.",
    )


def _turn(number: int, role: Role | str, content: object, rest: dict[str, Any]) -> Turn:
    trained = _trained(number, role, rest)
    fields = {key: value for key, value in rest.items() if value is not None and key not in _TRAIN_FLAGS}
    if role == _TOOL_CALL:
        call = _parsed(number, string(number, content, "a tool call"), "a tool call")
        calls = call if isinstance(call, list) else [call]
        return Turn("assistant", "", {"content": None, "tool_calls": _tool_calls(number, calls)}, trained)
    if (legacy := fields.pop("function_call", None)) is not None:
        fields["tool_calls"] = [legacy]
    if calls := fields.pop("tool_calls", None):
        fields["tool_calls"] = _tool_calls(number, calls)
    if content is None and role == "assistant" and ("tool_calls" in fields or any(key in fields for key in _REASONING)):
        text, fields["content"] = "", None
    else:
        text = _text(number, role, content)
    return Turn(role, text, with_reasoning(fields) or None, trained)  # type: ignore[arg-type]


def _trained(number: int, role: Role | str, rest: dict[str, Any]) -> bool:
    """What a message itself says of its training, as OpenAI's ``weight`` does."""
    flag = next((rest[key] for key in _TRAIN_FLAGS if rest.get(key) is not None), None)
    if rest.get("train_detail"):
        _refuse(number, "A message names parts of itself to train (train_detail), which is not read.")
    if flag is None:
        return True
    if flag not in (0, 1):
        _refuse(number, f"A message has the training weight {one_line(repr(flag), 40)}; known are 0 and 1.")
    if flag and role in ("user", "system", "tool") and "weight" not in rest:
        _refuse(number, f"A {role} message asks to be trained, but only answers are.")
    return bool(flag)


def _refuse(number: int, detail: str) -> NoReturn:
    raise RowProblem(number, "unknown training mark", detail)


def _text(number: int, role: Role | str, content: object) -> str:
    """The content of a message, whose parts are put together if it is a list of them."""
    where = f"the content of a {role} message"
    if isinstance(content, list) and not (role == "tool" and not all(isinstance(part, dict) for part in content)):
        texts = []
        for part in content:
            if isinstance(part, str):
                texts.append(part)
                continue
            if not isinstance(part, dict):
                raise wrong_type(number, part, where, "text")
            if part.get("type") not in _PLAIN_PARTS or not isinstance(part.get("text"), str):
                kind = one_line(str(part.get("type")), 40)
                raise RowProblem(number, "not text", f"A {role} message holds a part of type {kind!r}.")
            texts.append(part["text"])
        return "".join(texts)
    if role == "tool" and isinstance(content, (dict, list)):
        return json.dumps(content, ensure_ascii=False)
    return string(number, content, where)


def _tool_calls(number: int, calls: object) -> list[dict[str, Any]]:
    """Tool calls in the form that chat templates read: a function with its name, and its arguments as an object."""
    if isinstance(calls, str):
        calls = _parsed(number, calls, "the tool calls")
    if not isinstance(calls, list):
        raise wrong_type(number, calls, "tool_calls", "a list of objects")
    read = []
    for call in calls:
        if not isinstance(call, dict):
            raise wrong_type(number, call, "a tool call", "an object")
        function = call.get("function", call)
        name = function.get("name") if isinstance(function, dict) else None
        if not isinstance(name, str):
            raise RowProblem(number, "wrong type", "A tool call names no function.")
        arguments = function.get("arguments", function.get("parameters"))
        if isinstance(arguments, str):
            arguments = _as_object(arguments)
        rest = {key: value for key, value in call.items() if key != "type"} if "function" in call else {}
        named = {"name": name, "arguments": {} if arguments is None else arguments}
        read.append({"type": "function", **rest, "function": named})
    return read


def _as_object(text: str) -> Any:
    """The object that ``text`` is the JSON of; the text itself if it is none."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return text
    return value if isinstance(value, dict) else text


def _parsed(number: int, text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        detail = f"{where[0].upper()}{where[1:]} is text that is not JSON: {one_line(str(error), 100)}."
        raise RowProblem(number, "wrong type", detail) from error
