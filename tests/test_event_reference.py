"""`docs/run-directory.md` lists the events and fields that there are now."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest

from qlora_tui.runs import events
from qlora_tui.runs.directory import RunDirectory, RunStatus

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "run-directory.md"


@pytest.fixture(scope="module")
def script() -> dict[str, Any]:
    return runpy.run_path(str(ROOT / "scripts" / "make_event_reference.py"))


def test_the_page_is_up_to_date(script: dict[str, Any]) -> None:
    assert PAGE.read_text(encoding="utf-8") == script["page"](), "run: python scripts/make_event_reference.py"


def test_every_event_that_can_be_read_is_listed(script: dict[str, Any]) -> None:
    assert {event.kind for event in script["event_classes"]()} == set(events._KINDS)


def test_no_meaning_is_left_over(script: dict[str, Any]) -> None:
    models = [*script["event_classes"](), events.Comparison]
    assert set(script["MEANINGS"]) == {f"{model.__name__}.{name}" for model in models for name in model.model_fields}


def test_every_file_of_a_run_is_explained(tmp_path: Path) -> None:
    text = PAGE.read_text(encoding="utf-8")
    run = RunDirectory(tmp_path)
    paths = (run.config, run.lock, run.events, run.log, run.control, run.checkpoints, run.adapter, run.process)
    assert [path.name for path in paths if path.name not in text] == []


def test_every_status_is_explained() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert [status for status in RunStatus.__args__ if f"| `{status}` |" not in text] == []  # type: ignore[attr-defined]
