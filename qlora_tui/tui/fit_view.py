"""A fit as the memory bar groups it."""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from qlora_tui.memory.fit import Fit
from qlora_tui.memory.from_shape import dimensions_of
from qlora_tui.memory.recipe import Recipe
from qlora_tui.memory.static import static_memory
from qlora_tui.models.architecture import ModelShape

GROUPS: Final[tuple[tuple[str, tuple[str, ...]], ...]] = (
    ("weights", ("weights_4bit", "weights", "embeddings_and_head", "norms")),
    ("adapter", ("adapter", "gradients", "optimizer")),
    ("activations", ("checkpoints", "activations", "layer_peak", "small_tensors")),
    ("loss", ("loss",)),
)
"""Components by what they are for; whatever is in none of them is the process's own."""
OVERHEAD: Final = "process"


def parts(fit: Fit) -> tuple[tuple[str, int], ...]:
    """Sizes by group in bytes; they add up to what the process probably needs."""
    components = fit.components
    groups = [(name, sum(components.get(part, 0) for part in names)) for name, names in GROUPS]
    rest = max(0, fit.process.point - sum(size for _, size in groups))
    return tuple((name, size) for name, size in [*groups, (OVERHEAD, rest)] if size > 0)


@lru_cache(maxsize=512)
def four_bit_size(shape: ModelShape) -> int:
    """Bytes of a model's weights on the card when they are loaded in 4 bits."""
    static = static_memory(dimensions_of(shape), Recipe(micro_batch=1, sequence=8))
    return static.weights + static.embeddings_and_head + static.norms
