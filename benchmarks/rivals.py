"""The measured runs through other estimators, each told as much as its own options allow.

python -m benchmarks.rivals
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

from benchmarks.base_models import config_of, hub_id, shape_of
from benchmarks.fit import error
from benchmarks.measured_runs import h100_runs
from benchmarks.rival_tools import RIVALS, Answer, Question, Rival, ask, hub_cache, installed
from benchmarks.tables import publish, table
from benchmarks.third_party import T4_MEMORY, archive, quality_a
from qlora_tui.memory.estimate import Estimate, estimate
from qlora_tui.memory.recipe import GIB, MIB

_H100: Final = ("h100", 81_559 * MIB)
_T4: Final = ("t4", T4_MEMORY)
_OURS: Final = "qlora-tui"


@dataclass(frozen=True, slots=True)
class Case:
    """A measured run and the question it makes; sizes in bytes."""

    rows: str
    name: str
    question: Question
    ours: Answer
    allocated: int
    process: int


def cases() -> list[Case]:
    """Every row that measured both figures; capped rows are left out, for a cap is no option of anybody's."""
    found = []
    for run in h100_runs():
        if run.cap is None and run.allocated is not None and run.process is not None:
            question = Question(hub_id(run.shape), run.recipe, *_H100)
            ours = _answer(estimate(run.dimensions, run.recipe, run.device))
            found.append(Case("H100", run.name, question, ours, run.allocated, run.process))
    for rows, runs in (("T4", quality_a()), ("T4, the rest", archive())):
        for row in runs:
            recipe = row.recipe
            name = f"{row.id} {row.model} ({recipe.micro_batch}×{recipe.sequence}, {recipe.attention})"
            question = Question(hub_id(row.model), recipe, *_T4)
            found.append(Case(rows, name, question, _answer(row.estimate), row.allocated, row.process))
    return found


def _answer(found: Estimate) -> Answer:
    return Answer(found.allocated, found.shown.point)


@cache
def _config(name: str) -> dict[str, Any]:
    """The config of a model as its page has it, with the fields that programs may leave to a default."""
    return {**config_of(name), "tie_word_embeddings": shape_of(name).tie_word_embeddings}


def answers(asked: Sequence[Case], home: Path) -> list[dict[str, Answer | str]]:
    """Everybody's answers, case by case."""
    for rival in RIVALS:
        installed(rival)

    def one(case: Case) -> dict[str, Answer | str]:
        theirs: dict[str, Answer | str] = {rival.package: ask(rival, case.question, home) for rival in RIVALS}
        return {_OURS: case.ours, **theirs}

    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(one, asked))


def _errors(pairs: Iterable[tuple[Case, Answer | str]], figure: str) -> list[float]:
    return [
        abs(error(getattr(answer, figure), getattr(case, figure)))
        for case, answer in pairs
        if isinstance(answer, Answer)
    ]


def _summary(asked: Sequence[Case], given: Sequence[dict[str, Answer | str]]) -> str:
    rows = []
    for name in dict.fromkeys(case.rows for case in asked):
        chosen = [(case, answer) for case, answer in zip(asked, given, strict=True) if case.rows == name]
        for tool in given[0]:
            pairs = [(case, answer[tool]) for case, answer in chosen]
            cells = []
            for figure in ("allocated", "process"):
                sizes = _errors(pairs, figure)
                cells += [f"{100 * statistics.fmean(sizes):.1f} %", f"{100 * max(sizes):.1f} %"] if sizes else ["–"] * 2
            answered = sum(isinstance(answer, Answer) for _, answer in pairs)
            rows.append((name, tool, f"{answered} of {len(pairs)}", *cells))
    header = ("rows", "estimator", "answered", "allocated, mean error", "worst", "process, mean error", "worst")
    return table(header, rows)


def _details(asked: Sequence[Case], given: Sequence[dict[str, Answer | str]]) -> str:
    def cell(answer: Answer | str, figure: str, measured: int) -> str:
        if isinstance(answer, str):
            return "refused"
        found = getattr(answer, figure)
        return f"{found / GIB:.2f} ({100 * error(found, measured):+.1f} %)"

    rows = []
    for case, answer in zip(asked, given, strict=True):
        cells = []
        for figure in ("allocated", "process"):
            measured = getattr(case, figure)
            cells += [f"{measured / GIB:.2f}", *(cell(one, figure, measured) for one in answer.values())]
        rows.append((case.name, *cells))
    tools = list(given[0])
    return table(("row", "allocated, GiB", *tools, "process, GiB", *tools), rows)


def _commands(asked: Sequence[Case]) -> str:
    def line(rival: Rival, case: Case) -> str:
        return " ".join(rival.arguments(case.question))

    first: dict[str, Case] = {}
    for case in asked:
        first.setdefault(case.rows, case)
    return "```text\n" + "\n".join(line(rival, case) for case in first.values() for rival in RIVALS) + "\n```"


def main(progress: Callable[[str], None] = print) -> None:
    """Ask everybody, publish the errors side by side."""
    asked = cases()
    with tempfile.TemporaryDirectory() as folder:
        names = {run.shape for run in h100_runs()} | {row.model for row in (*quality_a(), *archive())}
        home = hub_cache(Path(folder), {hub_id(name): _config(name) for name in names})
        given = answers(asked, home)
    for case, answer in zip(asked, given, strict=True):
        for tool, said in answer.items():
            if isinstance(said, str):
                progress(f"{tool} refused {case.name}: {said}")
    folded = f"<details><summary>Every row</summary>\n\n{_details(asked, given)}\n\n</details>"
    options = f"<details><summary>Options, the first row of each set</summary>\n\n{_commands(asked)}\n\n</details>"
    versions = ", ".join(f"{rival.package} {rival.version}" for rival in RIVALS)
    publish("rivals", _summary(asked, given), folded, options, f"Against {versions}.", raw=_raw(asked, given))


def _raw(asked: Sequence[Case], given: Sequence[dict[str, Answer | str]]) -> list[dict[str, Any]]:
    return [
        {
            "rows": case.rows,
            "name": case.name,
            "measured": {"allocated": case.allocated, "process": case.process},
            **{
                tool: said if isinstance(said, str) else {"allocated": said.allocated, "process": said.process}
                for tool, said in answer.items()
            },
        }
        for case, answer in zip(asked, given, strict=True)
    ]


if __name__ == "__main__":
    main()
