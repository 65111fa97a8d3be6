"""What runs measured, remembered and used: only on the same card and stack, and never to hide a fault."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from qlora_tui.gpus import Gpu, GpuMemory
from qlora_tui.memory import history
from qlora_tui.memory.device import device_of
from qlora_tui.memory.history import MeasuredRun, calibration, formula_fault, read_history, remember

GIB = 2**30
STACK = {"torch": "2.13.0", "trl": "1.16.0"}


def measured(**changes: Any) -> MeasuredRun:
    values: dict[str, Any] = {
        "time": 1.0,
        "run": "spam",
        "card": "NVIDIA H100 80GB HBM3",
        "driver": "580.1",
        "stack": STACK,
        "model": "org/model",
        "allocated": 10 * GIB,
        "reserved": 11 * GIB,
        "process": 12 * GIB,
        "context": GIB,
        "estimated_allocated": 10 * GIB,
    }
    return MeasuredRun.model_validate(values | changes)


def test_a_machine_without_runs_is_not_calibrated() -> None:
    assert calibration("NVIDIA H100 80GB HBM3", stack=STACK) is None


def test_the_next_estimate_takes_the_context_and_says_so() -> None:
    for context in (GIB, 2 * GIB, 3 * GIB):
        remember(measured(context=context))
    found = calibration("NVIDIA H100 80GB HBM3", driver="580.1", stack=STACK)
    assert found is not None
    assert (found.context, found.runs) == (2 * GIB, 3)
    assert found.notes == (
        "Corrected by 3 earlier runs on this NVIDIA H100 80GB HBM3 with the same libraries: context 2.00 GiB.",
    )


def test_the_next_estimate_takes_the_speed_against_its_prediction() -> None:
    for speed in (60.0, 80.0, 90.0):
        remember(measured(tokens_per_second=speed, estimated_tokens_per_second=100.0, context=None))
    found = calibration("NVIDIA H100 80GB HBM3", driver="580.1", stack=STACK)
    assert found is not None
    assert (found.context, found.speed) == (None, 0.8)
    assert found.notes[0].endswith("with the same libraries: 80% of the predicted speed.")


@pytest.mark.parametrize(
    "other", [{"card": "NVIDIA A100"}, {"driver": "570.0"}, {"stack": {"torch": "2.14.0", "trl": "1.16.0"}}]
)
def test_other_cards_drivers_and_libraries_do_not_count(other: dict[str, Any]) -> None:
    remember(measured(**other))
    assert calibration("NVIDIA H100 80GB HBM3", driver="580.1", stack=STACK) is None


def test_a_contradicted_formula_is_named_and_not_scaled() -> None:
    remember(measured(estimated_allocated=9 * GIB))
    found = calibration("NVIDIA H100 80GB HBM3", stack=STACK, model="org/model")
    assert found is not None
    assert "fault of the formula" in found.notes[1]
    assert "+11.1%" in found.notes[1]
    other = calibration("NVIDIA H100 80GB HBM3", stack=STACK, model="org/other")
    assert other is not None
    assert len(other.notes) == 1


def test_a_fault_that_a_later_run_does_not_show_is_forgotten() -> None:
    remember(measured(estimated_allocated=9 * GIB))
    remember(measured())
    found = calibration("NVIDIA H100 80GB HBM3", stack=STACK)
    assert found is not None
    assert len(found.notes) == 1


@pytest.mark.parametrize(("allocated", "wrong"), [(105, False), (106, True), (94, True), (95, False)])
def test_five_per_cent_is_the_limit_on_both_sides(allocated: int, wrong: bool) -> None:
    assert (formula_fault(allocated * GIB, 100 * GIB) is not None) is wrong


def test_damaged_lines_are_passed_over_and_go_with_the_next_run() -> None:
    remember(measured(run="first"))
    path = history.history_file()
    good = path.read_text(encoding="utf-8")
    hostile = [
        "",
        "null",
        "[" * 5000,
        '{"allocated": 1}',
        json.dumps(measured().model_dump() | {"allocated": -5}),
        json.dumps(measured().model_dump() | {"reserved": 0}),
        json.dumps(measured().model_dump() | {"card": "x" * 1000}),
        good.replace('"tokens_per_second":null', '"tokens_per_second":NaN'),
        '{"torn": tru',
    ]
    path.write_bytes(b"\xff\xfe\x00\n" + good.encode() + "\n".join(hostile).encode())
    assert [run.run for run in read_history()] == ["first"]
    remember(measured(run="second"))
    assert [run.run for run in read_history()] == ["first", "second"]
    assert len(path.read_text(encoding="utf-8").splitlines()) == 2


def test_a_newer_version_may_add_fields() -> None:
    path = history.history_file()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(measured().model_dump() | {"version": 2, "more": {"a": 1}}) + "\n", encoding="utf-8")
    assert len(read_history()) == 1


def test_the_file_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "KEPT", 3)
    for number in range(5):
        remember(measured(run=f"run-{number}"))
    assert [run.run for run in read_history()] == ["run-2", "run-3", "run-4"]


def test_runs_that_end_together_are_all_remembered() -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: remember(measured(run=f"run-{number}")), range(16)))
    assert {run.run for run in read_history()} == {f"run-{number}" for number in range(16)}


def test_a_folder_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(OSError, match="file"):
        remember(measured(), tmp_path / "file" / "history.jsonl")


def test_the_device_of_the_next_estimate_knows_what_was_measured() -> None:
    gpu = Gpu(0, "NVIDIA H100 80GB HBM3", memory=GpuMemory(80 * GIB, 79 * GIB), capability=(9, 0))
    assert device_of(gpu, gpu.memory, "580.1").context is None
    remember(measured(stack=history.stack_versions(), context=GIB))
    device = device_of(gpu, gpu.memory, "580.1")
    assert device.context == device.facts.context == GIB
    assert "one earlier run" in device.notes[0]
    assert device_of(gpu, gpu.memory, "570.0").context is None


def test_the_installed_stack_is_read_without_importing_it() -> None:
    assert {"torch", "transformers", "trl", "bitsandbytes"} <= history.stack_versions().keys()
