"""A training step on a tape: a few decoder layers, the loss, and the way back through the last of them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from qlora_tui.memory import operations as ops
from qlora_tui.memory.build import Build, LayerType, Names, Settings
from qlora_tui.memory.programs import Layer
from qlora_tui.memory.tape import Size, Tape, Tensor


@dataclass(frozen=True, slots=True)
class Step:
    """What happened on the tape of a step.

    Attributes:
        sizes, parts, log: Of the tape.
        begin: Position in the log at which the layers in the middle have run and are all held.
        held: For each layer that was run, positions in the log where its forward pass begins and ends.
    """

    sizes: tuple[Size, ...]
    parts: tuple[str, ...]
    log: tuple[int, ...]
    begin: int
    held: tuple[tuple[int, int], ...]


@lru_cache(maxsize=512)
def run_step(
    build: Build,
    settings: Settings,
    names: Names,
    front: tuple[LayerType, ...],
    tail: tuple[LayerType, ...],
    masks: tuple[int, int],
) -> Step:
    """Run a step through the layers of ``front`` and ``tail``, and back through those of ``tail``.

    Args:
        masks: Bytes for each pair of the masks that layers share: of those that only the forward pass holds, and of
            those that checkpoints hold.
    """
    tape = Tape(grouped=settings.grouped, one_key_head=settings.one_key_head)
    held: list[tuple[int, int]] = []
    with tape.allocating("small_tensors"):
        passing, staying = (tape.new("scores", "one", size) for size in masks)
    hidden, embeddings, tables = _embedded(tape, build, settings)
    for kind in front:
        start = len(tape.log)
        hidden = _forward(tape, build, settings, names, kind, hidden)
        held.append((start, len(tape.log)))
    begin, boundary = len(tape.log), hidden.node
    for kind in tail:
        hidden = _forward(tape, build, settings, names, kind, hidden)
    with tape.allocating("activations"):
        last = Layer(tape, build, settings, names, LayerType()).norm(hidden)
    del hidden, embeddings, passing
    root = _loss(tape, last)
    del last
    with tape.allocating("loss"):
        gradient = tape.new("once", "one", 4)
    node = root.node
    del root
    if node is not None:
        with tape.allocating("layer_peak"):
            tape.backward(node, gradient, lambda each: boundary is not None and each.sequence <= boundary.sequence)
    log = tuple(tape.log)
    del tables, staying
    return Step(tuple(tape.sizes), tuple(tape.parts), log, begin, tuple(held))


def _embedded(tape: Tape, build: Build, settings: Settings) -> tuple[Tensor, Tensor, list[Tensor]]:
    """The stream at its beginning, the embeddings' output that the model's forward pass names, cosines and sines."""
    with tape.allocating("small_tensors"):
        tables = [tape.new("positions", "head", 2) for _ in range(0 if build.rotation == "none" else 2)]
    with tape.allocating("activations"):
        embeddings = tape.new("tokens", "hidden", 2)
        if settings.embedding_gradient:
            embeddings = tape.parameter(embeddings)
        if build.scaled_embedding:
            embeddings = ops.scaled(tape, embeddings)
        hidden = ops.dropped(tape, embeddings) if build.embedding_dropout else embeddings
    return hidden, embeddings, tables


def _forward(tape: Tape, build: Build, settings: Settings, names: Names, kind: LayerType, hidden: Tensor) -> Tensor:
    layer = Layer(tape, build, settings, names, kind)
    with tape.allocating("activations"):
        return tape.checkpoint(layer, hidden) if kind.checkpointed else layer(hidden)


def _loss(tape: Tape, hidden: Tensor) -> Tensor:
    """TRL's fused loss: the head is multiplied tile by tile (``kernels/chunked_logprob.py``)."""
    size = hidden.bytes
    with tape.allocating("loss"):
        selected = tape.record(tape.like(hidden), [hidden], lambda gradient: [_spread(tape, size)])
        targets = tape.new("tokens", "one", 8)
        numbers = [tape.new("tokens", "one", 4) for _ in range(7)]
        tile = tape.new("tile", "vocabulary tile", 2)
        chunks = [tape.new("chunks", "hidden", 2)] if size == 4 else []
        results = [tape.new("tokens", "one", 4) for _ in range(3)]
        del tile, chunks, numbers
        saved = tape.save(selected, targets, *results)

        def backward(gradient: Tensor, *_saved: Tensor) -> list[Tensor]:
            with tape.allocating("loss"):
                summed = tape.new("tokens", "hidden", 4)
                tile = tape.new("tile", "vocabulary tile", 2)
                chunks = [tape.new("chunks", "hidden", 2)] if size == 4 else []
                result = summed if size == 4 else tape.new("tokens", "hidden", size)
                del tile, chunks, summed
                return [result]

        return tape.record(tape.new("once", "one", 4), [selected], backward, saved)


def _spread(tape: Tape, size: float) -> Tensor:
    """Back from the scored positions to all of them, and from all but the last to all."""
    with tape.allocating("loss"):
        scored = tape.new("tokens", "hidden", size)
        result = tape.new("tokens", "hidden", size)
        del scored
        return result
