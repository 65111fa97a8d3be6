"""A long run in the train screen: opening it, keys beside two busy processes, and a day of events in minutes.

    python -m benchmarks.ui_run

The log is written as the engine writes it, with 100,000 steps and everything between them. The program runs in a pseudo
terminal of 120 by 36. Opening is timed from the key on the home screen to the run's head, its newest step and its
curves. For the keys two processes count without end, as many as there are cores on a small machine, while the run goes
on; each key changes the view, and its time ends when the new view is drawn. For the day, the events of 24 hours, a step
a second, are appended in a few minutes; memory and the processor time of each stretch tell whether anything grows.
"""

from __future__ import annotations

import os
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import cycle, islice
from pathlib import Path
from typing import Any, Final

from benchmarks.tables import ROOT, publish, table
from benchmarks.ui_terminal import MIB, Terminal
from qlora_tui.runs.directory import RunDirectory

sys.path.insert(0, str(ROOT / "tests"))

from run_stories import Story, evaluation

STEPS: Final = 100_000
OPENINGS: Final = 5
KEYS: Final = 300
VIEWS: Final = ("warehouse", "starving", "sample at step", "smoothed")
"""What tells each view, in the order in which the key shows them."""
DAY: Final = 24 * 3600
MINUTES: Final = 4.0
STRETCHES: Final = 8
_PROGRAM: Final = str(Path(sys.executable).with_name("qlora-tui"))


def _environment(folder: Path) -> dict[str, str]:
    return {"QLORA_TUI_RUNS": str(folder / "runs"), "QLORA_TUI_STATE": str(folder / "state"), "HOME": str(folder)}


def opening(folder: Path) -> tuple[list[float], list[float]]:
    """Seconds from the key to the first paint of the run, and to its curves, several times."""
    first, curves = [], []
    for _ in range(OPENINGS):
        with Terminal([_PROGRAM], _environment(folder), folder) as terminal:
            terminal.wait("long")
            terminal.rest(2.0)
            terminal.press("\t")
            terminal.rest(0.5)
            pressed = terminal.press("\r")
            first.append(terminal.wait("100,000") - pressed)
            curves.append(terminal.wait("smoothed", "100k") - pressed)
    return first, curves


@contextmanager
def busy(count: int) -> Iterator[None]:
    """Processes that take all the processor they are given."""
    processes = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


@contextmanager
def going_on(story: Story, run: RunDirectory) -> Iterator[None]:
    """A step each half second, as long as the block lasts."""
    over, source = threading.Event(), random.Random(1)

    def steps() -> None:
        number = STEPS
        while not over.wait(0.5):
            number += 1
            story.append(run, story.step(number, source))

    thread = threading.Thread(target=steps)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def keys(folder: Path, story: Story, run: RunDirectory) -> list[float]:
    """Milliseconds from each key to the view that it asks for."""
    spent = []
    with Terminal([_PROGRAM, "attach", run.name], _environment(folder), folder) as terminal:
        terminal.wait("smoothed", "100k")
        terminal.rest(10.0)
        with busy(2), going_on(story, run):
            for number, word in enumerate(islice(cycle(VIEWS), KEYS + len(VIEWS))):
                pressed = terminal.press("v")
                drawn = terminal.wait(word)
                if number >= len(VIEWS):
                    spent.append((drawn - pressed) * 1000)
                terminal.rest(0.05 + 0.1 * random.random())
    return spent


def day(folder: Path) -> list[tuple[float, float]]:
    """Memory in bytes and processor seconds of each stretch of a day in fast-forward."""
    story = Story(name="day", steps=100, total=DAY, alive=True)
    run = story.write(folder / "runs")
    measured, source, per_stretch = [], random.Random(2), DAY // STRETCHES
    with Terminal([_PROGRAM, "attach", run.name], _environment(folder), folder) as terminal:
        terminal.wait("smoothed")
        number = 100
        for _ in range(STRETCHES):
            begun, spent = time.perf_counter(), terminal.processor_seconds()
            ticks = int(60 * MINUTES / STRETCHES * 4)
            for _tick in range(ticks):
                events: list[Any] = [story.step(number + each + 1, source) for each in range(per_stretch // ticks)]
                number += len(events)
                events.append(evaluation("during", number, 0.95))
                story.append(run, *events)
                terminal.rest(0.25)
            measured.append((float(terminal.resident()), terminal.processor_seconds() - spent))
            print(f"{number:,} steps in {time.perf_counter() - begun:.0f} s", file=sys.stderr)
    return measured


def main() -> None:
    """Measure and publish."""
    with tempfile.TemporaryDirectory(prefix="qlora-tui-run-") as place:
        folder = Path(place)
        story = Story(name="long", steps=STEPS, total=STEPS * 6 // 5, alive=True)
        run = story.write(folder / "runs")
        size = run.events.stat().st_size / MIB
        first, curves = opening(folder)
        spent = sorted(keys(folder, story, run))
        stretches = day(folder)
    rows = [
        (
            "opening a run of 100,000 steps, to its head and newest step",
            f"{statistics.median(first):.2f} s",
            f"{max(first):.2f} s",
        ),
        ("the same, to its curves", f"{statistics.median(curves):.2f} s", f"{max(curves):.2f} s"),
        (
            f"key to the new view, {len(spent)} keys, two busy processes",
            f"{statistics.median(spent):.0f} ms",
            f"{spent[int(0.99 * len(spent))]:.0f} ms (p99)",
        ),
    ]
    hours = DAY // 3600 // STRETCHES
    growth = [
        (f"{hours * number} to {hours * (number + 1)} h", f"{size / MIB:.1f}", f"{seconds:.1f}")
        for number, (size, seconds) in enumerate(stretches)
    ]
    note = (
        f"The log of 100,000 steps has {size:.0f} MiB. The machine had a load of {os.getloadavg()[2]:.1f} on "
        f"{os.cpu_count()} cores over the last 15 minutes, these measurements included."
    )
    publish(
        "ui-run",
        table(("what", "median", "worst"), rows),
        f"A day in {MINUTES:.0f} minutes:",
        table(("stretch of the day", "memory at its end, MiB", "processor time, s"), growth),
        note,
        raw={"opening": first, "curves": curves, "keys": spent, "day": stretches},
    )


if __name__ == "__main__":
    main()
