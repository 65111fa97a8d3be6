"""Ten thousand generated files, each looked at as ``qlora-tui inspect`` does it.

    python -m benchmarks.fuzz [--files 10000] [--first 0]

For each file the whole inspection is made, shown as a page, and one row of it previewed. A file is either inspected or
refused in sentences that name it and, where the fault is at a place, the line.
"""

from __future__ import annotations

import argparse
import faulthandler
import io
import re
import resource
import sys
import tempfile
import time
import traceback
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path

from rich.console import Console

from benchmarks.generated_files import write_file
from benchmarks.tables import publish, table
from qlora_tui.config import ModelSection, RunConfig
from qlora_tui.data.encode import Encoder
from qlora_tui.engine.inspection import Inspector
from qlora_tui.engine.tokenizer_files import tokenizer_folder
from qlora_tui.errors import InternalFault, QloraError
from qlora_tui.models.sources import resolve_model
from qlora_tui.terminal.inspection_view import inspection_view

FILES = 10_000
HANG_SECONDS = 10.0

_PLACE = re.compile(r"\b(?:line|row|rows|file begins with line) \d", re.IGNORECASE)
_ACTS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


@dataclass
class Tally:
    """What came of the files."""

    files: int = 0
    inspected: int = 0
    rows_left_out: int = 0
    with_line: int = 0
    whole_file: Counter[str] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    slowest: float = 0.0


def look(path: Path, encoder: Encoder, tally: Tally) -> None:
    """Inspect one file and count what came of it."""
    tally.files += 1
    start = time.perf_counter()
    try:
        shown = _inspected(path, encoder, tally)
    except InternalFault as fault:
        tally.faults.append(f"{path.name}: {fault}")
    except QloraError as error:
        _judge(path, error, tally)
    except Exception:
        tally.faults.append(f"{path.name}: {traceback.format_exc()}")
    else:
        tally.inspected += 1
        if _ACTS.search(shown):
            tally.faults.append(f"{path.name}: what is shown acts on the terminal")
    seconds = time.perf_counter() - start
    tally.slowest = max(tally.slowest, seconds)
    if seconds > HANG_SECONDS:
        tally.faults.append(f"{path.name}: took {seconds:.0f} s")


def _inspected(path: Path, encoder: Encoder, tally: Tally) -> str:
    """The page that is shown for a file."""
    config = RunConfig.model_validate({"name": "fuzz", "data": {"source": str(path)}})
    inspector = Inspector(config)
    inspector.encoder = encoder
    glance = inspector.glance("first")
    inspection = inspector.inspect()
    previews = [inspector.preview(which) for which in ("longest", "random")]
    if inspection.dropped:
        tally.rows_left_out += 1
        if set(inspection.first_dropped) != set(inspection.dropped):
            tally.faults.append(f"{path.name}: a dropped row is not named")
    page = io.StringIO()
    console = Console(file=page, markup=False, emoji=False, highlight=False, width=80)
    for preview in (glance.preview, *previews):
        console.print(inspection_view(replace(inspection, samples=(preview,)), config, whole_row=True))
    return page.getvalue()


def _judge(path: Path, error: QloraError, tally: Tally) -> None:
    """Whether the sentences of a refusal name the file, and the line if it is at fault."""
    words = str(error)
    if not (error.what and error.why and error.hint):
        tally.faults.append(f"{path.name}: a sentence is missing: {words}")
    elif _ACTS.search(words):
        tally.faults.append(f"{path.name}: its refusal acts on the terminal: {words!r}")
    elif path.name not in words:
        tally.faults.append(f"{path.name}: is not named: {words}")
    elif _PLACE.search(words):
        tally.with_line += 1
    else:
        tally.whole_file[re.sub(r"'.*?'|\S*rows-\d+\S*", "…", error.what)] += 1


def fuzz(first: int, count: int, encoder: Encoder) -> Tally:
    """Make and inspect the files of some seeds."""
    tally = Tally()
    with tempfile.TemporaryDirectory(prefix="qlora-tui-fuzz-") as name:
        for seed in range(first, first + count):
            faulthandler.dump_traceback_later(6 * HANG_SECONDS, exit=True)
            path = write_file(seed, Path(name))
            tally.kinds[path.name.partition(".")[2]] += 1
            look(path, encoder, tally)
            path.unlink()
            if seed % 1000 == 999:
                print(f"{seed + 1 - first:,} files, {len(tally.faults)} faults", file=sys.stderr, flush=True)
        faulthandler.cancel_dump_traceback_later()
    return tally


def main() -> None:
    """Look at all files and publish."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--files", type=int, default=FILES)
    parser.add_argument("--first", type=int, default=0)
    options = parser.parse_args()
    folder = tokenizer_folder(resolve_model(ModelSection(), weights=False))
    section = RunConfig.model_validate({"name": "fuzz", "data": {"source": "rows.jsonl"}}).data
    tally = fuzz(options.first, options.files, Encoder.from_folder(folder, section))
    print("\n".join(tally.faults), file=sys.stderr)
    if options.files == FILES:
        publish("fuzz", *_tables(tally))
    else:
        print(*_tables(tally), sep="\n\n")
    sys.exit(bool(tally.faults))


def _tables(tally: Tally) -> tuple[str, ...]:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    kinds = ", ".join(f"{count:,} {kind}" for kind, count in tally.kinds.most_common())
    outcomes = [
        ["inspected", tally.inspected],
        ["inspected, but for rows that are left out and named", tally.rows_left_out],
        ["refused, file and line named", tally.with_line],
        *([f"refused as a whole, file named: {what}", count] for what, count in tally.whole_file.most_common()),
        ["tracebacks, refusals that name no file, texts that act on the terminal", len(tally.faults)],
    ]
    return (
        f"{tally.files:,} files: {kinds}.",
        table(["what came of them", "files"], outcomes),
        f"Slowest file: {tally.slowest:.2f} s. Peak of resident memory, all in one process: {peak / 1e6:,.0f} MB.",
    )


if __name__ == "__main__":
    main()
