"""How long a micro-batch takes on a card: arithmetic, memory traffic, dequantisation, and the host that launches it.

The counts are derived; the efficiencies and the host's time per layer are a fit to two H100 machines whose hosts differ
by a third (``benchmarks/data``, ``benchmarks/results/gpu-speed.jsonl``). They carry over to other cards by their
published rates only, which is why every result has a band.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from qlora_tui.memory.activations import layers_by_kind
from qlora_tui.memory.dimensions import Dimensions
from qlora_tui.memory.masks import masked, score_elements
from qlora_tui.memory.recipe import Recipe
from qlora_tui.memory.static import adapter_elements

_MATRIX_EFFICIENCY: Final = 0.69
"""Share of the published dense rate that matrices of a decoder reach."""
_ATTENTION_EFFICIENCY: Final = 0.35
"""The same for the flash kernels, which skip what causality hides."""
_MASKED_EFFICIENCY: Final = 0.20
"""The same for sdpa with a mask, which computes all of it."""
_ATTENTION_BACKWARD: Final = 2.5
"""Products of an attention's backward pass over its forward pass: five over two."""
_PASSES: Final = {"none": (5.9, 24.8), "liger": (3.1, 15.5)}
"""Trips of a layer's matrix inputs and outputs to memory outside the products: (forward, backward)."""
_FUSED_PASSES: Final = (1.4, 11.0)
"""The same with layer kernels and fused adapters."""
_FP32_ADAPTER: Final = 1.2
"""Traffic with adapters in fp32, which casts every input and gradient, over that without."""
_DROPOUT: Final = 1.1
"""Traffic and launches with dropout over those without."""
_HOST_FIXED: Final = 0.13
"""Seconds the host needs for a micro-batch apart from its layers: inputs, loss, clipping, its share of an update."""
_HOST_FORWARD: Final = 0.0047
"""Seconds in which the host launches a layer's forward pass; with the fixed part 0.66 s for 32 checkpointed layers."""
_HOST_BACKWARD: Final = 1.5
"""Launches of a layer's backward pass over its forward pass."""
_HOST_LIGER: Final = 0.87
_HOST_EXPOSED: Final = 0.1
"""Share of the host's time that no kernel hides: inputs, the loss's synchronisation, the optimizer."""
_UNCERTAINTY: Final = 0.2


@dataclass(frozen=True, slots=True)
class CardRates:
    """What a card publishes: dense 16-bit TFLOP/s with 32-bit sums, and GB/s of memory (10^9 bytes)."""

    matrix_rate: float
    bandwidth: float


@dataclass(frozen=True, slots=True)
class StepTime:
    """Seconds of one micro-batch, forward and backward, by what they go to.

    ``host`` is what launching takes; the device works at the same time, so the slower of the two decides.
    """

    matrices: float
    attention: float
    traffic: float
    dequantisation: float
    host: float

    @property
    def device(self) -> float:
        """Seconds the device works."""
        return self.matrices + self.attention + self.traffic + self.dequantisation

    @property
    def total(self) -> float:
        """Seconds that pass."""
        return max(self.host, self.device + _HOST_EXPOSED * self.host)


@dataclass(frozen=True, slots=True)
class Throughput:
    """Tokens per second, padding not counted."""

    low: float
    point: float
    high: float


def step_time(dimensions: Dimensions, recipe: Recipe, card: CardRates, *, row: int | None = None) -> StepTime:
    """Time of one micro-batch of ``recipe.tokens`` tokens.

    Args:
        row: Tokens of a packed row as its tokens see it, the mean of the squares over the mean; the sequence if None.
    """
    checkpointed, _ = layers_by_kind(dimensions.layers, recipe.checkpointing)
    forwards = 1 + checkpointed / dimensions.layers
    rate, bandwidth = card.matrix_rate * 1e12, card.bandwidth * 1e9
    return StepTime(
        matrices=_matrix_operations(dimensions, recipe, forwards) / (rate * _MATRIX_EFFICIENCY),
        attention=_attention_seconds(dimensions, recipe, forwards, rate, row or recipe.sequence),
        traffic=_traffic(dimensions, recipe, forwards) / bandwidth,
        dequantisation=_dequantisation(dimensions, recipe, forwards) / bandwidth,
        host=_host(dimensions, recipe, forwards),
    )


def throughput(
    dimensions: Dimensions, recipe: Recipe, card: CardRates, *, filled: float = 1.0, row: int | None = None
) -> Throughput:
    """Tokens per second.

    Args:
        filled: Share of the micro-batch's tokens that are not padding.
        row: See :func:`step_time`.
    """
    point = filled * recipe.tokens / step_time(dimensions, recipe, card, row=row).total
    return Throughput(point * (1 - _UNCERTAINTY), point, point * (1 + _UNCERTAINTY))


def filled_share(lengths: Sequence[int], micro_batch: int) -> float:
    """Share of tokens that are not padding where rows come in any order and are padded to their batch's longest."""
    if not lengths:
        return 1.0
    rows = sorted(lengths)
    count = len(rows)
    longest = sum(
        length * ((index / count) ** micro_batch - ((index - 1) / count) ** micro_batch)
        for index, length in enumerate(rows, start=1)
    )
    return sum(rows) / count / longest


def _matrix_operations(dimensions: Dimensions, recipe: Recipe, forwards: float) -> float:
    """Floating-point operations of the products, attention apart.

    A frozen matrix costs 2 an element and token forward and 2 backward, for it has no weight gradient; an adapter
    costs 2 more. The fused loss projects on the vocabulary twice and back once.
    """
    frozen = sum(matrix.count * matrix.elements for matrix in dimensions.matrices)
    adapter = adapter_elements(dimensions, recipe)
    head = 6 * dimensions.vocab * dimensions.hidden
    return recipe.tokens * (2 * frozen * (forwards + 1) + 2 * adapter * (forwards + 2) + head)


def _attention_seconds(dimensions: Dimensions, recipe: Recipe, forwards: float, rate: float, row: int) -> float:
    """Scores and their product with the values: 4 operations a pair and query width, half of them if causal."""
    if masked(dimensions, recipe) or recipe.attention == "eager":
        pairs, efficiency = 4 * score_elements(recipe), _MASKED_EFFICIENCY
    else:
        pairs, efficiency = 2 * recipe.tokens * row, _ATTENTION_EFFICIENCY
    operations = pairs * dimensions.query_width * dimensions.layers * (forwards + _ATTENTION_BACKWARD)
    return operations / (rate * efficiency)


def _traffic(dimensions: Dimensions, recipe: Recipe, forwards: float) -> float:
    """Bytes moved by everything that is not a product: norms, activations, adapters' additions, copies."""
    widths = sum(matrix.count * (matrix.inputs + matrix.outputs) for matrix in dimensions.matrices)
    forward, backward = _FUSED_PASSES if recipe.fused_adapters else _PASSES[recipe.layer_kernels]
    traffic = 2 * recipe.tokens * widths * (forward * forwards + backward)
    traffic *= _FP32_ADAPTER if recipe.regime.adapter == 4 else 1.0
    return traffic * (_DROPOUT if recipe.dropout else 1.0)


def _dequantisation(dimensions: Dimensions, recipe: Recipe, forwards: float) -> float:
    """Bytes moved to turn 4-bit weights into 16-bit ones, in every pass: half a byte read, two written."""
    if recipe.quantization == "none":
        return 0.0
    elements = sum(matrix.count * matrix.elements for matrix in dimensions.matrices if matrix.quantised)
    return 2.5 * elements * (forwards + 1)


def _host(dimensions: Dimensions, recipe: Recipe, forwards: float) -> float:
    """Seconds of launching; they do not depend on the number of tokens."""
    seconds = _HOST_FORWARD * dimensions.layers * (forwards + _HOST_BACKWARD)
    seconds *= _HOST_LIGER if recipe.layer_kernels == "liger" else 1.0
    return _HOST_FIXED + seconds * (_DROPOUT if recipe.dropout else 1.0)
