"""The measurements on a GPU as tables of ``docs/benchmarks.md``, with the estimate as it is today beside them."""

from __future__ import annotations

import datetime
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import astuple
from typing import Any

from benchmarks.gpu import Case, results
from benchmarks.gpu_runs import evaluation_estimate
from benchmarks.gpu_speed import MODEL
from benchmarks.measured_runs import H100_RATES, PACKED_ROW
from benchmarks.random_model import shape_of
from benchmarks.tables import publish, table
from qlora_tui.engine.forecast import dimensions_of_model
from qlora_tui.memory.estimate import estimate
from qlora_tui.memory.process import shown_process
from qlora_tui.memory.recipe import DeviceFacts, Recipe
from qlora_tui.memory.speed import throughput

_GIB = 2**30
_SETTINGS = "Rows: micro-batch × tokens; checkpointing full, sdpa and paged 8-bit AdamW unless said."


def publish_all() -> None:
    """Each part that has results."""
    for part, make in (("memory", _memory), ("speed", _speed), ("life", _life), ("chat", _chat)):
        lines = {line["case"]: line for line in results(part)}
        machine = lines.pop("machine", None)
        if machine and lines:
            publish(f"gpu-{part}", *make(lines), measured_on=_card(machine))


def _card(machine: Case) -> str:
    hardware, versions = machine["hardware"], machine["versions"]
    named = ", ".join(f"{name} {versions[name]}" for name in sorted(versions) if name not in ("python", "qlora-tui"))
    day = datetime.datetime.fromtimestamp(machine["time"], tz=datetime.UTC).date()
    return f"_{hardware.get('gpu')}, driver {hardware.get('driver')}, {named}; {day}._"


def _gib(size: int | None) -> str:
    return "" if size is None else f"{size / _GIB:.3f}"


def _off(measured: int | None, estimated: int | None) -> float | None:
    return estimated / measured - 1 if measured and estimated else None


def _percent(value: float | None) -> str:
    return "" if value is None else f"{value:+.2%}"


def _errors(lines: Iterable[tuple[str, Case]]) -> list[str]:
    return [f"{name}: {values['error']}" for name, values in lines if "error" in values]


def _summary(name: str, values: Sequence[float | None]) -> str:
    known = [abs(value) for value in values if value is not None]
    if not known:
        return f"{name}: nothing measured."
    return f"{name}: mean {statistics.mean(known):.2%}, worst {max(known):.2%} of {len(known)} runs."


def _memory(lines: dict[str, Case]) -> list[str]:
    rows: list[list[str]] = []
    allocated: list[float | None] = []
    process: list[float | None] = []
    evaluation: list[float | None] = []
    for name, values in lines.items():
        if "error" in values:
            continue
        estimated = estimate_today(name, values)
        reserved_in_process = values["process"]
        offs = (
            _off(values["allocated"], estimated["allocated"]),
            _off(values["evaluation"], estimated["evaluation"]),
            _off(reserved_in_process, estimated["shown"][1]),
        )
        for collected, off in zip((allocated, evaluation, process), offs, strict=True):
            collected.append(off)
        rows.append(
            [
                name, _gib(values["allocated"]), _gib(estimated["allocated"]), _percent(offs[0]),
                _gib(values["evaluation"]), _percent(offs[1]), _gib(values["reserved"]), _gib(reserved_in_process),
                _percent(offs[2]),
            ]
        )  # fmt: skip
    header = ["run", "allocated", "estimate", "off", "evaluation", "off", "reserved", "process (NVML)", "off"]
    return [
        _SETTINGS + " GiB.",
        table(header, rows),
        " ".join(
            [
                _summary("Allocated", allocated),
                _summary("Evaluation", evaluation),
                _summary("Process", process),
            ]
        ),
        *_errors(lines.items()),
    ]


def estimate_today(name: str, values: Case) -> Case:
    """What the formula says now of a run that was measured when it may have said something else."""
    dimensions = dimensions_of_model(shape_of(name.partition(":")[0], tiny=False))
    assert dimensions is not None
    recipe = Recipe(**{**values["recipe"], "targets": None})
    device = DeviceFacts(None, values["context"] or DeviceFacts().context, DeviceFacts.workspace_of((9, 0)))
    found = estimate(dimensions, recipe, device)
    batch = values.get("evaluation_batch")
    evaluation = evaluation_estimate(dimensions, recipe, batch, device) if batch else None
    # An evaluation that needed more than training left the process larger.
    shown = shown_process(dimensions, recipe, device, max(found.allocated, evaluation or 0))
    return {"allocated": found.allocated, "evaluation": evaluation, "shown": list(astuple(shown))}


def _speed(lines: dict[str, Case]) -> list[str]:
    groups: dict[str, list[Case]] = {}
    for name, values in lines.items():
        if "error" not in values:
            groups.setdefault(name.partition(", round")[0], []).append(values)
    speeds = {name: statistics.mean(each["tokens_per_second"] for each in found) for name, found in groups.items()}
    seed = speeds.get("seed")
    rows = []
    for name, found in groups.items():
        first = found[0]
        chosen = ", ".join(f"{key} {value}" for key, value in first.get("chosen", {}).items())
        last = (first.get("losses") or [None])[-1]
        rows.append(
            [
                name, chosen, f"{speeds[name]:,.0f}", _predicted(first), f"{speeds[name] / seed:.2f}" if seed else "",
                f"{statistics.mean(each['mfu'] for each in found):.1%}" if "mfu" in first else "",
                _gib(first.get("allocated")), "" if last is None else f"{last:.4f}",
            ]
        )  # fmt: skip
    header = ["run", "chosen", "tokens/s", "predicted", "× seed", "MFU", "allocated, GiB", "last loss"]
    return [table(header, rows), *_errors(lines.items())]


def _predicted(values: Case) -> str:
    """Tokens per second as the time model has them today; empty for what is not the engine's run."""
    if "recipe" not in values:
        return ""
    dimensions = dimensions_of_model(shape_of(MODEL, tiny=False))
    assert dimensions is not None
    recipe = Recipe(**{**values["recipe"], "targets": None})
    return f"{throughput(dimensions, recipe, H100_RATES, row=PACKED_ROW).point:,.0f}"


def _life(lines: dict[str, Case]) -> list[str]:
    rows = [[name, _told(values)] for name, values in lines.items()]
    return [table(["case", "found"], rows)]


def _told(values: Case) -> str:
    """The figures that say something, in one line."""
    names = (
        "error", "nvidia_smi", "nvml", "difference_again", "difference_resumed", "weights_again", "weights_resumed",
        "adapter_resumed", "difference_probed", "replanned", "config", "difference", "cap", "evaluation", "exit_code",
        "hint", "notes", "accuracy", "interval", "seconds",
    )  # fmt: skip
    return "; ".join(f"{name}: {_shown(values[name])}" for name in names if values.get(name) is not None)


def _shown(value: Any) -> str:
    return f"{value:.2e}" if isinstance(value, float) else str(value)


def _chat(lines: dict[str, Case]) -> list[str]:
    rows = [
        [name, values.get("tokens_per_second", ""), values.get("first_token_seconds", ""), values.get("error", "")]
        for name, values in lines.items()
    ]
    return [table(["way", "tokens/s", "first token of a 500-token prompt, s", "remark"], rows)]
