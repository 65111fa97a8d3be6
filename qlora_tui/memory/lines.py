"""Peaks of a training step as straight lines: bytes a token, a pair of tokens, a position, and once.

The tape of a step (:mod:`qlora_tui.memory.step`) depends on how a family builds its layers and on the kind of recipe;
the widths of a model turn it into lines; a micro-batch and a length into bytes. Each is computed once and kept.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Final

from qlora_tui.memory.build import Build, LayerType, Settings
from qlora_tui.memory.dimensions import Dimensions
from qlora_tui.memory.masks import masked_layers, score_elements, shared_masks
from qlora_tui.memory.recipe import Recipe
from qlora_tui.memory.static import BLOCK, adapted
from qlora_tui.memory.step import Step, run_step

PARTS: Final = ("checkpoints", "activations", "layer_peak", "loss", "gradients", "small_tensors")
_ROWS: Final = ("tokens", "scores", "positions", "tile", "chunks", "once")
_PART: Final = {part: place for place, part in enumerate(PARTS)}
_ROW: Final = {row: place for place, row in enumerate(_ROWS)}
_TILE_TOKENS: Final = 4096
_TILE_VOCAB: Final = 32_768
"""trl ``kernels/chunked_logprob.py`` projects this many tokens on this much of the vocabulary at a time."""

_INPUTS: Final = 24
"""Ids, labels, and mask or positions of a token."""

Vector = tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Line:
    """A moment of a step: bytes for each of the rows, in all and by part."""

    total: Vector
    parts: tuple[Vector, ...]


def peak_parts(dimensions: Dimensions, build: Build, recipe: Recipe) -> tuple[int, ...]:
    """Bytes at the peak by part, in the order of :data:`PARTS`, the static part of the model apart."""
    tokens = recipe.tokens
    rows = (
        tokens,
        score_elements(recipe),
        tokens if recipe.packed else recipe.sequence,
        min(tokens, _TILE_TOKENS),
        min(tokens, 2 * _TILE_TOKENS),
        1,
    )
    masked = masked_layers(dimensions, recipe)
    masks = shared_masks(dimensions, recipe, masked)
    lines = _lines(dimensions, build, _without_size(recipe), masked, masks)
    peak = max(lines, key=lambda line: _at(line.total, rows))
    return tuple(round(_at(part, rows)) for part in peak.parts)


def _at(vector: Vector, rows: tuple[int, ...]) -> float:
    return sum(map(float.__mul__, vector, map(float, rows)))


def _without_size(recipe: Recipe) -> Recipe:
    """The recipe with all that does not change which tensors there are set to one value."""
    return replace(
        recipe,
        micro_batch=1,
        sequence=1,
        packed=False,
        padded=False,
        accumulation=min(recipe.accumulation, 2),
        optimizer="adamw",
    )


@lru_cache(maxsize=1024)
def _lines(
    dimensions: Dimensions, build: Build, recipe: Recipe, masked: tuple[bool, bool], masks: tuple[int, int]
) -> tuple[Line, ...]:
    settings = _settings(dimensions, build, recipe)
    types = _types(dimensions, recipe.checkpointing, masked)
    tail = types[-1:] if len(types) < 2 or types[-1] == types[-2] else types[-2:]
    middle = Counter(types[1 : len(types) - len(tail)])
    front = types[:1] if len(types) > len(tail) else ()
    held = _held_masks(dimensions, types, masks)
    step = run_step(build, settings, dimensions.names, (*front, *middle), tail, (sum(masks) - held, held))
    more = {index + 1: count - 1 for index, count in enumerate(middle.values())}
    return _straightened(step, _widths(dimensions, recipe.rank), more)


def _settings(dimensions: Dimensions, build: Build, recipe: Recipe) -> Settings:
    spread = build.split == "gathered" and dimensions.kv_heads > 1
    return Settings(
        adapted=frozenset(matrix.name for matrix in adapted(dimensions, recipe.targets)),
        grouped=dimensions.heads != dimensions.kv_heads and not spread,
        one_key_head=dimensions.kv_heads == 1 < dimensions.heads,
        liger=recipe.layer_kernels == "liger",
        fused_adapters=recipe.fused_adapters,
        attention="eager" if recipe.attention == "eager" else "fused",
        repeats_heads=recipe.repeats_heads and recipe.attention == "sdpa",
        float16=recipe.regime.float16,
        dropout=recipe.dropout > 0,
        quantised=recipe.quantization != "none",
        double_quant=recipe.double_quant,
        adapter_bytes=recipe.regime.adapter,
        kept_gradients=recipe.accumulation == 1,
        embedding_gradient=recipe.embedding_gradient or recipe.checkpointing != "none",
    )


def _held_masks(dimensions: Dimensions, types: tuple[LayerType, ...], masks: tuple[int, int]) -> int:
    """Bytes for each pair of the masks that outlive the forward pass: checkpoints hold their layers' arguments."""
    kinds = {_windowed(dimensions, layer) for layer, kind in enumerate(types) if kind.checkpointed}
    return sum(masks[kind] for kind in kinds)


def _windowed(dimensions: Dimensions, layer: int) -> bool:
    return dimensions.window is not None and (dimensions.windowed is None or layer in dimensions.windowed)


def _types(dimensions: Dimensions, checkpointing: str, masked: tuple[bool, bool]) -> tuple[LayerType, ...]:
    everywhere, windowed = masked
    every = {"full": 1, "every-2": 2, "none": 0}[checkpointing]
    return tuple(
        LayerType(
            checkpointed=every > 0 and layer % every == 0,
            masked=windowed if _windowed(dimensions, layer) else everywhere,
            turned=layer not in dimensions.unturned,
        )
        for layer in range(dimensions.layers)
    )


def _widths(dimensions: Dimensions, rank: int) -> Mapping[str, float]:
    query, key, head = dimensions.query_width, dimensions.key_width, dimensions.head_dim
    widths: dict[str, float] = {
        "one": 1,
        "hidden": dimensions.hidden,
        "intermediate": dimensions.intermediate,
        "gate_up": 2 * dimensions.intermediate,
        "query": query,
        "key": key,
        "qkv": query + 2 * key,
        "heads": dimensions.heads,
        "kv_heads": dimensions.kv_heads,
        "head": head * dimensions.rotated,
        "padded query": dimensions.heads * -(-head // 32) * 32,
        "rank": rank,
        "vocabulary tile": _TILE_VOCAB,
    }
    for name in ("query", "key"):
        width, turned = widths[name], widths[name] * dimensions.rotated
        widths |= {f"turned {name}": turned, f"rest {name}": width - turned}
        widths |= {f"half {name}": width / 2, f"half turned {name}": turned / 2}
    for matrix in dimensions.matrices:
        widths[matrix.name] = matrix.elements
        widths[f"{matrix.name} scales"] = matrix.elements / BLOCK
        widths[f"{matrix.name} A"] = rank * matrix.inputs
        widths[f"{matrix.name} B"] = rank * matrix.outputs
    return widths


def _straightened(step: Step, widths: Mapping[str, float], more: Mapping[int, int]) -> tuple[Line, ...]:
    """The moments that no other one exceeds in everything.

    Args:
        more: For layers that were run by number, how often more they occur than they were run.
    """
    sizes = [widths[size.width] * size.bytes for size in step.sizes]
    rows = [_ROW[size.rows] for size in step.sizes]
    slots = [_PART[part] * len(_ROWS) + row for part, row in zip(step.parts, rows, strict=True)]
    held = [0.0] * (len(PARTS) * len(_ROWS))
    held[_PART["small_tensors"] * len(_ROWS) + _ROW["tokens"]] += _INPUTS
    _take(held, step.log[: step.begin], slots, sizes)
    for layer, times in more.items():
        start, end = step.held[layer]
        _take(held, step.log[start:end], slots, [size * times for size in sizes])
    total = [sum(held[row :: len(_ROWS)]) for row in range(len(_ROWS))]
    lines = []
    before = step.begin
    for position, moment in _heights(step, total, rows, sizes).items():
        _take(held, step.log[before:position], slots, sizes)
        before = position
        parts = tuple(tuple(held[slot : slot + len(_ROWS)]) for slot in range(0, len(held), len(_ROWS)))
        lines.append(Line(moment, parts))
    return tuple(lines)


def _take(held: list[float], events: Sequence[int], slots: list[int], sizes: list[float]) -> None:
    # A new kind of recipe, which a keystroke may make, passes here: so numbers and no objects.
    for event in events:
        if event >= 0:
            held[slots[event]] += sizes[event]
        else:
            held[slots[~event]] -= sizes[~event]


def _heights(step: Step, total: list[float], rows: list[int], sizes: list[float]) -> dict[int, Vector]:
    """By position in the log, the moments before a release that no other one exceeds in everything."""
    found: dict[int, Vector] = {}
    risen = True
    for position in range(step.begin, len(step.log)):
        event = step.log[position]
        if event >= 0:
            total[rows[event]] += sizes[event]
            risen = True
            continue
        if risen:
            _enter(found, position, tuple(total))
            risen = False
        total[rows[~event]] -= sizes[~event]
    return found


def _enter(found: dict[int, Vector], position: int, moment: Vector) -> None:
    """Keep a moment unless another one is as high in everything; drop those that it is."""
    tokens = moment[0]
    for other in found.values():
        if other[0] >= tokens and all(map(float.__ge__, other, moment)):
            return
    for place in [p for p, other in found.items() if other[0] <= tokens and all(map(float.__le__, other, moment))]:
        del found[place]
    found[position] = moment
