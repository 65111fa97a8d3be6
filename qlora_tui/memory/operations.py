"""What torch's operations allocate and save, forwards and backwards, on a :class:`~qlora_tui.memory.tape.Tape`.

From ``derivatives.yaml`` and ``autograd/FunctionsManual.cpp`` of torch 2.13 (what is saved, which temporaries a formula
makes), under bf16 autocast. Backward functions hold no tensor of their own: what they need is saved, so that it counts.
"""

from __future__ import annotations

from collections.abc import Sequence

from qlora_tui.memory.tape import Tape, Tensor


def cast(tape: Tape, source: Tensor, size: float) -> Tensor:
    """``x.to(dtype)``: nothing if it has that dtype."""
    if source.bytes == size:
        return source
    given = source.bytes
    return tape.record(tape.like(source, size), [source], lambda gradient: [tape.like(gradient, given)])


def copy(tape: Tape, source: Tensor) -> Tensor:
    """``x.clone()``."""
    return tape.record(tape.like(source), [source], lambda gradient: [gradient])


def scaled(tape: Tape, source: Tensor) -> Tensor:
    """``x * number``, ``x / number``."""
    return tape.record(tape.like(source), [source], lambda gradient: [tape.like(gradient)])


def multiplied_by_constant(tape: Tape, source: Tensor) -> Tensor:
    """``x * y`` where ``y`` stays as it is: a frozen weight, cosines."""
    return scaled(tape, source)


def shifted(tape: Tape, source: Tensor) -> Tensor:
    """``x + number``, and ``x + mask``."""
    return tape.record(tape.like(source), [source], lambda gradient: [gradient])


def parts(tape: Tape, source: Tensor, widths: Sequence[str], *, together: bool = False) -> list[Tensor]:
    """Slices: views, with gradients written into zeros of the whole; ``together`` (``chunk``) they are joined."""
    whole, size, rows = source.size.width, source.bytes, source.size.rows
    if together:
        return tape.record_many([source.viewed(width) for width in widths], source, lambda: tape.new(rows, whole, size))
    return [
        tape.record(source.viewed(width), [source], lambda gradient: [tape.new(rows, whole, size)]) for width in widths
    ]


def joined(tape: Tape, sources: Sequence[Tensor], width: str) -> Tensor:
    """``torch.cat``: its gradient is handed on in parts, without copying."""
    widths = [source.size.width for source in sources]
    output = tape.new(sources[0].size.rows, width, max(source.bytes for source in sources))
    return tape.record(output, sources, lambda gradient: [gradient.viewed(each) for each in widths])


def added(tape: Tape, left: Tensor, right: Tensor) -> Tensor:
    """``x + y`` of one shape."""
    output = tape.like(left, max(left.bytes, right.bytes))
    return tape.record(output, [left, right], lambda gradient: [gradient, gradient])


def added_in_place(tape: Tape, left: Tensor, right: Tensor) -> Tensor:
    """``x += y``."""
    return tape.record(left.viewed(left.size.width), [left, right], lambda gradient: [gradient, gradient])


def multiplied(tape: Tape, left: Tensor, right: Tensor) -> Tensor:
    """``x * y`` of one shape, gradients wanted of both."""
    saved = tape.save(left, right)
    output = tape.like(left, max(left.bytes, right.bytes))

    def backward(gradient: Tensor, *_saved: Tensor) -> list[Tensor]:
        return [tape.like(gradient), tape.like(gradient)]

    return tape.record(output, [left, right], backward, saved)


def activated(tape: Tape, source: Tensor) -> Tensor:
    """An activation with a kernel of its own (silu, gelu, relu): saves its input."""
    saved = tape.save(source)
    return tape.record(tape.like(source), [source], lambda gradient, _source: [tape.like(gradient)], saved)


def told_by_result(tape: Tape, source: Tensor) -> Tensor:
    """A function whose derivative is told by its result (tanh)."""
    output = tape.like(source)
    saved = tape.save(output)
    return tape.record(output, [source], lambda gradient, _output: [tape.like(gradient)], saved)


def powered(tape: Tape, source: Tensor) -> Tensor:
    """``x ** number``; autocast takes it in fp32."""
    source = cast(tape, source, 4)
    saved = tape.save(source)

    def backward(gradient: Tensor, kept: Tensor) -> list[Tensor]:
        lower = tape.like(kept)
        factor = tape.like(kept)
        result = tape.like(kept)
        del lower, factor
        return [result]

    return tape.record(tape.like(source), [source], backward, saved)


def gelu_by_hand(tape: Tape, source: Tensor) -> Tensor:
    """``0.5 * x * (1 + tanh(c * (x + 0.044715 * x ** 3)))``, from the left, as Python evaluates it."""
    return multiplied(tape, scaled(tape, source), _one_and_tanh(tape, source))


def _one_and_tanh(tape: Tape, source: Tensor) -> Tensor:
    return shifted(tape, told_by_result(tape, scaled(tape, added(tape, source, scaled(tape, powered(tape, source))))))


def dropped(tape: Tape, source: Tensor) -> Tensor:
    """Dropout: CUDA's kernel keeps a boolean mask."""
    output = tape.like(source)
    mask = tape.like(source, 1)
    saved = tape.save(mask)
    return tape.record(output, [source], lambda gradient, _mask: [tape.like(gradient)], saved)


def mean(tape: Tape, source: Tensor, statistics: str) -> Tensor:
    """Over the last dimension: its gradient is spread over all of it."""
    rows, width, size = source.size.rows, source.size.width, source.bytes
    output = tape.new(rows, statistics, size)
    return tape.record(output, [source], lambda gradient: [tape.new(rows, width, size)])


def root(tape: Tape, source: Tensor) -> Tensor:
    """``rsqrt(x + eps)`` of statistics."""
    return told_by_result(tape, shifted(tape, source))


def less(tape: Tape, source: Tensor, rows: Tensor) -> Tensor:
    """``x - mean``."""
    statistics = rows.size.width

    def backward(gradient: Tensor) -> list[Tensor]:
        negative = tape.like(gradient)
        summed = tape.new(gradient.size.rows, statistics, gradient.bytes)
        del negative
        return [gradient, summed]

    return tape.record(tape.like(source), [source, rows], backward)


def multiplied_by_rows(tape: Tape, source: Tensor, rows: Tensor) -> Tensor:
    """``x * rsqrt``."""
    statistics = rows.size.width
    saved = tape.save(source, rows)

    def backward(gradient: Tensor, *_saved: Tensor) -> list[Tensor]:
        own = tape.like(gradient)
        other = tape.like(gradient)
        summed = tape.new(gradient.size.rows, statistics, gradient.bytes)
        del other
        return [own, summed]

    return tape.record(tape.like(source), [source, rows], backward, saved)


def rms_scaled(tape: Tape, source: Tensor, statistics: str) -> Tensor:
    """``x * rsqrt(mean(x ** 2) + eps)``."""
    return multiplied_by_rows(tape, source, root(tape, mean(tape, powered(tape, source), statistics)))


def layer_normed(tape: Tape, source: Tensor, statistics: str) -> Tensor:
    """``layer_norm``: autocast gives it fp32, and fp32 comes out."""
    source = cast(tape, source, 4)
    output = tape.like(source)
    moments = [tape.new(source.size.rows, statistics, 4) for _ in range(2)]
    saved = tape.save(source, *moments)
    return tape.record(output, [source], lambda gradient, *_saved: [tape.like(gradient)], saved)


def normed_head_by_head(tape: Tape, source: Tensor, statistics: str) -> Tensor:
    """Heads split off, each with a layer norm of its own, and joined again."""
    rows, width = source.size.rows, source.size.width
    given = source.bytes
    inputs = cast(tape, source, 4)
    moments = [tape.new(rows, statistics, 4) for _ in range(2)]
    saved = tape.save(inputs, *moments)
    outputs = tape.like(inputs)
    output = tape.like(inputs)
    del outputs, inputs

    def backward(gradient: Tensor, *_saved: Tensor) -> list[Tensor]:
        normed = tape.new(rows, width, 4)
        heads = tape.new(rows, width, given)
        del normed
        return [tape.like(heads)]

    return tape.record(output, [source], backward, saved)
