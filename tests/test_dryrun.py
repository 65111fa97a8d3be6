"""The dry run: it counts what is alive, agrees with measured runs, knows any architecture, and leaves no trace."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.measured_runs import SHAPES, h100_runs
from qlora_tui.errors import ConfigError, ExitCode, ModelError
from qlora_tui.memory.dryrun_request import DryRunAnswer, DryRunRequest
from qlora_tui.memory.estimate import estimate
from qlora_tui.memory.recipe import MIB, Checkpointing, DeviceFacts, Recipe

pytestmark = pytest.mark.full

SMALL: dict[str, Any] = {
    "model_type": "llama",
    "hidden_size": 256,
    "intermediate_size": 768,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 1000,
}
LLAMA_1B: dict[str, Any] = {
    "model_type": "llama",
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_hidden_layers": 16,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 64,
    "vocab_size": 128_256,
    "tie_word_embeddings": True,
    "max_position_embeddings": 32_768,
}
PLAIN = Recipe(micro_batch=2, sequence=512)


def folder(path: Path, config: dict[str, Any]) -> Path:
    (path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return path


def allocated(path: Path, config: dict[str, Any], recipe: Recipe) -> int:
    from qlora_tui.engine.dryrun import dry_run

    return dry_run(folder(path, config), recipe, phases=()).allocated


class TestLiveness:
    """Counting storages."""

    def test_a_storage_counts_once_until_its_last_tensor_is_gone(self) -> None:
        import torch
        from torch._subclasses.fake_tensor import FakeTensorMode

        from qlora_tui.engine.liveness import Liveness

        live = Liveness()
        with FakeTensorMode(), live:
            with live.allocating("first"):
                rows = torch.empty(1000)
            view = rows.view(10, 100)[2:]
            assert live.live == 4096, "rounded up to 512 bytes, and the view is no second storage"
            other = rows + rows
            assert live.live == live.peak == 8192
            del rows, other
            assert (live.live, live.peak) == (4096, 8192)
            assert live.peak_parts == {"first": 4096, "other": 4096}
            del view
            assert live.live == 0

    def test_what_made_the_peak_can_be_looked_at(self) -> None:
        import torch
        from torch._subclasses.fake_tensor import FakeTensorMode

        from qlora_tui.engine.liveness import Liveness

        live = Liveness(watch=2)
        with FakeTensorMode(), live:
            kept = [torch.empty(1000), torch.empty(2000)]
            kept.clear()
        assert [(block.size, block.made_by) for block in live.watched] == [
            (4096, "aten.empty.memory_format (1000,) torch.float32"),
            (8192, "aten.empty.memory_format (2000,) torch.float32"),
        ]


class TestAgainstMeasuredRuns:
    """The same runs on an H100."""

    @pytest.mark.parametrize("case", ["m3", "m6"])
    def test_llama_1b(self, case: str, tmp_path: Path) -> None:
        from qlora_tui.engine.dryrun import dry_run

        run = next(run for run in h100_runs() if run.shape == "llama1b" and run.case == case)
        found = dry_run(folder(tmp_path, LLAMA_1B), run.recipe, run.device, phases=())
        assert found.allocated == pytest.approx(run.allocated, rel=0.0005)


class TestEagerAttention:
    """The scores of eager attention, of which CUDA's softmax makes one more than a CPU's."""

    @pytest.mark.parametrize("checkpointing", ["full", "none"])
    def test_the_closed_form_agrees(self, checkpointing: Checkpointing, tmp_path: Path) -> None:
        from qlora_tui.engine.dryrun import dry_run

        recipe = Recipe(2, 1024, attention="eager", optimizer="adamw_8bit", checkpointing=checkpointing)
        found = dry_run(folder(tmp_path, LLAMA_1B), recipe, phases=()).allocated
        assert estimate(SHAPES["llama1b"], recipe).allocated == pytest.approx(found, rel=0.003)


class TestPhases:
    """What is told besides the training step's peak."""

    def test_components_add_up_and_phases_are_in_order(self, tmp_path: Path) -> None:
        from qlora_tui.engine.dryrun import dry_run

        found = dry_run(folder(tmp_path, SMALL), PLAIN, DeviceFacts(workspace=MIB))
        assert sum(found.components.values()) == found.allocated == found.peaks["training"]
        assert found.components["workspace"] == MIB
        assert set(found.peaks) == {"loading", "training", "evaluation", "generation"}
        assert found.peaks["loading"] < found.peaks["generation"] < found.peaks["evaluation"] < found.allocated

    @pytest.mark.parametrize(
        ("more", "less"),
        [
            ({"checkpointing": "none"}, {"checkpointing": "every-2"}),
            ({"checkpointing": "every-2"}, {"checkpointing": "full"}),
            ({"checkpointing": "none"}, {"checkpointing": "none", "layer_kernels": "liger"}),
            ({"attention": "eager"}, {}),
            ({"dropout": 0.1, "checkpointing": "none"}, {"checkpointing": "none"}),
            ({"packed": True}, {"packed": True, "attention": "varlen"}),
            ({"accumulation": 2}, {}),
            ({"optimizer": "adamw"}, {"optimizer": "adamw_8bit"}),
            ({"double_quant": False}, {}),
        ],
    )
    def test_what_takes_more(self, more: dict[str, Any], less: dict[str, Any], tmp_path: Path) -> None:
        config = {**SMALL, "hidden_size": 1024, "intermediate_size": 4096}
        assert allocated(tmp_path, config, replace(PLAIN, **more)) > allocated(tmp_path, config, replace(PLAIN, **less))


class TestAnyArchitecture:
    """Whatever transformers can build."""

    @pytest.mark.parametrize("model_type", ["opt", "bloom", "gpt2", "glm4", "nemotron"])
    def test_families_that_the_estimate_does_not_know(self, model_type: str, tmp_path: Path) -> None:
        config = {**SMALL, "model_type": model_type, "pad_token_id": 0}
        if model_type == "opt":
            config |= {"word_embed_proj_dim": 256, "ffn_dim": 768}
        assert allocated(tmp_path, config, PLAIN) > 0

    def test_a_family_without_fused_attention_says_so(self, tmp_path: Path) -> None:
        from qlora_tui.engine.dryrun import dry_run

        found = dry_run(folder(tmp_path, {**SMALL, "model_type": "gemma2", "head_dim": 64}), PLAIN, phases=())
        assert any("eager" in note for note in found.notes)

    def test_what_cannot_be_built_is_told(self, tmp_path: Path) -> None:
        with pytest.raises(ModelError, match="cannot be run dry"):
            allocated(tmp_path, {"model_type": "no-such-thing"}, PLAIN)

    def test_a_loss_of_older_libraries_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="loss"):
            allocated(tmp_path, SMALL, replace(PLAIN, loss="full_shifted"))


class TestNoTrace:
    """What a dry run puts in place of CUDA is gone afterwards."""

    def test_libraries_are_as_they_were(self, tmp_path: Path) -> None:
        import torch
        import transformers.models.llama.modeling_llama as modeling
        import trl.kernels.chunked_logprob as kernels

        def state() -> tuple[Any, ...]:
            with torch.autocast("cpu", torch.bfloat16):
                softmax = torch.softmax(torch.zeros(2, dtype=torch.bfloat16), 0).dtype
            names = {name for name in sys.modules if name.partition(".")[0] in ("triton", "liger_kernel")}
            attention = torch.nn.functional.scaled_dot_product_attention
            return softmax, names, attention, dict(vars(modeling)), dict(vars(kernels))

        before = state()
        allocated(tmp_path, SMALL, replace(PLAIN, layer_kernels="liger", dropout=0.1))
        assert state() == before


class TestProcess:
    """``python -m qlora_tui.engine dryrun``."""

    @staticmethod
    def run(path: Path, text: str) -> tuple[int, Any]:
        request = path / "request.json"
        request.write_text(text, encoding="utf-8")
        command = [sys.executable, "-m", "qlora_tui.engine", "dryrun", str(request)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        return done.returncode, json.loads(done.stdout)

    def test_a_request_is_answered_in_one_line(self, tmp_path: Path) -> None:
        request = DryRunRequest(folder(tmp_path, SMALL), PLAIN, MIB)
        status, report = self.run(tmp_path, request.to_json())
        found = DryRunAnswer.from_report(report)
        assert status == ExitCode.OK
        assert found.allocated == sum(found.components.values())

    def test_a_fault_is_told_in_three_sentences(self, tmp_path: Path) -> None:
        status, report = self.run(tmp_path, DryRunRequest(tmp_path, PLAIN).to_json())
        assert status == ExitCode.USAGE
        assert set(report["error"]) == {"kind", "what", "why", "hint"}
