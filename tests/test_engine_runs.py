"""Whole runs of the real engine: repeatable, resumable after any death, stoppable, and honest about failures."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import pytest
from real_model import (
    ROWS,
    config_for,
    converted_model,
    environment,
    events_of,
    losses_of,
    run_cli,
    summary_of,
)

from qlora_tui.config import RunConfig
from qlora_tui.config_file import dump_config, load_config
from qlora_tui.runs.directory import RunDirectory, create_run
from qlora_tui.runs.events import (
    Checkpoint,
    Eval,
    Failed,
    Phase,
    RunFinished,
    RunStarted,
    Sample,
    Step,
    Warned,
)
from qlora_tui.runs.feed import last_event

pytestmark = pytest.mark.full

METRICS: Final = {"metrics": ["accuracy", "exact_match"]}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    converted_model()
    return tmp_path_factory.mktemp("runs")


def save(config: RunConfig, home: Path) -> Path:
    path = home / f"{config.name}.yaml"
    path.write_text(dump_config(config), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def reference(home: Path) -> Path:
    """An undisturbed run."""
    config = config_for(home, "reference", rows=8, evaluation=METRICS)
    finished = run_cli("--config", str(save(config, home)), "--json")
    assert finished.returncode == 0, finished.stderr
    assert summary_of(finished)["status"] == "completed"
    return home / "reference"


_engines: list[subprocess.Popen[bytes]] = []


@pytest.fixture(autouse=True)
def no_engine_is_left() -> Iterator[None]:
    """A test that failed must not leave its engine training beside the next ones."""
    yield
    while _engines:
        engine = _engines.pop()
        engine.kill()
        engine.wait()


def start_engine(run: RunDirectory, *extra: str) -> subprocess.Popen[bytes]:
    with run.log.open("ab") as log:
        engine = subprocess.Popen(
            [sys.executable, "-m", "qlora_tui.engine", "train", str(run.path), *extra],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=environment(),
        )
    _engines.append(engine)
    return engine


def wait_for(condition: Callable[[], object], process: subprocess.Popen[bytes], seconds: float = 240) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, "the engine ended too early"
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.005)


def numbers_follow_each_other(run: Path) -> bool:
    numbers = [record.seq for record in events_of(run)]
    return numbers == list(range(1, len(numbers) + 1))


def test_a_run_tells_its_whole_story(reference: Path) -> None:
    run = RunDirectory(reference)
    phases = [record.event for record in events_of(reference, Phase)]
    names = [event.phase for event in phases if isinstance(event, Phase) and event.state == "finished"]
    assert names == ["prepare", "encode", "load", "baseline", "train", "evaluate", "save"]
    steps = [record.event for record in events_of(reference, Step)]
    assert [event.step for event in steps if isinstance(event, Step)] == list(range(1, len(steps) + 1))
    assert numbers_follow_each_other(reference)
    last = last_event(run.events)
    assert last is not None
    assert isinstance(last.event, RunFinished)
    assert set(last.event.comparison) == {"loss", "accuracy", "exact_match"}
    assert last.event.comparison["loss"].after < last.event.comparison["loss"].before
    assert run.status() == "completed"
    assert {"before", "during", "after"} == {
        event.stage for event in (record.event for record in events_of(reference, Eval)) if isinstance(event, Eval)
    }


def test_the_kept_config_has_no_auto_left_and_replays(reference: Path) -> None:
    text = (reference / "config.yaml").read_text(encoding="utf-8")
    assert load_config(reference / "config.yaml").training.micro_batch == 1
    assert ": auto" not in text.replace("format: auto", "")


def test_a_replay_repeats_every_loss_and_names_every_drift(reference: Path, home: Path) -> None:
    lock = reference / "lock.json"
    original = lock.read_text(encoding="utf-8")
    changed = json.loads(original)
    changed["versions"]["trl"] = "0.0.1"
    lock.write_text(json.dumps(changed), encoding="utf-8")
    try:
        finished = run_cli("--config", str(reference / "config.yaml"), "--json")
    finally:
        lock.write_text(original, encoding="utf-8")
    assert finished.returncode == 0, finished.stderr
    summary = summary_of(finished)
    replay = Path(summary["run"])
    assert replay != reference
    first, second = losses_of(reference), losses_of(replay)
    assert first.keys() == second.keys()
    for step, loss in first.items():
        assert second[step] == pytest.approx(loss, abs=1e-6)
    drift = [event.message for event in (r.event for r in events_of(replay, Warned)) if isinstance(event, Warned)]
    assert any("trl" in message and "0.0.1" in message for message in drift)
    assert any("0.0.1" in sentence for sentence in summary["drift"])


def killed_after(home: Path, name: str, moment: Callable[[RunDirectory], object], pause: float = 0.0) -> RunDirectory:
    """A run whose engine was killed with SIGKILL once ``moment`` came."""
    run = create_run(config_for(home, name, rows=8, evaluation=METRICS))
    process = start_engine(run)
    wait_for(lambda: moment(run), process)
    time.sleep(pause)
    process.kill()
    process.wait()
    assert run.status() == "interrupted"
    return run


def steps_seen(run: RunDirectory) -> int:
    return len(events_of(run.path, Step))


@pytest.mark.parametrize(
    ("name", "moment", "pause"),
    [
        ("mid-step", lambda run: steps_seen(run) >= 3, 0.4),
        ("mid-checkpoint", lambda run: (run.checkpoints / ".partial" / "checkpoint-4").exists(), 0.0),
        ("mid-evaluation", lambda run: steps_seen(run) >= 4, 0.2),
    ],
)
def test_a_killed_run_resumes_to_the_same_end(
    reference: Path, home: Path, name: str, moment: Callable[[RunDirectory], object], pause: float
) -> None:
    run = killed_after(home, name, moment, pause)
    written = run.events.read_bytes()
    finished = run_cli("resume", str(run.path), "--json")
    assert finished.returncode == 0, finished.stderr
    assert run.events.read_bytes().startswith(written[: written.rfind(b"\n") + 1])
    assert numbers_follow_each_other(run.path)
    starts = [event for event in (r.event for r in events_of(run.path, RunStarted)) if isinstance(event, RunStarted)]
    assert len(starts) == 2
    assert starts[1].resumed_from_step == 2
    expected, got = losses_of(reference), losses_of(run.path)
    assert expected.keys() == got.keys()
    for step, loss in expected.items():
        assert got[step] == pytest.approx(loss, abs=1e-4)
    ends = [last_event(RunDirectory(path).events) for path in (reference, run.path)]
    finals = [end.event for end in ends if end is not None and isinstance(end.event, RunFinished)]
    assert finals[1].comparison["loss"].after == pytest.approx(finals[0].comparison["loss"].after, abs=1e-4)
    assert finals[1].best_step == finals[0].best_step


def test_stop_saves_and_resume_goes_on(reference: Path, home: Path) -> None:
    run = create_run(config_for(home, "stopped", rows=8))
    process = start_engine(run)
    wait_for(lambda: steps_seen(run) >= 1, process)
    process.send_signal(signal.SIGINT)
    assert process.wait(120) == 0
    assert run.status() == "stopped"
    done = steps_seen(run)
    assert done < len(losses_of(reference))
    saved = [event for event in (r.event for r in events_of(run.path, Checkpoint)) if isinstance(event, Checkpoint)]
    assert any(event.what == "checkpoint" and event.step == done for event in saved)
    assert (run.adapter / "adapter_model.safetensors").is_file()
    finished = run_cli("resume", str(run.path), "--json")
    assert finished.returncode == 0, finished.stderr
    assert losses_of(run.path) == pytest.approx(losses_of(reference), abs=1e-4)
    again = run_cli("resume", str(run.path))
    assert again.returncode == 2
    assert "Traceback" not in again.stderr


def test_a_second_signal_ends_it_at_once(home: Path) -> None:
    run = create_run(config_for(home, "ended", evaluation={"prompts": ["Hello"]}))
    process = start_engine(run)
    wait_for(lambda: steps_seen(run) >= 1, process)
    process.send_signal(signal.SIGTERM)
    time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) in (130, 0)
    samples = [event for event in (r.event for r in events_of(run.path, Sample)) if isinstance(event, Sample)]
    assert [(event.step, event.prompt) for event in samples] == [(0, "Hello")]
    assert samples[0].text


def test_two_processes_cannot_train_one_run(home: Path) -> None:
    run = create_run(config_for(home, "twice"))
    first = start_engine(run)
    wait_for(lambda: run.owner() is not None, first)
    refused = run_cli("resume", str(run.path))
    assert refused.returncode == 2
    assert "Traceback" not in refused.stderr
    second = start_engine(run)
    assert second.wait(60) == 2
    first.kill()
    first.wait()


def folder_with_a_broken_token(target: Path, token_id: int) -> Path:
    """The model with an input embedding that is not a number for one token, and a head of its own that is sound."""
    import torch
    from safetensors.torch import load_file, save_file

    shutil.copytree(converted_model().folder, target)
    weights = load_file(target / "model.safetensors")
    embedding = weights["model.embed_tokens.weight"]
    weights["lm_head.weight"] = embedding.clone()
    embedding[token_id] = torch.nan
    save_file(weights, target / "model.safetensors", metadata={"format": "pt"})
    settings = json.loads((target / "config.json").read_text(encoding="utf-8"))
    settings["tie_word_embeddings"] = False
    (target / "config.json").write_text(json.dumps(settings), encoding="utf-8")
    return target


def test_a_loss_that_is_no_number_ends_the_run_and_keeps_the_adapter(home: Path) -> None:
    from safetensors.numpy import load_file
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(converted_model().folder / "tokenizer.json"))
    token_id = tokenizer.token_to_id("Ġzebra")
    assert token_id is not None
    folder = folder_with_a_broken_token(home / "broken-model", token_id)
    rows = home / "zebra.jsonl"
    prompts = [f"Is number {number} spam?" for number in range(5)] + ["Is a zebra spam?"]
    rows.write_text("".join(json.dumps({"prompt": text, "completion": "ham"}) + "\n" for text in prompts))
    config = config_for(
        home,
        "broken",
        model={"source": str(folder)},
        data={"source": str(rows), "split": "train", "packing": False},
        training={"seed": 1},
        evaluation={"every": 1, "rows": 2},
    )
    finished = run_cli("--config", str(save(config, home)), "--json")
    assert finished.returncode == 1, finished.stderr
    summary = summary_of(finished)
    assert summary["status"] == "failed"
    assert "not a number" in summary["error"]["message"]
    assert "learning_rate" in summary["error"]["hint"]
    errors = [event for event in (r.event for r in events_of(home / "broken", Failed)) if isinstance(event, Failed)]
    assert len(errors) == 1
    assert 1 <= summary["steps"] < 6
    weights = load_file(home / "broken" / "adapter" / "adapter_model.safetensors")
    assert all(bool((abs(value) < 1e6).all()) for value in weights.values())


def test_patience_ends_a_run_that_gets_no_better(home: Path) -> None:
    config = config_for(
        home,
        "patient",
        training={"learning_rate": 0.3, "epochs": 10, "schedule": "constant", "warmup": 0},
        evaluation={"every": 1, "rows": 4, "patience": 1},
    )
    finished = run_cli("--config", str(save(config, home)), "--json")
    assert finished.returncode == 0, finished.stderr
    summary = summary_of(finished)
    assert summary["status"] == "early_stopped"
    assert summary["steps"] < 60


def test_the_snippet_in_the_card_runs(reference: Path) -> None:
    from test_card import snippet_of

    code = snippet_of((reference / "adapter" / "README.md").read_text(encoding="utf-8"))
    finished = subprocess.run(
        [sys.executable, "-c", code.replace("max_new_tokens=200", "max_new_tokens=4")],
        cwd=reference / "adapter",
        capture_output=True,
        text=True,
        env=environment(),
        timeout=300,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.strip()


def test_chat_answers_with_both_sides(reference: Path) -> None:
    row = json.loads(ROWS.read_text(encoding="utf-8").splitlines()[0])
    finished = run_cli(
        "chat", str(reference), "--prompt", row["messages"][0]["content"], "--compare", "--json", "--max-tokens", "8"
    )
    assert finished.returncode == 0, finished.stderr
    replies = json.loads(finished.stdout)["replies"]
    assert set(replies) == {"adapter", "base"}
    assert replies["adapter"] != replies["base"]


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system needs root")
def test_a_full_disk_ends_in_words_and_loses_no_checkpoint(home: Path, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=100m", "tmpfs", str(small)], check=False)
    if mounted.returncode:
        pytest.skip("tmpfs cannot be mounted here")
    try:
        config = config_for(small, "full", evaluation={"every": 100}, checkpoints={"every": 1, "keep": 3})
        finished = run_cli("--config", str(save(config, tmp_path)), "--json")
        assert finished.returncode == 3, finished.stdout + finished.stderr
        assert "Traceback" not in finished.stderr
        summary = summary_of(finished)
        assert "space" in summary["error"]["message"] or "written" in summary["error"]["message"]
        from qlora_tui.engine.checkpoints import complete_checkpoints

        assert complete_checkpoints(small / "full" / "checkpoints")
        assert not (small / "full" / "checkpoints" / ".partial").exists()
    finally:
        subprocess.run(["umount", str(small)], check=False)
