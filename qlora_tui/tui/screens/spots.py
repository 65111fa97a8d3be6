"""Choose what to check: held-out rows with their right answers, own questions, or whether refusals are still there."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, ClassVar

from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import OptionList, Static
from textual.widgets.option_list import Option

from qlora_tui.errors import QloraError
from qlora_tui.text import one_line
from qlora_tui.tui.conversation import REFUSALS, Spot, spot_of_row
from qlora_tui.tui.spots import own_spots
from qlora_tui.tui.widgets.words import Words

FIRST_ROWS = 5
ALL_REFUSALS, FIRST, ALL_OWN = "refusals", "first", "own"


class SpotScreen(ModalScreen[list[Spot] | None]):
    """A list to choose from; the answer is what to ask, in order.

    Args:
        rows: Gives the run's held-out rows; may raise a QloraError.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "dismiss", "Cancel", id="spots.cancel", tooltip="Ask nothing"),
    ]

    def __init__(self, rows: Callable[[], Awaitable[list[dict[str, Any]]]]) -> None:
        super().__init__()
        self._fetch = rows
        self._rows: list[Spot] = []
        self._own = own_spots()

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog -tall"):
            yield Static("Spot checks", classes="dialog-title", markup=False)
            yield OptionList(id="spots")
            yield Words("Reading the held-out rows …", id="spots-note", classes="muted")

    def on_mount(self) -> None:
        self._list()
        self.query_one("#spots").focus()
        self._read()

    @work(exclusive=True, exit_on_error=False)
    async def _read(self) -> None:
        note = self.query_one("#spots-note", Words)
        try:
            found = [spot_of_row(row) for row in await self._fetch()]
        except QloraError as error:
            note.say(f"No held-out rows: {one_line(error.what + ' ' + error.why, 300)}")
            return
        self._rows = [spot for spot in found if spot is not None]
        note.say("Each is asked alone, without what was said before." if self._rows else "The run held out no rows.")
        self._list()

    def _list(self) -> None:
        chooser = self.query_one("#spots", OptionList)
        place = chooser.highlighted
        options = []
        if self._rows:
            count = min(FIRST_ROWS, len(self._rows))
            options.append(Option(Content.styled(f"The first {count} held-out rows", "bold"), id=FIRST))
        options.append(
            Option(Content.styled(f"{len(REFUSALS)} requests that should be refused", "bold"), id=ALL_REFUSALS)
        )
        if self._own:
            options.append(Option(Content.styled(f"All {len(self._own)} questions of your own", "bold"), id=ALL_OWN))
        options += [Option(self._line("row", spot), id=f"row-{number}") for number, spot in enumerate(self._rows)]
        options += [Option(self._line("own", spot), id=f"own-{number}") for number, spot in enumerate(self._own)]
        chooser.set_options(options)
        chooser.highlighted = place or 0

    @staticmethod
    def _line(kind: str, spot: Spot) -> Content:
        text = Content.styled(f"{kind}  ", "dim").append(Content(one_line(spot.prompt, 160)))
        if spot.reference is None:
            return text
        return text.append(Content.styled(f"  → {one_line(spot.reference, 60)}", "$success"))

    @on(OptionList.OptionSelected, "#spots")
    def _chosen(self, event: OptionList.OptionSelected) -> None:
        chosen = event.option_id or ""
        if chosen == FIRST:
            self.dismiss(self._rows[:FIRST_ROWS])
        elif chosen == ALL_REFUSALS:
            self.dismiss([Spot(prompt, kind="refusal") for prompt in REFUSALS])
        elif chosen == ALL_OWN:
            self.dismiss(self._own)
        else:
            kind, _, number = chosen.partition("-")
            self.dismiss([(self._rows if kind == "row" else self._own)[int(number)]])
