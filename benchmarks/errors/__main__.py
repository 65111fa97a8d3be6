"""Everything a user can get wrong, given to the console script case by case: does it end in words and the right code?

    python -m benchmarks.errors [WORD ...]

The words pick the cases whose names contain one of them; without any, all are run and the table is published. A case
that fails on purpose must tell what happened, why and what to do, show no traceback, and leave nothing behind that is
in the way of the next try under the same name.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.errors.case import Case, Outcome, run_case
from benchmarks.errors.cases import ALL_CASES
from benchmarks.errors.place import CannotStage
from benchmarks.runs import ROOT
from benchmarks.tables import publish, table


@contextmanager
def importable_test_helpers() -> Iterator[None]:
    """The tests' player and hub, which stand alone, importable."""
    sys.path.append(str(ROOT / "tests"))
    try:
        yield
    finally:
        sys.path.remove(str(ROOT / "tests"))


def main() -> None:
    """Run and, if they are all the cases, publish."""
    words = sys.argv[1:]
    rows: list[list[object]] = []
    wrong = 0
    with importable_test_helpers(), tempfile.TemporaryDirectory(prefix="qlora-tui-errors-") as folder:
        for number, case in enumerate(ALL_CASES):
            if words and not any(word in case.name for word in words):
                continue
            place = Path(folder) / str(number)
            place.mkdir()
            try:
                outcome = run_case(case, place)
            except CannotStage as reason:
                rows.append([case.name, "not run", str(reason), "", ""])
                continue
            faults = outcome.faults(case)
            wrong += bool(faults)
            print(f"{case.name}: {'; '.join(faults) or 'as it should be'} ({outcome.seconds:.1f} s)", flush=True)
            rows.append(_row(case, outcome, place))
    ran = sum(row[1] != "not run" for row in rows)
    header = ["what is wrong", "exit code", "what is said", "traceback", "seconds"]
    told = f"{ran - wrong} of {ran} cases end as they should: in three sentences, with the right exit code, without a "
    told += "traceback, and with the name of the run free for the next try. What ends well shows its warnings."
    if words:
        print(table(header, rows))
    else:
        publish("errors", told, table(header, rows))
    sys.exit(bool(wrong))


def _row(case: Case, outcome: Outcome, folder: Path) -> list[object]:
    text = " ".join(outcome.sentences if outcome.exit_code else outcome.warnings)
    text = text.replace(f"{folder}/", "").replace(str(folder), "FOLDER")
    text = text.replace("`", "'") if len(text) <= 240 else text[:239].replace("`", "'") + "…"
    traceback = "YES" if "Traceback" in outcome.stdout + outcome.stderr else "no"
    return [case.name, outcome.exit_code, text, traceback, f"{outcome.seconds:.1f}"]


if __name__ == "__main__":
    main()
