"""What would a run allocate? The step of the libraries that train, run without a GPU and without memory.

transformers builds the model from its ``config.json``, peft puts the adapter on, TRL computes the loss and torch
differentiates it, on tensors that have a shape and no data. What is alive is counted as CUDA's allocator would count
it; ``as_cuda`` says where CUDA allocates otherwise. On the rows measured on an H100 (the pinned stack, 1B to 8B, with
and without checkpoints and layer kernels) the peak agrees with ``torch.cuda.max_memory_allocated`` within 0.03 %.

``python -m qlora_tui.engine dryrun REQUEST.json`` speaks :mod:`qlora_tui.memory.dryrun_request`.
"""

from __future__ import annotations

import json
import sys
import time
import traceback
from collections.abc import Callable, Collection
from contextlib import ExitStack, nullcontext, redirect_stdout
from pathlib import Path
from typing import Any, Final

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from trl.trainer.utils import add_fused_lm_head

from qlora_tui.engine import dryrun_model as parts
from qlora_tui.engine.as_cuda import CUDA_OPERATIONS, Told, as_cuda
from qlora_tui.engine.fused_adapter import fuse_adapters
from qlora_tui.engine.liger_without_triton import layers_of
from qlora_tui.engine.liveness import Liveness
from qlora_tui.errors import ConfigError, EnvironmentFault, ExitCode, InternalFault, ModelError, QloraError
from qlora_tui.memory.dryrun_request import DryRunAnswer, DryRunRequest
from qlora_tui.memory.recipe import ALL_FP32, DeviceFacts, Recipe
from qlora_tui.text import one_line

PHASES: Final = ("loading", "training", "evaluation", "generation")
_HINT: Final = "Leave out the dry run: the estimate alone needs no library to know the model."


def dry_run(
    model: Path,
    recipe: Recipe,
    device: DeviceFacts = DeviceFacts(),  # noqa: B008
    *,
    phases: Collection[str] = PHASES,
    live: Liveness | None = None,
) -> DryRunAnswer:
    """Run one update of a recipe, the second, when the optimizer has its states; and what else a run does.

    Args:
        model: A folder with ``config.json``.
        phases: Which peaks are wanted besides the training step's.
        live: Counts; one of the caller's lets it look at what is alive.

    Raises:
        ConfigError: if the libraries of today do not compute the recipe's loss.
        EnvironmentFault: if a library is missing.
        ModelError: if the libraries cannot build or run the model.
    """
    if recipe.loss == "full_shifted":
        raise ConfigError("The loss cannot be run dry.", "Only transformers 4 shifts a copy of the logits.", _HINT)
    started = time.perf_counter()
    live = live or Liveness(CUDA_OPERATIONS)
    told = Told(packed=recipe.packed and recipe.attention in ("sdpa", "eager"), padded=recipe.padded)
    try:
        built = parts.build(model, recipe)
        with ExitStack() as stack:
            if recipe.layer_kernels == "liger":
                stack.enter_context(layers_of(built.base))
            if recipe.fused_adapters:
                fuse_adapters(built.adapted)
            stack.enter_context(as_cuda(told))
            stack.enter_context(FakeTensorMode(allow_non_fake_inputs=True))
            stack.enter_context(live)
            return _run(built, recipe, device, live, told, phases, started)
    except QloraError:
        raise
    except ModuleNotFoundError as error:
        raise EnvironmentFault(
            "The model cannot be run dry.",
            f"The library {error.name or 'it needs'} is not installed.",
            "Install it (`pip install --no-deps liger-kernel` for layer kernels), or estimate without --exact.",
        ) from error
    except Exception as error:  # a model's own code may fail in any way on tensors without data
        raise ModelError(
            "The model cannot be run dry.",
            f"{type(error).__name__}: {one_line(str(error), 300)}",
            _HINT,
        ) from error


def _run(
    built: parts.Built,
    recipe: Recipe,
    device: DeviceFacts,
    live: Liveness,
    told: Told,
    phases: Collection[str],
    started: float,
) -> DryRunAnswer:
    parts.load(built.base, recipe, live)
    peaks = {"loading": live.peak}
    parts.load_adapter(built.adapted, recipe, live)
    states, managed = parts.optimizer_states(built.adapted, recipe, live)
    with live.allocating("workspace"):
        workspace = torch.empty(device.workspace, dtype=torch.uint8)
    if recipe.checkpointing != "none":
        built.adapted.enable_input_require_grads()
        built.base.activation_checkpointing_enable(every_n_layers=2 if recipe.checkpointing == "every-2" else 1)
    add_fused_lm_head(built.base, outputs=("log_probs", "entropy", "is_top1"))
    live.begin_phase()
    built.adapted.train()
    for _ in range(min(recipe.accumulation, 2)):
        _micro_step(built.adapted, recipe, live)
    allocated, components = live.peak, {name: size for name, size in live.peak_parts.items() if size}
    notes = list(built.notes)
    if managed:
        notes.append(f"The driver pages {managed:,} bytes of optimizer states besides, which torch does not count.")
    later: dict[str, Callable[[], None]] = {
        "evaluation": lambda: _evaluate(built, recipe, live, told),
        "generation": lambda: _generate(built, recipe, live, told),
    }
    peaks = {name: size for name, size in peaks.items() if name in phases} | {"training": allocated}
    for name, run in later.items():
        if name in phases:
            live.begin_phase()
            run()
            peaks[name] = live.peak
    del states, workspace
    return DryRunAnswer(allocated, time.perf_counter() - started, peaks, components, tuple(notes))


def _micro_step(model: Any, recipe: Recipe, live: Liveness) -> None:
    """Forward and backward pass of a micro-batch as TRL's collator makes it and its ``compute_loss`` takes it."""
    rows, length = (1, recipe.tokens) if recipe.packed else (recipe.micro_batch, recipe.sequence)
    batch = _batch(rows, length, live, packed=recipe.packed)
    fused = {"fused_lm_head": True} if recipe.loss == "fused" else {}
    with live.allocating("forward"), _autocast(recipe):
        outputs = model(**batch, **fused, use_cache=False)
        loss = outputs.loss
    if recipe.loss != "full_kept":
        del outputs
    with live.allocating("backward"):
        loss.backward()


def _evaluate(built: parts.Built, recipe: Recipe, live: Liveness, told: Told) -> None:
    """A batch of held-out rows as ``evaluate.measure`` runs it: padded, whatever training does."""
    told.packed, told.padded = False, True
    built.adapted.eval()
    batch = _batch(recipe.micro_batch, recipe.sequence, live, packed=False)
    with torch.no_grad(), live.allocating("forward"), _autocast(recipe):
        built.adapted(**batch, use_cache=False, fused_lm_head=True)


def _generate(built: parts.Built, recipe: Recipe, live: Liveness, told: Told) -> None:
    """A prompt that fills the sequence, and one token more: the cache grows by copying a layer's."""
    told.packed, told.padded = False, False
    built.adapted.eval()
    with torch.no_grad(), live.allocating("forward"), _autocast(recipe):
        prompt = torch.zeros(1, recipe.sequence, dtype=torch.int64)
        outputs = built.adapted(input_ids=prompt, use_cache=True, logits_to_keep=1)
        built.adapted(
            input_ids=prompt[:, :1], past_key_values=outputs.past_key_values, use_cache=True, logits_to_keep=1
        )


def _batch(rows: int, length: int, live: Liveness, *, packed: bool) -> dict[str, torch.Tensor]:
    names = ("input_ids", "labels", "position_ids" if packed else "attention_mask")
    with live.allocating("inputs"):
        return {name: torch.zeros(rows, length, dtype=torch.int64) for name in names}


def _autocast(recipe: Recipe) -> Any:
    """What accelerate puts around the model's forward pass; a run in 32 bits has none."""
    return nullcontext() if recipe.regime == ALL_FP32 else torch.autocast("cpu", torch.bfloat16)


def main(arguments: list[str]) -> int:
    """Answer a request in a file with one line of JSON; the exit status."""
    output = sys.stdout
    with redirect_stdout(sys.stderr):  # libraries greet on stdout, which carries the answer alone
        try:
            line, status = _answer(arguments), ExitCode.OK
        except Exception as error:
            traceback.print_exc()
            fault = (
                error
                if isinstance(error, QloraError)
                else InternalFault(
                    "The dry run failed.", f"{type(error).__name__}: {one_line(str(error), 300)}", "Please report this."
                )
            )
            told = {"kind": fault.kind, "what": fault.what, "why": fault.why, "hint": fault.hint}
            line, status = json.dumps({"error": told}), fault.exit_code
    output.write(line + "\n")
    output.flush()
    return int(status)


def _answer(arguments: list[str]) -> str:
    try:
        text = Path(arguments[0]).read_text(encoding="utf-8")
    except (IndexError, OSError, UnicodeDecodeError) as error:
        raise ConfigError("The dry run cannot be started.", f"Its request cannot be read: {error}.", _HINT) from error
    request = DryRunRequest.from_json(text)
    return dry_run(request.model, request.recipe, DeviceFacts(workspace=request.workspace)).to_json()
