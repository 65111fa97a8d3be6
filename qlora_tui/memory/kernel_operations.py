"""What layers of bitsandbytes 0.50.2, peft 0.21.2 and liger-kernel 0.8.5 allocate and save on a tape."""

from __future__ import annotations

from qlora_tui.memory.operations import cast, copy
from qlora_tui.memory.tape import Tape, Tensor


def quantised_linear(tape: Tape, source: Tensor, name: str, width: str, *, nested: bool) -> Tensor:
    """``Linear4bit``: the weights are dequantised for every product, forwards and backwards.

    ``backends/cuda/ops.py`` multiplies from 4 bits only where there are few rows (:data:`FEW_ROWS`).
    """
    given, inputs = source.bytes, source.size.width
    source = cast(tape, source, 2)
    scales = [tape.new("once", f"{name} scales", 4) for _ in range(2)] if nested else []
    weights = tape.new("once", name, 2)
    output = tape.new("tokens", width, 2)
    del scales, weights

    def backward(gradient: Tensor) -> list[Tensor]:
        scales = [tape.new("once", f"{name} scales", 4)] if nested else []
        weights = tape.new("once", name, 2)
        del scales
        result = tape.new("tokens", inputs, 2)
        del weights
        return [result]

    return cast(tape, tape.record(output, [source], backward), given)


def frozen_linear(tape: Tape, source: Tensor, width: str) -> Tensor:
    """``nn.Linear`` with weights in 16 bits: saves nothing but them, and a checkpoint runs again to find them."""
    inputs = source.size.width
    source = cast(tape, source, 2)
    saved = tape.save(tape.new("once", "one", 0))
    output = tape.new("tokens", width, 2)
    return tape.record(output, [source], lambda gradient, _weights: [tape.new("tokens", inputs, 2)], saved)


def trained_linear(tape: Tape, source: Tensor, width: str, name: str, size: int, *, kept: bool) -> Tensor:
    """An adapter's matrix: saves its input, for its gradient.

    Args:
        size: Bytes of a weight; autocast makes a 16-bit copy of fp32 ones and saves that.
        kept: The gradient is new and stays; else it is added to the one of an earlier micro-batch.
    """
    inputs, wanted = source.size.width, source.node is not None
    source = cast(tape, source, 2)
    copies = [tape.new("once", name, 2)] if size == 4 else []
    saved = tape.save(source, *copies)
    output = tape.new("tokens", width, 2)

    def backward(gradient: Tensor, *_saved: Tensor) -> list[Tensor | None]:
        with tape.allocating("gradients"):
            own = tape.new("once", name, 2)
            if size == 4:
                own = tape.new("once", name, 4)
        result = tape.new("tokens", inputs, 2) if wanted else None
        if kept:
            tape.gradients.append(own)
        return [result]

    return tape.record(output, [source], backward, saved, trained=True)


def adapted_linear(tape: Tape, source: Tensor, name: str, width: str, *, nested: bool, kept: bool) -> Tensor:
    """A quantised matrix and its adapter in one operation (``engine/fused_adapter.py``).

    Args:
        kept: See :func:`trained_linear`.
    """
    inputs, wanted = source.size.width, source.node is not None
    low = tape.new("tokens", "rank", 2)
    scales = [tape.new("once", f"{name} scales", 4) for _ in range(2)] if nested else []
    weights = tape.new("once", name, 2)
    output = tape.new("tokens", width, 2)
    del scales, weights
    saved = tape.save(source, low)
    del low

    def backward(gradient: Tensor, *_saved: Tensor) -> list[Tensor | None]:
        with tape.allocating("gradients"):
            own = [tape.new("once", f"{name} B", 2)]
        low_gradient = tape.new("tokens", "rank", 2)
        with tape.allocating("gradients"):
            own.append(tape.new("once", f"{name} A", 2))
        result = None
        if wanted:
            scales = [tape.new("once", f"{name} scales", 4)] if nested else []
            weights = tape.new("once", name, 2)
            del scales
            result = tape.new("tokens", inputs, 2)
            del weights
        del low_gradient
        if kept:
            tape.gradients.extend(own)
        return [result]

    return tape.record(output, [source], backward, saved, trained=True)


def kernel_normed(tape: Tape, source: Tensor, statistics: str, *, in_place: bool) -> Tensor:
    """liger's RMSNorm: saves its input, and writes its gradient over the one it gets, if that does no harm."""
    output = tape.like(source)
    roots = tape.new(source.size.rows, statistics, 4)
    saved = tape.save(source, roots)

    def backward(gradient: Tensor, *_saved: Tensor) -> list[Tensor]:
        return [gradient if in_place else tape.like(gradient)]

    return tape.record(output, [source], backward, saved)


def gated_in_place(tape: Tape, gate: Tensor, up: Tensor, *, halves: bool = False) -> Tensor:
    """liger's SwiGLU and GeGLU: saves both inputs and writes their gradients over them.

    Args:
        halves: The inputs are halves of one tensor, and copied first.
    """
    left, right = (tape.like(gate), tape.like(up)) if halves else (gate, up)
    output = tape.like(gate)
    saved = tape.save(left, right)
    del left, right
    return tape.record(output, [gate, up], lambda gradient, left, right: [left, right], saved)


def turned_in_place(tape: Tape, source: Tensor, *, slices: bool) -> Tensor:
    """liger's rotary positions: written over queries or keys and over their gradients; slices are copied first."""
    return copy(tape, source) if slices else source
