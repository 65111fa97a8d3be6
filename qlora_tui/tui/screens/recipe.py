"""Step 4: how it is trained, every default with its reason, and what it costs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Container, Horizontal, Vertical
from textual.content import Content
from textual.widget import Widget
from textual.widgets import Button, Static

from qlora_tui.advice.presets import PRESETS, preset_of
from qlora_tui.text import one_line
from qlora_tui.tui.fields import FIELDS, problem, shown_text, with_text
from qlora_tui.tui.screens.pane import StepPane
from qlora_tui.tui.view import View
from qlora_tui.tui.widgets.form import FieldRow, description
from qlora_tui.tui.widgets.helped import Help
from qlora_tui.tui.widgets.memory_bar import legend
from qlora_tui.tui.words import count, value_text


class PresetButton(Button):
    """Puts a preset's values into the fields."""

    def field_help(self) -> Help:
        name = (self.id or "").removeprefix("preset-")
        preset = next(each for each in PRESETS if each.name == name)
        values = ", ".join(f"{path.rpartition('.')[2]} {value_text(value)}" for path, value in preset.values.items())
        return Help(preset.name.capitalize(), preset.reason, f"It sets {values}.")


class RecipeStep(StepPane):
    """Presets, fields, numbers."""

    NUMBER = 4
    TITLE = "Recipe"
    ABOUT = "Defaults suit most runs; the line beside each says why."
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("down", "app.focus_next", "Next field", show=False, id="recipe.down", tooltip="The field below"),
        Binding("up", "app.focus_previous", "Field above", show=False, id="recipe.up", tooltip="The field above"),
    ]

    def compose(self) -> ComposeResult:
        with Horizontal(id="presets"):
            yield Static("start from", classes="field-label", markup=False)
            for preset in PRESETS:
                yield PresetButton(preset.name, id=f"preset-{preset.name}", compact=True)
        with Container(id="recipe"):
            with Vertical(id="fields"):
                for spec in FIELDS:
                    yield FieldRow(spec)
            yield Static("", id="numbers", markup=False)

    def first_focus(self) -> Widget | None:
        return self.query_one("#field-adapter-rank")

    def draw(self) -> None:
        answers = self.view.answers
        chosen = preset_of(answers.config)
        for button in self.query(PresetButton):
            button.set_class(button.id == f"preset-{chosen}", "-chosen")
        for row in self.query(FieldRow):
            path = row.spec.path
            row.show(shown_text(answers, path), self._reason(path), problem(answers, path))
        self.query_one("#numbers", Static).update(Content("\n").join(_numbers(self.view)))

    def _reason(self, path: str) -> str:
        """What ``auto`` becomes and why; else the schema's words."""
        choices = self.view.fit.choices if self.view.fit is not None else ()
        choice = next((each for each in choices if each.field == path), None)
        return description(path) if choice is None else f"{value_text(choice.value)}: {choice.reason}"

    @on(FieldRow.Changed)
    def _changed(self, event: FieldRow.Changed) -> None:
        self.application.change(with_text(self.application.answers, event.path, event.text))

    @on(Button.Pressed)
    def _preset(self, event: Button.Pressed) -> None:
        event.stop()
        name = (event.button.id or "").removeprefix("preset-")
        preset = next(each for each in PRESETS if each.name == name)
        self.application.change(self.application.answers.with_preset(preset.name))


def _numbers(view: View) -> Iterator[Content]:
    """What the recipe comes to."""
    fit = view.fit
    if fit is None:
        return
    share = fit.trainable / max(1, fit.parameters)
    yield legend(fit)
    batch = f"{fit.recipe.micro_batch} at once × {fit.recipe.accumulation}"
    speed = "" if fit.speed is None else f" · about {count(round(fit.speed.tokens_per_second.point))} tokens/s"
    yield Content(f"{count(fit.trainable)} trained of {count(fit.parameters)} ({share:.2%}) · {batch}{speed}")
    for note in fit.notes[:2]:
        yield Content.styled(one_line(note), "$text-muted")
