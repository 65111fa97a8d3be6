"""A question and the answers to it; answers are Markdown that grows, side by side where there is room."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from textual.app import ComposeResult
from textual.containers import Container, Vertical
from textual.content import Content
from textual.widgets import Markdown, Static

from qlora_tui.text import printable
from qlora_tui.tui.conversation import Exchange, Side
from qlora_tui.tui.widgets.words import Words

Write = Callable[[str], Awaitable[None]]


class ReplyView(Vertical):
    """One side's answer."""

    DEFAULT_CSS = """
    ReplyView { width: 1fr; height: auto; padding: 0 1; }
    ReplyView > .reply-head { height: 1; color: $text-muted; text-wrap: nowrap; text-overflow: ellipsis; }
    ReplyView > Markdown { margin: 0; padding: 0; }
    ReplyView > Markdown > * { margin-bottom: 0; }
    """

    def __init__(self, side: Side) -> None:
        super().__init__()
        self.side = side

    def compose(self) -> ComposeResult:
        yield Words(self._head(""), classes="reply-head")
        yield Markdown("", open_links=False)

    def _head(self, summary: str) -> Content:
        colour = "$primary" if self.side == "adapter" else "$warning"
        return Content.styled(self.side, f"bold {colour}").append(Content(f"  {summary}"))

    def summarise(self, text: str) -> None:
        """Say how the answer came."""
        self.query_one(".reply-head", Words).say(self._head(text))


class ExchangeView(Vertical):
    """One exchange."""

    DEFAULT_CSS = """
    ExchangeView { height: auto; margin-bottom: 1; }
    ExchangeView > .question { height: auto; padding: 0 1; background: $surface; }
    ExchangeView > .replies { height: auto; layout: vertical; }
    ExchangeView > .reference { height: auto; padding: 0 1; color: $text-muted; }
    """

    def __init__(self, exchange: Exchange) -> None:
        super().__init__()
        self.exchange = exchange

    def compose(self) -> ComposeResult:
        prompt = Content(printable(self.exchange.prompt, 20_000))
        yield Static(Content.styled("› ", "bold").append(prompt), classes="question", markup=False)
        with Container(classes="replies"):
            for side in self.exchange.sides:
                yield ReplyView(side)
        if self.exchange.reference is not None:
            text = Content.styled("reference  ", "bold $success")
            text = text.append(Content(printable(self.exchange.reference, 20_000)))
            yield Static(text, classes="reference", markup=False)

    def _view(self, side: Side) -> ReplyView:
        return next(view for view in self.query(ReplyView) if view.side == side)

    @asynccontextmanager
    async def reply(self, side: Side) -> AsyncIterator[Write]:
        """A function that appends text to a side's answer."""
        view = self._view(side)
        view.summarise("…")
        stream = Markdown.get_stream(view.query_one(Markdown))
        await asyncio.sleep(0)  # stopped before it has begun, the stream would cancel whoever stops it
        try:
            yield stream.write
        finally:
            await stream.stop()

    def summarise(self, side: Side, text: str) -> None:
        """Say how a side's answer came."""
        self._view(side).summarise(text)

    def finish(self) -> None:
        """Nothing more comes: what is empty says so."""
        for view in self.query(ReplyView):
            reply = self.exchange.replies.get(view.side)
            if reply is None or (not reply.text and reply.stopped_by is not None):
                view.summarise("no answer" if reply is None else f"an empty answer  {reply.summary}")
