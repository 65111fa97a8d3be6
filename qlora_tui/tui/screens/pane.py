"""What all steps of the wizard have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, cast

from textual.containers import VerticalScroll
from textual.widget import Widget

from qlora_tui.tui.view import View
from qlora_tui.tui.widgets.helped import Help

if TYPE_CHECKING:
    from qlora_tui.tui.app import QloraApp


class StepPane(VerticalScroll, can_focus=False):
    """One step: draws a :class:`View`, and changes answers through the application."""

    NUMBER: ClassVar[int]
    TITLE: ClassVar[str]
    ABOUT: ClassVar[str]

    def __init__(self, view: View) -> None:
        super().__init__(id=f"step-{self.NUMBER}", classes="step")
        self.view = view

    @property
    def application(self) -> QloraApp:
        """The application with its real type."""
        return cast("QloraApp", self.app)

    def show(self, view: View) -> None:
        """Take a new view; draws at once if the step is mounted."""
        self.view = view
        if self.is_mounted and self.is_attached:
            self.draw()

    def on_mount(self) -> None:
        self.draw()

    def draw(self) -> None:
        """Draw :attr:`view`."""

    def entered(self) -> None:
        """The step has come to the front."""

    def first_focus(self) -> Widget | None:
        """What has the focus when the step is entered."""
        return next((each for each in self.query("*") if each.focusable), None)

    def field_help(self) -> Help:
        return Help(self.TITLE, self.ABOUT)
