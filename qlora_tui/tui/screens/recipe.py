"""Step 4: how it is trained, every default with its reason, and what it costs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Container, Horizontal, Vertical
from textual.content import Content
from textual.widget import Widget
from textual.widgets import Button, Static

from qlora_tui.advice.fitting import fastest_that_fits
from qlora_tui.advice.playbook import total_steps
from qlora_tui.advice.presets import PRESETS, preset_of
from qlora_tui.memory.fit import Fit, fit_of
from qlora_tui.memory.remedies import larger_card, others_hold, remedies
from qlora_tui.text import one_line
from qlora_tui.tui.fields import FIELDS, problem, shown_text, with_text
from qlora_tui.tui.inspections import rows_of
from qlora_tui.tui.screens.pane import StepPane
from qlora_tui.tui.view import View
from qlora_tui.tui.widgets.form import FieldRow, reason
from qlora_tui.tui.widgets.helped import Help
from qlora_tui.tui.widgets.memory_bar import legend
from qlora_tui.tui.widgets.words import Words
from qlora_tui.tui.words import about, count, plural, value_text


class PresetButton(Button):
    """Puts a preset's values into the fields."""

    def field_help(self) -> Help:
        name = (self.id or "").removeprefix("preset-")
        preset = next(each for each in PRESETS if each.name == name)
        values = ", ".join(f"{path.rpartition('.')[2]} {value_text(value)}" for path, value in preset.values.items())
        return Help(preset.name.capitalize(), preset.reason, f"It sets {values}.")


class FastestButton(Button):
    """Opens what does not change the result, so that the fastest settings that fit are taken."""

    def field_help(self) -> Help:
        return Help(
            "Fastest that fits",
            "Sets micro-batch and checkpointing so that it runs fastest within the free memory.",
            "What is learnt does not change. If nothing fits, rows are cut shorter, and you are told.",
        )


class RecipeStep(StepPane):
    """Presets, fields, numbers."""

    NUMBER = 4
    TITLE = "Recipe"
    ABOUT = "Defaults suit most runs; the line beside each says why."
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("f6", "fastest", "Fastest that fits", id="recipe.fastest", tooltip="The fastest settings that fit"),
        Binding("down", "app.focus_next", "Next field", show=False, id="recipe.down", tooltip="The field below"),
        Binding("up", "app.focus_previous", "Field above", show=False, id="recipe.up", tooltip="The field above"),
    ]

    def compose(self) -> ComposeResult:
        with Horizontal(id="presets"):
            yield Static("start from", classes="field-label", markup=False)
            for preset in PRESETS:
                yield PresetButton(preset.name, id=f"preset-{preset.name}", compact=True)
            yield FastestButton("fastest that fits", id="fastest", compact=True)
        with Container(id="recipe"):
            with Vertical(id="fields"):
                for spec in FIELDS:
                    yield FieldRow(spec)
            yield Words(id="numbers")

    def first_focus(self) -> Widget | None:
        return self.query_one("#field-adapter-rank")

    def draw(self) -> None:
        answers = self.view.answers
        chosen = preset_of(answers.config)
        for button in self.query_one("#presets").query_children(PresetButton):
            button.set_class(button.id == f"preset-{chosen}", "-chosen")
        for row in self.query_one("#fields").query_children(FieldRow):
            path = row.spec.path
            row.show(shown_text(answers, path), self._reason(path), problem(answers, row.spec))
        self.query_one("#numbers", Words).say(Content("\n").join(_numbers(self.view)))

    def _reason(self, path: str) -> str:
        """What ``auto`` becomes and why; else the schema's words."""
        choices = self.view.fit.choices if self.view.fit is not None else ()
        choice = next((each for each in choices if each.field == path), None)
        return reason(path) if choice is None else f"{value_text(choice.value)}: {choice.reason}"

    @on(FieldRow.Changed)
    def _changed(self, event: FieldRow.Changed) -> None:
        self.application.change(with_text(self.application.answers, event.path, event.text))

    @on(Button.Pressed, "#fastest")
    def _fastest_pressed(self, event: Button.Pressed) -> None:
        event.stop()
        self.action_fastest()

    def action_fastest(self) -> None:
        view = self.view
        if view.fit is None or view.model.shape is None:
            self.app.notify("What fits is known once device and model are.", severity="warning")
            return
        fit = partial(fit_of, view.model.shape, device=view.fit.device, rows=rows_of(view.seen, view.answers.config))
        answers = self.application.answers
        config, words = fastest_that_fits(answers.config, fit)
        self.application.change(replace(answers, config=config))
        self.app.notify(words)

    @on(Button.Pressed, "PresetButton")
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
    yield legend(fit)
    yield _line("run", _length(view, fit))
    share = fit.trainable / max(1, fit.parameters)
    batch = f"{fit.recipe.micro_batch} at once × {fit.recipe.accumulation}"
    yield _line("trained", f"{count(fit.trainable)} of {count(fit.parameters)} parameters ({share:.2%})")
    yield _line("batch", f"{batch}{_room(fit)}")
    for note in _help(view, fit):
        yield Content.styled(f"→ {one_line(note, 300)}", "$primary")
    for note in fit.notes[:2]:
        yield Content.styled(one_line(note, 300), "dim")


def _help(view: View, fit: Fit) -> Iterator[str]:
    """What would make it fit, most welcome first."""
    if not fit.short or view.model.shape is None:
        return
    if (held := others_hold(fit)) is not None:
        yield held
    found = remedies(view.model.shape, view.answers.config, fit, rows_of(view.seen, view.answers.config))
    for remedy in ([each for each in found if each.enough] or found)[:2]:
        yield f"{remedy}."
    if not any(each.enough for each in found) and (card := larger_card(fit)) is not None:
        yield card


def _line(name: str, value: str) -> Content:
    return Content.styled(f"{name:<8} ", "dim").append(Content(value))


def _room(fit: Fit) -> str:
    """How far it could go."""
    rows, tokens = fit.largest.micro_batch, fit.largest.max_length
    if not rows or not tokens:
        return ""
    return f"; room for {plural(rows, 'row')} at once, or rows of {tokens:,} tokens"


def _length(view: View, fit: Fit) -> str:
    """Steps, tokens and time, as far as they are known."""
    config, rows = view.answers.config, rows_of(view.seen, view.answers.config)
    speed = "" if fit.speed is None else f"about {count(round(fit.speed.tokens_per_second.point))} tokens/s"
    if rows.sequences is None or rows.tokens is None:
        return (f"{speed}; " if speed else "") + "steps and time follow once the data is read"
    steps = total_steps(config, rows.sequences)
    told = f"{plural(steps, 'step')}, {count(round(rows.tokens * config.training.epochs))} tokens"
    if fit.speed is None or fit.speed.hours is None:
        return f"{told}; the time is measured when it runs"
    low, _, high = (about(hours * 3600) for hours in fit.speed.hours)
    return f"{told}, {low} to {high} at {speed}"
