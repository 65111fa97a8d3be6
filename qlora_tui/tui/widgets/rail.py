"""Where one is on the journey: a line on narrow terminals, a column with what was answered on wide ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Container
from textual.content import Content
from textual.events import Click
from textual.message import Message

from qlora_tui.text import one_line
from qlora_tui.tui.steps import STATIONS, Station, station
from qlora_tui.tui.widgets.words import Words

_NARROW = 76
"""Cells that all titles take on one line; with fewer only the current station has its title."""


class RailItem(Words):
    """One station."""

    def __init__(self, station: Station) -> None:
        super().__init__(id=f"rail-{station.name}", classes="rail-item")
        self.station = station

    def on_click(self, event: Click) -> None:
        event.stop()
        self.post_message(StepRail.Picked(self.station.number))


class StepRail(Container):
    """All stations; ``current`` is the number of the one shown."""

    @dataclass
    class Picked(Message):
        """A station was clicked."""

        number: int

    def __init__(self, current: int = 1, *, reachable: bool = False) -> None:
        super().__init__(id="rail")
        self._current = current
        self._with_run = reachable
        self._answers: Mapping[int, str] = {}

    def compose(self) -> ComposeResult:
        for each in STATIONS:
            yield RailItem(each)

    def on_mount(self) -> None:
        self._draw()

    def on_resize(self) -> None:
        # After the layout that a new size brings, which would keep the sizes of the texts before (Textual 8.2).
        self.call_after_refresh(self._draw)

    def show(self, current: int, answers: Mapping[int, str], *, with_run: bool = False) -> None:
        """Mark the current station and those that are answered.

        Args:
            answers: A few words of what was answered, by station; the others are open.
            with_run: Whether there is a run to train, ask and ship.
        """
        self._current, self._answers, self._with_run = current, answers, with_run
        self._draw()

    def _draw(self) -> None:
        wide = self.size.width > 12 and self.size.height > 3
        for item in self.query_children(RailItem):
            number = item.station.number
            state = "current" if number == self._current else "done" if number in self._answers else "open"
            blocked = item.station.needs_run and not self._with_run
            item.set_class(state == "current", "-current")
            item.set_class(state == "done", "-done")
            item.set_class(blocked and state == "open", "-blocked")
            item.say(self._text(item.station, state, wide))

    def _text(self, station: Station, state: str, wide: bool) -> Content:
        mark = "✓" if state == "done" else str(station.number)
        if not wide:
            short = self.size.width < _NARROW and state != "current"
            return Content(f" {mark} " if short else f" {mark} {station.title} ")
        pointer = "▸" if state == "current" else " "
        head = Content(f"{pointer} {mark} {station.title}")
        summary = self._answers.get(station.number, "")
        if not summary:
            return head
        room = max(8, self.size.width - 7)
        line = one_line(summary, 200)
        line = line if len(line) <= room else line[: room - 1] + "…"
        return head.append("\n").append(Content.styled(f"    {line}", "dim"))


def station_keys(screen: str) -> list[Binding]:
    """The keys 1 to 8, for a screen that has an action ``go``."""
    return [
        Binding(
            str(each.number),
            f"go({each.number})",
            each.title,
            show=False,
            id=f"{screen}.step{each.number}",
            tooltip=f"Go to step {each.number}",
        )
        for each in STATIONS
    ]


def title_of(number: int) -> str:
    """A station's title, for messages."""
    return station(number).title
