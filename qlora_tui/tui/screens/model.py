"""Step 2: the base model, with a mark on each whether it fits this card and recipe."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from typing import ClassVar

from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.widget import Widget
from textual.widgets import Input, OptionList
from textual.widgets.option_list import Option
from textual.worker import get_current_worker

from qlora_tui.config import RunConfig
from qlora_tui.errors import ModelError, QloraError
from qlora_tui.memory.fit import Device, fit_of
from qlora_tui.models.catalog import search_catalog
from qlora_tui.models.sources import user_path
from qlora_tui.text import one_line
from qlora_tui.tui.base_models import BaseModel, learnt_models, listed_models, model_of
from qlora_tui.tui.fit_view import four_bit_size
from qlora_tui.tui.hub_search import SEARCH, HubSearch
from qlora_tui.tui.screens.licence import is_open, licence_question
from qlora_tui.tui.screens.pane import StepPane
from qlora_tui.tui.view import View
from qlora_tui.tui.widgets.choices import Choices
from qlora_tui.tui.widgets.columns import fitted
from qlora_tui.tui.widgets.helped import Help
from qlora_tui.tui.widgets.line_input import LineInput
from qlora_tui.tui.widgets.memory_bar import VERDICTS
from qlora_tui.tui.widgets.words import Words
from qlora_tui.tui.words import count, gib

_HELP = Help(
    "Base model",
    "Type to filter; a folder, a .gguf file or owner/name can be typed too. Enter chooses; the last line asks the hub.",
    "Fit is for the device of step 1 and the recipe as it is now: ✓ fits, ≈ may fit, ✗ too large, ? unknown. "
    "4-bit is what the weights take on the card. A gated model needs a login on the hub.",
)
_PATH_STARTS = ("/", "./", "../", "~")


class ModelStep(StepPane):
    """A list to filter, and what is known of the model under the cursor."""

    NUMBER = 2
    TITLE = "Model"
    ABOUT = "The model that learns. Larger answers better, trains slower, and has to fit."
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("slash", "filter", "Filter", id="model.filter", tooltip="Type to find a model"),
        Binding("f", "fitting", "Only fitting", id="model.fitting", tooltip="Hide models that are too large"),
    ]

    def __init__(self, view: View) -> None:
        super().__init__(view)
        self._only_fitting = False
        self._verdicts: dict[str, str] = {}
        self._key: object = None
        self._shown: dict[str, BaseModel] = {}
        self._cached: frozenset[str] | None = None
        self._search = HubSearch()

    def compose(self) -> ComposeResult:
        yield LineInput(
            placeholder="type to filter, or a folder, a .gguf file, owner/name", compact=True, id="model-filter"
        )
        yield Words(id="model-heading")
        yield Choices(id="models", help=_HELP)
        yield Words(id="model-facts")

    def first_focus(self) -> Widget | None:
        return self.query_one("#models")

    def field_help(self) -> Help:
        return _HELP

    def on_resize(self) -> None:
        self._fill()

    def entered(self) -> None:
        if self._cached is None:
            self._look_in_cache()

    @work(thread=True, exclusive=True, group="cache", exit_on_error=False)
    def _look_in_cache(self) -> None:
        found = self.application.services.cached()
        if not get_current_worker().is_cancelled:
            self.app.call_from_thread(self._take_cached, found)

    def _take_cached(self, found: frozenset[str]) -> None:
        self._cached = found
        if found and self.is_attached:
            self._fill()

    def draw(self) -> None:
        config, device = self.view.answers.config, self.view.device
        key = (config.adapter, config.quantization, config.data, config.training, device, self.application.looked_up)
        if key != self._key:
            self._key = key
            if device is not None:
                self._judge(key, config, device, [*learnt_models(), *listed_models()])
        self._fill()

    @work(thread=True, exclusive=True, group="verdicts", exit_on_error=False)
    def _judge(self, key: object, config: RunConfig, device: Device, models: list[BaseModel]) -> None:
        """Whether each model fits, in a thread: together they take longer than a keystroke may."""
        worker, found = get_current_worker(), {}
        for model in models:
            if worker.is_cancelled:
                return
            found[model.source] = "unknown"
            if model.shape is not None:
                with suppress(ModelError):  # an adapter target that this model has not
                    found[model.source] = fit_of(model.shape, config, device).fits
        self.app.call_from_thread(self._take_verdicts, key, found)

    def _take_verdicts(self, key: object, found: dict[str, str]) -> None:
        if key == self._key and self.is_attached:
            self._verdicts = found
            self._fill()

    # The list

    def _matching(self, text: str) -> Iterator[BaseModel]:
        """The models that a text finds; what is itself a model's place comes first."""
        typed = text.strip()
        wanted = {entry.id for entry in search_catalog(typed)}
        listed = [m for m in listed_models() if m.source in wanted or typed.lower() in m.source]
        if typed.startswith(_PATH_STARTS) or typed.lower().endswith(".gguf"):
            path = user_path(typed)
            if os.path.exists(path):
                source = str(path.absolute())
                if source not in self.application.looked_up:
                    self.application.look_up_model(source)
                yield replace(model_of(source), origin="local", name=path.name)
            return
        yield from (model for model in learnt_models() if typed.lower() in model.source.lower())
        yield from listed
        yield from (model for model in self._search.answers(typed) if model not in listed)
        if typed.count("/") == 1 and not any(model.source.lower() == typed.lower() for model in listed):
            yield model_of(typed)

    def _fill(self) -> None:
        models = self.query_one("#models", Choices)
        chosen = self.view.answers.config.model.source if self.view.answers.model_chosen else None
        found = list(self._matching(self.query_one("#model-filter", Input).value))
        if chosen is not None and chosen not in {m.source for m in found} and not self.query_one(Input).value:
            found.insert(0, model_of(chosen))
        if self._only_fitting:
            found = [model for model in found if self._verdicts.get(model.source) != "no"]
        widths = self._widths()
        place = models.highlighted
        kept = models.get_option_at_index(place).id if place is not None and place < models.option_count else chosen
        self._shown = {model.source: model for model in found}
        options = [Option(self._row(model, chosen, widths), id=model.source) for model in self._shown.values()]
        typed = self.query_one("#model-filter", Input).value
        line = self._search.line(typed)
        if kept == SEARCH and typed.strip() != self._search.words:
            kept = None  # it was only the first of nothing else
        options += [Option(Content.styled(f"  {line}", "$primary"), id=SEARCH)] if line else []
        models.set_options(options)
        sources = [option.id for option in options]
        models.highlighted = sources.index(kept) if kept in sources else 0 if sources else None
        self.query_one("#model-heading", Words).say(self._heading(widths, len(found)))
        self._draw_facts()

    def _widths(self) -> dict[str, int]:
        """Columns that there is room for; the name takes the rest."""
        room = max(60, self.content_size.width - 3)
        widths = {"fit": 12, "size": 7, "4-bit": 10}
        if room >= 86:
            widths |= {"context": 9}
        if room >= 110:
            widths |= {"licence": 22}
        widths |= {"access": 8}
        return {"name": min(46, room - sum(widths.values()) - 2)} | widths

    def _heading(self, widths: dict[str, int], found: int) -> Content:
        right = ("size", "4-bit", "context")
        cells = "".join(fitted(name, width, right=name in right) for name, width in widths.items())
        return Content.styled("  " + cells if found else "  No model here is like this.", "dim")

    def _row(self, model: BaseModel, chosen: str | None, widths: dict[str, int]) -> Content:
        mark, word, colour = VERDICTS[self._verdicts.get(model.source, "unknown")]
        access = (
            "here"
            if model.origin == "local" or model.source in (self._cached or ())
            else "gated"
            if model.gated
            else ""
        )
        access = "bundled" if model.origin == "bundled" else access
        cells = {
            "name": one_line(model.name, 120),
            "size": count(model.parameters) if model.parameters else "?",
            "4-bit": gib(four_bit_size(model.shape)) if model.shape else "?",
            "context": f"{model.context // 1024}k" if model.context else "",
            "licence": model.licence.name if model.licence else "",
            "access": access,
        }
        right = ("size", "4-bit", "context")
        line = Content.styled("● " if model.source == chosen else "  ", "bold $primary")
        for name, width in widths.items():
            if name == "fit":
                line = line.append(Content.styled(fitted(f"{mark} {word}", width), colour))
            else:
                line = line.append(Content(fitted(cells[name], width, right=name in right)))
        return line

    def _under_cursor(self) -> BaseModel | None:
        models = self.query_one("#models", Choices)
        place = models.highlighted
        if place is None or place >= models.option_count:
            return None
        return self._shown.get(models.get_option_at_index(place).id or "")

    def _draw_facts(self) -> None:
        model = self._under_cursor()
        self.query_one("#model-facts", Words).say(Content("") if model is None else _facts(model))

    # Acting

    @on(Input.Changed, "#model-filter")
    def _filtered(self) -> None:
        self._fill()

    @on(Input.Submitted, "#model-filter")
    def _to_list(self, event: Input.Submitted) -> None:
        if not self._shown and self._search.line(event.value):
            self._ask_hub(event.value.strip())
        self.query_one("#models").focus()

    @on(OptionList.OptionHighlighted, "#models")
    def _moved(self) -> None:
        self._draw_facts()

    @on(OptionList.OptionSelected, "#models")
    def _selected(self, event: OptionList.OptionSelected) -> None:
        if event.option_id == SEARCH:
            self._ask_hub(self.query_one("#model-filter", Input).value.strip())
        elif (model := self._shown.get(event.option_id or "")) is not None:
            self._choose(model)

    def _ask_hub(self, words: str) -> None:
        self._search = HubSearch(words)
        self._fill()
        self._search_hub(words)

    @work(thread=True, exclusive=True, group="hub", exit_on_error=False)
    def _search_hub(self, words: str) -> None:
        try:
            answer = HubSearch(words, self.application.services.search(words))
        except QloraError as error:
            answer = HubSearch(words, problem=f"{error.what} {error.why}")
        if not get_current_worker().is_cancelled:
            self.app.call_from_thread(self._take_search, answer)

    def _take_search(self, answer: HubSearch) -> None:
        self._search = answer
        if self.is_attached:
            self._fill()

    @work(group="question")
    async def _choose(self, model: BaseModel) -> None:
        answers = self.application.answers
        accepted = model.origin == "local" or is_open(model.licence) or answers.licence_accepted == model.source
        if not accepted and await self.app.push_screen_wait(licence_question(model)) != "accept":
            return
        answers = self.application.answers.with_value("model.source", model.source)
        answers = answers.with_value("model.revision", None)
        self.application.change(replace(answers, model_chosen=True, licence_accepted=model.source))

    def action_filter(self) -> None:
        self.query_one("#model-filter").focus()

    def action_fitting(self) -> None:
        self._only_fitting = not self._only_fitting
        self._fill()
        self.app.notify("Models that are too large are hidden." if self._only_fitting else "All models are shown.")


def _facts(model: BaseModel) -> Content:
    """What else is known, in two lines."""
    lines = []
    if model.licence is not None:
        tail = " Choosing it accepts this." if is_open(model.licence) else ""
        lines.append(f"{model.licence.name}: {model.licence.limits}.{tail}")
    elif model.origin == "hub":
        lines.append("Not in the catalog: its licence and size are known once its files are here.")
    else:
        lines.append("On this machine; its licence is that of its files.")
    parts = [model.kind] if model.kind else []
    parts += [f"chat template: {model.chat_template or 'none'}"] if model.origin in ("catalog", "bundled") else []
    parts += [f"context {model.context:,} tokens"] if model.context else []
    parts += ["the hub asks for a login and consent"] if model.gated else []
    parts += [one_line(note, 200) for note in (model.shape.notes if model.shape else ())]
    lines.append(" · ".join(parts))
    return Content.styled("\n".join(lines), "dim")
