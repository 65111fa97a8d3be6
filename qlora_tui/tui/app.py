"""The application: it owns the answers, the preferences and the way between screens."""

from __future__ import annotations

import importlib
import importlib.util
import signal
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, runtime_checkable

from textual import work
from textual.app import App
from textual.binding import Binding, BindingType
from textual.filter import LineFilter
from textual.reactive import var
from textual.screen import Screen
from textual.timer import Timer
from textual.worker import get_current_worker

from qlora_tui.errors import QloraError
from qlora_tui.tui.actions import Actions
from qlora_tui.tui.collector import SETTLE_SECONDS, relax, settle
from qlora_tui.tui.draft import draft_file, drop_draft, load_draft, save_draft
from qlora_tui.tui.line_filters import AsciiFilter, SafeFilter
from qlora_tui.tui.preferences import Preferences, load_preferences, save_preferences
from qlora_tui.tui.services import Services
from qlora_tui.tui.steps import station
from qlora_tui.tui.themes import THEMES

if TYPE_CHECKING:
    from pathlib import Path

    from qlora_tui.data.preview import Which
    from qlora_tui.hardware import Hardware
    from qlora_tui.runs.directory import RunDirectory
    from qlora_tui.tui.answers import Answers
    from qlora_tui.tui.inspecting import Inspections
    from qlora_tui.tui.inspections import Seen

_SAVE_AFTER = 0.4
"""Seconds without a change before the answers are saved."""
_QUIT_WITHIN = 2.0
_STATION_SCREENS = {"train": "TrainScreen", "chat": "ChatScreen", "ship": "ShipScreen"}


@runtime_checkable
class ShowsAnswers(Protocol):
    """A screen that shows what has been answered and found out."""

    def show_answers(self) -> None:
        """Something of it has changed."""


class QloraApp(App[str]):
    """The wizard and everything after it. Its result is what is printed once the terminal is itself again."""

    TITLE = "qlora-tui"
    CSS_PATH = "app.tcss"
    COMMANDS: ClassVar[set[Any]] = {Actions}
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (110, "-wide"), (160, "-huge")]  # noqa: RUF012
    VERTICAL_BREAKPOINTS = [(0, "-short"), (30, "-tall")]  # noqa: RUF012
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("q", "quit", "Quit", id="app.quit", tooltip="Leave; a running training goes on"),
        Binding(
            "question_mark,f1", "explain", "Help", id="app.help", tooltip="What the focused field is, and all keys"
        ),
        Binding("ctrl+q", "quit", "Quit", show=False, id="app.quit.typing", tooltip="Leave, also while typing"),
        Binding("ctrl+c", "leave_or_copy", "Quit", show=False, id="app.interrupt", system=True),
        Binding("f5", "refresh_machine", "Look again", show=False, id="app.refresh", tooltip="Read the GPUs again"),
    ]

    hardware: var[Hardware | None] = var(None, init=False)
    seen: var[Seen | None] = var(None, init=False)
    looked_up: var[dict[str, str]] = var(dict, init=False)
    """Models that were asked about, and why nothing was found out; empty if something was."""

    def __init__(
        self,
        services: Services | None = None,
        *,
        preferences: Preferences | None = None,
        ascii_only: bool = False,
    ) -> None:
        self.preferences = preferences or load_preferences()
        self._safe = SafeFilter()
        self._ascii = AsciiFilter(enabled=ascii_only or self.preferences.ascii)
        super().__init__()
        self._set_theme()
        self.services = services or Services()
        self.run_shown: RunDirectory | None = None
        self.begins_with: tuple[str, RunDirectory | Path | None] | None = None
        self._inspections: Inspections | None = None
        self._interrupted = 0.0
        self._save_timer: Timer | None = None
        self._settle_timer: Timer | None = None
        self._draft_lock = threading.Lock()
        self._answers: Answers | None = None

    # Appearance

    def get_line_filters(self) -> Sequence[LineFilter]:
        filters = [self._safe, *super().get_line_filters()]
        return [*filters, self._ascii] if self._ascii.enabled else filters

    def _set_theme(self) -> None:
        for theme in THEMES:
            self.register_theme(theme)
        known = self.preferences.theme in self.available_themes
        self.theme = self.preferences.theme if known else THEMES[0].name

    def on_mount(self) -> None:
        if not self.preferences.motion:
            self.animation_level = "none"
        if self.preferences.keymap:
            self.set_keymap(self.preferences.keymap)
        self.watch(self, "theme", self._keep_theme, init=False)
        if self.begins_with is None:
            self.go_home()
        else:
            self.open_station(*self.begins_with)

    def handle_bindings_clash(self, clashed_bindings: set[Binding], node: Any) -> None:
        names = ", ".join(sorted(binding.id or binding.action for binding in clashed_bindings))
        self.notify(f"The keymap gives one key to several actions: {names}.", severity="warning")

    def _keep_theme(self, theme: str) -> None:
        self.keep(replace(self.preferences, theme=theme))

    def keep(self, preferences: Preferences) -> None:
        """Apply preferences and keep them for the next session."""
        if preferences != self.preferences:
            self.preferences = preferences
            self.animation_level = "full" if preferences.motion else "none"
            if preferences.ascii != self._ascii.enabled:
                self._ascii.enabled = preferences.ascii
                self.refresh_css()
            save_preferences(preferences)

    # The machine

    def look_at_machine(self) -> None:
        """Read the GPUs, the memory and the disks soon, in a thread."""
        self.call_later(self._read_machine)  # called at once, the screen that asks would be kept as its context

    @work(thread=True, exclusive=True, group="hardware", exit_on_error=False)
    def _read_machine(self) -> None:
        found = self.services.hardware()
        if not get_current_worker().is_cancelled:
            self.call_from_thread(setattr, self, "hardware", found)

    def action_refresh_machine(self) -> None:
        self.look_at_machine()
        self.notify("Looked at the machine again.")

    # Answers

    @property
    def answers(self) -> Answers:
        """What has been answered so far. A first screen without a draft does not need it, and starts faster so."""
        if self._answers is None:
            from qlora_tui.tui.answers import Answers

            self._answers = load_draft() or Answers()
        return self._answers

    @property
    def begun(self) -> bool:
        """Whether there are answers to go on with."""
        return (self._answers is not None or draft_file().exists()) and self.answers.begun

    def change(self, answers: Answers) -> None:
        """Take new answers; they are saved a moment later."""
        if answers == self.answers:
            return
        self._answers = answers
        self._tell_screens()
        if self._save_timer is not None:
            self._save_timer.stop()
        self._save_timer = self.set_timer(_SAVE_AFTER, self._save_soon)

    def _save_soon(self) -> None:
        self._save_timer = None
        if self.answers.begun:
            self._save(self.answers)

    @work(thread=True, exclusive=False, group="draft", exit_on_error=False)
    def _save(self, answers: Answers) -> None:
        try:
            with self._draft_lock:
                if answers is self._answers:  # or they have changed or become a run meanwhile
                    save_draft(answers)
        except OSError as error:
            self.call_from_thread(self.notify, f"The answers cannot be saved: {error.strerror}.", severity="warning")

    def start_anew(self) -> None:
        """Forget the answers."""
        from qlora_tui.tui.answers import Answers

        self.change(Answers())
        with self._draft_lock:
            drop_draft()

    def on_unmount(self) -> None:
        if self._inspections is not None:
            self._inspections.cancel()
        if self._save_timer is not None and self.answers.begun:
            try:
                save_draft(self.answers)
            except OSError:
                return

    def _tell_screens(self) -> None:
        # A screen that watched these itself would be kept after it is closed: Textualize/textual issue 6666.
        for screen in self.screen_stack:
            if isinstance(screen, ShowsAnswers):
                screen.show_answers()

    watch_hardware = watch_seen = watch_looked_up = _tell_screens

    # The model

    @work(thread=True, exclusive=True, group="model", exit_on_error=False)
    def look_up_model(self, source: str) -> None:
        """Find out in a thread what a model that is not listed is made of."""
        try:
            self.services.look_up(source)
        except QloraError as error:
            self.call_from_thread(self._take_model, source, f"{error.what} {error.why} {error.hint}")
        else:
            self.call_from_thread(self._take_model, source, "")

    def _take_model(self, source: str, problem: str) -> None:
        self.looked_up = {**self.looked_up, source: problem}

    # The data

    def inspect(self, which: Which = "first", *, again: bool = False) -> None:
        """Look at the data that the answers name, unless that was done; another row is a new look."""
        from qlora_tui.tui.inspecting import Inspections
        from qlora_tui.tui.inspections import Seen, key_of

        key = key_of(self.answers.config)
        if self.seen is not None and self.seen.key == key and not again:
            return
        before = self.seen if self.seen is not None and self.seen.key == key else None
        self.seen = before or Seen(key)
        if self._inspections is None:
            self._inspections = Inspections(self)
        self._inspections.start(self.answers.config, which, key)

    # Screens

    @property
    def ascii_only(self) -> bool:
        """Whether everything is drawn with ASCII characters."""
        return self._ascii.enabled

    def go_to(self, number: int, run: RunDirectory | Path | None) -> None:
        """A station of the rail: a step of the wizard, or the screen of a run."""
        if station(number).needs_run:
            self.open_station(station(number).name, run)
        else:
            self.open_wizard(number)

    def go_home(self) -> None:
        """The home screen, with nothing above it."""
        from qlora_tui.tui.screens.home import HomeScreen

        self._show_alone(HomeScreen())

    def open_wizard(self, step: int = 1) -> None:
        """The wizard at a step."""
        from qlora_tui.tui.screens.wizard import WizardScreen

        if isinstance(self.screen, WizardScreen):
            self.screen.call_later(self.screen.action_go, step)
        else:
            self._show_alone(WizardScreen(step))

    def _show_alone(self, screen: Screen[Any]) -> None:
        while len(self.screen_stack) > 1:
            self.pop_screen()
        self.push_screen(screen)
        self.settle_soon()

    def settle_soon(self) -> None:
        """Something was opened that stays: once it is there, keep it out of the garbage collector's way."""
        if self._settle_timer is not None:
            self._settle_timer.stop()
        self._settle_timer = self.set_timer(SETTLE_SECONDS, settle)

    @staticmethod
    def has_station(name: str) -> bool:
        """Whether this version has the screen of a station after the review."""
        return importlib.util.find_spec(f"qlora_tui.tui.screens.{name}") is not None

    def open_station(self, name: str, run: RunDirectory | Path | None = None) -> None:
        """The train, chat or ship screen of a run; says so if there is no run yet."""
        from qlora_tui.runs.directory import RunDirectory

        run = run or self.run_shown
        if run is None:
            self.notify("This step needs a run: start one in step 5, or open one from home.")
            return
        if isinstance(run, RunDirectory):
            self.run_shown = run
        else:
            from qlora_tui.runs.adapters import run_of  # knows configs and models, which opening a run needs not

            self.run_shown = run_of(run)
        if not self.has_station(name):
            self.go_home()
            return
        module = importlib.import_module(f"qlora_tui.tui.screens.{name}")
        screen = getattr(module, _STATION_SCREENS[name])
        self._show_alone(screen(run))

    def compare(self, run: RunDirectory) -> None:
        """The train screen of a run, which then asks for another one to draw beside it."""
        from qlora_tui.tui.screens.train import TrainScreen

        screen = TrainScreen(run)
        self.run_shown = run
        self._show_alone(screen)
        screen.call_after_refresh(screen.action_compare)

    # Actions

    @work(exclusive=True, group="question")
    async def action_quit(self) -> None:  # type: ignore[override]
        """Leave; with a run under way, as the person says."""
        from qlora_tui.tui.leaving import leave

        await leave(self)

    def action_explain(self) -> None:
        from qlora_tui.tui.screens.help import HelpScreen, help_screen

        if not isinstance(self.screen, HelpScreen):
            self.push_screen(help_screen(self.screen))

    def action_leave_or_copy(self) -> None:
        """The first ctrl+c says how to leave, the second leaves."""
        now = time.monotonic()
        if now - self._interrupted < _QUIT_WITHIN:
            from qlora_tui.tui.leaving import parting_words

            self.exit(parting_words(self.run_shown))
            return
        self._interrupted = now
        self.notify("Press ctrl+c once more to leave; the answers are kept.")

    def copy(self, text: str, what: str) -> None:
        """Copy through the terminal (OSC 52, so also over SSH), and say what was copied."""
        self.copy_to_clipboard(text)
        self.notify(f"Copied {what}. (If nothing arrived, the terminal does not allow OSC 52.)")


def run_app(*, ascii_only: bool = False, station: str = "", run: RunDirectory | Path | None = None) -> int:
    """Run the application; prints its parting words when the terminal is itself again.

    Args:
        station: The screen to begin with, for a run or the folder of an adapter; else the home screen.
    """
    # Ignored by whoever started this, as under nohup, it would leave a program that waits for keys of no terminal.
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    relax()
    app = QloraApp(ascii_only=ascii_only)
    app.begins_with = (station, run) if station else None
    parting = app.run()
    if parting:
        sys.stderr.write(parting + "\n")
    return app.return_code or 0
