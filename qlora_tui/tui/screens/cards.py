"""Picking a card that is not in this machine: a table to filter, or an amount of memory to type."""

from __future__ import annotations

from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Input, OptionList, Static
from textual.widgets.option_list import Option

from qlora_tui.cards import CARDS, Card, plan_for
from qlora_tui.errors import UsageError
from qlora_tui.tui.widgets.choices import Choices
from qlora_tui.tui.widgets.line_input import LineInput
from qlora_tui.tui.widgets.words import Words
from qlora_tui.tui.words import gib


def _line(card: Card) -> Content:
    capability = "" if card.capability is None else ".".join(map(str, card.capability))
    rate = "" if card.matrix_rate is None else f"{card.matrix_rate:.0f} TFLOP/s"
    kind = "bf16" if card.bf16 else "fp16"
    return Content(f"{card.name:<30}{gib(card.memory):>10}  {capability:<5}{kind:<6}{rate:>13}")


def matching(text: str) -> list[Card]:
    """The cards whose name holds every word."""
    words = text.lower().split()
    return [card for card in CARDS if all(word in f"{card.name} {card.size}gb".lower() for word in words)]


class CardScreen(ModalScreen[str | None]):
    """Gives the name of a card, or an amount such as ``12GiB``."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "dismiss", "Cancel", id="cards.cancel", tooltip="Keep the device as it is"),
        Binding("down", "to_list", "List", show=False, id="cards.list"),
    ]

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog -tall", id="cards"):
            yield Static("Plan for another card", classes="dialog-title", markup=False)
            yield LineInput(
                placeholder="type to filter, or an amount of memory such as 12GiB", compact=True, id="card-filter"
            )
            yield Choices(id="card-list")
            yield Words(id="card-problem")

    def on_mount(self) -> None:
        self._fill("")
        self.query_one("#card-filter").focus()

    def _fill(self, text: str) -> None:
        cards = self.query_one("#card-list", Choices)
        cards.set_options([Option(_line(card), id=card.name) for card in matching(text)])
        cards.highlighted = 0 if cards.option_count else None
        self.query_one("#card-problem", Words).say("")

    @on(Input.Changed)
    def _typed(self, event: Input.Changed) -> None:
        self._fill(event.value)

    @on(Input.Submitted)
    def _submitted(self, event: Input.Submitted) -> None:
        cards = self.query_one("#card-list", Choices)
        if cards.option_count and cards.highlighted is not None:
            self.dismiss(cards.get_option_at_index(cards.highlighted).id)
            return
        try:
            plan_for(event.value)
        except UsageError as error:
            self.query_one("#card-problem", Words).say(Content.styled(f"✗ {error.why} {error.hint}", "$error"))
        else:
            self.dismiss(event.value)

    @on(OptionList.OptionSelected)
    def _chosen(self, event: OptionList.OptionSelected) -> None:
        self.dismiss(event.option_id)

    def action_to_list(self) -> None:
        self.query_one("#card-list").focus()
