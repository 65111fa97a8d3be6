"""Step 3: what the model learns from, read as training will read it."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Container, Horizontal, Vertical
from textual.content import Content
from textual.widget import Widget
from textual.widgets import Input, OptionList, Static
from textual.widgets.option_list import Option
from textual.worker import get_current_worker

from qlora_tui.config import DataSection
from qlora_tui.text import one_line, printable
from qlora_tui.tui.answers import FIRST_NAME, NO_DATA, Answers
from qlora_tui.tui.data_files import files_near
from qlora_tui.tui.data_words import finding_lines, summary_lines
from qlora_tui.tui.fields import DATA_FIELDS, problem, shown_text, with_text
from qlora_tui.tui.inspections import Seen
from qlora_tui.tui.screens.pane import StepPane
from qlora_tui.tui.view import View
from qlora_tui.tui.widgets.choices import Choices
from qlora_tui.tui.widgets.cycle import Cycle
from qlora_tui.tui.widgets.form import FieldRow, reason
from qlora_tui.tui.widgets.helped import Help
from qlora_tui.tui.widgets.lengths import length_lines
from qlora_tui.tui.widgets.line_input import LineInput
from qlora_tui.tui.widgets.tokens import FORMS, row_text, row_title
from qlora_tui.tui.widgets.words import Words

if TYPE_CHECKING:
    from qlora_tui.data.inspection import Histogram
    from qlora_tui.data.preview import Which

_HELP = Help(
    "Source",
    "A file, a folder, a hub id or bundled:NAME; enter takes it. Down goes to what is near at hand.",
    "The rows are read in a process of their own, exactly as training reads them.",
)
_FILES_HELP = Help("Near at hand", "Enter takes what is under the cursor; the last line is a sample to try this with.")
_FORM_HELP = Help("How the row is shown", "As tokens, as text for the model, or as it stands in the data.")


SAMPLE = "bundled:spam"
_SAMPLE_WORDS = "e-mails to tell spam from ham, to try everything with"


class SourceInput(LineInput):
    """Where the rows are."""

    def field_help(self) -> Help:
        return _HELP


class FormCycle(Cycle):
    """How the row is shown."""

    def field_help(self) -> Help:
        return _FORM_HELP


class DataStep(StepPane):
    """A source, how its rows are read, and what they teach."""

    NUMBER = 3
    TITLE = "Data"
    ABOUT = "What the model learns from, exactly as it will see it; PageDown shows the rest."
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("v", "form", "Show as", id="data.form", tooltip="Show the row as tokens, as text, or as it stands"),
        Binding("l", "row('longest')", "Longest", show=False, id="data.longest", tooltip="Show the longest row"),
        Binding("s", "row('shortest')", "Shortest", show=False, id="data.shortest", tooltip="Show the shortest row"),
        Binding("r", "row('random')", "Other row", id="data.random", tooltip="Show a row picked at random"),
        Binding("down", "app.focus_next", "Next field", show=False, id="data.down", tooltip="The field below"),
        Binding("up", "app.focus_previous", "Field above", show=False, id="data.up", tooltip="The field above"),
    ]

    def __init__(self, view: View) -> None:
        super().__init__(view)
        self._files: list[Path] | None = None
        """Those near at hand, once they are looked for."""
        self._which: Which = "first"

    def compose(self) -> ComposeResult:
        with Container(id="data"):
            with Vertical(id="data-left"):
                with Horizontal(classes="field"):
                    yield Static("source", classes="field-label", markup=False)
                    yield SourceInput(placeholder="a file, owner/name, or bundled:NAME", compact=True, id="data-source")
                for spec in DATA_FIELDS:
                    yield FieldRow(spec)
                yield Static("Near at hand", classes="section", id="files-title", markup=False)
                yield Choices(id="files", help=_FILES_HELP)
                yield Words(id="data-note")
            with Vertical(id="data-right", classes="report"):
                with Horizontal(id="row-line"):
                    yield Words(id="row-title")
                    yield FormCycle(FORMS, FORMS[0], id="row-form")
                yield Words(id="row-text")
                yield Static("Rows by length in tokens", classes="section", markup=False)
                yield Words(id="lengths")
                yield Static("Findings", classes="section", markup=False)
                yield Words(id="data-findings")

    def first_focus(self) -> Widget | None:
        if self.view.answers.data_chosen:
            return self.query_one("#field-data-format")
        return self.query_one(SourceInput)

    def entered(self) -> None:
        if self._files is None:
            self._look_for_files()
        self._inspect()

    def on_resize(self) -> None:
        self._draw_report()

    def draw(self) -> None:
        answers, source = self.view.answers, self.query_one(SourceInput)
        text = answers.config.data.source if answers.data_chosen else ""
        if source.value != text and not source.has_focus:
            source.value = text
        for row in self.query_one("#data-left").query_children(FieldRow):
            row.display = answers.data_chosen
            path = row.spec.path
            row.show(shown_text(answers, path), reason(path), problem(answers, row.spec))
        offered = self._files is not None and not answers.data_chosen
        self.query_one("#files").display = self.query_one("#files-title").display = offered
        self._draw_report()

    # What was found out

    def _draw_report(self) -> None:
        seen, answers = self.view.seen, self.view.answers
        self.query_one("#data-note", Words).say(Content("\n").join(_note(seen, answers)))
        inspection = seen.inspection if seen else None
        row = seen.preview if seen else None
        for widget in self.query(".report"):
            widget.display = inspection is not None or row is not None
        if row is not None:
            self.query_one("#row-title", Words).say(row_title(row))
            trouble = Content.styled(f"! {one_line(row.problem, 300)}\n", "$warning") if row.problem else Content("")
            self.query_one("#row-text", Words).say(trouble.append(row_text(row, self.query_one(FormCycle).value)))
        if inspection is not None:
            self.call_after_refresh(self._draw_lengths, inspection.histogram)
            self.query_one("#data-findings", Words).say(Content("\n").join(finding_lines(inspection.findings)))

    def _draw_lengths(self, histogram: Histogram) -> None:
        """The bars, once it is known how wide they can be."""
        if not self.is_attached:
            return  # left in between
        lines = length_lines(histogram, self.query_one("#data-right").size.width)
        self.query_one("#lengths", Words).say(Content("\n").join(lines))

    def _inspect(self) -> None:
        if self.view.answers.data_chosen:
            self.application.inspect(self._which)

    @on(Cycle.Changed, "#row-form")
    def _form_changed(self) -> None:
        self._draw_report()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        return self.view.answers.data_chosen or action not in ("form", "row")

    def action_form(self) -> None:
        self.query_one(FormCycle).action_move(1)

    def action_row(self, which: Which) -> None:
        self._which = which
        self.application.inspect(which, again=True)

    # Choosing

    @work(thread=True, exclusive=True, group="files", exit_on_error=False)
    def _look_for_files(self) -> None:
        found = files_near(Path.cwd())
        if not get_current_worker().is_cancelled:
            self.app.call_from_thread(self._take_files, found)

    def _take_files(self, found: list[Path]) -> None:
        if not self.is_attached:
            return
        self._files = found
        here = Path.cwd()
        options = [Option(one_line(str(path.relative_to(here)), 200), id=str(path)) for path in found]
        options.append(Option(f"{SAMPLE}  {_SAMPLE_WORDS}", id=SAMPLE))
        choices = self.query_one("#files", Choices)
        choices.set_options(options)
        choices.highlighted = 0
        self.draw()

    @on(OptionList.OptionSelected, "#files")
    def _file_chosen(self, event: OptionList.OptionSelected) -> None:
        if event.option_id is not None:
            self._take_source(event.option_id)

    @on(Input.Submitted, "#data-source")
    def _typed(self, event: Input.Submitted) -> None:
        typed = event.value.strip()
        if typed or self.view.answers.data_chosen:
            self._take_source(typed or NO_DATA)
        elif self.query_one("#files").display:
            self.query_one("#files").focus()

    def _take_source(self, text: str) -> None:
        answers = self.application.answers
        source = located(text)
        if source != answers.config.data.source:
            values: dict[str, object] = {
                "split": "train",
                "subset": None,
                "format": "auto",
                "columns": {},
                "template": None,
            }
            section = answers.config.data.model_dump() | values | {"source": source}
            answers = replace(
                answers, config=answers.config.changed(data=DataSection.model_validate(section).model_dump())
            )
        self._which = "first"
        self.application.change(_named(answers))
        chosen = answers.data_chosen
        self.query_one(SourceInput).value = source if chosen else ""
        self.query_one("#field-data-format" if chosen else "#data-source").focus()
        self._inspect()

    @on(FieldRow.Changed)
    def _field_changed(self, event: FieldRow.Changed) -> None:
        self.application.change(with_text(self.application.answers, event.path, event.text))
        self._inspect()


def located(text: str) -> str:
    """A source as the recipe keeps it: paths absolute, everything else as it was typed."""
    try:
        path = Path(text).expanduser()
        if path.exists() or text.startswith(("/", ".", "~")):
            return str(path.absolute())
    except (OSError, RuntimeError, ValueError):
        pass
    return text


def _named(answers: Answers) -> Answers:
    """The answers with a name that follows the data, unless one was typed."""
    if answers.name_chosen:
        return answers
    if not answers.data_chosen:
        return answers.with_value("name", FIRST_NAME)
    stem = Path(answers.config.data.source.partition(":")[2] or answers.config.data.source).stem
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", stem).strip("-._")[:48] or "my-run"
    return answers.with_value("name", name)


def _note(seen: Seen | None, answers: Answers) -> list[Content]:
    """Where the inspection is, what it says, or why there is none."""
    if not answers.data_chosen:
        return [Content.styled("Choose a source: each row is an example of what the model is to answer.", "dim")]
    if seen is None:
        return [Content.styled("Reading the rows …", "dim")]
    if seen.error is not None:
        lines = [Content.styled(f"✗ {printable(seen.error.what, 400)}", "$error")]
        lines.append(Content(f"  {printable(seen.error.why, 4000)}"))
        return [*lines, Content.styled(f"  → {printable(seen.error.hint, 1000)}", "$primary")]
    if seen.inspection is not None:
        return list(summary_lines(seen.inspection, answers.config))
    lines = [Content.styled(seen.progress or "Reading the rows …", "dim")]
    return [Content(one_line(seen.reason, 300)), *lines] if seen.reason else lines
