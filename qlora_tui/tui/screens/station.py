"""What the screens of a run have in common: train, chat and ship."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, cast

from textual import on
from textual.screen import Screen

from qlora_tui.tui.widgets.helped import Help, Hint, help_for
from qlora_tui.tui.widgets.rail import StepRail

if TYPE_CHECKING:
    from qlora_tui.runs.directory import RunDirectory
    from qlora_tui.tui.app import QloraApp


class StationScreen(Screen[None]):
    """A station of the rail: the rail and its keys lead to the others, and the hint follows the focus."""

    STATION: ClassVar[int]
    run: RunDirectory | None
    """The run that is shown, if there is one."""

    @property
    def application(self) -> QloraApp:
        """The application with its real type."""
        return cast("QloraApp", self.app)

    def field_help(self) -> Help:
        """What is said where no field says more."""
        raise NotImplementedError

    @on(StepRail.Picked)
    def _station_picked(self, event: StepRail.Picked) -> None:
        self.action_go(event.number)

    def action_go(self, number: int) -> None:
        """Go to a station of the rail."""
        if number != self.STATION:
            self.application.go_to(number, self.run)

    def on_descendant_focus(self) -> None:
        self.query_one(Hint).show(help_for(self.focused) or self.field_help())
