"""The estimate against measured runs: memory, verdict and speed, every row listed.

python -m benchmarks.fit
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Final

from benchmarks.measured_runs import H100_RATES, PACKED_ROW, Measured, h100_runs
from benchmarks.tables import PAGE, publish, table
from benchmarks.third_party import T4Run, archive, quality_a, stated
from qlora_tui.memory.estimate import Estimate, estimate
from qlora_tui.memory.recipe import GIB
from qlora_tui.memory.speed import step_time

_CLEAR: Final = 0.1
"""Rows whose speeds differ by less have no order."""


def estimated(run: Measured) -> Estimate:
    """The estimate of a run on the card it was measured on."""
    return estimate(run.dimensions, run.recipe, run.device)


def error(found: float, measured: float) -> float:
    """Relative error."""
    return found / measured - 1


def allocated_errors() -> dict[str, float]:
    """Relative errors of allocated memory, by row."""
    return {
        f"{index} {run.name}": error(estimated(run).allocated, run.allocated)
        for index, run in enumerate(h100_runs())
        if run.allocated is not None
    }


def process_errors() -> dict[str, float]:
    """Relative errors of the driver's figure for the process, by row; capped rows have their own table."""
    return {
        f"{index} {run.name}": error(estimated(run).shown.point, run.process)
        for index, run in enumerate(h100_runs())
        if run.process is not None
    }


def verdict_is_right(run: Measured) -> bool:
    """Whether a capped row got what it deserves: "no" if it failed, anything else if it ran.

    The cap is the allocator's, so managed memory does not count against it.
    """
    found = estimated(run)
    free = (run.device.free or 0) + found.managed
    found = estimate(run.dimensions, run.recipe, replace(run.device, free=free))
    return (found.fits == "no") == (run.allocated is None)


def predicted_seconds(run: Measured) -> float:
    """Seconds of an update of a run."""
    row = PACKED_ROW if run.recipe.packed else None
    recipes = [replace(run.recipe, sequence=length) for length in run.lengths] or [run.recipe]
    times = [step_time(run.dimensions, recipe, H100_RATES, row=row).total for recipe in recipes]
    return run.recipe.accumulation * statistics.fmean(times)


def speed_errors(*, timed: bool = True) -> dict[str, float]:
    """Relative errors of tokens per second, by row: of the rows run for speed, or of the others."""
    return {
        f"{index} {run.name}": error(run.seconds, predicted_seconds(run))
        for index, run in enumerate(h100_runs())
        if run.seconds is not None and run.cap is None and run.timed == timed
    }


def timed_speeds() -> list[tuple[float, float]]:
    """(estimate, measured) tokens per second of the rows run for speed."""
    return [
        (run.tokens / predicted_seconds(run), run.tokens / run.seconds)
        for run in h100_runs()
        if run.timed and run.tokens and run.seconds
    ]


def swapped(one: tuple[float, float], other: tuple[float, float]) -> bool:
    """Whether the estimate puts the slower of two rows first, where they clearly differ.

    The same recipe measured twice differs by 15 %, so rows closer than a tenth have no order.
    """
    (found, measured), (found_other, measured_other) = one, other
    clear = abs(measured / measured_other - 1) > _CLEAR
    return clear and (found < found_other) != (measured < measured_other)


def inside(run: T4Run) -> bool:
    """Whether the driver's figure for the process lies in the band."""
    band = run.estimate.shown
    return band.low <= run.process <= band.high


def _percent(value: float) -> str:
    return f"{100 * value:+.2f} %"


def _summary(name: str, errors: Iterable[float]) -> str:
    sizes = [abs(value) for value in errors]
    return f"**{name}**: {len(sizes)} rows, mean {100 * statistics.fmean(sizes):.2f} %, worst {100 * max(sizes):.2f} %."


def _t4_summary(name: str, runs: Sequence[T4Run]) -> str:
    allocated = _summary(f"{name}, allocated", (error(run.estimate.allocated, run.allocated) for run in runs))
    process = _summary("Process", (error(run.estimate.shown.point, run.process) for run in runs))
    within = sum(inside(run) for run in runs)
    wide = max((run.estimate.shown.high - run.estimate.shown.low) / run.estimate.shown.point for run in runs)
    return f"{allocated} {process} In the band, which is {100 * wide:.0f} % wide: {within} of {len(runs)}."


def _memory_table() -> str:
    rows = []
    for run in h100_runs():
        if run.allocated is None or run.process is None:
            continue
        found = estimated(run)
        rows.append(
            (
                run.name,
                f"{found.allocated / GIB:.3f}",
                f"{run.allocated / GIB:.3f}",
                _percent(error(found.allocated, run.allocated)),
                f"{found.shown.point / GIB:.2f}",
                f"{run.process / GIB:.2f}",
                _percent(error(found.shown.point, run.process)),
            )
        )
    header = ("row", "allocated, estimate", "measured", "error", "process, estimate", "measured", "error")
    return table(header, rows)


def _verdict_table() -> str:
    rows = []
    for run in h100_runs():
        if run.cap is not None:
            outcome = "out of memory" if run.allocated is None else "runs"
            free = (run.device.free or 0) + estimated(run).managed
            fits = estimate(run.dimensions, run.recipe, replace(run.device, free=free)).fits
            rows.append((run.name, run.cap_factor, outcome, fits, "yes" if verdict_is_right(run) else "**no**"))
    return table(("row", "cap over peak", "measured", "verdict", "right"), rows)


def _speed_table() -> str:
    rows = []
    for run in h100_runs():
        if run.seconds is not None and run.cap is None and run.tokens is not None:
            found = run.tokens / predicted_seconds(run)
            measured = run.tokens / run.seconds
            kind = "speed" if run.timed else "memory"
            rows.append((run.name, kind, f"{found:,.0f}", f"{measured:,.0f}", _percent(error(found, measured))))
    return table(("row", "run for", "tokens/s, estimate", "measured", "error"), rows)


def _t4_table(runs: Iterable[T4Run]) -> str:
    rows = []
    for run in runs:
        found, recipe = run.estimate, run.recipe
        band = found.shown
        rows.append(
            (
                run.id,
                run.model,
                recipe.quantization,
                f"{recipe.micro_batch}×{recipe.sequence}",
                recipe.attention,
                f"{found.allocated / GIB:.3f}",
                f"{run.allocated / GIB:.3f}",
                _percent(error(found.allocated, run.allocated)),
                f"{band.low / GIB:.2f} – {band.point / GIB:.2f} – {band.high / GIB:.2f}",
                f"{run.process / GIB:.2f}",
                _percent(error(band.point, run.process)) + ("" if inside(run) else " **outside**"),
            )
        )
    header = ("row", "model", "base", "batch", "attention", "allocated, estimate", "measured", "error")
    return table((*header, "process, estimate", "measured", "error"), rows)


def _stated_table() -> str:
    rows = []
    for one in stated():
        row = one.row
        where = row["stack"] if row["quant"] in ("", "nf4") else f"{row['stack']}, {row['quant']}"
        if one.estimated is None or one.measured is None:
            outcome = f"{'ran' if one.ran else 'out of memory'}; verdict {one.fits}" if one.fits else "none"
            figures = ("–" if one.measured is None else f"{one.measured / GIB:.2f}", "–", outcome)
        else:
            change = _percent(error(one.estimated, one.measured))
            figures = (f"{one.measured / GIB:.2f}", f"{one.estimated / GIB:.2f}", change)
        why = [f"unsaid: {', '.join(one.unsaid)}"] if one.unsaid else []
        why += [f"assumed: {one.assumed}"] if one.assumed else []
        why += [f"differs: {one.differs}"] if one.differs else []
        batch = f"{row['batch'] or '?'}×{row['seq'] or '?'}"
        rows.append((row["id"], row["model"], where, batch, row["quality"], one.figure, *figures, "; ".join(why)))
    header = ("row", "model", "stack", "batch", "quality", "figure", "measured, GiB", "estimate", "error")
    return table((*header, "why it says little"), rows)


def _folded(title: str, text: str) -> str:
    return f"<details><summary>{title}</summary>\n\n{text}\n\n</details>"


def main() -> None:
    """Print the tables, and put them into the page if it has the marks."""
    capped = [run for run in h100_runs() if run.cap is not None]
    right = sum(verdict_is_right(run) for run in capped)
    parts = [
        "\n".join(
            (
                "- " + _summary("H100, allocated", allocated_errors().values()),
                "- " + _summary("H100, process as the driver shows it", process_errors().values()),
                f"- **H100, verdict on capped runs**: {right} of {len(capped)} right.",
                "- " + _summary("H100, tokens per second of the rows run for speed", speed_errors().values()),
                "- " + _t4_summary("T4 rows of others", quality_a()),
                "- " + _t4_summary("The rest of their archive, on which the kept segments were fitted", archive()),
            )
        ),
        _folded("H100: memory", _memory_table()),
        _folded("H100: verdict with the allocator capped", _verdict_table()),
        _folded("H100: speed", _speed_table()),
        _folded("T4, measured by others: each in its own regime", _t4_table(quality_a())),
        _folded("T4, the rest of that archive", _t4_table(archive())),
        _folded("Measured by others, incomplete: what the rows leave unsaid", _stated_table()),
    ]
    if "<!-- bench-fit:start -->" in PAGE.read_text(encoding="utf-8"):
        publish("fit", *parts)
    else:
        print("\n\n".join(parts))


if __name__ == "__main__":
    main()
