"""The moments of a training step at which memory may peak, each with its parts in bytes."""

from __future__ import annotations

from dataclasses import dataclass

from qlora_tui.memory.build import Build
from qlora_tui.memory.dimensions import Dimensions
from qlora_tui.memory.layer import Formula, LayerMemory, dequantised, layer_memory
from qlora_tui.memory.lines import peak_parts
from qlora_tui.memory.loss import kept_logits, loss_memory
from qlora_tui.memory.recipe import Recipe
from qlora_tui.memory.static import adapted, adapter_elements


@dataclass(frozen=True, slots=True)
class Moment:
    """What is held besides the static part at one moment.

    Attributes:
        checkpoints: Inputs of the checkpointed layers.
        saved: What the other layers keep for their backward pass.
        layer_peak: The layer whose backward pass is under way.
        small: Attention mask, position tables, inputs, statistics, rank-sized activations.
    """

    checkpoints: int
    saved: int
    layer_peak: int
    loss: int
    gradients: int
    small: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.checkpoints + self.saved + self.layer_peak + self.loss + self.gradients + self.small


def peak_moment(dimensions: Dimensions, recipe: Recipe, formula: Formula) -> Moment:
    """The moment that needs most: the loss, or the backward pass of one of the last two layers."""
    if dimensions.build and formula == "measured" and recipe.regime.residual == 2 and recipe.loss == "fused":
        return _on_tape(dimensions, dimensions.build, recipe)
    layer = layer_memory(dimensions, recipe, formula)
    moments = [_at_loss(dimensions, recipe, layer, formula)]
    checkpointed, kept = layers_by_kind(dimensions.layers, recipe.checkpointing)
    if kept:
        moments.append(_at_kept_layer(dimensions, recipe, layer, formula))
    if checkpointed:
        moments.append(_at_checkpointed_layer(dimensions, recipe, layer, formula))
    return max(moments, key=lambda moment: moment.total)


def _on_tape(dimensions: Dimensions, build: Build, recipe: Recipe) -> Moment:
    checkpoints, saved, layer_peak, loss, gradients, small = peak_parts(dimensions, build, recipe)
    if recipe.accumulation > 1:
        gradients += adapter_elements(dimensions, recipe) * recipe.regime.adapter
    return Moment(checkpoints, saved, layer_peak, loss, gradients, small)


def layers_by_kind(layers: int, checkpointing: str) -> tuple[int, int]:
    """Layers with a checkpoint, and layers that keep their activations. Every second one begins with the first."""
    checkpointed = {"full": layers, "every-2": -(-layers // 2), "none": 0}[checkpointing]
    return checkpointed, layers - checkpointed


def _held(dimensions: Dimensions, recipe: Recipe, layer: LayerMemory, formula: Formula) -> tuple[int, int, int]:
    """At the end of the forward pass: checkpoints, saved activations, small tensors."""
    checkpointed, kept = layers_by_kind(dimensions.layers, recipe.checkpointing)
    checkpoints = checkpointed * recipe.tokens * dimensions.hidden * recipe.regime.residual
    small = kept * layer.small_saved + layer.mask
    return checkpoints, kept * layer.saved, small + (_shared(dimensions, recipe) if formula == "measured" else 0)


def _shared(dimensions: Dimensions, recipe: Recipe) -> int:
    """Cosines and sines of every position, and ids, labels and mask of the batch at 8 bytes a token."""
    positions = recipe.tokens if recipe.packed else recipe.sequence
    return 2 * positions * dimensions.head_dim * recipe.regime.residual + 24 * recipe.tokens


def _gradients(dimensions: Dimensions, recipe: Recipe, formula: Formula, *, layer: bool) -> int:
    """Adapter gradients that exist: all of an earlier micro-batch, else those of the layer under way.

    The peak of a layer's backward pass falls when only the product's adapter has had its gradient.
    """
    size = recipe.regime.adapter
    everything = adapter_elements(dimensions, recipe) * size
    if recipe.accumulation > 1:
        return everything
    if formula == "traced":
        return everything // dimensions.layers
    if not layer:
        return 0
    products = (matrix for matrix in adapted(dimensions, recipe.targets) if matrix.reads == "mlp product")
    widths = sum(matrix.count * (matrix.inputs + matrix.outputs) for matrix in products)
    return recipe.rank * widths * size // dimensions.layers


def _at_loss(dimensions: Dimensions, recipe: Recipe, layer: LayerMemory, formula: Formula) -> Moment:
    checkpoints, saved, small = _held(dimensions, recipe, layer, formula)
    loss = loss_memory(dimensions, recipe, formula)
    return Moment(checkpoints, saved, 0, loss, _gradients(dimensions, recipe, formula, layer=False), small)


def _at_kept_layer(dimensions: Dimensions, recipe: Recipe, layer: LayerMemory, formula: Formula) -> Moment:
    checkpoints, saved, small = _held(dimensions, recipe, layer, formula)
    step = recipe.tokens * (dimensions.intermediate + dimensions.hidden) * recipe.regime.residual
    step += dequantised(dimensions, recipe, formula)
    if formula == "measured":
        # The last layer's backward pass holds the same as a recomputed one's, which is a layer's saved part and more.
        step = max(step, layer.peak - layer.saved)
    gradients = _gradients(dimensions, recipe, formula, layer=True)
    return Moment(checkpoints, saved, step, kept_logits(dimensions, recipe), gradients, small)


def _at_checkpointed_layer(dimensions: Dimensions, recipe: Recipe, layer: LayerMemory, formula: Formula) -> Moment:
    checkpoints, saved, small = _held(dimensions, recipe, layer, formula)
    # With an even number of layers the last one keeps its activations, and has given them back by now.
    if recipe.checkpointing == "every-2" and dimensions.layers % 2 == 0:
        saved, small = saved - layer.saved, small - layer.small_saved
    small += layer.small_peak
    gradients = _gradients(dimensions, recipe, formula, layer=True)
    return Moment(checkpoints, saved, layer.peak, kept_logits(dimensions, recipe), gradients, small)
