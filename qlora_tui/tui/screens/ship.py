"""What leaves the house: the adapter and its card, a merged model, how to serve them, and the hub."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Container, Horizontal, Vertical, VerticalScroll
from textual.content import Content
from textual.widgets import Button, Checkbox, Input, Static

from qlora_tui.errors import QloraError
from qlora_tui.runs.directory import RunDirectory
from qlora_tui.runs.merges import MergeReport, merge_folder
from qlora_tui.runs.session import Session
from qlora_tui.text import one_line, printable
from qlora_tui.tui.screens.question import Answer, QuestionScreen, error_screen
from qlora_tui.tui.screens.station import StationScreen
from qlora_tui.tui.shipping import Shipment, cost_text, merge_text, read_shipment
from qlora_tui.tui.widgets.cycle import Cycle
from qlora_tui.tui.widgets.helped import Help, Hint
from qlora_tui.tui.widgets.key_footer import KeyFooter
from qlora_tui.tui.widgets.line_input import LineInput
from qlora_tui.tui.widgets.rail import StepRail, station_keys
from qlora_tui.tui.widgets.words import Words

METHODS = {"as trained (exact)": "exact", "as published (standard)": "standard"}


class ShipScreen(StationScreen):
    """The last station.

    Args:
        run: The run.
        session: The engine's process; tests put a stand-in here.
    """

    STATION = 8
    CSS_PATH = "ship.tcss"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,h", "leave", "Home", id="ship.leave", tooltip="To the list of runs"),
        Binding("m", "merge", "Merge", id="ship.merge", tooltip="Make one model of 16-bit weights"),
        Binding("y", "copy", "Copy snippet", id="ship.copy", tooltip="Copy the shown way to serve it"),
        Binding("d", "card", "Card", id="ship.card", tooltip="Read the model card"),
        Binding("f", "copy_folder", "Copy path", show=False, id="ship.folder", tooltip="Copy the folder's path"),
        Binding("c", "chat", "Chat", id="ship.chat", tooltip="Ask what it has learnt"),
        *station_keys("ship"),
    ]

    def __init__(self, run: RunDirectory, session: Session | None = None) -> None:
        super().__init__()
        self.run: RunDirectory = run
        self.session = session or Session()
        self._shipment: Shipment | None = None
        self._busy = ""

    def compose(self) -> ComposeResult:
        with Container(id="frame"):
            yield StepRail(self.STATION, reachable=True)
            with Vertical(id="shipping"):
                with VerticalScroll(id="ship", can_focus=False):
                    yield from self._form()
                yield Hint()
        yield KeyFooter()

    def _form(self) -> ComposeResult:
        yield Words(id="ship-head")
        yield Static("Merge into 16-bit weights", classes="section", markup=False)
        with Horizontal(classes="ship-row"):
            yield Static("base", classes="ship-label", markup=False)
            yield Cycle(list(METHODS), next(iter(METHODS)), id="ship-method")
            yield Button("Merge", id="ship-merge", compact=True, variant="primary")
        yield Words(id="ship-cost")
        yield Words(id="ship-merged")
        yield from self._push_form()
        yield Static("Serve", classes="section", markup=False)
        with Horizontal(classes="ship-row"):
            yield Static("with", classes="ship-label", markup=False)
            yield Cycle(["transformers"], "transformers", id="ship-server")
            yield Button("Copy", id="ship-copy", compact=True)
        yield Words(id="ship-snippet")

    def _push_form(self) -> ComposeResult:
        yield Static("Push to the hub", classes="section", markup=False)
        with Vertical(id="ship-push"):
            with Horizontal(classes="ship-row"):
                yield Static("what", classes="ship-label", markup=False)
                yield Cycle(["adapter"], "adapter", id="push-what")
            with Horizontal(classes="ship-row"):
                yield Static("repository", classes="ship-label", markup=False)
                yield LineInput(placeholder="owner/name", compact=True, id="push-name")
                yield Checkbox("private", value=True, compact=True, id="push-private")
            with Horizontal(classes="ship-row"):
                yield Static("token", classes="ship-label", markup=False)
                yield LineInput(placeholder="that of hf auth login", password=True, compact=True, id="push-token")
                yield Button("Push", id="push-go", compact=True)
            yield Words(id="push-note")

    def field_help(self) -> Help:
        return Help(
            "Ship",
            "Serve the adapter beside its base, or merge both into plain weights.",
            "The adapter was trained on the 4-bit base. Merged into that one, unpacked, it answers the same; merged "
            "into the base as published, almost. A merge into 4-bit weights would undo the training, so there is none.",
        )

    def on_mount(self) -> None:
        self.query_one(Hint).show(self.field_help())
        self.query_one("#ship-method").focus()
        self._read()

    def on_unmount(self) -> None:
        self.app.run_worker(self.session.close(), group="sessions", exit_on_error=False)

    # What is there

    @work(thread=True, exclusive=True, group="ship-read", exit_on_error=False)
    def _read(self) -> None:
        """Look at the folders in a thread."""
        try:
            found = read_shipment(self.run)
        except QloraError as error:
            self.app.call_from_thread(self.app.push_screen, error_screen(error, str(self.run.log)))
            return
        self.app.call_from_thread(self._take, found)

    def _take(self, found: Shipment) -> None:
        if not self.is_mounted:
            return
        self._shipment = found
        self.query_one("#ship-head", Words).say(found.head)
        self._draw_merge()
        self._offer("ship-server", [way.label for way in found.ways])
        self._offer("push-what", list(found.folders))
        self._draw_snippet()

    def _offer(self, name: str, options: list[str]) -> None:
        cycle = self.query_one(f"#{name}", Cycle)
        cycle.options = options or ["nothing yet"]
        cycle.show(cycle.value if cycle.value in cycle.options else cycle.options[0])
        cycle.refresh()

    @property
    def _method(self) -> str:
        return METHODS[self.query_one("#ship-method", Cycle).value]

    @on(Cycle.Changed, "#ship-method")
    def _draw_merge(self) -> None:
        found = self._shipment
        if found is None:
            return
        self.query_one("#ship-cost", Words).say(cost_text(found, self._method))
        merged = found.merges.get(self._method)
        self.query_one("#ship-merged", Words).say(merge_text(merged) if merged else Content(""))
        self.query_one("#ship-merge", Button).label = "Merge again" if merged else "Merge"

    @on(Cycle.Changed, "#ship-server")
    def _draw_snippet(self) -> None:
        way = self._shipment.way(self.query_one("#ship-server", Cycle).value) if self._shipment else None
        if way is None:
            self.query_one("#ship-snippet", Words).say("")
            return
        text = Content(printable(way.snippet.text, 8000))
        if way.snippet.note:
            text = Content.styled(printable(way.snippet.note, 600) + "\n", "dim").append(text)
        self.query_one("#ship-snippet", Words).say(text)

    # Merging

    @on(Button.Pressed, "#ship-merge")
    def _merge_pressed(self) -> None:
        self.action_merge()

    @work(exclusive=True, group="question")
    async def action_merge(self) -> None:
        found = self._shipment
        if found is None or self._busy or found.adapter is None:
            self.notify(self._busy or "There is no adapter to merge yet.")
            return
        method, again = self._method, self._method in found.merges
        if again and not await self._sure("Merge again?", "The merged model that is there is replaced.", "Merge again"):
            return
        folder = merge_folder(self.run, "exact" if method == "exact" else "standard")
        self._merge(
            {"target": str(self.run.path), "output": str(folder), "exact": method == "exact", "overwrite": again}
        )

    @work(group="engine", exit_on_error=False)
    async def _merge(self, values: dict[str, Any]) -> None:
        answer = await self._ask("merge", "ship-merged", values)
        if answer is not None:
            report = MergeReport.model_validate(answer["report"])
            self.query_one("#ship-merged", Words).say(merge_text(report))
            self.notify("Merged.")
            self._read()

    async def _sure(self, title: str, text: str, label: str) -> bool:
        question = QuestionScreen(title, text, [Answer("no", "Cancel"), Answer("yes", label)])
        return await self.app.push_screen_wait(question) == "yes"

    async def _ask(self, do: str, place: str, values: dict[str, Any]) -> dict[str, Any] | None:
        """Let the engine do something and show how it goes; None if it failed, which is shown too."""
        note = self.query_one(f"#{place}", Words)
        self._busy = f"The engine is busy ({do})."
        try:
            last: dict[str, Any] = {}
            note.say(Content.styled("◌ starting the engine", "$primary"))
            async for event in self.session.request(do, **values):
                last = event
                if event["event"] == "progress":
                    note.say(Content.styled(f"◌ {one_line(str(event.get('message', '')), 200)}", "$primary"))
        except QloraError as error:
            note.say(Content.styled(f"✗ {one_line(error.what, 300)}", "$error"))
            self.app.push_screen(error_screen(error, str(self.session.log)))
            return None
        finally:
            self._busy = ""
        return last

    # Pushing

    @on(Button.Pressed, "#push-go")
    @on(Input.Submitted, "#push-token")
    def _push_pressed(self) -> None:
        self._ask_before_push()

    @work(exclusive=True, group="question")
    async def _ask_before_push(self) -> None:
        found, token = self._shipment, self.query_one("#push-token", Input)
        name = self.query_one("#push-name", Input).value.strip()
        private = self.query_one("#push-private", Checkbox).value
        folder = found.folders.get(self.query_one("#push-what", Cycle).value) if found else None
        if self._busy or folder is None or not name:
            self.notify(
                self._busy or ("Give a name such as owner/name." if folder else "There is nothing to push yet.")
            )
            return
        seen = "Only you can see it there." if private else "Everybody can see it there, now and later."
        if not await self._sure(f"Push to {one_line(name, 100)}?", f"{folder}\n\n{seen}", "Push"):
            return
        values: dict[str, Any] = {"folder": str(folder), "repository": name, "private": private}
        if token.value:
            values["token"] = token.value
            token.value = ""
        self._push(values)

    @work(group="engine", exit_on_error=False)
    async def _push(self, values: dict[str, Any]) -> None:
        answer = await self._ask("push", "push-note", values)
        if answer is not None:
            address = one_line(str(answer.get("address", "")), 200)
            self.query_one("#push-note", Words).say(Content.styled(f"✓ {address}", "$success"))

    # Other actions

    @on(Button.Pressed, "#ship-copy")
    def _copy_pressed(self) -> None:
        self.action_copy()

    def action_copy(self) -> None:
        way = self._shipment.way(self.query_one("#ship-server", Cycle).value) if self._shipment else None
        if way is not None:
            self.application.copy(way.snippet.text, f"how to serve it with {way.snippet.title}")

    def action_copy_folder(self) -> None:
        if self._shipment is not None and self._shipment.adapter is not None:
            self.application.copy(str(self._shipment.adapter), "the path of the adapter's folder")

    def action_card(self) -> None:
        from qlora_tui.tui.screens.card import CardScreen

        if self._shipment is not None and self._shipment.card:
            self.app.push_screen(CardScreen(self._shipment.card))
        else:
            self.notify("There is no card yet: it is written when the run ends.")

    def action_chat(self) -> None:
        self._leave(lambda: self.application.open_station("chat", self.run))

    def action_leave(self) -> None:
        self._leave(self.application.go_home)

    def action_go(self, number: int) -> None:
        """Go to a station of the rail."""
        if number != self.STATION:
            self._leave(lambda: self.application.go_to(number, self.run))

    @work(exclusive=True, group="question")
    async def _leave(self, away: Callable[[], None]) -> None:
        """Go elsewhere; what the engine does here ends with this screen."""
        if not self._busy or await self._sure("Leave now?", f"{self._busy} Leaving ends that.", "Leave"):
            # Not from this worker, which ends with the screen.
            self.app.call_later(away)
