"""Memory while a run lives: the probe leaves no trace, and running out of memory costs a micro-batch, not the run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from peft import get_peft_model
from real_model import events_of, losses_of
from safetensors.torch import load_file
from torch.optim.optimizer import register_optimizer_step_pre_hook

from benchmarks.random_model import RandomTraining, bare_again, model_files, random_base, write_rows
from qlora_tui.config import RunConfig
from qlora_tui.config_file import load_config
from qlora_tui.engine.gauge import Gauge
from qlora_tui.engine.load import LoadedModel, lora_config
from qlora_tui.engine.replan import give_up, smaller_micro_batch
from qlora_tui.engine.trainer import load_adapter_weights
from qlora_tui.errors import OutOfMemory
from qlora_tui.memory.recipe import GIB
from qlora_tui.models.catalog import find_model
from qlora_tui.models.sources import ModelFiles
from qlora_tui.runs.events import Checkpoint, Eval, Memory, Replanned, Step, Warned

TRAINING = {"effective_batch": 4, "micro_batch": 4, "max_steps": 4, "learning_rate": 1e-3}
"""Four rows at once, none of them padded by packing, so that a micro-batch is a number of rows."""


LENGTHS = (40, 24, 33, 40, 17, 38, 29, 40, 21, 36, 40, 30, 27, 35, 22, 39)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> tuple[ModelFiles, LoadedModel]:
    """A quantised Llama in miniature with random weights; each run leaves it as it was."""
    files = model_files("llama 1B", tmp_path_factory.mktemp("model"), tiny=True)
    return files, random_base(files)


class Runs:
    """Starts runs on one model, in one folder."""

    def __init__(self, folder: Path, files: ModelFiles, base: LoadedModel) -> None:
        self.folder = folder
        self.files = files
        self.base = base

    def recipe(self, name: str, *, dropout: float = 0.0, **training: Any) -> RunConfig:
        held_out = write_rows(self.folder / "held-out.jsonl", (30, 40, 20, 25))
        return RunConfig.model_validate(
            {
                "name": name,
                "adapter": {"dropout": dropout},
                "data": {
                    "source": str(write_rows(self.folder / "rows.jsonl", LENGTHS)),
                    "format": "text",
                    "train_on": "all",
                    "packing": False,
                    "max_length": 40,
                    "evaluation": {"source": str(held_out)},
                },
                "training": TRAINING | training,
                "evaluation": {"every": 2, "patience": None},
                "checkpoints": {"every": 2, "keep": 4},
                "output": {"directory": str(self.folder)},
            }
        )

    def train(
        self, name: str, *, probes: bool = False, checkpoint: int | None = None, dropout: float = 0.0, **training: Any
    ) -> Path:
        """The engine's phases in this process, with or without the probe of a GPU; the run's folder.

        Args:
            checkpoint: Go on from the checkpoint of this step of the run of that name.
        """
        config = self.recipe(name, dropout=dropout, **training)
        if checkpoint is not None:
            config = load_config(self.folder / name / "config.yaml")
            kept = (self.folder / name / "checkpoints" / f"checkpoint-{checkpoint}").rename(self.folder / "kept")
            config = config.changed(output={"overwrite": True, "directory": str(self.folder)})
        run = RandomTraining(config, self.files, self.base)
        run.probes = probes
        saved = None
        if checkpoint is not None:
            saved = kept.rename(run.run.checkpoints / f"checkpoint-{checkpoint}")
        trainer = None
        try:
            run.load({})
            trainer, measure = run._trainer()
            run._measure(measure)
            run._train(trainer, saved)
            run._save(trainer, {})
        finally:
            bare_again(self.base, trainer)
        return run.run.path


@pytest.fixture
def runs(tmp_path: Path, model: tuple[ModelFiles, LoadedModel]) -> Runs:
    return Runs(tmp_path, *model)


@contextmanager
def memory_for(rows: int, *, evaluation: bool = False, after: int = 0) -> Iterator[list[int]]:
    """A device on which a batch of more than so many rows does not fit, after so many that did; lists the refused."""
    refused: list[int] = []
    seen = 0

    def refuse(module: torch.nn.Module, inputs: Any) -> None:
        nonlocal seen
        if not isinstance(module, torch.nn.Embedding) or torch.is_grad_enabled() is evaluation:
            return
        seen += 1
        if inputs[0].shape[0] > rows and seen > after:
            refused.append(inputs[0].shape[0])
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1.00 GiB.\nMore lines.")

    handle = torch.nn.modules.module.register_module_forward_pre_hook(refuse)
    try:
        yield refused
    finally:
        handle.remove()


def adapter(run: Path) -> dict[str, torch.Tensor]:
    weights: dict[str, torch.Tensor] = load_file(run / "adapter" / "adapter_model.safetensors")
    return weights


def replanned(run: Path) -> list[tuple[int, int, int]]:
    found = [record.event for record in events_of(run, Replanned)]
    return [(each.step, each.micro_batch, each.gradient_accumulation) for each in found if isinstance(each, Replanned)]


@pytest.mark.parametrize(
    ("micro_batch", "effective", "smaller"),
    [(8, 8, 4), (4, 12, 2), (6, 6, 3), (3, 9, 1), (5, 5, 1), (7, 14, 2), (1, 8, None)],
)
def test_the_effective_batch_is_kept(micro_batch: int, effective: int, smaller: int | None) -> None:
    assert smaller_micro_batch(micro_batch, effective) == smaller
    assert smaller is None or effective % smaller == 0


@pytest.mark.parametrize(
    ("free", "hint"),
    [
        (12 * GIB, "Set training.micro_batch and training.gradient_checkpointing to auto; it needs "),
        (2 * GIB, "The model's weights alone take "),
        (70 * GIB, "Lower data.max_length, or use a smaller model. After that"),
    ],
)
def test_a_run_that_gives_up_says_what_would_fit(free: int, hint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """70 GiB are enough by the estimate: nothing that it says would help a run that has failed all the same."""
    monkeypatch.setattr("qlora_tui.engine.replan.read_gauge", lambda: Gauge(None, None, free, free, free))
    config = RunConfig.model_validate(
        {
            "name": "long",
            "data": {"source": "rows.jsonl", "packing": False, "max_length": 8192},
            "training": {"micro_batch": 1, "gradient_checkpointing": "none", "attention": "sdpa"},
        }
    )
    model = SimpleNamespace(config=SimpleNamespace(to_dict=lambda: find_model("Llama-3.1-8B-Instruct").config))
    trainer: Any = SimpleNamespace(run_config=config, model=model, train_dataset={"input_ids": [range(8000)]})
    error = give_up(trainer, "CUDA out of memory")
    needs, _, way_out = error.hint.partition(". ")
    assert needs.startswith("One row of 8,000 tokens needs about ")
    assert way_out.startswith(hint)
    assert "CUDA out of memory" in error.why


@pytest.mark.full
@pytest.mark.parametrize("optimizer", ["adamw", "paged_adamw_8bit"])
def test_the_probe_leaves_no_trace(runs: Runs, optimizer: str) -> None:
    """Dropout draws random numbers, so an order that the probe disturbed would show."""
    choices: dict[str, Any] = {"dropout": 0.1, "optimizer": optimizer, "micro_batch": 2}
    without = runs.train("without", **choices)
    probed = runs.train("probed", **choices, probes=True)
    assert losses_of(probed) == losses_of(without)
    assert all(torch.equal(weight, adapter(without)[name]) for name, weight in adapter(probed).items())
    moments = [record.event.moment for record in events_of(probed, Memory) if isinstance(record.event, Memory)]
    assert (moments[0], moments[-1]) == ("probe", "end")


@pytest.mark.full
def test_what_the_probe_cannot_fit_is_replanned_before_the_first_step(runs: Runs) -> None:
    planned = runs.train("planned", micro_batch=1, dropout=0.1)
    with memory_for(1) as refused:
        probed = runs.train("probed", dropout=0.1, probes=True)
    assert refused == [4, 2]
    assert replanned(probed) == [(0, 2, 2), (0, 1, 4)]
    assert losses_of(probed) == losses_of(planned)
    kept = load_config(probed / "config.yaml").training
    assert (kept.micro_batch, kept.effective_batch) == (1, 4)
    assert any("micro-batch of 4 does not fit" in each.message for each in warnings_of(probed))


def warnings_of(run: Path) -> list[Warned]:
    return [record.event for record in events_of(run, Warned) if isinstance(record.event, Warned)]


@pytest.mark.full
@pytest.mark.parametrize("after", [0, 2, 3])
def test_a_run_goes_on_from_its_last_finished_step(runs: Runs, after: int) -> None:
    """After two steps there is a checkpoint of that very step; after three, only the state in memory."""
    planned = runs.train("planned", micro_batch=2)
    with memory_for(2, after=after) as refused:
        run = runs.train("run")
    assert refused == [4]
    assert replanned(run) == [(after, 2, 2)]
    steps = [record.event.step for record in events_of(run, Step) if isinstance(record.event, Step)]
    assert steps == [1, 2, 3, 4]
    for step, loss in losses_of(planned).items():
        assert losses_of(run)[step] == pytest.approx(loss, abs=2e-4)
    tokens = [record.event.tokens for record in events_of(run, Step) if isinstance(record.event, Step)]
    assert tokens == [record.event.tokens for record in events_of(planned, Step) if isinstance(record.event, Step)]


@pytest.mark.full
def test_an_update_that_was_broken_off_is_undone(runs: Runs) -> None:
    """The optimizer may have changed some weights of step 4: the run goes on from the checkpoint of step 2."""
    undisturbed = runs.train("undisturbed", micro_batch=2)
    updates = 0

    def refuse(optimizer: torch.optim.Optimizer, _args: Any, _keywords: Any) -> None:
        nonlocal updates
        updates += 1
        if updates == 4:
            with torch.no_grad():
                optimizer.param_groups[0]["params"][0].add_(1.0)
            raise torch.OutOfMemoryError("CUDA out of memory.")

    handle = register_optimizer_step_pre_hook(refuse)
    try:
        run = runs.train("run")
    finally:
        handle.remove()
    assert replanned(run) == [(2, 2, 2)]
    assert losses_of(run)[4] == pytest.approx(losses_of(undisturbed)[4], abs=2e-4)


@pytest.mark.full
def test_an_update_broken_off_before_the_first_checkpoint_starts_over(runs: Runs) -> None:
    undisturbed = runs.train("undisturbed", micro_batch=2, dropout=0.1)
    done = False

    def refuse(optimizer: torch.optim.Optimizer, _args: Any, _keywords: Any) -> None:
        nonlocal done
        if not done:
            done = True
            with torch.no_grad():
                optimizer.param_groups[0]["params"][0].add_(1.0)
            raise torch.OutOfMemoryError("CUDA out of memory.")

    handle = register_optimizer_step_pre_hook(refuse)
    try:
        run = runs.train("run", dropout=0.1)
    finally:
        handle.remove()
    assert replanned(run) == [(0, 2, 2)]
    assert losses_of(run) == losses_of(undisturbed)


@pytest.mark.full
def test_a_row_that_does_not_fit_ends_the_run_with_what_would(runs: Runs) -> None:
    with memory_for(0), pytest.raises(OutOfMemory) as caught:
        runs.train("hopeless", probes=True)
    assert caught.value.exit_code == 4
    assert "Tried to allocate 1.00 GiB" in caught.value.why
    assert "More lines" not in caught.value.why
    assert "One row of 40 tokens needs about" in caught.value.hint
    assert replanned(runs.folder / "hopeless") == [(0, 2, 2), (0, 1, 4)]


@pytest.mark.full
def test_a_replanned_run_can_be_resumed(runs: Runs) -> None:
    whole = runs.train("whole", micro_batch=2)
    with memory_for(2, after=1):
        run = runs.train("run")
    saved = [record.event for record in events_of(run, Checkpoint) if isinstance(record.event, Checkpoint)]
    assert [each.step for each in saved if each.what == "checkpoint"] == [1, 2, 4]
    resumed = runs.train("run", checkpoint=2)
    assert load_config(resumed / "config.yaml").training.micro_batch == 2
    assert sorted(losses_of(resumed)) == [3, 4]
    assert losses_of(resumed)[4] == pytest.approx(losses_of(whole)[4], abs=2e-4)


@pytest.mark.full
def test_an_evaluation_that_does_not_fit_takes_smaller_batches(runs: Runs) -> None:
    whole = runs.train("whole")
    with memory_for(1, evaluation=True) as refused:
        run = runs.train("run")
    assert refused
    assert replanned(run) == []
    for mine, theirs in zip(events_of(run, Eval), events_of(whole, Eval), strict=True):
        assert isinstance(mine.event, Eval)
        assert isinstance(theirs.event, Eval)
        assert mine.event.loss == pytest.approx(theirs.event.loss, abs=1e-4)


@pytest.mark.full
def test_a_checkpoint_is_loaded_in_the_dtype_of_training(runs: Runs) -> None:
    """peft's own way of loading casts a bf16 adapter to fp32, and the run goes on otherwise than it would have."""
    run = runs.train("run", max_steps=2)
    model = get_peft_model(runs.base.model, lora_config(runs.recipe("other").adapter))
    try:
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.to(torch.bfloat16)
        before = {name: parameter.data_ptr() for name, parameter in model.named_parameters() if parameter.requires_grad}
        load_adapter_weights(model, run / "checkpoints" / "checkpoint-2")
        after = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
        assert {parameter.dtype for parameter in after.values()} == {torch.bfloat16}
        assert {name: parameter.data_ptr() for name, parameter in after.items()} == before
        saved = load_file(run / "checkpoints" / "checkpoint-2" / "adapter_model.safetensors")
        for name, weight in saved.items():
            loaded = after[name.replace(".weight", ".default.weight")]
            assert torch.equal(loaded.float(), weight.to(torch.bfloat16).float())
    finally:
        model.unload()
        bare_again(runs.base, None)
