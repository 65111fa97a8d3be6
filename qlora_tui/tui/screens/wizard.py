"""The wizard: the rail, one step at a time, the hint, the memory bar and the keys."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar, cast

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Container, Horizontal, Vertical
from textual.events import DescendantFocus
from textual.screen import Screen
from textual.widgets import Button, ContentSwitcher

from qlora_tui.tui.screens.pane import StepPane
from qlora_tui.tui.steps import LAST_QUESTION, station
from qlora_tui.tui.view import View, summaries, view_of
from qlora_tui.tui.widgets.helped import Hint, help_for
from qlora_tui.tui.widgets.key_footer import KeyFooter
from qlora_tui.tui.widgets.memory_bar import MemoryBar
from qlora_tui.tui.widgets.rail import StepRail, station_keys

if TYPE_CHECKING:
    from qlora_tui.tui.app import QloraApp


def _pane(number: int, view: View) -> StepPane:
    """The step of that number, imported when it is first needed."""
    match number:
        case 1:
            from qlora_tui.tui.screens.hardware import HardwareStep

            return HardwareStep(view)
        case 2:
            from qlora_tui.tui.screens.model import ModelStep

            return ModelStep(view)
        case 3:
            from qlora_tui.tui.screens.data import DataStep

            return DataStep(view)
        case 4:
            from qlora_tui.tui.screens.recipe import RecipeStep

            return RecipeStep(view)
        case _:
            from qlora_tui.tui.screens.review import ReviewStep

            return ReviewStep(view)


class WizardScreen(Screen[None]):
    """Steps 1 to 5."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+n", "forward", "Next", id="wizard.next", tooltip="On to the next step"),
        Binding("escape", "back", "Back", id="wizard.back", tooltip="Back to the step before, or home"),
        Binding("h", "home", "Home", show=False, id="wizard.home", tooltip="The list of runs"),
        *station_keys("wizard"),
    ]

    def __init__(self, step: int = 1) -> None:
        super().__init__()
        self._step = step
        self._view: View | None = None

    @property
    def application(self) -> QloraApp:
        return cast("QloraApp", self.app)

    @property
    def view(self) -> View:
        """What is drawn now."""
        if self._view is None:
            app = self.application
            self._view = view_of(app.answers, app.hardware, app.seen, app.looked_up)
        return self._view

    @property
    def step(self) -> int:
        """Number of the step in front."""
        return self._step

    def compose(self) -> ComposeResult:
        with Container(id="frame"):
            yield StepRail(self._step)
            with Vertical(id="main"):
                yield ContentSwitcher(id="steps")
                with Horizontal(id="moves"):
                    yield Button("‹ Back", id="back", compact=True)
                    yield Button("Next ›", id="forward", compact=True, variant="primary")
                yield Hint()
        yield MemoryBar()
        yield KeyFooter()

    async def on_mount(self) -> None:
        await self._enter(self._step)

    def on_screen_resume(self) -> None:
        self.application.look_at_machine()

    def show_answers(self) -> None:
        """Draw what the answers have become."""
        self._view = None
        if self.query_one_optional(StepRail) is None:
            return  # opened, but not there yet
        view = self.view
        self._draw_frame(view)
        source = view.model.source
        if view.answers.model_chosen and view.model.shape is None and source not in self.application.looked_up:
            self.application.look_up_model(source)
        pane = self._current()
        if pane is not None:
            pane.show(view)

    def _draw_frame(self, view: View) -> None:
        with_run = self.application.run_shown is not None
        self.query_one(StepRail).show(self._step, summaries(view), with_run=with_run)
        bar = self.query_one(MemoryBar)
        bar.display = self._step >= 2
        bar.show(view.fit, view.no_fit)

    def _current(self) -> StepPane | None:
        return self.query_one_optional(f"#step-{self._step}", StepPane)

    async def _enter(self, number: int) -> None:
        """Bring a step to the front; it is made when it is first entered."""
        if not self.is_attached or self.query_one_optional("#steps") is None:
            return  # left before it was there
        self._step = number
        switcher = self.query_one("#steps", ContentSwitcher)
        pane = self._current()
        if pane is None:
            pane = _pane(number, self.view)
            await switcher.add_content(pane, id=f"step-{number}", set_current=True)
        switcher.current = f"step-{number}"
        pane.show(self.view)
        self._draw_frame(self.view)
        forward = self.query_one("#forward", Button)
        forward.display = number < LAST_QUESTION
        self.query_one("#back", Button).label = "‹ Home" if number == 1 else "‹ Back"
        self.application.change(replace(self.application.answers, step=number))
        self._focus_step(pane)  # at once: a key may follow the picture without delay
        self.application.settle_soon()

    def _focus_step(self, pane: StepPane) -> None:
        if not pane.is_attached or pane is not self._current():
            return  # another step was entered in between
        target = pane.first_focus()
        if target is not None:
            target.focus(scroll_visible=False)
        self.query_one(Hint).show(help_for(self.focused or pane))
        pane.entered()

    @on(StepRail.Picked)
    async def _picked(self, event: StepRail.Picked) -> None:
        await self.action_go(event.number)

    @on(Button.Pressed, "#forward")
    async def _forward(self) -> None:
        await self.action_forward()

    @on(Button.Pressed, "#back")
    async def _back(self) -> None:
        await self.action_back()

    async def action_go(self, number: int) -> None:
        """Go to a station."""
        if station(number).needs_run:
            self.application.open_station(station(number).name)
        elif number != self._step:
            await self._enter(number)

    async def action_forward(self) -> None:
        if self._step < LAST_QUESTION:
            await self._enter(self._step + 1)

    async def action_back(self) -> None:
        if self._step > 1:
            await self._enter(self._step - 1)
        else:
            self.action_home()

    def action_home(self) -> None:
        self.application.go_home()

    @on(DescendantFocus)
    def _focus_moved(self) -> None:
        self.query_one(Hint).show(help_for(self.focused))
