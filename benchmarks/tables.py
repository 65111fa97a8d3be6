"""Tables in ``docs/benchmarks.md``, between the marks of each benchmark, with the machine they were measured on."""

from __future__ import annotations

import datetime
import json
import os
import platform
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "benchmarks.md"
RESULTS = ROOT / "benchmarks" / "results"


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table."""
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    lines += ["| " + " | ".join(str(cell).replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join(lines)


def machine() -> str:
    """One line on the machine, the versions and the day."""
    libraries = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers", "trl", "bitsandbytes"))
    today = datetime.datetime.now(tz=datetime.UTC).date()
    return f"_{_processor()}, {os.cpu_count()} cores, Python {platform.python_version()}, {libraries}; {today}._"


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.machine()


def publish(name: str, *parts: str, raw: Any = None, measured_on: str | None = None) -> None:
    """Print a benchmark's result, put it into the page, and keep the raw values as JSON.

    Args:
        measured_on: One line on the machine where it was measured, if that is not this one.
    """
    text = "\n\n".join([*parts, measured_on or machine()])
    print(text, flush=True)
    start, end = f"<!-- bench-{name}:start -->", f"<!-- bench-{name}:end -->"
    page = PAGE.read_text(encoding="utf-8")
    head, _, rest = page.partition(start)
    _, _, tail = rest.partition(end)
    PAGE.write_text(f"{head}{start}\n{text}\n{end}{tail}", encoding="utf-8")
    if raw is not None:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / f"{name}.json").write_text(json.dumps(raw, indent=1) + "\n", encoding="utf-8")
