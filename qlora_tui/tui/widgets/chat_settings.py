"""How answers are drawn: sides, system prompt, temperature, top-p, length, seed."""

from __future__ import annotations

from typing import Any, Final, cast

from textual import on
from textual.app import ComposeResult
from textual.containers import Horizontal, VerticalScroll
from textual.widgets import Input, Static

from qlora_tui.text import one_line
from qlora_tui.tui.conversation import SIDES, Sampling, Sides
from qlora_tui.tui.widgets.cycle import Cycle
from qlora_tui.tui.widgets.helped import Help
from qlora_tui.tui.widgets.line_input import LineInput
from qlora_tui.tui.widgets.words import Words

_FIELDS: Final = {
    "system": ("system prompt", "", "The system turn. Empty is none; it starts as the run's."),
    "temperature": ("temperature", "0", "0 takes the likeliest token; 0.7 is lively; above 1 is wild."),
    "top-p": ("top-p", "1", "Draw from the likeliest tokens that make up this share; 1 is all of them."),
    "max-tokens": ("max tokens", "256", "The longest answer, in tokens."),
    "seed": ("seed", "", "The same seed gives the same answer. Empty is the run's."),
}
_LIMITS: Final = {"temperature": (0.0, 10.0), "top-p": (0.0, 1.0), "max-tokens": (1.0, 32_768.0)}


class SettingInput(LineInput):
    """One value with its help."""

    def __init__(self, key: str) -> None:
        _, value, _ = _FIELDS[key]
        super().__init__(value, compact=True, select_on_focus=True, id=f"set-{key}")
        self._key = key

    def field_help(self) -> Help:
        title, _, line = _FIELDS[self._key]
        return Help(title, line)


class ChatSettings(VerticalScroll, can_focus=False):
    """The panel at the side."""

    DEFAULT_CSS = """
    ChatSettings { width: 30; padding: 0 1; background: $surface; }
    ChatSettings .set-label { color: $text-muted; height: 1; margin-top: 1; }
    ChatSettings #set-problem { color: $error; height: auto; margin-top: 1; }
    """

    def __init__(self) -> None:
        super().__init__(id="settings")
        self._touched: set[str] = set()

    def compose(self) -> ComposeResult:
        yield Static("Ask", classes="set-label", markup=False)
        yield Cycle(list(SIDES), "both", id="set-sides")
        for key, (title, _, _) in _FIELDS.items():
            yield Static(title, classes="set-label", markup=False)
            with Horizontal(classes="set-row"):
                yield SettingInput(key)
        yield Words(id="set-problem")

    def defaults(self, system: Any, seed: Any) -> None:
        """Show the run's own system prompt and seed, unless something was typed."""
        if "system" not in self._touched and isinstance(system, str):
            with self.prevent(Input.Changed):
                self._input("system").value = one_line(system, 2000)
        if isinstance(seed, int):
            self._input("seed").placeholder = str(seed)

    def _input(self, key: str) -> Input:
        return self.query_one(f"#set-{key}", Input)

    @on(Input.Changed)
    def _typed(self, event: Input.Changed) -> None:
        self._touched.add((event.input.id or "").removeprefix("set-"))
        self.query_one("#set-problem", Words).say(self.problem or "")

    def focus_first(self) -> None:
        """Put the focus on the first value."""
        self.query_one("#set-sides").focus()

    def next_sides(self) -> str:
        """Move on to the next choice of sides; its name."""
        cycle = self.query_one("#set-sides", Cycle)
        cycle.action_move(1)
        return "both sides" if cycle.value == "both" else f"the {cycle.value} alone"

    @property
    def problem(self) -> str | None:
        """What is wrong with a value, in a sentence; None if all can be used."""
        for key, (low, high) in _LIMITS.items():
            value = _number(self._input(key).value)
            if value is None or not low <= value <= high or (key == "top-p" and value == 0):
                return f"{_FIELDS[key][0]} is a number from {low:g} to {high:,.0f}."
        seed = self._input("seed").value.strip()
        if seed and not (seed.isdecimal() and int(seed) < 2**63):
            return "seed is a whole number, or empty."
        return None

    @property
    def sampling(self) -> Sampling:
        """The values; only if there is no problem."""
        seed = self._input("seed").value.strip()
        system = self._input("system").value if "system" in self._touched else None
        return Sampling(
            sides=cast("Sides", self.query_one("#set-sides", Cycle).value),
            system=system,
            temperature=_number(self._input("temperature").value) or 0.0,
            top_p=_number(self._input("top-p").value) or 1.0,
            max_tokens=int(_number(self._input("max-tokens").value) or 256),
            seed=int(seed) if seed else None,
        )


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if value == value and abs(value) != float("inf") else None
