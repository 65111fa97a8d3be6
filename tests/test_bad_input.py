"""Everything a user can get wrong, as the benchmark of that name has it: told in words, and nothing left in the way."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.errors.case import Case, Outcome, run_case
from benchmarks.errors.cases import ALL_CASES
from benchmarks.errors.place import CannotStage
from qlora_tui.errors import ExitCode


def each(*, full: bool) -> list[object]:
    marks = [pytest.mark.full] if full else []
    return [pytest.param(case, id=case.name, marks=marks) for case in ALL_CASES if case.full == full]


@pytest.mark.parametrize("case", [*each(full=False), *each(full=True)])
def test_bad_input_is_told(case: Case, tmp_path: Path) -> None:
    try:
        outcome = run_case(case, tmp_path)
    except CannotStage as reason:
        pytest.skip(str(reason))
    assert outcome.faults(case) == [], f"{outcome.stdout}\n{outcome.stderr}"


def test_the_names_tell_the_cases_apart() -> None:
    names = [case.name for case in ALL_CASES]
    assert len(set(names)) == len(names)


SUMMARY = {
    "run": None,
    "exit_code": 2,
    "error": {"message": "The file cannot be read. It is a folder.", "hint": "Name a file."},
}
TOLD = "error: The file cannot be read.\n  It is a folder.\n  Name a file.\n"


def outcome(stderr: str = TOLD, *, exit_code: int = 2, summary: object = SUMMARY, in_the_way: str = "") -> Outcome:
    return Outcome(exit_code, json.dumps(summary), stderr, 0.1, ("2 rows are cut.",), {"rows": 3}, in_the_way)


@pytest.mark.parametrize(
    ("seen", "fault"),
    [
        (outcome(exit_code=1), "exit code 1, not 2"),
        (outcome("error: The file cannot be read. It is a folder.\n  Log: /tmp/a folder.log. Name it.\n"), "not three"),
        (outcome("Traceback (most recent call last):\n" + TOLD), "traceback"),
        (outcome("\x1b[31m" + TOLD), "control characters"),
        (outcome(TOLD.replace("folder", "directory")), "'a folder' is not said"),
        (outcome(summary={**SUMMARY, "error": None}), "lacks what, why or what to do"),
        (outcome(summary={**SUMMARY, "exit_code": 0}), "another exit code"),
        (outcome(in_the_way="A run of that name exists."), "blocked: A run of that name exists."),
    ],
)
def test_a_fault_is_noticed(seen: Outcome, fault: str) -> None:
    case = Case("x", lambda _place: (), ExitCode.USAGE, ("a folder",))
    assert outcome().faults(case) == []
    assert any(fault in found for found in seen.faults(case)), seen.faults(case)


def test_a_run_that_ends_well_is_judged_by_its_warnings_and_counts() -> None:
    case = Case("x", lambda _place: (), ExitCode.OK, ("rows are cut",), {"rows": 3})
    seen = outcome("", exit_code=0)
    assert seen.faults(case) == []
    other = Case("x", lambda _place: (), ExitCode.OK, ("rows are split",), {"rows": 4})
    assert seen.faults(other) == ["'rows are split' is not said", "rows is 3, not 4"]
