"""From a keystroke in the recipe to the moved memory bar: processor time of the application's own thread.

    python -m benchmarks.ui_keys

The recipe step of an 8B model is open at 120 by 36. Keys change the rank, the sequence length and the batch in turn;
each makes a new estimate, new reasons, new numbers and a new bar. Counted is what the thread that draws spends from the
key until the bar has its new content.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import sys
import tempfile
import time
from dataclasses import replace
from itertools import cycle
from typing import Final

from benchmarks.tables import ROOT, publish, table
from qlora_tui.tui.answers import Answers
from qlora_tui.tui.widgets.memory_bar import MemoryBar

sys.path.insert(0, str(ROOT / "tests"))

from tui_helpers import application, drive, press

KEYS: Final = 300
_MODEL: Final = "Qwen/Qwen3-8B"
_FIELDS: Final = (("adapter-rank", ("8", "16")), ("data-max-length", ("512", "1024")))


def measure() -> list[float]:
    """Milliseconds of each keystroke that moved the bar."""
    spent: list[float] = []
    moved: list[float] = []
    original = MemoryBar.show

    def show(bar: MemoryBar, *arguments: object) -> None:
        original(bar, *arguments)  # type: ignore[arg-type]
        moved.append(time.thread_time())

    async def steps(pilot: object) -> None:
        app = pilot.app  # type: ignore[attr-defined]
        app.change(replace(Answers().with_value("model.source", _MODEL), model_chosen=True))
        app.open_wizard(4)
        await press(pilot)  # type: ignore[arg-type]
        for field, texts in cycle(_FIELDS):
            app.screen.query_one(f"#field-{field}").focus()
            for text in texts:
                await pilot.press("home", "shift+end", "backspace")  # type: ignore[attr-defined]
                for key in text:
                    await asyncio.sleep(0)
                    moved.clear()
                    begun = time.thread_time()
                    await pilot.press(key)  # type: ignore[attr-defined]
                    if moved:
                        spent.append((moved[0] - begun) * 1000)
            if len(spent) >= KEYS:
                return

    MemoryBar.show = show  # type: ignore[assignment,method-assign]
    try:
        drive(application(), steps, (120, 36))
    finally:
        MemoryBar.show = original  # type: ignore[method-assign]
    return spent[:KEYS]


def main() -> None:
    """Measure and publish."""
    with tempfile.TemporaryDirectory(prefix="qlora-tui-keys-") as home:
        os.environ["QLORA_TUI_HOME"] = home
        spent = sorted(measure())
    row = (len(spent), f"{statistics.median(spent):.1f}", f"{spent[int(0.99 * len(spent))]:.1f}", f"{spent[-1]:.1f}")
    publish("ui-keys", table(("keystrokes", "p50, ms", "p99, ms", "worst, ms"), [row]), raw=spent)


if __name__ == "__main__":
    main()
