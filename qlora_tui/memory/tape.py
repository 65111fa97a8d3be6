"""Which tensors are alive when, in a step of training: autograd's bookkeeping without any numbers in it.

A program written like a model's own forward pass makes tensors that know their size and nothing else. As in torch, a
tensor lives while Python holds it or an operation has saved it for the backward pass, a gradient until it has been
used, and a checkpoint runs the program a second time. What comes out is a log of allocations and releases in their
order. Sizes stay names ("hidden" bytes for each of the "tokens"), so one log serves every model that is built the
same way.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Literal, NamedTuple

Rows = Literal["tokens", "scores", "positions", "tile", "chunks", "once"]
"""What a size is multiplied by: tokens of the micro-batch, pairs of a query and a key in it, positions; tokens that the
loss projects at once, and those it casts at once."""
Backward = Callable[..., Sequence["Tensor | None"]]


class Size(NamedTuple):
    """A number of bytes: ``bytes`` an element, ``width`` elements for each of the ``rows``."""

    rows: Rows
    width: str
    bytes: float


_size = lru_cache(maxsize=None)(Size)
"""There are few different ones."""


class _Storage:
    """Memory. It is released when nothing holds it any more."""

    __slots__ = ("index", "tape")

    def __init__(self, tape: Tape, size: Size) -> None:
        self.tape = tape
        self.index = len(tape.sizes)
        tape.sizes.append(size)
        tape.parts.append(tape.part)
        tape.log.append(self.index)

    def __del__(self) -> None:
        self.tape.log.append(~self.index)


class Tensor:
    """A view of memory, and the operation that it came from if its gradient is wanted."""

    __slots__ = ("node", "number", "size", "storage")

    def __init__(self, storage: _Storage, size: Size, node: Node | None = None, number: int = 0) -> None:
        self.storage = storage
        self.size = size
        self.node = node
        self.number = number
        """Which of the operation's outputs it is."""

    @property
    def bytes(self) -> float:
        """Bytes of an element."""
        return self.size.bytes

    def viewed(self, width: str) -> Tensor:
        """The same memory, or a part of it, as rows of another width; without its history."""
        return Tensor(self.storage, _size(self.size.rows, width, self.size.bytes))


class _Frame:
    """A checkpoint: the program to run again, and how many tensors it saves."""

    __slots__ = ("found", "program", "saves", "source")

    def __init__(self, program: Callable[[Tensor], Tensor], source: Tensor) -> None:
        self.program = program
        self.source = source
        self.saves = 0
        self.found: list[Tensor | None] = []


class _Saved:
    """A tensor kept for the backward pass, or its place in a checkpoint."""

    __slots__ = ("frame", "place", "tensor")

    def __init__(self, tensor: Tensor | None, frame: _Frame | None = None, place: int = 0) -> None:
        self.tensor = tensor
        self.frame = frame
        self.place = place


class Node:
    """An operation to go back through: where its gradients go, what it saved, how it makes them."""

    __slots__ = ("backward", "inputs", "outputs", "saved", "sequence")

    def __init__(
        self,
        sequence: int,
        inputs: Sequence[Tensor] = (),
        saved: list[_Saved] | None = None,
        backward: Backward | None = None,
        outputs: int = 1,
    ) -> None:
        self.sequence = sequence
        self.inputs = [(each.node, each.number, each.size.bytes) for each in inputs]
        self.saved = saved or []
        self.backward = backward
        self.outputs = outputs


class _EarlyStop(Exception):
    """A checkpoint's second run has found all that it looked for."""


class Tape:
    """Makes tensors and goes back through the operations on them.

    Attributes:
        sizes: Of every storage there was, by index.
        parts: What each was allocated as.
        log: Index of a storage where it is allocated, its complement where it is released.
        part: What is being allocated.
        grouped: Whether several query heads share a key head.
        one_key_head: Whether all of them share one.
        gradients: Of parameters; they stay.
    """

    def __init__(self, *, grouped: bool = False, one_key_head: bool = False) -> None:
        self.grouped = grouped
        self.one_key_head = one_key_head
        self.gradients: list[Tensor] = []
        self.sizes: list[Size] = []
        self.parts: list[str] = []
        self.log: list[int] = []
        self.part = ""
        self._sequence = 0
        self._frame: _Frame | None = None
        self._again: _Frame | None = None

    @contextmanager
    def allocating(self, part: str) -> Iterator[None]:
        """Count what is made inside as this part."""
        before, self.part = self.part, part
        try:
            yield
        finally:
            self.part = before

    def new(self, rows: Rows, width: str, size: float) -> Tensor:
        """A tensor that no gradient is wanted of."""
        full = _size(rows, width, size)
        return Tensor(_Storage(self, full), full)

    def like(self, tensor: Tensor, size: float | None = None) -> Tensor:
        """A tensor of another's shape."""
        full = tensor.size if size is None else _size(tensor.size.rows, tensor.size.width, size)
        return Tensor(_Storage(self, full), full)

    def parameter(self, tensor: Tensor) -> Tensor:
        """The same tensor as something whose gradient is wanted; whoever leads back to it keeps it alive."""
        return Tensor(tensor.storage, tensor.size, Node(self._next(), (), [_Saved(tensor)]))

    def save(self, *tensors: Tensor) -> list[_Saved]:
        """Keep tensors for the backward pass; a checkpoint only counts them, and finds them the second time."""
        if self._again is not None:
            found = self._again.found
            for tensor in tensors:
                found.append(Tensor(tensor.storage, tensor.size))
                if len(found) == self._again.saves:
                    raise _EarlyStop
            return []
        if self._frame is not None:
            places = range(self._frame.saves, self._frame.saves + len(tensors))
            self._frame.saves += len(tensors)
            return [_Saved(None, self._frame, place) for place in places]
        return [_Saved(Tensor(tensor.storage, tensor.size)) for tensor in tensors]

    def record(
        self,
        output: Tensor,
        inputs: Sequence[Tensor],
        backward: Backward,
        saved: list[_Saved] | None = None,
        *,
        trained: bool = False,
    ) -> Tensor:
        """Note how to go back from an operation's output to its inputs.

        Args:
            backward: Takes the output's gradient and the saved tensors; returns a gradient for each input.
            saved: What :meth:`save` gave.
            trained: The operation has weights that are trained, so it is gone back to in any case.
        """
        # A plain loop: every operation of every step passes here.
        for each in inputs:
            if trained or each.node is not None:
                output.node = Node(self._next(), inputs, saved, backward)
                break
        return output

    def record_many(self, outputs: list[Tensor], source: Tensor, backward: Callable[[], Tensor]) -> list[Tensor]:
        """The same for several outputs of one input, whose gradients are put together."""
        if source.node is not None:
            node = Node(self._next(), [source], None, lambda *_gradients: [backward()], len(outputs))
            for number, output in enumerate(outputs):
                output.node, output.number = node, number
        return outputs

    def checkpoint(self, program: Callable[[Tensor], Tensor], source: Tensor) -> Tensor:
        """Run a program and keep nothing of it but its input (``torch.utils.checkpoint``, non-reentrant)."""
        frame = _Frame(program, source)
        source.storage.tape.parts[source.storage.index] = "checkpoints"
        self._frame = frame
        try:
            return program(source)
        finally:
            self._frame = None

    def backward(self, root: Node, gradient: Tensor, before: Callable[[Node], bool] | None = None) -> None:
        """Go back from an output, latest operation first, until there is no more or ``before`` says stop.

        A gradient is cast to the dtype of what it belongs to. Those that reach an operation by two ways are added into
        a third tensor.
        """
        waiting: dict[Node, list[Tensor | None]] = {root: [gradient]}
        heap = [(-root.sequence, root)]
        del gradient
        while heap:
            node = heapq.heappop(heap)[1]
            received = waiting.pop(node)
            if node.backward is None:
                continue
            if before is not None and before(node):
                return
            saved = [self._unpacked(each) for each in node.saved]
            gradients = list(node.backward(*received, *saved))
            del saved
            for place, (target, _, size) in enumerate(node.inputs):
                given = gradients[place]
                if target is not None and given is not None and given.size.bytes != size:
                    gradients[place] = self.like(given, size)
                del given
            del received
            node.saved = []
            for place, (target, number, _) in enumerate(node.inputs):
                given, gradients[place] = gradients[place], None
                if target is None or given is None:
                    continue
                if target not in waiting:
                    waiting[target] = [None] * target.outputs
                    heapq.heappush(heap, (-target.sequence, target))
                slots = waiting[target]
                if slots[number] is None:
                    slots[number] = given
                else:
                    slots[number] = self.like(given)
                del given, slots

    def _unpacked(self, saved: _Saved) -> Tensor:
        frame = saved.frame
        if frame is None:
            assert saved.tensor is not None
            return saved.tensor
        if not frame.found:
            self._run_again(frame)
        found, frame.found[saved.place] = frame.found[saved.place], None
        assert found is not None
        return found

    def _run_again(self, frame: _Frame) -> None:
        self._again = frame
        try:
            frame.program(frame.source)
        except _EarlyStop:
            pass
        finally:
            self._again = None

    def _next(self) -> int:
        self._sequence += 1
        return self._sequence
