"""Step 5: the whole recipe in plain words, as the file it is, and the command that repeats it; start."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import ClassVar

from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Container, Horizontal, Vertical
from textual.content import Content
from textual.widget import Widget
from textual.widgets import Button, Input, Static

from qlora_tui.config_file import dump_config
from qlora_tui.errors import QloraError
from qlora_tui.memory.answer import check_rank
from qlora_tui.paths import runs_directory
from qlora_tui.runs.directory import RunDirectory, free_name, refusal
from qlora_tui.text import one_line
from qlora_tui.tui.devices import chosen_uuid
from qlora_tui.tui.fields import problem, shown_text, with_text
from qlora_tui.tui.plain_words import sentences
from qlora_tui.tui.replay import replay_command
from qlora_tui.tui.screens.pane import StepPane
from qlora_tui.tui.screens.question import error_screen
from qlora_tui.tui.view import View
from qlora_tui.tui.widgets.form import FieldRow, FieldSpec
from qlora_tui.tui.widgets.words import Words

_NAME = FieldSpec("name", "name", detail="Letters, digits, '.', '_' and '-'; it becomes the run's folder.")


class ReviewStep(StepPane):
    """Everything once more, then start."""

    NUMBER = 5
    TITLE = "Review"
    ABOUT = "Nothing has happened yet. Start makes a run of this and trains it in a process of its own."
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("s", "start", "Start", id="review.start", tooltip="Start the training"),
        Binding("u", "free_name", "Use free name", show=False, id="review.rename", tooltip="Take a name that is free"),
        Binding("y", "copy_file", "Copy YAML", id="review.yaml", tooltip="Copy the recipe as a file"),
        Binding("m", "copy_command", "Copy command", show=False, id="review.command", tooltip="Copy the command"),
    ]

    def __init__(self, view: View) -> None:
        super().__init__(view)
        self._starting = False
        self._taken = False

    def compose(self) -> ComposeResult:
        with Container(id="review"):
            with Vertical(id="review-left"):
                yield FieldRow(_NAME)
                with Horizontal(id="taken"):
                    yield Words(id="taken-words")
                    yield Button("", id="free-name", compact=True)
                yield Words(id="words")
                yield Words(id="obstacles")
                with Horizontal(id="start-row"):
                    yield Button("Start training", id="start", compact=True, variant="primary")
                    yield Words(id="start-note")
                yield Static("Repeat it without these screens", classes="section", markup=False)
                yield Words(id="command")
            with Vertical(id="review-right"):
                yield Static("The same as a file", classes="section", markup=False)
                yield Words(id="yaml")

    def first_focus(self) -> Widget | None:
        start = self.query_one("#start", Button)
        if self._taken:
            return self.query_one("#free-name")
        return self.query_one("#field-name") if start.disabled else start

    def draw(self) -> None:
        answers = self.view.answers
        self.query_one(FieldRow).show(shown_text(answers, "name"), "Name of the run's folder.", problem(answers, _NAME))
        self.query_one("#words", Words).say(Content("\n").join(map(Content, sentences(self.view))))
        self._draw_taken()
        missing = list(obstacles(self.view))
        lines = [Content.styled(f"✗ {line}", "$error") for line in missing]
        self.query_one("#obstacles", Words).say(Content("\n").join(lines) if lines else None)
        start = self.query_one("#start", Button)
        start.disabled = bool(missing) or self._taken
        start.label = "Starting …" if self._starting else "Start training"
        self.query_one("#yaml", Words).say(Content.styled(dump_config(answers.config), "dim"))
        self.query_one("#command", Words).say(Content(self._command()))
        note = "It comes up in a process of its own; this takes a few seconds." if self._starting else ""
        self.query_one("#start-note", Words).say(note)

    def _draw_taken(self) -> None:
        """Whether there is a run of this name, and what could be done about it."""
        config = self.view.answers.config
        why = None if self._starting else refusal(config)
        self._taken = why is not None
        self.query_one("#taken").display = self._taken
        if why is not None:
            words = f"✗ {one_line(why.why, 200)} Choose another name, or press u."
            self.query_one("#taken-words", Words).say(Content.styled(words, "$error"))
            self.query_one("#free-name", Button).label = Content(f"Call it {free_name(config)}")

    @on(Button.Pressed, "#free-name")
    def _free_name_pressed(self, event: Button.Pressed) -> None:
        event.stop()
        self.action_free_name()

    def action_free_name(self) -> None:
        """Take the next free name, if this one is taken."""
        if self._taken:
            answers = self.application.answers.with_value("name", free_name(self.view.answers.config))
            self.application.change(replace(answers, name_chosen=True))
            self.call_after_refresh(self.query_one("#start").focus)

    def _command(self) -> str:
        return replay_command(runs_directory() / self.view.answers.config.name / "config.yaml")

    @on(FieldRow.Changed)
    def _renamed(self, event: FieldRow.Changed) -> None:
        answers = with_text(self.application.answers, event.path, event.text)
        self.application.change(replace(answers, name_chosen=True))

    @on(Input.Submitted)
    def _to_start(self) -> None:
        self.query_one("#start").focus()

    @on(Button.Pressed, "#start")
    def _start_pressed(self, event: Button.Pressed) -> None:
        event.stop()
        self.action_start()

    def action_start(self) -> None:
        if self._starting:
            return
        if missing := next(obstacles(self.view), None):
            self.app.notify(missing, severity="warning")
            return
        if self._taken:
            self.app.notify("A run of this name exists: choose another name.", severity="warning")
            return
        self._starting = True
        self.draw()
        self._launch()

    @work(thread=True, exclusive=True, group="launch", exit_on_error=False)
    def _launch(self) -> None:
        answers, tell = self.application.answers, self.app.call_from_thread
        gpu = chosen_uuid(answers.gpu, self.application.hardware)
        try:
            run = self.application.services.launch(answers.config, gpu)
        except QloraError as error:
            tell(self._failed, error)
        else:
            tell(self._launched, run)

    def _failed(self, error: QloraError) -> None:
        self._starting = False
        if self.is_attached:
            self.draw()
        self.app.push_screen(error_screen(error))

    def _launched(self, run: RunDirectory) -> None:
        self._starting = False
        self.application.run_shown = run
        self.application.start_anew()
        self.application.open_station("train", run)

    def action_copy_file(self) -> None:
        self.application.copy(dump_config(self.view.answers.config), "the recipe as YAML")

    def action_copy_command(self) -> None:
        self.application.copy(self._command(), "the command")


def obstacles(view: View) -> Iterator[str]:
    """What keeps the run from being started, as sentences."""
    answers = view.answers
    if not answers.model_chosen:
        yield "No model is chosen: step 2."
    if not answers.data_chosen:
        yield "No data is chosen: step 3."
    if view.seen is not None and view.seen.error is not None:
        yield f"The data cannot be used: step 3. {one_line(view.seen.error.what, 200)}"
    for path in answers.unusable:
        step = 5 if path == "name" else 4
        yield f"{path} cannot be used as typed: step {step}."
    if view.model.shape is not None:
        try:
            check_rank(view.model.shape, answers.config)
        except QloraError as error:
            yield f"{error.why} {error.hint}"
    if view.device is not None and view.device.planned:
        name = view.device.name
        yield f"{name} is not in this machine: choose a device in step 1, or copy the YAML for the machine that has it."
