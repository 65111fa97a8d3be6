"""A chat template in the template language that Ollama uses, made by asking the original what it writes.

Chat templates are programs; only what they write for plain conversations can be carried over. The pieces around each
turn are found by rendering conversations of marks, and the result is checked against the original on others: a template
that does not simply write turn after turn is refused, never approximated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile

from qlora_tui.data.template import ChatTemplate
from qlora_tui.errors import DataError, QloraError

_S, _U, _A, _V = "@@system@@", "@@first@@", "@@answer@@", "@@second@@"
_Conversation = tuple[tuple[str, str], ...]
_CHECKED: tuple[_Conversation, ...] = (
    (("user", "a"),),
    (("user", "a"), ("assistant", "b"), ("user", "c")),
    (("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d"), ("user", "e")),
    (("system", "s"), ("user", "a")),
    (("system", "s"), ("user", "a"), ("assistant", "b"), ("user", "c")),
)


class NotExpressible(QloraError):
    """A chat template that does not fit into the other language."""


@dataclass(frozen=True, slots=True)
class TurnPieces:
    """What stands around each turn.

    Attributes:
        head: What a conversation begins with.
        around: Text before and after a turn's content, by role; no ``system`` if the template knows none.
        opening: What opens an answer.
        default_system: The system turn that the template writes of its own accord, if it does.
    """

    head: str
    around: dict[str, tuple[str, str]]
    opening: str
    default_system: str | None

    def render(self, conversation: Sequence[tuple[str, str]]) -> str:
        """The conversation with an answer opened, as these pieces give it."""
        turns = list(conversation)
        if self.default_system is not None and turns[0][0] != "system":
            turns.insert(0, ("system", self.default_system))
        body = "".join(self.around[role][0] + content + self.around[role][1] for role, content in turns)
        return self.head + body + self.opening

    def go_template(self) -> str:
        """The same in Go's template language, over Ollama's ``.Messages``."""
        branches = "".join(
            f'{{{{ {"if" if number == 0 else "else if"} eq .Role "{role}" }}}}'
            f"{_literal(before)}{{{{ .Content }}}}{_literal(after)}"
            for number, (role, (before, after)) in enumerate(self.around.items())
        )
        turns = f"{{{{ range .Messages }}}}{branches}{{{{ end }}}}{{{{ end }}}}"
        return _literal(self.head) + turns + _literal(self.opening)


def turn_pieces(template: ChatTemplate, end: str | None = None, bos: str | None = None) -> TurnPieces:
    """The pieces of a chat template.

    Args:
        end: The token that ends a turn, if there is one; turns are then cut behind it, as people would write it.
        bos: Beginning-of-text token to leave out at the start, because the server puts one there itself.

    Raises:
        NotExpressible: if the template does more than to write turn after turn.
    """
    for cut in (end, None):
        pieces = _find(template, cut)
        if all(_is_right(template, pieces, conversation) for conversation in _CHECKED):
            break
    else:
        raise _refusal("it does not simply write turn after turn")
    if bos and pieces.head.startswith(bos):
        pieces = TurnPieces(pieces.head[len(bos) :], pieces.around, pieces.opening, pieces.default_system)
    if '"""' in pieces.go_template():
        raise _refusal("it holds three quotation marks in a row")
    return pieces


def _is_right(template: ChatTemplate, pieces: TurnPieces, conversation: _Conversation) -> bool:
    if conversation[0][0] == "system" and "system" not in pieces.around:
        return True
    try:
        return _rendered(template, conversation) == pieces.render(conversation)
    except DataError:
        return False


def _find(template: ChatTemplate, end: str | None) -> TurnPieces:
    before_user, user_to_answer, answer_to_user, last = _split(
        template, (("user", _U), ("assistant", _A), ("user", _V))
    )
    with_system = _try_split(template, (("system", _S), ("user", _U)))
    default = None if with_system is None else _default_system(before_user, with_system[0], with_system[1])
    # Every text that stands before a user's turn ends with what belongs to that turn.
    beginnings = [answer_to_user] if default is not None else [answer_to_user, before_user]
    beginnings += [] if with_system is None else [with_system[1]]
    user_before = common_start([each[::-1] for each in (_behind(end, text) for text in beginnings)])[::-1]
    user_after = common_start([user_to_answer, last])
    if end and end in user_after:
        user_after = user_after[: len(user_after) - len(_behind(end, user_after))]
    head = "" if default is not None else _without_end(before_user, user_before)
    around = {
        "user": (user_before, user_after),
        "assistant": (user_to_answer[len(user_after) :], _without_end(answer_to_user, user_before)),
    }
    if with_system is not None:
        if not with_system[0].startswith(head):
            raise _refusal("a system turn changes what comes before it")
        around = {"system": (with_system[0][len(head) :], _without_end(with_system[1], user_before)), **around}
    return TurnPieces(head, around, last[len(user_after) :], default)


def _behind(end: str | None, text: str) -> str:
    """What comes behind the first ``end`` in ``text`` and the white space after it; all of it if there is none."""
    if not end or end not in text:
        return text
    return text.partition(end)[2].lstrip()


def _default_system(before_user: str, before_system: str, system_to_user: str) -> str | None:
    """The system turn that is written if none is given, or None."""
    long_enough = len(before_user) > len(before_system) + len(system_to_user)
    if long_enough and before_user.startswith(before_system) and before_user.endswith(system_to_user):
        return before_user[len(before_system) : len(before_user) - len(system_to_user)]
    return None


def _split(template: ChatTemplate, conversation: _Conversation) -> list[str]:
    """What stands before, between and after the contents of a conversation."""
    rest, parts = _rendered(template, conversation), []
    for _, mark in conversation:
        part, found, rest = rest.partition(mark)
        if not found:
            raise _refusal("it leaves out or changes what a turn says")
        parts.append(part)
    return [*parts, rest]


def _rendered(template: ChatTemplate, conversation: _Conversation) -> str:
    messages = [{"role": role, "content": content} for role, content in conversation]
    return template.render(messages, add_generation_prompt=True)


def _try_split(template: ChatTemplate, conversation: _Conversation) -> list[str] | None:
    try:
        return _split(template, conversation)
    except QloraError:
        return None


def common_start(texts: Sequence[str]) -> str:
    """What all texts begin with."""
    shortest = min(texts, key=len)
    same = (all(text[place] == letter for text in texts) for place, letter in enumerate(shortest))
    return shortest[: sum(takewhile(bool, same))]


def _without_end(text: str, end: str) -> str:
    return text[: len(text) - len(end)]


def _literal(text: str) -> str:
    return text.replace("{{", '{{ "{{" }}')


def _refusal(why: str) -> NotExpressible:
    return NotExpressible(
        "The chat template cannot be written for Ollama.",
        f"It is a program of its own: {why}.",
        "Serve the model with transformers or vLLM, which use the template as it is.",
    )
