"""Does a run fit: peak memory of a QLoRA training step from dimensions and a recipe, by closed form."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from qlora_tui.memory.activations import peak_moment
from qlora_tui.memory.dimensions import Dimensions
from qlora_tui.memory.layer import Formula
from qlora_tui.memory.others import evaluation_peak, generation_peak, loading_peak
from qlora_tui.memory.process import Band, Verdict, process_band, shown_process, verdict
from qlora_tui.memory.recipe import DeviceFacts, Recipe
from qlora_tui.memory.static import static_memory

__all__ = ["DeviceFacts", "Estimate", "Recipe", "estimate"]

_UNKNOWN_DEVICE = DeviceFacts()


@dataclass(frozen=True, slots=True)
class Estimate:
    """Memory of one run in bytes.

    Attributes:
        components: Parts of the peak of a training step by name; they add up to ``allocated``.
        allocated: Predicts ``torch.cuda.max_memory_allocated()`` of training.
        managed: Optimizer states paged by the driver, outside ``allocated``.
        process: What the whole process needs on the device.
        shown: What the driver shows for it while memory is not scarce: torch keeps blocks that it could give back.
        evaluation: Allocated at the peak of an evaluation with the training micro-batch.
        generation: Allocated while a sample of a full sequence is written, trainer alive.
        loading: Allocated at the peak of loading.
        needed: What the whole process needs in whichever phase needs most.
        fits: Verdict on ``needed`` against the device's free memory.
    """

    components: Mapping[str, int]
    allocated: int
    managed: int
    process: Band
    shown: Band
    evaluation: int
    generation: int
    loading: int
    needed: Band
    fits: Verdict


def estimate(
    dimensions: Dimensions,
    recipe: Recipe,
    device: DeviceFacts = _UNKNOWN_DEVICE,
    *,
    formula: Formula = "measured",
) -> Estimate:
    """Estimate a run.

    Args:
        formula: ``traced`` leaves out what GPU measurements added to the closed form read off a trace.
    """
    static, peak = static_memory(dimensions, recipe), peak_moment(dimensions, recipe, formula)
    components = {
        "weights_4bit" if recipe.quantization != "none" else "weights": static.weights,
        "embeddings_and_head": static.embeddings_and_head,
        "norms": static.norms,
        "adapter": static.adapter,
        "optimizer": static.optimizer,
        "workspace": device.workspace,
        "gradients": peak.gradients,
        "checkpoints": peak.checkpoints,
        "activations": peak.saved,
        "layer_peak": peak.layer_peak,
        "loss": peak.loss,
        "small_tensors": peak.small,
    }
    allocated = sum(components.values())
    resident = static.allocated + device.workspace
    evaluation = evaluation_peak(dimensions, recipe, resident)
    generation = generation_peak(dimensions, recipe, resident)
    loading = loading_peak(dimensions, recipe, static)
    needed = _band(dimensions, device, max(allocated, evaluation, generation, loading), static.managed)
    return Estimate(
        components=MappingProxyType(components),
        allocated=allocated,
        managed=static.managed,
        process=_band(dimensions, device, allocated, static.managed),
        shown=shown_process(dimensions, recipe, device, allocated),
        evaluation=evaluation,
        generation=generation,
        loading=loading,
        needed=needed,
        fits=verdict(needed, device.free),
    )


def _band(dimensions: Dimensions, device: DeviceFacts, allocated: int, managed: int) -> Band:
    return process_band(allocated, device, managed=managed, knowledge=dimensions.knowledge)
