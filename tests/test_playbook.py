"""What ``auto`` becomes: from the card's free memory on CUDA, from a token budget where the model is unknown."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fake_nvml import FakeCard, FakeNvml

from qlora_tui import hardware
from qlora_tui.advice import playbook
from qlora_tui.config import RunConfig
from qlora_tui.memory.device import Device, this_device
from qlora_tui.memory.fit import fit_of
from qlora_tui.memory.from_shape import dimensions_of
from qlora_tui.memory.recipe import GIB
from qlora_tui.memory.settings import Rows, Situation
from qlora_tui.models.catalog import find_model

SHAPE = find_model("Llama-3.1-8B-Instruct").shape()
ROWS = Rows(packed=True)


def config(**sections: dict[str, Any]) -> RunConfig:
    base = RunConfig.model_validate(
        {"name": "x", "data": {"source": "rows.jsonl", "max_length": 2048, "packing": True}}
    )
    return base.changed(**sections)


def resolved(recipe: RunConfig, device: Device, *, known: bool = True) -> tuple[RunConfig, dict[str, str]]:
    situation = Situation(device, dimensions_of(SHAPE) if known else None, varlen=True, layer_kernels=True, rows=ROWS)
    facts = playbook.Facts(
        compute_dtype="bfloat16" if device.kind == "cuda" else "float32",
        parameters=SHAPE.parameters,
        rows=1000,
        sequences=100,
        train_tokens=200_000,
        selection_tokens=2000,
        situation=situation,
    )
    settled, choices = playbook.resolve(recipe, facts)
    return settled, {choice.field: choice.reason for choice in choices}


def gpu_with(free: int) -> Device:
    library = FakeNvml(FakeCard(name="NVIDIA GeForce RTX 4090", total=24564 << 20, free=free, capability=(8, 9)))
    return this_device(hardware.snapshot(library), "0")


def test_the_settings_follow_the_free_memory_and_not_the_cards_size() -> None:
    plenty, _ = resolved(config(), gpu_with(23 * GIB))
    little, reasons = resolved(config(), gpu_with(9 * GIB))
    assert (plenty.training.micro_batch, plenty.training.gradient_checkpointing) == (1, "none")
    assert (little.training.micro_batch, little.training.gradient_checkpointing) == (2, "full")
    assert "9.0 GiB are free" in reasons["training.micro_batch"]


def test_nothing_stays_open_and_every_choice_has_its_reason() -> None:
    for device in (gpu_with(23 * GIB), Device("a CPU", kind="cpu"), Device("a card")):
        settled, reasons = resolved(config(), device)
        sections = (settled.training, settled.evaluation, settled.checkpoints, settled.quantization)
        assert not any("auto" in section.model_dump().values() for section in sections)
        assert len(reasons) == 9
        assert all(reasons.values())


def test_what_the_user_set_stays() -> None:
    asked = config(training={"micro_batch": 4, "gradient_checkpointing": "none", "optimizer": "adamw"})
    settled, reasons = resolved(asked, gpu_with(9 * GIB))
    assert settled.training.micro_batch == 4
    assert settled.training.gradient_checkpointing == "none"
    assert settled.training.optimizer == "adamw"
    assert not reasons.keys() & {"training.micro_batch", "training.optimizer"}


def test_a_model_of_unknown_size_gets_a_token_budget() -> None:
    settled, reasons = resolved(config(), gpu_with(23 * GIB), known=False)
    assert (settled.training.micro_batch, settled.training.gradient_checkpointing) == (4, "full")
    assert "8192 tokens" in reasons["training.micro_batch"]


def test_the_estimate_shows_what_the_engine_decides() -> None:
    for free in (8, 10, 13, 17, 23):
        device = replace(gpu_with(free * GIB), layer_kernels=True)
        settled, reasons = resolved(config(), device)
        shown = fit_of(SHAPE, config(), device, ROWS)
        assert {choice.field: choice.reason for choice in shown.choices}.items() <= reasons.items()
        for choice in shown.choices:
            section, _, field = choice.field.partition(".")
            assert getattr(getattr(settled, section), field) == choice.value


def test_packing_only_pays_where_rows_are_short() -> None:
    assert playbook.wants_packing([100] * 10, 1000)[0]
    assert not playbook.wants_packing([900] * 10, 1000)[0]
    assert not playbook.wants_packing([], 1000)[0]


class TestWhichCard:
    CARDS = (
        FakeCard(name="NVIDIA GeForce RTX 3060", uuid="GPU-aaaa", free=5 * GIB),
        FakeCard(name="NVIDIA GeForce RTX 4090", uuid="GPU-bbbb", total=24 * GIB, free=20 * GIB),
    )

    @pytest.mark.parametrize(
        ("visible", "name"),
        [
            (None, "NVIDIA GeForce RTX 3060"),
            ("1", "NVIDIA GeForce RTX 4090"),
            ("1,0", "NVIDIA GeForce RTX 4090"),
            ("GPU-bb", "NVIDIA GeForce RTX 4090"),
        ],
    )
    def test_the_first_or_the_visible_one(
        self, visible: str | None, name: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        machine = hardware.snapshot(FakeNvml(*self.CARDS))
        assert this_device(machine, visible).name == name

    @pytest.mark.parametrize("visible", ["", "-1", "7", "nonsense"])
    def test_none_is_left(self, visible: str) -> None:
        device = this_device(hardware.snapshot(FakeNvml(*self.CARDS)), visible)
        assert device.kind == "cpu"
        assert device.free is not None

    def test_a_partition_has_the_memory_of_its_own(self) -> None:
        part = FakeCard(name="MIG 1g.10gb", uuid="MIG-cccc", total=10 * GIB, free=9 * GIB)
        whole = FakeCard(name="NVIDIA A100-SXM4-80GB", uuid="GPU-dddd", mig=1, instances={0: part})
        for visible in ("0", "MIG-cccc"):
            device = this_device(hardware.snapshot(FakeNvml(whole)), visible)
            assert (device.name, device.free) == ("NVIDIA A100-SXM4-80GB", 9 * GIB)

    def test_a_card_that_does_not_tell_its_memory_has_no_verdict(self) -> None:
        card = FakeCard(broken={"nvmlDeviceGetMemoryInfo": 999})
        device = this_device(hardware.snapshot(FakeNvml(card)), "0")
        assert (device.kind, device.free) == ("cuda", None)
        assert fit_of(SHAPE, config(), device).fits == "unknown"


@pytest.mark.full
def test_the_engine_asks_the_machine_before_the_model_is_loaded(tmp_path: Path) -> None:
    import json

    from qlora_tui.engine.situation import situation_of

    values = find_model("SmolLM2-135M-Instruct").config
    (tmp_path / "config.json").write_text(json.dumps(values), encoding="utf-8")
    model_config = SimpleNamespace(model_type="llama", attention_dropout=0.0, layer_types=None, sliding_window=None)
    machine = hardware.snapshot(FakeNvml())
    found = situation_of(tmp_path, model_config, machine, [100, 300], packed=False)
    assert found.dimensions == dimensions_of(find_model("SmolLM2-135M-Instruct").shape())
    assert (found.rows.longest, found.rows.tokens, found.device.kind) == (300, 400, "cpu")
    (tmp_path / "config.json").write_text('{"model_type": "mamba"}', encoding="utf-8")
    assert situation_of(tmp_path, model_config, machine, [], packed=True).dimensions is None
