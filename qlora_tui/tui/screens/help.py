"""Help on the focused thing, and every key that works where it was asked for."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.content import Content
from textual.screen import ModalScreen, Screen
from textual.widgets import Static

from qlora_tui.tui.widgets.helped import Help, help_for


class HelpScreen(ModalScreen[None]):
    """A page of help; any of its keys closes it."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q,question_mark,f1,enter", "dismiss", "Close", id="help.close", tooltip="Back to work"),
    ]

    def __init__(self, found: Help | None, keys: list[tuple[str, str, str]]) -> None:
        super().__init__()
        self._help = found
        self._keys = keys

    def compose(self) -> ComposeResult:
        with VerticalScroll(classes="dialog", id="help"):
            if self._help is not None:
                yield Static(self._help.title, classes="dialog-title", markup=False)
                yield Static(self._help.line, markup=False)
                if self._help.more:
                    yield Static(self._help.more, classes="muted", markup=False)
            yield Static("Keys", classes="dialog-title", markup=False)
            yield Static(self._table(), markup=False)
            yield Static(
                "Tab, the arrow keys and the mouse move. The palette (ctrl+p) holds every action. Keys can be changed "
                "in preferences.json by the names on the right; `qlora-tui paths` says where it is.",
                classes="muted",
                markup=False,
            )

    def on_mount(self) -> None:
        self.query_one("#help").focus()

    def _table(self) -> Content:
        width = max((len(key) for key, _, _ in self._keys), default=0)
        room = max((len(what) for _, what, _ in self._keys), default=0)
        lines = [
            Content.styled(key.rjust(width), "bold $primary")
            .append(f"  {what:<{room}}  ")
            .append(Content.styled(name, "dim"))
            for key, what, name in self._keys
        ]
        return Content("\n").join(lines)


def help_screen(screen: Screen[object]) -> HelpScreen:
    """The help for what has the focus on a screen, with the keys that are this program's own."""
    keys: dict[str, tuple[list[str], str]] = {}
    for active in screen.active_bindings.values():
        binding = active.binding
        if active.enabled and binding.tooltip and "." in (binding.id or ""):
            shown = screen.app.get_key_display(binding)
            keys.setdefault(binding.id or "", ([], binding.tooltip))[0].append(shown)
    # Names begin with the place where a key works; what works everywhere comes last.
    names = sorted(keys, key=lambda name: (name.startswith("app."), name.startswith("wizard.")))
    return HelpScreen(help_for(screen.focused), [(" ".join(keys[name][0][:2]), keys[name][1], name) for name in names])
