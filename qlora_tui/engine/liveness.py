"""Counts the bytes of tensors that are alive, as the CUDA caching allocator would, while nothing is really allocated.

Under fake tensors every operation runs without data. A dispatch mode above them sees each result; a storage counts
from the operation that made it until the last tensor on it is gone, rounded up to the allocator's 512 bytes.
"""

from __future__ import annotations

import traceback
import weakref
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

ROUNDING = 512
"""``CUDACachingAllocator.cpp``, ``kMinBlockSize``."""


@dataclass(frozen=True, slots=True)
class Block:
    """A storage that is alive.

    Attributes:
        size: Bytes, rounded as the allocator rounds them.
        part: What it was allocated as.
        made_by: The operation that made it, with shape and dtype.
        stack: Where from, innermost call last; empty unless asked for.
    """

    size: int
    part: str
    made_by: str = ""
    stack: tuple[str, ...] = ()


class Liveness(TorchDispatchMode):
    """Live bytes, their peak, and what the peak was made of.

    Args:
        stand_ins: What to call in place of an operation, with this mode before its arguments. This mode is off while
            it runs; it switches it on around whatever should be counted besides the result.
        watch: Number of the allocation after which to note every live storage; see :attr:`peak_at`.
    """

    def __init__(self, stand_ins: Mapping[Any, Callable[..., Any]] | None = None, watch: int | None = None) -> None:
        super().__init__()
        self.live = 0
        self.peak = 0
        self.peak_at = 0
        """Number of the allocation that made the peak."""
        self.peak_parts: dict[str, int] = {}
        self.watched: list[Block] = []
        self.part = "other"
        self._allocations = 0
        self._blocks: dict[int, tuple[Any, Block]] = {}
        self._parts: Counter[str] = Counter()
        self._stand_ins = stand_ins or {}
        self._watch = watch

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        stand_in = self._stand_ins.get(func)
        result = func(*args, **kwargs) if stand_in is None else stand_in(self, *args, **kwargs)
        for leaf in tree_leaves(result):
            if isinstance(leaf, FakeTensor):
                self._see(leaf, func)
        return result

    @contextmanager
    def allocating(self, part: str) -> Iterator[None]:
        """Count what is made inside as this part."""
        before, self.part = self.part, part
        try:
            yield
        finally:
            self.part = before

    def rename(self, tensor: torch.Tensor, part: str) -> None:
        """Count a live tensor's storage as another part from now on."""
        key = tensor.untyped_storage()._cdata
        if key in self._blocks:
            reference, block = self._blocks[key]
            self._parts[block.part] -= block.size
            self._parts[part] += block.size
            self._blocks[key] = reference, Block(block.size, part, block.made_by, block.stack)

    def begin_phase(self) -> None:
        """Forget the peak so far; what is alive stays counted."""
        self.peak, self.peak_at, self.peak_parts = self.live, self._allocations, dict(self._parts)

    def _see(self, tensor: FakeTensor, func: Any) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._blocks:
            return
        size = -(-storage.nbytes() // ROUNDING) * ROUNDING
        if self._watch is None:
            block = Block(size, self.part)
        else:
            block = Block(size, self.part, f"{func} {tuple(tensor.shape)} {tensor.dtype}", _stack())
        self._blocks[key] = weakref.ref(storage, lambda _: self._free(key)), block
        self._parts[self.part] += size
        self.live += size
        self._allocations += 1
        if self.live > self.peak:
            self.peak, self.peak_at, self.peak_parts = self.live, self._allocations, dict(self._parts)
        if self._watch == self._allocations:
            self.watched = [each for _, each in self._blocks.values()]

    def _free(self, key: int) -> None:
        _, block = self._blocks.pop(key)
        self._parts[block.part] -= block.size
        self.live -= block.size


def _stack() -> tuple[str, ...]:
    """Calls within the libraries that matter."""
    known = ("transformers/", "/peft/", "/trl/", "/bitsandbytes/", "/liger_kernel/", "/qlora_tui/engine/dryrun")
    frames = traceback.extract_stack()
    return tuple(
        f"{frame.filename.rpartition('/')[2]}:{frame.lineno} {frame.name}"
        for frame in frames
        if any(name in frame.filename for name in known)
    )
