"""From the start of the program to its first useful words, and the memory it holds, beside other terminal programs.

    python -m benchmarks.ui_start

Each program starts in a pseudo terminal of 120 by 36 with a home folder of its own, several times, in an order that
turns round. The clock runs from the start of the process until the words that a person can act on are drawn; the memory
is what the process holds two seconds later. A bare Textual application, which shows one word, is what no program on
Textual can go below.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from benchmarks.tables import publish, table
from benchmarks.ui_rivals import RIVALS, installed
from benchmarks.ui_terminal import MIB, Terminal

ROUNDS: Final = 7
SETTLE_SECONDS: Final = 2.0
_OURS: Final = "qlora-tui"
_ANSWERED: Final = "qlora-tui, five questions later"
_BARE: Final = "bare Textual"
_BARE_PROGRAM: Final = """
from textual.app import App
from textual.widgets import Static

class Bare(App):
    def compose(self):
        yield Static("useful")

Bare().run()
"""


@dataclass(slots=True)
class Contender:
    """A program to start, the words that tell that it is of use, and what was measured of it."""

    command: Sequence[str]
    useful: str
    seconds: list[float] = field(default_factory=list)
    """To the first useful words."""
    bytes: list[int] = field(default_factory=list)


def contenders() -> tuple[dict[str, Contender], list[str]]:
    """Everybody who can be started here, and the names of those who cannot be had."""
    found = {
        _OURS: Contender([str(Path(sys.executable).with_name("qlora-tui"))], "Train a new adapter"),
        _BARE: Contender([sys.executable, "-c", _BARE_PROGRAM], "useful"),
    }
    missing = []
    for program in RIVALS:
        command = installed(program)
        if command is None:
            missing.append(program.name)
        else:
            found[f"{program.name} {program.version}" if not program.requirements else program.name] = Contender(
                [str(command)], program.useful
            )
    return found, missing


def start(contender: Contender, home: Path) -> None:
    """Start it once and measure; the first start of all is not counted by the caller."""
    with Terminal(contender.command, _environment(home), folder=home) as terminal:
        contender.seconds.append(terminal.wait(contender.useful))
        terminal.rest(SETTLE_SECONDS)
        contender.bytes.append(terminal.resident())


def answered(command: Sequence[str], home: Path) -> int:
    """Bytes that ours holds after all questions, with the demo's rows read and the run ready to start."""
    home.mkdir()
    with Terminal(command, _environment(home), folder=home) as terminal:
        terminal.wait("Train a new adapter")
        for keys, words in (
            ("\r", "Hardware"),
            ("2", "type to filter"),
            ("\r", "bundled"),
            ("3", "source"),
        ):
            terminal.press(keys)
            terminal.wait(words)
            terminal.rest(0.5)
        terminal.press("bundled:spam\r")
        terminal.wait("repeated", seconds=120)
        terminal.rest(0.5)
        for step, words in (("\x0e", "sequence length"), ("\x0e", "Start training")):
            terminal.press(step)
            terminal.wait(words)
        terminal.rest(SETTLE_SECONDS)
        return terminal.resident()


def _environment(home: Path) -> dict[str, str]:
    return {"HOME": str(home), "QLORA_TUI_STATE": str(home / "state"), "QLORA_TUI_RUNS": str(home / "runs")}


def main() -> None:
    """Measure and publish."""
    found, missing = contenders()
    with tempfile.TemporaryDirectory(prefix="qlora-tui-start-") as folder:
        for number in range(ROUNDS + 1):
            for name in list(found) if number % 2 else list(found)[::-1]:
                home = Path(folder) / name.replace(" ", "-")
                home.mkdir(exist_ok=True)
                start(found[name], home)
        for contender in found.values():  # the first start fills the disk's cache
            del contender.seconds[0], contender.bytes[0]
        after = answered(found[_OURS].command, Path(folder) / "answered")
    publish("ui-start", _table(found, after), *_notes(found, missing), raw=_raw(found, after))


def _table(found: dict[str, Contender], after: int) -> str:
    ours, bare = found[_OURS], found[_BARE]
    rows = []
    for name, each in found.items():
        ratios = [mine / theirs for mine, theirs in zip(ours.seconds, each.seconds, strict=True)]
        rows.append(
            (
                name,
                f"{statistics.median(each.seconds):.2f}",
                f"{min(each.seconds):.2f}",
                "" if each is ours else f"{statistics.median(ratios):.2f}",
                f"{statistics.median(each.bytes) / MIB:.1f}",
                f"{statistics.median(each.bytes) / statistics.median(bare.bytes):.2f}",
            )
        )
    rows.append((_ANSWERED, "", "", "", f"{after / MIB:.1f}", f"{after / statistics.median(bare.bytes):.2f}"))
    header = (
        "program",
        "first useful words, s (median)",
        "quickest",
        "ours ÷ its, round by round (median)",
        "memory, MiB",
        "× bare Textual",
    )
    return table(header, rows)


def _notes(found: dict[str, Contender], missing: Sequence[str]) -> list[str]:
    notes = [
        f"{ROUNDS} rounds. flameforge asks torch for the GPU before it draws anything, and whoever trains with it has "
        "torch; without torch it starts faster and cannot train. Our program has torch installed and leaves it alone. "
        "With the five questions answered it has read the demo's rows and drawn every step up to the start of the run."
    ]
    if missing:
        notes.append(f"Not in the package registry, so not measured: {', '.join(missing)}.")
    return notes


def _raw(found: dict[str, Contender], after: int) -> dict[str, Any]:
    everybody = {name: {"seconds": each.seconds, "bytes": each.bytes} for name, each in found.items()}
    return {"programs": everybody, "answered": after}


if __name__ == "__main__":
    main()
