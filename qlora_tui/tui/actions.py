"""Every action in the command palette, as ``group: verb``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, cast

from textual.command import DiscoveryHit, Hit, Hits, Provider
from textual.types import IgnoreReturnCallbackType

from qlora_tui.tui.steps import STATIONS

if TYPE_CHECKING:
    from qlora_tui.tui.app import QloraApp

_Command = tuple[str, str, IgnoreReturnCallbackType]


class Actions(Provider):
    """The actions of the application and of the screen in front."""

    async def discover(self) -> Hits:
        for name, explanation, command in self._commands():
            yield DiscoveryHit(name, command, help=explanation)

    async def search(self, query: str) -> Hits:
        matcher = self.matcher(query)
        for name, explanation, command in self._commands():
            score = matcher.match(name)
            if score > 0:
                yield Hit(score, matcher.highlight(name), command, help=explanation)

    def _commands(self) -> Iterator[_Command]:
        app = cast("QloraApp", self.app)
        yield from self._of_screen()
        yield "go: home", "The list of runs", app.go_home
        for each in STATIONS:
            if not each.needs_run:
                yield f"go: {each.title.lower()}", f"Step {each.number}", partial(app.open_wizard, each.number)
            elif app.run_shown is not None and app.has_station(each.name):
                yield f"go: {each.title.lower()}", f"Of {app.run_shown.name}", partial(app.open_station, each.name)
        yield "answers: begin anew", "Forget what was answered", app.start_anew
        yield "machine: look again", "Read the GPUs and disks again", app.action_refresh_machine
        for theme, words in (("qlora-dark", "dark"), ("qlora-light", "light"), ("ansi-dark", "terminal's own colours")):
            yield f"theme: {words}", f"Use the theme {theme}", partial(setattr, app, "theme", theme)
        kept = app.preferences
        characters = "Unicode" if kept.ascii else "ASCII only"
        yield (
            f"display: {characters}",
            "The characters to draw with",
            partial(app.keep, replace(kept, ascii=not kept.ascii)),
        )
        motion = "no animation" if kept.motion else "animation"
        yield f"display: {motion}", "Animations", partial(app.keep, replace(kept, motion=not kept.motion))
        yield "help: keys and the focused field", "What can be done here", app.action_explain
        yield "quit", "Leave; a running training goes on", app.action_quit

    def _of_screen(self) -> Iterator[_Command]:
        """Whatever a key does here, under the name of its group."""
        seen: set[str] = set()
        for active in self.screen.active_bindings.values():
            binding, node = active.binding, active.node
            name = binding.id or ""
            if not active.enabled or not binding.tooltip or "." not in name or name in seen or name.startswith("app."):
                continue
            if name.split(".")[0] in ("list", "choice") or ".step" in name:
                continue
            seen.add(name)
            group = name.split(".")[0]
            action = partial(self.app.run_action, binding.action, node)
            yield f"{group}: {binding.description.lower()}", binding.tooltip, action
