"""Memory that stays for the whole run: weights, adapter, gradients, optimizer states. All results in bytes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from qlora_tui.memory.dimensions import Dimensions, Matrix, StackedAdapter
from qlora_tui.memory.recipe import Optimizer, Recipe

BLOCK: Final = 64
"""Weights that share a scale (bitsandbytes' default ``blocksize``)."""
NESTED_BLOCK: Final = 256
"""Scales that share a scale under double quantisation."""
_TABLES_NESTED: Final = 2560
"""4-bit code, 8-bit code, offset and the allocator's rounding to 512 bytes."""
_TABLES_PLAIN: Final = 512
_SMALLEST_8BIT: Final = 4096
"""bitsandbytes keeps fp32 states for tensors below this many elements (``min_8bit_size``)."""
_SMALLEST_PAGED: Final = 100_000
"""``Optimizer2State.get_state_buffer`` pages states of this many elements and more."""


@dataclass(frozen=True, slots=True)
class StaticMemory:
    """Bytes held from the second step on. ``managed`` is paged by the driver and outside torch's count."""

    weights: int
    embeddings_and_head: int
    norms: int
    adapter: int
    optimizer: int
    managed: int

    @property
    def allocated(self) -> int:
        """What torch counts."""
        return self.weights + self.embeddings_and_head + self.norms + self.adapter + self.optimizer


def ceil_divide(number: int, divisor: int) -> int:
    """Quotient of two integers, rounded up."""
    return -(-number // divisor)


def quantised_bytes(elements: int, double_quant: bool) -> int:
    """Size of one 4-bit matrix with its scales (bitsandbytes ``quantize_4bit``, ``quantize_blockwise``)."""
    packed, scales = ceil_divide(elements, 2), ceil_divide(elements, BLOCK)
    if double_quant:
        return packed + scales + 4 * ceil_divide(elements, BLOCK * NESTED_BLOCK) + _TABLES_NESTED
    return packed + 4 * scales + _TABLES_PLAIN


def adapted(dimensions: Dimensions, targets: frozenset[str] | None) -> tuple[Matrix, ...]:
    """Matrices that get an adapter."""
    if targets is None:
        return dimensions.matrices
    return tuple(matrix for matrix in dimensions.matrices if matrix.name in targets)


def adapted_stacks(dimensions: Dimensions, targets: frozenset[str] | None) -> tuple[StackedAdapter, ...]:
    """Stacked parameters that get an adapter."""
    return tuple(stack for stack in dimensions.stacks if targets is None or stack.names <= targets)


def adapter_elements(dimensions: Dimensions, recipe: Recipe) -> int:
    """Trainable parameters: ``rank * (in + out)`` for each adapted matrix."""
    return recipe.rank * _adapted_widths(dimensions, recipe.targets)


@lru_cache(maxsize=256)
def _adapted_widths(dimensions: Dimensions, targets: frozenset[str] | None) -> int:
    stacks = adapted_stacks(dimensions, targets)
    widths = sum(matrix.count * (matrix.inputs + matrix.outputs) for matrix in adapted(dimensions, targets))
    return widths + sum(stack.count * stack.multiple * (stack.inputs + stack.outputs) for stack in stacks)


def optimizer_state(elements: int, optimizer: Optimizer, weight_bytes: int) -> tuple[int, int]:
    """States of one tensor: (on the device, managed). bitsandbytes ``Optimizer2State.init_state``."""
    if optimizer == "adamw":
        return 2 * elements * weight_bytes, 0
    if elements < _SMALLEST_8BIT:
        return 8 * elements, 0
    states, scales = 2 * elements, 8 * ceil_divide(elements, NESTED_BLOCK)
    if optimizer == "paged_adamw_8bit" and elements >= _SMALLEST_PAGED:
        return scales, states
    return states + scales, 0


@lru_cache(maxsize=256)
def _optimizer(
    dimensions: Dimensions, targets: frozenset[str] | None, rank: int, optimizer: Optimizer, weight_bytes: int
) -> tuple[int, int]:
    device = managed = 0
    sides = [(matrix.count, (matrix.inputs, matrix.outputs)) for matrix in adapted(dimensions, targets)]
    for stack in adapted_stacks(dimensions, targets):
        sides.append((stack.count, (stack.multiple * stack.inputs, stack.multiple * stack.outputs)))
    for count, widths in sides:
        for width in widths:
            held, paged = optimizer_state(rank * width, optimizer, weight_bytes)
            device, managed = device + held * count, managed + paged * count
    return device, managed


@lru_cache(maxsize=64)
def base_weights(dimensions: Dimensions, quantised: bool, double_quant: bool) -> int:
    """The decoder's matrices; those a model keeps outside ``nn.Linear`` (fused experts) stay in 16 bits."""
    total = 2 * dimensions.unquantised_elements
    for matrix in dimensions.matrices:
        if quantised and matrix.quantised:
            total += matrix.count * quantised_bytes(matrix.elements, double_quant)
        else:
            total += matrix.count * 2 * matrix.elements
    return total


def static_memory(dimensions: Dimensions, recipe: Recipe) -> StaticMemory:
    """Everything that outlives a step."""
    device, managed = _optimizer(dimensions, recipe.targets, recipe.rank, recipe.optimizer, recipe.regime.adapter)
    tables = 1 if dimensions.tied else 2
    return StaticMemory(
        weights=base_weights(dimensions, recipe.quantization != "none", recipe.double_quant),
        embeddings_and_head=dimensions.vocab * dimensions.hidden * recipe.regime.embedding * tables,
        # Biases keep 2 bytes here in both regimes, which is negligible.
        norms=dimensions.norm_elements * recipe.regime.norm + 2 * dimensions.bias_elements,
        adapter=adapter_elements(dimensions, recipe) * recipe.regime.adapter,
        optimizer=device,
        managed=managed,
    )
