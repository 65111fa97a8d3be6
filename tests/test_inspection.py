"""Inspections: counts, findings, previews, the cache, and the command as a user meets it."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from test_cli import assert_error, console
from test_text import HOSTILE, acts

from qlora_tui.config import RunConfig
from qlora_tui.data import prepare, reading
from qlora_tui.data.inspection import Glance, Inspection, from_json, to_json
from qlora_tui.data.preview import Which
from qlora_tui.engine import inspect_files
from qlora_tui.engine.inspection import Cancelled, Inspector, Stage, inspect
from qlora_tui.errors import DataError, UsageError
from qlora_tui.runs.inspecting import parse_which, run_inspection
from qlora_tui.runs.launch import engine_environment
from qlora_tui.terminal.inspection_view import inspection_view

CONTRACT = {
    "format", "columns", "rows", "kept", "dropped", "truncated", "tokens", "untrained_rows", "end_of_turn_trained",
    "duplicates", "eval_overlap", "findings", "samples",
}  # fmt: skip


def pair(prompt: Any, completion: Any) -> dict[str, Any]:
    return {"prompt": prompt, "completion": completion}


ROWS = [
    pair("What is the capital of France, and why do people like to visit it so much?", "Paris; for its museums."),
    pair("Write to bob@example.org about the parcel that came late.", "I have written to bob@example.org."),
    pair("Hi", ""),
    pair("Name a colour.", "blue"),
    pair("Name a colour.", "red"),
    pair("Name a colour.", "red"),
    pair("Count.", "one " * 90),
    pair("The cafÃ© was closed \x1b[2J and the naÃ¯ve guests left.", "I see."),
]


def write_rows(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def config_for(model: Path, source: Path, **data: Any) -> RunConfig:
    return RunConfig.model_validate(
        {"name": "x", "model": {"source": str(model)}, "data": {"source": str(source), "max_length": 64, **data}}
    )


@pytest.fixture
def model(model_folder: Path) -> Path:
    """A folder that passes as a model as far as data goes."""
    (model_folder / "config.json").write_text('{"model_type": "llama", "architectures": ["LlamaForCausalLM"]}')
    (model_folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n")
    return model_folder


@pytest.fixture
def config(model: Path, tmp_path: Path) -> RunConfig:
    return config_for(model, write_rows(tmp_path / "rows.jsonl", ROWS))


def kinds(inspection: Inspection) -> dict[str, int]:
    return {finding.kind: finding.rows for finding in inspection.findings}


def test_rows_are_counted_and_faults_found(config: RunConfig) -> None:
    found = inspect(config)
    assert (found.rows, found.kept, found.dropped) == (8, 7, {"no answer": 1})
    assert (found.format, found.columns) == ("prompt-completion", {"prompt": "prompt", "completion": "completion"})
    assert (found.truncated, found.duplicates, found.untrained_rows) == (1, 1, 0)
    assert found.end_of_turn_trained
    assert found.tokens.max == found.quantiles[100] > 64
    assert sum(found.histogram.counts) == 7
    assert found.special_rows == {"longest": 7, "shortest": 4}
    expected = {"empty_answer": 1, "truncated": 1, "duplicate": 1, "contradiction": 3, "email": 1, "mojibake": 1}
    assert kinds(found) == expected | {"control_character": 1}
    assert [finding.severity for finding in found.findings] == sorted(
        (finding.severity for finding in found.findings), key=["serious", "warning", "notice"].index
    )


def test_evidence_is_masked_and_safe(config: RunConfig) -> None:
    found = {finding.kind: finding for finding in inspect(config).findings}
    (email,) = found["email"].examples
    assert email.row == 2
    assert "b•••@•••.org" in email.text
    assert "bob@" not in to_json(inspect(config))
    assert "␛[2J" in found["control_character"].examples[0].text


def test_the_json_is_the_promised_one(config: RunConfig) -> None:
    contract = inspect(config).contract()
    assert set(contract) == CONTRACT
    assert set(contract["tokens"]) == {"total", "trained", "p50", "p95", "max"}
    assert {"kind", "rows", "examples"} <= set(contract["findings"][0])


def test_overlap_with_evaluation_rows(model: Path, tmp_path: Path) -> None:
    long = "Tell me in a few words why the sky over the sea looks so very blue at noon in the summer."
    train = write_rows(
        tmp_path / "rows.jsonl", [pair(f"Number {n}?", str(n)) for n in range(20)] + [pair(long, "Air.")]
    )
    held_out = write_rows(
        tmp_path / "held.jsonl",
        [pair("Number 3?", "3"), pair("Number 4?", "5"), pair("New?", "yes"), pair(long + " Please!", "Air.")],
    )
    found = inspect(config_for(model, train, evaluation={"source": str(held_out)}))
    assert (found.evaluation_rows, found.eval_overlap) == (4, 1)
    assert kinds(found) == {"eval_overlap": 1, "eval_same_prompt": 1, "eval_near_overlap": 1}
    assert found.findings[0].examples[0].part == "evaluation"


def test_previews_show_the_row_as_it_is_trained(config: RunConfig) -> None:
    inspector = Inspector(config)
    wanted: list[tuple[Which, int]] = [("first", 1), ("longest", 7), ("shortest", 4), (2, 2)]
    for which, row in wanted:
        shown = inspector.preview(which)
        assert (shown.row, shown.which) == (row, str(which))
        assert "".join(text for text, _ in shown.tokens) == shown.rendered
        assert json.loads(shown.raw) == ROWS[row - 1]
    trained = "".join(text for text, trained in inspector.preview(1).tokens if trained)
    assert trained == "Paris; for its museums.<|im_end|>"
    assert inspector.preview(7).pieces == ((0, 64),)
    assert 1 <= inspector.preview("random").row <= 8


def test_a_preview_of_a_dropped_row_says_why(config: RunConfig) -> None:
    shown = Inspector(config).preview(3)
    assert (shown.tokens, shown.rendered) == ((), None)
    assert shown.problem is not None
    assert "no answer" in shown.problem


def test_there_is_no_such_row(config: RunConfig) -> None:
    with pytest.raises(DataError, match="There is no row 99"):
        Inspector(config).preview(99)


@pytest.mark.parametrize(
    "text", ["日本語のテキスト", "👩‍👩‍👧 🇩🇪 emoji", "naïve — “quotes”", "مرحبا بالعالم", " leading and trailing "]
)
def test_token_texts_add_up(model: Path, tmp_path: Path, text: str) -> None:
    source = write_rows(tmp_path / "rows.jsonl", [pair("Say it.", text)])
    shown = Inspector(config_for(model, source)).preview()
    assert "".join(token for token, _ in shown.tokens) == shown.rendered


def test_the_second_inspection_is_remembered_and_a_changed_byte_noticed(config: RunConfig) -> None:
    first, second = inspect(config), inspect(config)
    assert (first.cached, second.cached) == (False, True)
    assert second.contract() == first.contract()
    source = Path(config.data.source)
    source.write_bytes(source.read_bytes().replace(b"Paris", b"paris"))
    assert not inspect(config).cached
    assert not inspect(config.changed(data={"max_length": 48})).cached
    assert inspect(config.changed(training={"epochs": 3})).cached


def test_a_changed_template_is_noticed(config: RunConfig, model: Path) -> None:
    assert not inspect(config).cached
    template = model / "chat_template.jinja"
    template.write_text(template.read_text() + "{# changed #}")
    assert not inspect(config).cached


def test_a_damaged_memory_is_no_memory(config: RunConfig, isolated_home: Path) -> None:
    inspect(config)
    (remembered,) = (isolated_home / "cache" / "inspections").glob("*.json")
    remembered.write_text('{"format": 3}')
    assert not inspect(config).cached


def test_it_can_be_cancelled(config: RunConfig) -> None:
    stages: list[Stage] = []
    with pytest.raises(Cancelled):
        inspect(config, stages.append, lambda: bool(stages))
    assert [stage.name for stage in stages] == ["fingerprint of the train data"]


@pytest.fixture
def long_config(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunConfig:
    """Rows enough to take time in every phase, with phases that report after a few."""
    for module, name in ((prepare, "CHUNK_ROWS"), (reading, "PASSED_ROWS"), (inspect_files, "REPORT_ROWS")):
        monkeypatch.setattr(module, name, 8)
    monkeypatch.setattr(reading, "_PIECE", 512)
    held_out = write_rows(tmp_path / "held.jsonl", [pair(f"{n} and one?", f"It is {n + 1}.") for n in range(200)])
    # What is found in the last row makes the search for it go through all of them.
    rows = [pair(f"Twice {n}?", f"It is {2 * n}.") for n in range(400)] + [pair("Whom?", "bob@example.org")]
    source = write_rows(tmp_path / "rows.jsonl", rows)
    return config_for(model, source, split="train[50%:]", evaluation={"source": str(held_out)})


PHASES = {
    "fingerprint of the train data": 25,
    "fingerprint of the evaluation data": 12,
    "train rows": 25,
    "train rows before data.split": 140,
    "evaluation rows": 25,
    "rows compared with each other": 20,
    "evaluation rows compared with training rows": 4,
    "rows that show what was found": 95,
}
"""How often each tells how far it is, at least."""


def test_no_phase_is_silent(long_config: RunConfig) -> None:
    told: list[tuple[str, int]] = []
    calls = 0

    def count(_frame: object, event: str, _argument: object) -> None:
        nonlocal calls
        calls += event == "call"

    inspector = Inspector(long_config, lambda stage: told.append((stage.name, calls)))
    inspector.encoder  # noqa: B018 - is made once, whatever the rows
    # Calls of functions are a clock that runs alike on every machine.
    sys.setprofile(count)
    try:
        inspector.inspect()
    finally:
        sys.setprofile(None)
    often = Counter(name for name, _ in told)
    assert set(often) == set(PHASES)
    assert {name for name, count in often.items() if count < PHASES[name]} == set()
    times = [0, *(time for _, time in told), calls]
    assert max(later - earlier for earlier, later in pairwise(times)) < calls / 10


@pytest.mark.parametrize("phase", PHASES)
def test_every_phase_can_be_cancelled(long_config: RunConfig, phase: str) -> None:
    told: list[str] = []
    with pytest.raises(Cancelled):
        inspect(long_config, lambda stage: told.append(stage.name), lambda: told[-1:] == [phase])
    assert told[-1] == phase


def test_values_survive_the_wire(config: RunConfig) -> None:
    inspector = Inspector(config)
    found, glance = inspector.inspect(), inspector.glance()
    assert from_json(Inspection, to_json(found)) == found
    assert from_json(Glance, to_json(glance)) == glance
    assert (glance.preview.row, inspector.glance(4).preview.row, inspector.glance("longest").preview.row) == (1, 4, 1)


def test_half_a_surrogate_pair_survives_the_wire(model: Path, tmp_path: Path) -> None:
    source = tmp_path / "rows.jsonl"
    source.write_text('{"prompt": "a", "completion": "b"}\n{"prompt": "\\ud800", "completion": "\\udfff"}\n')
    shown = Inspector(config_for(model, source)).preview(2)
    assert "not Unicode" in (shown.problem or "")
    assert to_json(shown).isascii()


def test_the_licence_of_the_card_stands_beside_the_models(config: RunConfig, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("---\nlicense: cc-by-nc-4.0\n---\n# Rows\n")
    found = inspect(config)
    assert found.licences.data == "cc-by-nc-4.0"
    assert "may not be used commercially" in next(each.message for each in found.findings if each.kind == "licence")


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "last", "", "\x1b[2J"])
def test_a_row_that_cannot_be_meant(text: str) -> None:
    with pytest.raises(UsageError, match="cannot be shown"):
        parse_which(text)


def test_the_engine_process_answers(config: RunConfig) -> None:
    glances: list[Glance] = []
    stages: list[str] = []
    found = run_inspection(config, "longest", lambda name, *_: stages.append(name), glances.append)
    assert found.samples[0].row == 7
    assert glances[0].format == "prompt-completion"
    assert "train rows" in stages


def test_threads_that_make_tokens_do_not_share_one_arena(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("MALLOC_")]:
        monkeypatch.delenv(name)
    assert not any(name.startswith("MALLOC_") for name in engine_environment(torch=False))


def test_faults_of_the_data_come_back_as_sentences(config: RunConfig) -> None:
    Path(config.data.source).write_text("{")
    with pytest.raises(Exception, match="Line 1 of") as caught:
        run_inspection(config, "first", lambda *_: None)
    assert getattr(caught.value, "exit_code", None) == 2


def test_nothing_heavy_is_loaded(config: RunConfig) -> None:
    script = (
        "import json, sys; from qlora_tui.config import RunConfig; from qlora_tui.engine.inspection import inspect;"
        "inspect(RunConfig.model_validate(json.loads(sys.argv[1])));"
        "heavy = ('torch', 'transformers', 'datasets', 'scipy', 'pandas', 'trl');"
        "print([name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, config.model_dump_json()],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ,
    )
    assert done.stdout.strip() == "[]"


def write_config(folder: Path, model: Path, rows: list[dict[str, Any]]) -> Path:
    write_rows(folder / "rows.jsonl", rows)
    path = folder / "run.yaml"
    path.write_text(
        f"name: x\nmodel: {{source: {json.dumps(str(model))}}}\ndata: {{source: rows.jsonl, max_length: 64}}\n"
    )
    return path


def test_the_command_tells_it_on_a_page(model: Path, tmp_path: Path) -> None:
    path = write_config(tmp_path, model, ROWS)
    done = console("inspect", "--config", str(path))
    assert (done.returncode, done.stderr) == (0, "")
    for part in (
        "8 read, 7 kept, 1 dropped",
        "── cut at 64 (data.max_length)",
        "⟦",
        "⟧",
        "b•••@•••.org",
        "end of turn  trained",
    ):
        assert part in done.stdout
    values = json.loads(console("inspect", "--config", str(path), "--json", "--row", "4").stdout)
    assert set(values) == CONTRACT
    assert values["samples"][0]["row"] == 4
    assert ["blue", True] in values["samples"][0]["tokens"]


def test_mistakes_are_sentences(model: Path, tmp_path: Path) -> None:
    path = write_config(tmp_path, model, ROWS)
    assert_error(console("inspect", "--config", str(path), "--row", "99"), 2, "There is no row 99")


@pytest.mark.parametrize("row", [1, 2])
def test_hostile_rows_do_not_act(model: Path, tmp_path: Path, row: int) -> None:
    hostile = " ".join(text for text in HOSTILE if "\ud800" not in text) + " [bold red]markup[/] :smile:"
    rows = [pair(hostile, hostile), {"prompt": hostile, "completion": "", "\x1b[31mcolumn\u202e": hostile}]
    config = config_for(model, write_rows(tmp_path / "rows.jsonl", rows), max_length=2048)
    inspector = Inspector(config)
    found = replace(inspector.inspect(), samples=(inspector.preview(row),))
    for whole in (False, True):
        console = Console(file=io.StringIO(), width=80, markup=False, emoji=False, highlight=False)
        console.print(inspection_view(found, config, whole_row=whole))
        shown = console.file.getvalue()  # type: ignore[attr-defined]
        assert not any(acts(character) for character in shown)
    assert "[boldred]markup[/]:smile:" in re.sub(r"\s", "", shown)
    assert to_json(found).isascii()


def test_redacted_rows_are_shown_as_they_are_trained(config: RunConfig) -> None:
    rows = [*ROWS[:2], pair("And zoe@example.org?", "bob@example.org knows.")]
    write_rows(Path(config.data.source), rows)
    inspector = Inspector(config.changed(data={"redact": True}))
    found = inspector.inspect()
    assert found.redacted == {"email": 4}
    assert kinds(found) == {"redacted": 0}
    shown = inspector.preview(3)
    assert "<EMAIL_2>?" in (shown.rendered or "")
    assert "<EMAIL_1> knows." in (shown.rendered or "")
    assert "zoe@example.org" in shown.raw
