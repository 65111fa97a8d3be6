"""A stand-in for the engine's serving process: it answers at once with what a test gives it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from qlora_tui.errors import QloraError

ANSWERS = {
    "adapter": "Your parcel is **on its way**.\n\n1. It left on Monday.\n2. It arrives *tomorrow*.\n",
    "base": "I cannot know where your parcel is. Please ask the shop for its tracking number.",
}
ROWS = [
    {
        "number": number,
        "system": "",
        "turns": [{"role": "user", "content": f"Where is parcel {number}?"}],
        "reference": "On its way.",
    }
    for number in range(1, 10)
]


class StandInSession:
    """Has what the screens use of :class:`qlora_tui.runs.session.Session`."""

    log = Path("/state/session.log")

    def __init__(self) -> None:
        self.alive = False
        self.lives = 0
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.answers: dict[str, str] = dict(ANSWERS)
        self.rows: list[dict[str, Any]] = list(ROWS)
        self.failures: dict[str, QloraError] = {}
        self.results: dict[str, dict[str, Any]] = {}
        self.effects: dict[str, Callable[[], object]] = {}
        """What happens on the disk when something is asked."""
        self.hold = asyncio.Event()
        """Answers wait for it after their first word."""
        self.hold.set()
        self.stopped = 0
        self.closed = 0

    async def request(self, do: str, **values: Any) -> AsyncIterator[dict[str, Any]]:
        if not self.alive:
            self.alive, self.lives = True, self.lives + 1
        self.asked.append((do, values))
        if do in self.failures:
            raise self.failures[do]
        if do == "load":
            yield {"event": "progress", "message": "loading in 4 bits"}
            loaded = {"adapter": "/runs/x/adapter", "base": "meta-llama/Llama-3.1-8B", "system": None, "seed": 42}
            yield {"event": "done", **loaded}
        elif do == "generate":
            async for event in self._generate(values["side"]):
                yield event
        else:
            yield {"event": "progress", "message": "working \x1b[31mhard"}
            self.effects.get(do, dict)()
            yield {"event": "done", **self.results.get(do, {})}

    async def _generate(self, side: str) -> AsyncIterator[dict[str, Any]]:
        stopped, words = self.stopped, self.answers[side].split(" ")
        for number, word in enumerate(words):
            yield {"event": "token", "text": word + " " * (number < len(words) - 1)}
            await asyncio.sleep(0)
            await self.hold.wait()
            if self.stopped != stopped:
                yield {"event": "done", "tokens": number + 1, "seconds": 0.5, "stopped_by": "cancelled"}
                return
        yield {"event": "done", "tokens": len(words), "seconds": 2.0, "stopped_by": "end_of_turn"}

    async def ask(self, do: str, **values: Any) -> dict[str, Any]:
        self.asked.append((do, values))
        if do in self.failures:
            raise self.failures[do]
        return {"event": "done", "rows": self.rows}

    async def stop(self) -> None:
        self.stopped += 1
        self.hold.set()

    async def close(self) -> None:
        self.alive = False
        self.closed += 1

    def requests(self, do: str) -> list[dict[str, Any]]:
        """What was asked of one kind."""
        return [values for name, values in self.asked if name == do]
