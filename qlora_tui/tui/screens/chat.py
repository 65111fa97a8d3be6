"""The playground: ask the adapter, its base, or both the same, and watch the answers come."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import ClassVar

from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Container, Horizontal, Vertical, VerticalScroll
from textual.content import Content
from textual.widgets import Static

from qlora_tui.errors import QloraError
from qlora_tui.runs.adapters import run_of
from qlora_tui.runs.directory import RunDirectory
from qlora_tui.runs.session import Session
from qlora_tui.text import one_line, printable
from qlora_tui.tui.conversation import Conversation, Exchange, Reply, Side, refusal_summary
from qlora_tui.tui.screens.question import Answer, QuestionScreen, error_screen
from qlora_tui.tui.screens.station import StationScreen
from qlora_tui.tui.spots import keep_prompt, save_transcript
from qlora_tui.tui.widgets.chat_settings import ChatSettings
from qlora_tui.tui.widgets.exchange_view import ExchangeView
from qlora_tui.tui.widgets.helped import Help, Hint
from qlora_tui.tui.widgets.key_footer import KeyFooter
from qlora_tui.tui.widgets.prompt import Prompt
from qlora_tui.tui.widgets.rail import StepRail, station_keys
from qlora_tui.tui.widgets.words import Words

_EMPTY = "Ask something below. F4 has held-out rows with their right answers, and questions of your own."


class ChatScreen(StationScreen):
    """A conversation with what was trained.

    Args:
        run: The run, or the folder of an adapter or a checkpoint.
        session: The engine's process; tests put a stand-in here.
    """

    STATION = 7
    CSS_PATH = "chat.tcss"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "stop_or_leave", "Stop", id="chat.stop", tooltip="End the answer; else to the runs"),
        Binding("f2", "settings", "Settings", id="chat.settings", tooltip="System prompt, sampling, seed"),
        Binding("f3", "sides", "Sides", id="chat.sides", tooltip="Adapter, base, or both side by side"),
        Binding("f4", "spots", "Checks", id="chat.spots", tooltip="Held-out rows, own prompts, refusals"),
        # With priority, as the editor has other uses for these keys.
        Binding("f6", "retry", "Retry", id="chat.retry", tooltip="Ask the last question again", priority=True),
        Binding(
            "f7",
            "edit",
            "Edit",
            show=False,
            id="chat.edit",
            tooltip="Take the last question back to edit it",
            priority=True,
        ),
        Binding("ctrl+n", "go(8)", "Ship", id="chat.next", tooltip="On to the adapter's folder, merging, serving"),
        Binding("f8", "save", "Save", show=False, id="chat.save", tooltip="Save the conversation as Markdown"),
        Binding("f9", "clear", "New", show=False, id="chat.clear", tooltip="Begin a new conversation"),
        Binding("f10", "adapters", "Adapter", show=False, id="chat.adapters", tooltip="Another checkpoint of this run"),
        Binding("f5", "keep", "Keep question", show=False, id="chat.keep", tooltip="Keep the question for checks"),
        *station_keys("chat"),
    ]

    def __init__(self, run: RunDirectory | Path, session: Session | None = None) -> None:
        super().__init__()
        self.run = run if isinstance(run, RunDirectory) else run_of(run)
        self.target = run.path if isinstance(run, RunDirectory) else run
        self.session = session or Session()
        self.conversation = Conversation()
        self._loaded_life = 0
        self._loading = asyncio.Lock()
        self._busy = False
        self._stopping = False

    def compose(self) -> ComposeResult:
        with Container(id="frame"):
            yield StepRail(self.STATION, reachable=True)
            with Vertical(id="chat"):
                yield Words(id="chat-head")
                with Horizontal(id="chat-main"):
                    with VerticalScroll(id="talk", can_focus=False):
                        yield Words(_EMPTY, id="talk-empty", classes="muted")
                    yield ChatSettings()
                yield Prompt(id="prompt")
                yield Hint()
        yield KeyFooter()

    def field_help(self) -> Help:
        return Help(
            "Chat",
            "Enter asks; both sides get the same prompt, sampling and seed.",
            "At temperature 0 the likeliest token is always taken, so the same question gets the same answer. Leaving "
            "this screen gives the model's memory back.",
        )

    def on_mount(self) -> None:
        self.query_one("#talk", VerticalScroll).anchor()
        self.query_one(Hint).show(self.field_help())
        self.query_one(Prompt).focus()
        self._begin()

    def on_unmount(self) -> None:
        # On the application, because workers of a screen end with it, and the memory has to come back all the same.
        self.app.run_worker(self.session.close(), group="sessions", exit_on_error=False)

    # Loading

    @work(exclusive=True, group="question", exit_on_error=False)
    async def _begin(self) -> None:
        """Load at once, unless the same device is training."""
        if self.run is not None and self.run.owner() is not None:
            question = QuestionScreen(
                "Load the model while it trains?",
                "The run is training now. A second copy of the model takes memory from the same device; if that runs "
                "out, training may stop.",
                [Answer("wait", "Not now"), Answer("load", "Load it")],
            )
            if await self.app.push_screen_wait(question) != "load":
                self._say("not loaded; asking something loads it")
                return
        try:
            await self._load()
        except QloraError as error:
            self._fail(error)

    async def _load(self) -> None:
        """Load the adapter if the present process has not; requests wait for each other."""
        async with self._loading:
            if self.session.alive and self._loaded_life == self.session.lives:
                return
            base = ""
            async for event in self.session.request("load", target=str(self.target)):
                if event["event"] == "progress":
                    self._say(one_line(str(event.get("message", "")), 200))
                elif event["event"] == "done":
                    adapter = Path(str(event.get("adapter", ""))).name
                    base = f"{one_line(adapter, 60)} on {one_line(str(event.get('base', '')), 100)}"
                    self.query_one(ChatSettings).defaults(event.get("system"), event.get("seed"))
            self._loaded_life = self.session.lives
            self._say(f"loaded  ·  {base}", ready=True)

    def _say(self, text: str, *, ready: bool = False) -> None:
        head = Content.styled(f"{'✓' if ready else '◌'} ", "$success" if ready else "$primary")
        head = head.append(Content.styled(one_line(self.target.name, 64), "bold")).append(Content(f"  {text}"))
        self.query_one("#chat-head", Words).say(head)

    def _fail(self, error: QloraError) -> None:
        self._say("nothing is loaded" if not self.session.alive else "the last request failed")
        self.app.push_screen(error_screen(error, str(self.session.log)))

    # Asking

    @on(Prompt.Submitted)
    def _submitted(self, event: Prompt.Submitted) -> None:
        if self._busy:
            self.notify("An answer is under way; escape ends it.")
            return
        settings = self.query_one(ChatSettings)
        if (problem := settings.problem) is not None:
            self.notify(problem, severity="warning")
            return
        self.query_one(Prompt).clear()
        self._answer([self.conversation.ask(event.text, settings.sampling)])

    @work(exclusive=True, group="answer", exit_on_error=False)
    async def _answer(self, exchanges: list[Exchange], summary: str = "") -> None:
        """Let the engine answer, one side after the other; each answer appears as it grows."""
        self._busy, self._stopping = True, False
        self.refresh_bindings()
        try:
            await self._load()
            for exchange in exchanges:
                if self._stopping:
                    break
                view = await self._shown(exchange)
                for side in exchange.sides:
                    if not self._stopping:
                        await self._stream(exchange, side, view)
                view.finish()
            if summary == "refusals" and not self._stopping:
                await self._note(refusal_summary(exchanges))
        except QloraError as error:
            self._fail(error)
        finally:
            self._busy = False
            self.refresh_bindings()

    async def _stream(self, exchange: Exchange, side: Side, view: ExchangeView) -> None:
        reply = exchange.replies[side] = Reply()
        turns = self.conversation.turns(exchange, side)
        request = self.session.request("generate", turns=turns, side=side, **exchange.sampling.as_request())
        async with view.reply(side) as write:
            async for event in request:
                if event["event"] == "token":
                    text = printable(str(event.get("text", "")))
                    reply.text += text
                    await write(text)
                elif event["event"] == "done":
                    reply.tokens = int(event.get("tokens", 0))
                    reply.seconds = float(event.get("seconds", 0.0))
                    reply.stopped_by = str(event.get("stopped_by", ""))
        view.summarise(side, reply.summary)

    async def _shown(self, exchange: Exchange) -> ExchangeView:
        self.query_one("#talk-empty").display = False
        view = ExchangeView(exchange)
        await self.query_one("#talk").mount(view)
        return view

    async def _note(self, text: str) -> None:
        await self.query_one("#talk").mount(Static(text, classes="talk-note", markup=False))

    # Actions

    async def action_stop_or_leave(self) -> None:
        if self._busy:
            self._stopping = True
            await self.session.stop()
        else:
            self.application.go_home()

    def action_settings(self) -> None:
        settings = self.query_one(ChatSettings)
        shown = settings.display
        settings.set_class(shown, "-away")  # from now on as the person wants it, and not by the room there is
        settings.set_class(not shown, "-wanted")
        if shown:
            self.query_one(Prompt).focus()
        else:
            settings.focus_first()

    def action_sides(self) -> None:
        self.notify(f"Asking {self.query_one(ChatSettings).next_sides()}.")

    def action_retry(self) -> None:
        self._once_more(self.conversation.retry(self.query_one(ChatSettings).sampling))

    def _once_more(self, exchange: Exchange | None) -> None:
        if self._busy or exchange is None:
            return
        self._forget_last_view()
        self._answer([exchange])

    def action_edit(self) -> None:
        if self._busy:
            return
        prompt = self.conversation.take_back()
        if prompt is not None:
            self._forget_last_view()
            self.query_one(Prompt).take(prompt)

    def _forget_last_view(self) -> None:
        views = self.query(ExchangeView)
        if views:
            views.last().remove()

    def action_clear(self) -> None:
        if not self._busy:
            self.conversation = Conversation()
            self.query("#talk > ExchangeView, #talk > .talk-note").remove()
            self.query_one("#talk-empty").display = True

    def action_keep(self) -> None:
        if self.conversation.exchanges:
            kept = keep_prompt(self.conversation.exchanges[-1].prompt)
            self.notify(
                "Kept for spot checks (F4)." if kept else "It cannot be kept: the state folder is not writable."
            )

    def action_save(self) -> None:
        if not self.conversation.exchanges:
            self.notify("There is nothing to save yet.")
            return
        try:
            path = save_transcript(self.target.name, self.conversation.transcript(self.target.name))
        except OSError as error:
            self.notify(f"It cannot be saved: {error.strerror}.", severity="error")
            return
        self.application.copy(str(path), f"the path of the transcript, {path}")

    @work(group="question")
    async def action_spots(self) -> None:
        from qlora_tui.tui.screens.spots import SpotScreen

        if self._busy:
            return
        chosen = await self.app.push_screen_wait(SpotScreen(self._held_out))
        if chosen:
            sampling = self.query_one(ChatSettings).sampling
            exchanges = [self.conversation.check(spot, sampling) for spot in chosen]
            self._answer(exchanges, "refusals" if chosen[0].kind == "refusal" else "")

    async def _held_out(self) -> list[dict[str, object]]:
        """The run's held-out rows.

        Raises:
            QloraError: if they cannot be read.
        """
        await self._load()
        answer = await self.session.ask("rows", count=40)
        return list(answer.get("rows", []))

    @work(group="question")
    async def action_adapters(self) -> None:
        from qlora_tui.tui.screens.adapters import AdapterScreen

        if self._busy or self.run is None:
            return
        chosen = await self.app.push_screen_wait(AdapterScreen(self.run))
        if chosen is not None and chosen != self.target:
            self.target, self._loaded_life = chosen, 0
            self._begin()
