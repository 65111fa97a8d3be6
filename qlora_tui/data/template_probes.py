"""How a template opens and ends an answer, shown by conversations made for the purpose."""

from __future__ import annotations

from qlora_tui.data.formats import Example, Turn
from qlora_tui.data.template import ChatTemplate, TemplateRefusal
from qlora_tui.data.template_input import as_messages

PROBE = Example(0, (Turn("user", "Hello"), Turn("assistant", "Good morning")))
"""The conversation on which a template shows how it opens and ends an answer."""

LONGER = Example(0, (*PROBE.turns, Turn("user", "More"), Turn("assistant", "Certainly")))
_THOUGHTS = {"thinking": "Indeed", "reasoning_content": "Indeed"}
REASONED = (
    Example(0, (PROBE.turns[0], Turn("assistant", "<think>\nIndeed\n</think>\n\nGood morning"))),
    Example(0, (PROBE.turns[0], Turn("assistant", "Good morning", _THOUGHTS))),
)
SYSTEM = Example(0, (Turn("system", "Obey promptly"), *PROBE.turns))


def rendered(template: ChatTemplate, probe: Example) -> str | None:
    """The conversation as text; None if the template refuses it."""
    try:
        return template.render(as_messages(probe))
    except TemplateRefusal:
        return None


def ends_of_answers(template: ChatTemplate, tokens: list[str]) -> tuple[str, str]:
    """The tokens behind the last answer of a conversation, and those behind an earlier one."""
    short, longer = rendered(template, PROBE), rendered(template, LONGER)
    first, second = PROBE.turns[1].content, LONGER.turns[3].content
    if short is None or first not in short:
        return "", ""
    last = _run(short, short.rfind(first) + len(first), tokens)
    if longer is None or first not in longer or second not in longer:
        return "".join(last), "".join(last)
    middle = _run(longer, longer.find(first) + len(first), tokens)
    # What both begin with ends a turn; behind it may stand the beginning of the next, or the end of the conversation.
    shared = [one for one, other in zip(last, middle, strict=False) if one == other]
    if shared and last[: len(shared)] == shared:
        return "".join(shared), "".join(shared)
    return "".join(last[:1]), "".join(middle[:1])


def _run(text: str, start: int, tokens: list[str]) -> list[str]:
    """The tokens that follow each other from ``start`` on."""
    found = []
    while token := next((token for token in tokens if token and text.startswith(token, start)), None):
        found.append(token)
        start += len(token)
    return found


def shared_length(one: str, other: str) -> int:
    """How many characters two texts begin with alike."""
    low, high = 0, min(len(one), len(other))
    while low < high:  # a comparison of slices is far quicker than one of characters
        middle = (low + high + 1) // 2
        if one[:middle] == other[:middle]:
            low = middle
        else:
            high = middle - 1
    return low
