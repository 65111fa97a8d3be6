"""What attention allocates and saves on a :class:`~qlora_tui.memory.tape.Tape`: rotary positions, kernels, scores."""

from __future__ import annotations

from collections.abc import Callable

from qlora_tui.memory.operations import added, cast, copy, joined, multiplied_by_constant, parts, scaled
from qlora_tui.memory.tape import Tape, Tensor


def turned(tape: Tape, source: Tensor) -> Tensor:
    """``x * cos + rotate_half(x) * sin``."""
    half = f"half {source.size.width}"
    left = multiplied_by_constant(tape, source)
    right = multiplied_by_constant(tape, _halves_swapped(tape, source, half))
    return added(tape, left, right)


def _halves_swapped(tape: Tape, source: Tensor, half: str) -> Tensor:
    first, second = parts(tape, source, (half, half))
    return joined(tape, (scaled(tape, second), first), source.size.width)


def partly_turned(tape: Tape, source: Tensor) -> Tensor:
    """A leading part of each head turned, the rest joined to it again."""
    width = source.size.width
    leading, rest = halves(tape, source)
    return joined(tape, (turned(tape, leading), rest), width)


def halves(tape: Tape, source: Tensor) -> list[Tensor]:
    """The part of each head that is turned, and the rest."""
    return parts(tape, source, (f"turned {source.size.width}", f"rest {source.size.width}"))


def turned_by_pairs(tape: Tape, query: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
    """Neighbours turned in fp32, and cast back."""
    given = query.bytes
    query, key = cast(tape, query, 4), cast(tape, key, 4)
    queries, keys = turned(tape, query), turned(tape, key)
    return cast(tape, queries, given), cast(tape, keys, given)


def repeated(tape: Tape, source: Tensor, width: str) -> Tensor:
    """``repeat_kv``: keys or values copied for every query head; their gradients are summed."""
    if not tape.grouped:
        return source
    if not tape.one_key_head:
        return expanded(tape, source, width)
    return tape.record(source.viewed(width), [source], _summed_to(tape, source))


def expanded(tape: Tape, source: Tensor, width: str) -> Tensor:
    """Heads copied; their gradients are summed."""
    return tape.record(tape.new(source.size.rows, width, source.bytes), [source], _summed_to(tape, source))


def _summed_to(tape: Tape, source: Tensor) -> Callable[[Tensor], list[Tensor]]:
    rows, given, size = source.size.rows, source.size.width, source.bytes
    return lambda _gradient: [tape.new(rows, given, size)]


def gathered(tape: Tape, source: Tensor, width: str) -> Tensor:
    """Heads taken out by a list of their numbers: a copy, whose gradient is written into zeros of the whole."""
    return tape.record(tape.new(source.size.rows, width, source.bytes), [source], _summed_to(tape, source))


def fused_attention(tape: Tape, query: Tensor, key: Tensor, value: Tensor, *, masked: bool, by_heads: bool) -> Tensor:
    """``scaled_dot_product_attention`` in 16 bits: the flash kernel, or the memory-efficient one with a mask.

    Args:
        by_heads: The queries lie in memory head by head. So does the flash kernel's output then, which is put in order
            for the next matrix, and again for the backward pass.
    """
    query, key, value = (cast(tape, each, 2) for each in (query, key, value))
    mask = [tape.new("scores", "one", 2)] if masked else []
    output = tape.new("tokens", "query", 2)
    sums = tape.new("tokens", "heads", 4)
    saved = tape.save(query, key, value, *mask, output, sums)
    del mask, sums

    def backward(gradient: Tensor, *kept: Tensor) -> list[Tensor]:
        results = [tape.like(each) for each in kept[:3]]
        scratch = [tape.new("tokens", "heads", 4)]
        if not masked:
            if by_heads:
                scratch.append(tape.new("tokens", "query", 2))
            scratch.append(tape.new("tokens", "padded query", 4))
            if tape.grouped:
                scratch += [tape.new("tokens", "query", 2), tape.new("tokens", "query", 2)]
        del scratch
        return results

    output = tape.record(output, [query, key, value], backward, saved)
    return copy(tape, output) if by_heads and not masked else output


def _contiguous(tape: Tape, source: Tensor) -> Tensor:
    """``reshape`` of heads that lie between others' tokens, for a batched product: a copy."""
    return tape.record(tape.like(source), [source], lambda gradient: [gradient])


def _product(tape: Tape, left: Tensor, right: Tensor, rows: str, width: str) -> Tensor:
    saved = tape.save(left, right)
    output = tape.new("scores" if rows == "scores" else "tokens", width, 2)

    def backward(gradient: Tensor, left: Tensor, right: Tensor) -> list[Tensor]:
        return [tape.like(left), tape.like(right)]

    return tape.record(output, [left, right], backward, saved)


def _batched(tape: Tape, source: Tensor) -> Tensor:
    """Keys or values for a batched product: repeated heads lie in order already, unless they are one."""
    return source if tape.grouped and not tape.one_key_head else _contiguous(tape, source)


def scores(tape: Tape, query: Tensor, key: Tensor) -> Tensor:
    """``torch.matmul(query, key.transpose(2, 3))``."""
    query, key = cast(tape, query, 2), cast(tape, key, 2)
    return _product(tape, _contiguous(tape, query), _batched(tape, key), "scores", "heads")


def softmax(tape: Tape, source: Tensor, *, float16: bool) -> Tensor:
    """``softmax`` in fp32: saves its result; ``SoftMax.cu`` multiplies the gradient by it into a tensor of its own.

    Args:
        float16: The scores are fp16; for those, and not for bf16, the kernel casts on its way.
    """
    source = source if float16 else cast(tape, source, 4)
    output = tape.like(source, 4)
    saved = tape.save(output)

    def backward(gradient: Tensor, kept: Tensor) -> list[Tensor]:
        result = tape.like(kept, 2 if float16 else 4)
        scratch = tape.like(kept)
        del scratch
        return [result]

    return tape.record(output, [source], backward, saved)


def weighted(tape: Tape, weights: Tensor, value: Tensor) -> Tensor:
    """``torch.matmul(weights, value)``."""
    weights, value = cast(tape, weights, 2), cast(tape, value, 2)
    return _product(tape, weights, _batched(tape, value), "tokens", "query")
