"""The dry run in place of the closed form: one step of the real libraries, without a GPU, in a child process."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from qlora_tui.errors import EnvironmentFault, ModelError, QloraError
from qlora_tui.memory.dryrun_request import DryRunAnswer, DryRunRequest
from qlora_tui.memory.estimate import Estimate
from qlora_tui.memory.fit import Fit
from qlora_tui.memory.process import Band, process_band, verdict
from qlora_tui.memory.words import size
from qlora_tui.models.folder import CONFIGURATION
from qlora_tui.models.known import KnownModel
from qlora_tui.selftest import Selftest, run_selftest
from qlora_tui.text import one_line

SECONDS: Final = 900.0
"""After so long without an answer the child is ended; models of 70 B take half a minute on an idle machine."""

Child = Callable[[tuple[str, ...], float], Selftest]


def exact_fit(model: KnownModel, fit: Fit, run: Child = run_selftest) -> Fit:
    """The fit with what a dry run allocated; how far it could go and how fast stays the closed form's.

    Args:
        run: Runs the child process.

    Raises:
        QloraError: if the libraries cannot build or run the model, or the child gives no answer.
    """
    facts = fit.device.facts
    with tempfile.TemporaryDirectory(prefix="qlora-tui-") as name:
        folder = model.folder
        if folder is None:
            folder = Path(name)
            (folder / CONFIGURATION).write_text(json.dumps(dict(model.config or {})), encoding="utf-8")
        request = Path(name) / "request.json"
        request.write_text(DryRunRequest(folder, fit.recipe, facts.workspace).to_json(), encoding="utf-8")
        report = run((sys.executable, "-m", "qlora_tui.engine", "dryrun", str(request)), SECONDS)
    answer = _answer(report)
    note = (
        f"Exact: the libraries ran one step without a GPU ({answer.seconds:.0f} s); the formula says "
        f"{size(fit.allocated)} ({fit.allocated / answer.allocated - 1:+.2%})."
    )
    notes = (note, *(one_line(each, 300) for each in answer.notes), *fit.notes)
    return replace(fit, estimate=_estimate(fit, answer), notes=notes)


def _answer(report: Selftest) -> DryRunAnswer:
    what = "The dry run gave no answer."
    hint = "Run `qlora-tui doctor`, or leave out --exact."
    if report.problem is not None:
        raise EnvironmentFault(what, report.problem, hint)
    if isinstance(told := report.report.get("error"), Mapping):
        raise _fault(told)
    try:
        return DryRunAnswer.from_report(report.report)
    except ValueError as error:
        raise EnvironmentFault(what, f"It said something else: {one_line(str(error), 200)}.", hint) from error


def _fault(told: Mapping[str, Any]) -> QloraError:
    """The child's error, of the kind that it was there."""
    kinds = {each.kind: each for each in QloraError.__subclasses__()}
    what, why, hint = (one_line(str(told.get(name) or "Nothing is said."), 400) for name in ("what", "why", "hint"))
    return kinds.get(str(told.get("kind")), ModelError)(what, why, hint)


def _estimate(fit: Fit, answer: DryRunAnswer) -> Estimate:
    """The closed form's estimate with the dry run's figures."""
    old, facts = fit.estimate, fit.device.facts
    peaks = {name: answer.peaks.get(name, getattr(old, name)) for name in ("evaluation", "generation", "loading")}
    components = dict(answer.components) if sum(answer.components.values()) == answer.allocated else {}

    def band(allocated: int) -> Band:
        return process_band(allocated, facts, managed=old.managed)

    needed = band(max(answer.allocated, *peaks.values()))
    return replace(
        old,
        components=MappingProxyType(components or {"allocated": answer.allocated}),
        allocated=answer.allocated,
        process=band(answer.allocated),
        needed=needed,
        fits=verdict(needed, facts.free),
        **peaks,
    )
