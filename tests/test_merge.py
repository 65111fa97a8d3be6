"""Merging: what is checked before, what is measured after, and what the command line makes of it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
import torch
from real_model import config_for, converted_model, run_cli
from safetensors.torch import load_file, save_file

from qlora_tui.config_file import dump_config
from qlora_tui.data.prepare import PreparedRow
from qlora_tui.engine import fidelity, merge_checks
from qlora_tui.engine.chat_session import find_target
from qlora_tui.engine.fidelity import Probe, compare, predictions, probes_of, within_memory
from qlora_tui.engine.load import attach_new_adapter, load_base
from qlora_tui.engine.merge import merge
from qlora_tui.engine.merge_checks import check_disk, check_memory, check_output, parameters_of
from qlora_tui.errors import EnvironmentFault, OutOfMemory, RunError, UsageError
from qlora_tui.runs.directory import RunDirectory
from qlora_tui.runs.merges import MERGE_FILE, Fidelity, MergeReport, describe_fidelity, merge_folder, read_merge
from qlora_tui.runs.session import SessionFailed
from qlora_tui.terminal import shipping

GOOD = Fidelity(
    rows=4,
    positions=40,
    held_out=True,
    kl=1e-5,
    kl_max=1e-3,
    agreement=1.0,
    loss_adapter=1.0,
    loss_merged=1.0,
    dtype="x",
)


def report_for(output: Path, **values: Any) -> MergeReport:
    facts = {"method": "standard", "base": "b", "dtype": "bfloat16", "size": 10**9, "seconds": 3.0, "fidelity": GOOD}
    return MergeReport.model_validate({"output": str(output), **facts, **values})


# --- before


def test_parameters_are_counted_by_the_headers(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(3, 4), "b": torch.zeros(5)}, tmp_path / "one.safetensors")
    save_file({"c": torch.zeros(2, 2, dtype=torch.bfloat16)}, tmp_path / "two.safetensors")
    assert parameters_of(tmp_path) == 21


def test_too_little_disk_or_memory_is_refused_with_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: SimpleNamespace(free=1 << 30))
    with pytest.raises(EnvironmentFault, match=r"needs 15\.0 GiB; .* has 1\.0 GiB free"):
        check_disk(tmp_path / "not" / "there", 8_000_000_000)
    memory = SimpleNamespace(available=2 << 30)
    monkeypatch.setattr(merge_checks, "read_memory", lambda: memory)
    with pytest.raises(OutOfMemory, match=r"about 18\.1 GiB; 2\.0 GiB are available"):
        check_memory(8_000_000_000)
    check_memory(100_000_000)


def test_only_an_own_merge_is_replaced_and_only_on_request(tmp_path: Path) -> None:
    check_output(tmp_path / "new", overwrite=False)
    (tmp_path / "empty").mkdir()
    check_output(tmp_path / "empty", overwrite=False)
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.tex").write_text("precious")
    for overwrite in (False, True):
        with pytest.raises(UsageError, match="something else"):
            check_output(other, overwrite=overwrite)
    (other / MERGE_FILE).write_text("{}")
    with pytest.raises(UsageError, match="already"):
        check_output(other, overwrite=False)
    check_output(other, overwrite=True)


# --- the measurement


class Table(torch.nn.Module):
    """A model whose next-token logits depend on the present token alone."""

    def __init__(self, logits: torch.Tensor) -> None:
        super().__init__()
        self.table = logits
        self.device = torch.device("cpu")

    def forward(self, input_ids: torch.Tensor, **_: Any) -> Any:
        return SimpleNamespace(logits=self.table[input_ids])


def rows() -> list[Probe]:
    return [Probe([1, 2, 3], [0, 1]), Probe([3, 1, 0, 2], [1, 2])]


def test_equal_models_do_not_differ() -> None:
    torch.manual_seed(0)
    table = torch.randn(4, 4)
    ours, theirs = predictions(Table(table), rows()), predictions(Table(table.clone()), rows())
    found = compare(rows(), ours, theirs, held_out=True, dtype="float32")
    assert (found.rows, found.positions, found.kl, found.agreement) == (2, 4, 0.0, 1.0)
    assert found.verdict == "faithful"
    expected = -torch.log_softmax(table, -1)[[1, 2, 1, 0], [2, 3, 0, 2]].mean()
    assert found.loss_adapter == pytest.approx(float(expected), rel=1e-5)


def test_a_model_that_answers_otherwise_is_called_so() -> None:
    ours = predictions(Table(5 * torch.eye(4)), rows())
    theirs = predictions(Table(5 * torch.eye(4).roll(1, 1)), rows())
    found = compare(rows(), ours, theirs, held_out=False, dtype="float32")
    assert found.agreement == 0
    assert found.kl > 1
    assert found.verdict == "different"
    assert "differently" in describe_fidelity(found)[0]
    assert "general prompts" in describe_fidelity(found)[1]


def test_the_kl_is_that_of_the_adapter_from_the_merged() -> None:
    ours = [torch.log_softmax(torch.tensor([[2.0, 0.0, 0.0]]), -1)]
    theirs = [torch.log_softmax(torch.tensor([[1.0, 0.5, 0.0]]), -1)]
    found = compare([Probe([0, 1], [0])], ours, theirs, held_out=True, dtype="float32")
    expected = torch.nn.functional.kl_div(theirs[0], ours[0], log_target=True, reduction="sum")
    assert found.kl == pytest.approx(float(expected), rel=1e-5)


def test_rows_are_cut_to_what_can_be_kept() -> None:
    long = PreparedRow(1, list(range(3000)), [False] * 100 + [True] * 2900, ())
    none = PreparedRow(2, [1, 2], [False, False], ())
    (probe,) = probes_of([long, none])
    assert len(probe.input_ids) == fidelity.MAX_TOKENS
    assert probe.positions == list(range(99, 99 + fidelity.POSITIONS_PER_ROW))
    kept = within_memory([probe] * 100, fidelity.PREDICTION_BYTES // (4 * 40))
    assert sum(len(each.positions) for each in kept) == 40


# --- the command line


class FakeSession:
    """Answers with the events that a test put there."""

    events: ClassVar[list[dict[str, Any]]] = []
    asked: ClassVar[list[dict[str, Any]]] = []
    log = Path("session.log")

    async def request(self, do: str, **values: Any) -> AsyncIterator[dict[str, Any]]:
        self.asked.append({"do": do, **values})
        for event in self.events:
            if event["event"] == "error":
                raise SessionFailed(event["message"], "", "Do otherwise.", 4)
            yield event

    async def close(self) -> None: ...


@pytest.fixture
def session(monkeypatch: pytest.MonkeyPatch) -> type[FakeSession]:
    monkeypatch.setattr(shipping, "Session", FakeSession)
    FakeSession.events, FakeSession.asked = [], []
    return FakeSession


@pytest.fixture
def run(isolated_home: Path) -> RunDirectory:
    """A finished run, as far as its files go."""
    run = RunDirectory(isolated_home / "runs" / "spam")
    (run.path / "control").mkdir(parents=True)
    config = config_for(isolated_home / "runs", "spam", model={"source": "owner/base"})
    run.config.write_text(dump_config(config))
    run.adapter.mkdir()
    for name in ("adapter_config.json", "adapter_model.safetensors", "README.md", "chat_template.jinja"):
        (run.adapter / name).write_text("{}")
    return run


def test_merge_tells_the_check_and_prints_the_folder(
    run: RunDirectory, session: type[FakeSession], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = merge_folder(run, "exact")
    told = report_for(folder, method="exact").model_dump(mode="json")
    session.events = [{"event": "progress", "message": "adding \x1b[31mit"}, {"event": "done", "report": told}]
    shipping.merge("spam", None, exact=True, base=None, overwrite=False, as_json=False)
    output = capsys.readouterr()
    assert output.out == f"{folder}\n"
    assert "same likeliest token at 100.00%" in output.err
    assert "\x1b" not in output.err
    (asked,) = session.asked
    assert (asked["do"], asked["target"], asked["output"]) == ("merge", str(run.path), str(folder))


def test_a_merge_that_strays_points_to_the_exact_one(
    run: RunDirectory, session: type[FakeSession], capsys: pytest.CaptureFixture[str]
) -> None:
    strayed = report_for(run.path, fidelity=GOOD.model_copy(update={"kl": 3.0, "agreement": 0.5}))
    session.events = [{"event": "done", "report": strayed.model_dump(mode="json")}]
    shipping.merge("spam", None, exact=False, base=None, overwrite=False, as_json=True)
    assert json.loads(capsys.readouterr().out)["fidelity"]["kl"] == 3.0
    shipping.merge("spam", None, exact=False, base=None, overwrite=False, as_json=False)
    assert "--exact" in capsys.readouterr().err


def test_an_adapter_from_elsewhere_needs_an_output(run: RunDirectory, tmp_path: Path, session: Any) -> None:
    folder = Path(shutil.copytree(run.adapter, tmp_path / "lonely"))
    with pytest.raises(UsageError, match="--output"):
        shipping.merge(str(folder), None, exact=False, base=None, overwrite=False, as_json=False)


def test_what_fails_in_the_engine_keeps_its_exit_code(run: RunDirectory, session: type[FakeSession]) -> None:
    session.events = [{"event": "error", "message": "There is too little memory."}]
    with pytest.raises(SessionFailed, match="too little memory") as caught:
        shipping.merge("spam", None, exact=False, base=None, overwrite=False, as_json=False)
    assert caught.value.exit_code == 4
    assert "session.log" in caught.value.hint


def test_export_shows_copies_and_pushes(
    run: RunDirectory, session: type[FakeSession], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shipping.export("spam", shipping.ExportRequest(server="vllm"), as_json=False)
    assert "--lora-modules spam=" in capsys.readouterr().out
    shipping.export("spam", shipping.ExportRequest(output=tmp_path / "copy"), as_json=False)
    assert capsys.readouterr().out == f"{tmp_path / 'copy'}\n"
    assert (tmp_path / "copy" / "adapter_model.safetensors").is_file()
    with pytest.raises(UsageError, match="not empty"):
        shipping.export("spam", shipping.ExportRequest(output=tmp_path / "copy"), as_json=False)
    session.events = [{"event": "done", "address": "https://hub/me/spam"}]
    shipping.export("spam", shipping.ExportRequest(push="me/spam"), as_json=True)
    assert json.loads(capsys.readouterr().out)["address"] == "https://hub/me/spam"
    assert session.asked[-1] == {"do": "push", "folder": str(run.adapter), "repository": "me/spam", "private": True}


def test_export_of_a_merge_takes_the_exact_one(
    run: RunDirectory, session: type[FakeSession], capsys: pytest.CaptureFixture[str]
) -> None:
    for request in (shipping.ExportRequest(merged=True), shipping.ExportRequest(server="ollama")):
        with pytest.raises(RunError, match="qlora-tui merge spam"):
            shipping.export("spam", request, as_json=False)
    for method in ("standard", "exact"):
        folder = merge_folder(run, method)
        folder.mkdir()
        (folder / "config.json").write_text("{}")
        (folder / "Modelfile").write_text("FROM .")
        (folder / MERGE_FILE).write_text(report_for(folder).model_dump_json())
    shipping.export("spam", shipping.ExportRequest(server="Ollama"), as_json=False)
    assert "merged-exact" in capsys.readouterr().out
    assert read_merge(merge_folder(run, "exact")) == report_for(merge_folder(run, "exact"))
    assert read_merge(run.adapter) is None
    with pytest.raises(UsageError, match="Known: transformers"):
        shipping.export("spam", shipping.ExportRequest(server="x"), as_json=False)


# --- the real model


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the bundled model whose adapter changes answers: made, not trained, which would take minutes."""
    home = tmp_path_factory.mktemp("runs")
    torch.manual_seed(0)
    config = config_for(home, "made", held_out=8)
    files = converted_model()
    config = config.changed(model={"source": str(files.folder)})
    run = RunDirectory(home / "made")
    (run.path / "control").mkdir(parents=True)
    run.config.write_text(dump_config(config))
    run.events.write_text("")
    loaded = load_base(files, config, training=True)
    model = attach_new_adapter(loaded, config.adapter)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.01)
    model.save_pretrained(run.adapter)
    loaded.tokenizer.save_pretrained(run.adapter)
    return run.path


@pytest.mark.full
def test_both_merges_answer_as_the_adapter_and_the_exact_one_closer(trained: Path, tmp_path: Path) -> None:
    target = find_target(trained)
    told: list[str] = []
    standard = merge(target, tmp_path / "standard", progress=told.append)
    exact = merge(target, tmp_path / "exact", exact=True)
    assert standard.fidelity is not None
    assert exact.fidelity is not None
    assert exact.fidelity.held_out
    assert exact.fidelity.rows == 8
    assert exact.fidelity.verdict == "faithful"
    assert exact.fidelity.kl < 1e-3 < standard.fidelity.kl
    assert exact.fidelity.kl < standard.fidelity.kl / 10
    assert any("measuring" in message for message in told)
    for report in (standard, exact):
        folder = Path(report.output)
        weights = load_file(folder / "model.safetensors")
        assert all(weight.dtype == torch.bfloat16 for weight in weights.values())
        assert not any("lora" in name for name in weights)
        assert read_merge(folder) == report
        card = (folder / "README.md").read_text()
        assert "base_model_relation: finetune" in card
        assert f"{report.fidelity.agreement:.2%}".replace("%", " %") in card if report.fidelity else False
        assert "<|im_start|>user" in (folder / "Modelfile").read_text()
        assert (folder / "chat_template.jinja").read_bytes() == (trained / "adapter/chat_template.jinja").read_bytes()
        assert "quantization_config" not in json.loads((folder / "config.json").read_text())
        assert not list(folder.parent.glob(".*partial"))


@pytest.mark.full
def test_a_stopped_merge_leaves_nothing(trained: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="stopped"):
        merge(find_target(trained), tmp_path / "merged", stopped=lambda: True)
    assert not list(tmp_path.iterdir())


@pytest.mark.full
def test_the_command_line_merges_and_the_snippet_answers(trained: Path, tmp_path: Path) -> None:
    done = run_cli("merge", str(trained), "--output", str(tmp_path / "merged"), "--exact", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["fidelity"]["kl"] < 0.01
    again = run_cli("merge", str(trained), "--output", str(tmp_path / "merged"))
    assert again.returncode == 2
    assert "--overwrite" in again.stderr
    shown = run_cli("export", str(trained), "--for", "transformers")
    assert "PeftModel.from_pretrained(base, ADAPTER)" in shown.stdout
    card = (tmp_path / "merged" / "README.md").read_text()
    snippet = card.split("```python\n")[1].split("```")[0].replace("max_new_tokens=200", "max_new_tokens=5")
    answer = subprocess.run(
        [sys.executable, "-c", snippet],
        cwd=tmp_path / "merged",
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.strip()
