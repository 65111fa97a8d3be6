"""Is this machine able to train? Each check is on its own, says what it found, and how to mend it.

A check that breaks is a finding like any other: the point of a doctor is a machine where half of it is broken. What is
installed is checked here, the machine itself in :mod:`qlora_tui.checks`.
"""

from __future__ import annotations

import importlib.metadata
import json
import platform
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict
from typing import TYPE_CHECKING

from qlora_tui import checks
from qlora_tui.checks import Finding, Status
from qlora_tui.selftest import Selftest, run_selftest
from qlora_tui.text import one_line

if TYPE_CHECKING:
    from packaging.requirements import Requirement

    from qlora_tui.hardware import Hardware

__all__ = ["Finding", "examine", "render", "to_json", "worst"]

_DISTRIBUTION = "qlora-tui"


def examine(
    *,
    online: bool = False,
    hardware: Hardware | None = None,
    selftest: Callable[[], Selftest] = run_selftest,
) -> list[Finding]:
    """Run every check; takes as long as the child process, seconds to two minutes.

    Args:
        online: Whether to try to reach the hub; without it nothing leaves the machine.
        hardware: A snapshot to judge, instead of a fresh one.
        selftest: Runs the child process.
    """
    findings = [*_guarded("python", _python), *_guarded("packages", _packages), *_guarded("pynvml", _old_bindings)]
    if hardware is None:
        try:
            from qlora_tui.hardware import snapshot

            hardware = snapshot()
        except Exception as error:
            findings.append(_broken("hardware", error))
    child = _child(selftest)
    if (machine := hardware) is not None:
        findings += _guarded("driver", lambda: checks.driver(machine))
        findings += _guarded("bf16", lambda: checks.bf16(machine))
    findings += _guarded("torch", lambda: checks.torch(hardware, child))
    findings += _guarded("4-bit", lambda: checks.four_bit(child))
    if machine is not None:
        findings += _guarded("memory", lambda: checks.memory(machine))
        findings += _guarded("disk", lambda: checks.disks(machine))
    return [*findings, *_guarded("bundled model", checks.bundled_model), *_guarded("hub", lambda: checks.hub(online))]


def worst(findings: list[Finding]) -> Status:
    """The gravest status; a skipped check does not count."""
    order: tuple[Status, ...] = ("fail", "warn")
    return next((status for status in order if any(each.status == status for each in findings)), "ok")


def render(findings: list[Finding]) -> list[str]:
    """The findings as plain lines, each fix below its finding."""
    width = max((len(each.check) for each in findings), default=0)
    lines = []
    for each in findings:
        lines.append(f"{each.status:<7}  {each.check:<{width}}  {each.detail}")
        if each.fix is not None:
            lines.append(f"{'':<7}  {'':<{width}}  fix: {each.fix}")
    return lines


def to_json(findings: list[Finding]) -> str:
    """The findings as one JSON object on one line, ``status`` being the gravest."""
    return json.dumps({"status": worst(findings), "findings": [asdict(each) for each in findings]}, ensure_ascii=False)


def _guarded(check: str, run: Callable[[], Iterator[Finding]]) -> list[Finding]:
    """All findings of a check; if it breaks, those before that and the fact itself."""
    found: list[Finding] = []
    try:
        for finding in run():
            found.append(finding)
    except Exception as error:
        found.append(_broken(check, error))
    return found


def _broken(check: str, error: Exception) -> Finding:
    reason = one_line(f"{type(error).__name__}: {error}")
    return Finding(
        check, "fail", f"This check itself broke ({reason}).", f"Install {_DISTRIBUTION} and its dependencies anew."
    )


def _child(selftest: Callable[[], Selftest]) -> Selftest:
    try:
        return selftest()
    except Exception as error:
        return Selftest(problem=f"It could not be run ({one_line(f'{type(error).__name__}: {error}')}).")


def _python() -> Iterator[Finding]:
    here = f"Python {platform.python_version()} at {one_line(sys.executable or 'an unknown place')}."
    wanted = importlib.metadata.metadata(_DISTRIBUTION)["Requires-Python"] or ""
    from packaging.specifiers import SpecifierSet

    if SpecifierSet(wanted).contains(platform.python_version(), prereleases=True):
        yield Finding("python", "ok", here)
    else:
        yield Finding("python", "fail", f"{here} {wanted} is needed.", f"Install {_DISTRIBUTION} with Python {wanted}.")


def _packages() -> Iterator[Finding]:
    """Installed versions against the declared bounds; packages of extras only count if they are there."""
    try:
        from packaging.requirements import Requirement
    except ImportError:
        detail = "The package packaging is missing, so versions cannot be compared."
        yield Finding("packages", "skipped", detail, "Run `pip install packaging`.")
        return
    good = 0
    for line in importlib.metadata.requires(_DISTRIBUTION) or []:
        requirement = Requirement(line)
        of_extra = "extra" in str(requirement.marker or "")
        if requirement.marker is not None and not of_extra and not requirement.marker.evaluate():
            continue
        finding = _package(requirement, of_extra)
        if finding is None:
            good += 1
        elif finding.status != "skipped":
            yield finding
    yield Finding("packages", "ok", f"{good} packages are installed within the versions this release is tested with.")


def _package(requirement: Requirement, of_extra: bool) -> Finding | None:
    """What is wrong with one package; None if nothing is."""
    check = f"package {requirement.name}"
    fix = f"Run `pip install '{requirement.name}{requirement.specifier}'`."
    try:
        version = importlib.metadata.version(requirement.name)
    except importlib.metadata.PackageNotFoundError:
        return Finding(check, "skipped" if of_extra else "fail", f"{requirement.name} is not installed.", fix)
    if not isinstance(version, str):  # damaged metadata has no version
        fix = f"Run `pip install --force-reinstall '{requirement.name}{requirement.specifier}'`."
        return Finding(check, "fail", f"{requirement.name} is damaged: it has no version.", fix)
    if requirement.specifier.contains(version, prereleases=True):
        return None
    detail = f"{requirement.name} {one_line(version, 40)} is outside {requirement.specifier}, which is what is tested."
    return Finding(check, "warn", detail, fix)


def _old_bindings() -> Iterator[Finding]:
    """The deprecated package shadows the module of the maintained one, whose name it has."""
    with suppress(importlib.metadata.PackageNotFoundError):
        version = one_line(str(importlib.metadata.version("pynvml")), 40)
        yield Finding(
            "pynvml",
            "warn",
            f"The deprecated package pynvml {version} is installed; nvidia-ml-py has replaced it under the same name.",
            "Run `pip uninstall pynvml`, then `pip install --force-reinstall nvidia-ml-py`.",
        )
