"""The footer of keys, made anew only when a key, its words or its state has changed.

Textual makes all of a footer's keys anew at each move of the focus, and a footer holds on to those it had before
through their bound attributes: drawn for hours, it would grow without end.
"""

from __future__ import annotations

from textual.screen import Screen
from textual.widgets import Footer


class KeyFooter(Footer):
    """A compact footer that knows what it shows."""

    def __init__(self) -> None:
        super().__init__(compact=True)
        self._shown: list[tuple[str, str, str, bool]] | None = None

    def bindings_changed(self, screen: Screen[object]) -> None:
        """Take the screen's present keys, if they are others than those shown."""
        keys = [
            (active.binding.key, active.binding.description, active.binding.action, active.enabled)
            for active in screen.active_bindings.values()
            if active.binding.show
        ]
        if keys == self._shown:
            return
        if screen.app.app_focus and self.is_attached and screen is self.screen:
            self._shown = keys  # else Textual leaves the footer as it is
        super().bindings_changed(screen)
