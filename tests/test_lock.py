"""The lock of a run: what it records, how it survives damage, and how it names differences."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from qlora_tui.config import DataSection, RunConfig, TrainingSection
from qlora_tui.engine.lock import (
    HardwareLock,
    Lock,
    ModelLock,
    build_lock,
    current_hardware,
    library_versions,
    model_fingerprint,
    read_lock,
    write_lock,
)
from qlora_tui.models.sources import ModelFiles

LOCK = Lock(
    versions={"python": "3.11.7", "torch": "2.13.0", "liger-kernel": "0.8.5"},
    model=ModelLock(source="owner/name", revision="a" * 40, fingerprint="1" * 64),
    data={"train": "2" * 64, "evaluation": "3" * 64},
    template="4" * 64,
    tokenizer="5" * 64,
    hardware=HardwareLock(gpu="Card A", capability="9.0", driver="580.1", cpu="Processor", cores=8, memory=64 << 30),
    seed=42,
    platform="Linux-6.8",
)


def safetensors(path: Path, header: dict[str, object], weights: bytes) -> None:
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + weights)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    (tmp_path / "tokenizer.json").write_text("{}")
    safetensors(tmp_path / "model.safetensors", {"w": {"dtype": "BF16"}}, bytes(300_000))
    return tmp_path


def files(folder: Path) -> ModelFiles:
    return ModelFiles(
        source="bundled:smollm2-135m", kind="gguf", folder=folder, revision="b" * 64, gguf=None, converted=True,
        licence="Apache-2.0", remote_code=False,
    )  # fmt: skip


def test_a_lock_reads_back_equal(tmp_path: Path) -> None:
    write_lock(tmp_path / "lock.json", LOCK)
    assert read_lock(tmp_path / "lock.json") == LOCK


def test_a_built_lock_is_complete_and_repeats_itself(folder: Path, tmp_path: Path) -> None:
    config = RunConfig(name="x", data=DataSection(source="rows.jsonl"), training=TrainingSection(seed=7))
    lock = build_lock(config, files(folder), {"train": "2" * 64}, "4" * 64)
    assert lock.seed == 7
    assert lock.model == ModelLock(
        source="bundled:smollm2-135m", revision="b" * 64, fingerprint=model_fingerprint(folder)
    )
    assert (lock.data, lock.template) == ({"train": "2" * 64}, "4" * 64)
    assert len(lock.tokenizer) == 64
    assert lock.platform
    assert lock.drift(build_lock(config, files(folder), {"train": "2" * 64}, "4" * 64)) == []


def test_versions_and_hardware_of_this_machine_are_known() -> None:
    versions = library_versions()
    assert {"python", "qlora-tui", "torch", "transformers", "peft", "trl", "bitsandbytes"} <= set(versions)
    hardware = current_hardware()
    assert hardware.cpu
    assert hardware.cores
    assert hardware.memory
    assert hardware.memory > 1 << 28


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'"lock"', b'{"versions": 3}', b"\xff\xfe"])
def test_a_damaged_lock_is_no_lock(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "lock.json").write_bytes(content)
    assert read_lock(tmp_path / "lock.json") is None
    assert read_lock(tmp_path / "missing.json") is None


def test_unknown_and_missing_fields_are_tolerated(tmp_path: Path) -> None:
    (tmp_path / "lock.json").write_text('{"version": 9, "seed": 42, "novelty": {"a": 1}, "hardware": {"npu": "x"}}')
    lock = read_lock(tmp_path / "lock.json")
    assert lock is not None
    assert lock.seed == 42
    assert lock.drift(LOCK) == [], "what an older lock did not record cannot have changed"
    assert LOCK.drift(lock) == []


def test_each_difference_is_one_sentence_with_both_values() -> None:
    other = Lock(
        versions={"python": "3.12.1", "torch": "2.13.0", "trl": "1.16.0"},
        model=ModelLock(source="owner/other", revision="b" * 40, fingerprint="9" * 64),
        data={"train": "7" * 64},
        template="8" * 64,
        tokenizer="6" * 64,
        hardware=HardwareLock(cpu="Other", cores=4, memory=32 << 30),
        seed=43,
        platform="Linux-6.9",
    )
    assert LOCK.drift(other) == [
        "liger-kernel was 0.8.5 and is now not installed.",
        "python was 3.11.7 and is now 3.12.1.",
        "trl was not installed and is now 1.16.0.",
        "The model source was owner/name and is now owner/other.",
        f"The model revision was {'a' * 12} and is now {'b' * 12}.",
        f"The model fingerprint was {'1' * 12} and is now {'9' * 12}.",
        f"The fingerprint of the evaluation data was {'3' * 12} and is now none.",
        f"The fingerprint of the train data was {'2' * 12} and is now {'7' * 12}.",
        f"The fingerprint of the chat template was {'4' * 12} and is now {'8' * 12}.",
        f"The fingerprint of the tokenizer was {'5' * 12} and is now {'6' * 12}.",
        "The GPU was Card A and is now none.",
        "The CPU was Processor and is now Other.",
        "The number of CPU cores was 8 and is now 4.",
        "The memory was 64.0 GiB and is now 32.0 GiB.",
        "The seed was 42 and is now 43.",
        "The platform was Linux-6.8 and is now Linux-6.9.",
    ]


def test_a_little_less_memory_is_no_difference() -> None:
    smaller = LOCK.hardware.model_copy(update={"memory": (64 << 30) - (200 << 20)})
    assert LOCK.drift(LOCK.model_copy(update={"hardware": smaller})) == []


def test_seed_zero_is_a_value() -> None:
    assert LOCK.drift(LOCK.model_copy(update={"seed": 0})) == ["The seed was 42 and is now 0."]


def test_drift_is_printable_whatever_the_lock_says() -> None:
    hostile = LOCK.model_copy(update={"platform": "evil\x1b[31m\n" + "x" * 500})
    (sentence,) = LOCK.drift(hostile)
    assert sentence.isprintable()
    assert len(sentence) < 250


def test_the_fingerprint_sees_configuration_shape_and_weights(folder: Path) -> None:
    seen = {model_fingerprint(folder)}
    assert model_fingerprint(folder) in seen
    changes = {
        "config.json": b'{"model_type": "qwen3"}',
        "model.safetensors": (folder / "model.safetensors").read_bytes()[:-1],
    }
    for name, content in changes.items():
        (folder / name).write_bytes(content)
        seen.add(model_fingerprint(folder))
    safetensors(folder / "model.safetensors", {"w": {"dtype": "BF16"}}, bytes(299_999) + b"\1")
    seen.add(model_fingerprint(folder))
    safetensors(folder / "other.safetensors", {}, b"")
    seen.add(model_fingerprint(folder))
    assert len(seen) == 5


def test_a_damaged_weight_file_has_a_fingerprint_too(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"\xff" * 20)
    assert len(model_fingerprint(folder)) == 64
