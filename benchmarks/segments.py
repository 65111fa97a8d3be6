"""What torch's caching allocator reserves with segments of fixed size: steps run dry, replayed through its rules.

    python -m benchmarks.segments [all]

With ``all``, the rest of the archive is replayed too, which takes half an hour and is not published.

Nothing is fitted here. The steps are those of the script that the T4 rows come from, loading included; the rules are
those of ``CUDACachingAllocator.cpp``. Replayed freely they give what the driver showed; replayed under a limit, with
whole free segments given back when it is reached, they give the least that a run needs.
"""

from __future__ import annotations

import bisect
import json
import statistics
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Final

import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from benchmarks.base_models import config_of
from benchmarks.fit import error
from benchmarks.tables import publish, table
from benchmarks.third_party import T4_CONTEXT, T4Run, archive, quality_a
from qlora_tui.engine import dryrun_model as parts
from qlora_tui.engine.as_cuda import CUDA_OPERATIONS, Told, as_cuda
from qlora_tui.engine.liveness import ROUNDING, Liveness
from qlora_tui.memory.recipe import MIB, DeviceFacts, Recipe

_SMALL: Final = MIB
"""Up to here a block comes from a segment of small ones."""
_LARGE: Final = 10 * MIB
"""From here a block gets a segment of its own, in steps of 2 MiB."""

Event = tuple[int, int]
"""A number and bytes for a new block; the number negated for one that is gone."""


@dataclass(slots=True, eq=False)
class _Block:
    segment: int
    offset: int
    size: int
    small: bool
    used: bool = False
    before: _Block | None = None
    after: _Block | None = None

    @property
    def order(self) -> tuple[int, int, int]:
        """Free blocks are searched by size, then by address."""
        return self.size, self.segment, self.offset


class OutOfMemory(Exception):
    """The limit is too low."""


@dataclass(slots=True)
class Allocator:
    """The caching allocator without expandable segments, on one stream.

    Attributes:
        limit: Bytes it may reserve; None for as many as it likes.
    """

    limit: int | None = None
    reserved: int = 0
    allocated: int = 0
    peak_reserved: int = 0
    peak_allocated: int = 0
    _segments: int = 0
    _free: dict[bool, list[tuple[tuple[int, int, int], _Block]]] = field(default_factory=lambda: {True: [], False: []})

    def malloc(self, size: int) -> _Block:
        """A block of at least that size: the smallest free one that is large enough, else of a new segment.

        Raises:
            OutOfMemory: if the limit is reached, and giving back every segment that is wholly free is not enough.
        """
        size = max(ROUNDING, -(-size // ROUNDING) * ROUNDING)
        small = size <= _SMALL
        free = self._free[small]
        found = bisect.bisect_left(free, ((size, -1, -1),), key=lambda entry: (entry[0],))
        block = free.pop(found)[1] if found < len(free) else self._grow(size, small)
        rest = block.size - size
        if rest >= ROUNDING if small else rest > _SMALL:
            split = _Block(block.segment, block.offset + size, rest, small, before=block, after=block.after)
            if block.after:
                block.after.before = split
            block.after, block.size = split, size
            self._keep(split)
        block.used = True
        self.allocated += block.size
        self.peak_allocated = max(self.peak_allocated, self.allocated)
        return block

    def free(self, block: _Block) -> None:
        """Give a block back to its pool, joined with its free neighbours."""
        block.used = False
        self.allocated -= block.size
        for neighbour in (block.before, block.after):
            if neighbour and not neighbour.used:
                self._forget(neighbour)
                first, second = (neighbour, block) if neighbour is block.before else (block, neighbour)
                first.size, first.after = first.size + second.size, second.after
                if second.after:
                    second.after.before = first
                block = first
        self._keep(block)

    def _grow(self, size: int, small: bool) -> _Block:
        step = 2 * MIB
        segment = step if small else 20 * MIB if size < _LARGE else -(-size // step) * step
        if self.limit is not None and self.reserved + segment > self.limit:
            self._give_back()
            if self.reserved + segment > self.limit:
                raise OutOfMemory
        self._segments += 1
        self.reserved += segment
        self.peak_reserved = max(self.peak_reserved, self.reserved)
        return _Block(self._segments, 0, segment, small)

    def _give_back(self) -> None:
        for free in self._free.values():
            for entry in [each for each in free if each[1].before is None and each[1].after is None]:
                free.remove(entry)
                self.reserved -= entry[1].size

    def _keep(self, block: _Block) -> None:
        bisect.insort(self._free[block.small], (block.order, block))

    def _forget(self, block: _Block) -> None:
        free = self._free[block.small]
        del free[bisect.bisect_left(free, (block.order,), key=lambda entry: (entry[0],))]


class Recorder(Liveness):
    """Notes when each storage comes and goes."""

    def __init__(self) -> None:
        super().__init__(CUDA_OPERATIONS)
        self.events: list[Event] = []
        self._numbers: dict[int, int] = {}

    def _see(self, tensor: FakeTensor, func: Any) -> None:
        before = self._allocations
        super()._see(tensor, func)
        if self._allocations > before:
            self._numbers[tensor.untyped_storage()._cdata] = self._allocations
            self.events.append((self._allocations, tensor.untyped_storage().nbytes()))

    def _free(self, key: int) -> None:
        self.events.append((-self._numbers.pop(key), 0))
        super()._free(key)


@cache
def recorded(model: str, recipe: Recipe) -> Sequence[Event]:
    """Two updates of fitcheck's script: no autocast, full logits kept until the backward pass, torch's AdamW."""
    live, told = Recorder(), Told(packed=False, padded=False)
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "config.json").write_text(json.dumps(config_of(model)), encoding="utf-8")
        built = parts.build(Path(folder), recipe)
    with ExitStack() as stack:
        stack.enter_context(as_cuda(told))
        stack.enter_context(FakeTensorMode(allow_non_fake_inputs=True))
        stack.enter_context(live)
        _load(built, recipe, live)
        _updates(built, recipe)
    return tuple(live.events)


def _load(built: parts.Built, recipe: Recipe, live: Liveness) -> None:
    """As transformers and peft do: tables in 16 bits, a head of its own even if it is tied, cast after loading."""
    config = built.base.config
    tables = [torch.empty(config.vocab_size, config.hidden_size, dtype=torch.float16) for _ in range(2)]
    parts.load(built.base, recipe, live)
    del tables
    parts.load_adapter(built.adapted, recipe, live)
    built.adapted.enable_input_require_grads()
    built.base.activation_checkpointing_enable(every_n_layers=1)
    built.adapted.train()


def _updates(built: parts.Built, recipe: Recipe) -> None:
    optimizer = torch.optim.AdamW([each for each in built.adapted.parameters() if each.requires_grad], foreach=True)
    rows = torch.zeros(recipe.micro_batch, recipe.sequence, dtype=torch.int64)
    workspaces = []
    for number in range(2):
        optimizer.zero_grad(set_to_none=True)
        if not number:
            workspaces.append(torch.empty(DeviceFacts().workspace // 2, dtype=torch.uint8))
        outputs = built.adapted(input_ids=rows, labels=rows, use_cache=False)
        if not number:
            workspaces.append(torch.empty(DeviceFacts().workspace // 2, dtype=torch.uint8))
        outputs.loss.backward()
        optimizer.step()


def replay(events: Sequence[Event], limit: int | None = None) -> Allocator:
    """Give the events to an allocator.

    Raises:
        OutOfMemory: if the limit is too low.
    """
    allocator, blocks = Allocator(limit), {}
    for number, size in events:
        if number > 0:
            blocks[number] = allocator.malloc(size)
        else:
            allocator.free(blocks.pop(-number))
    return allocator


def needed(events: Sequence[Event], free: Allocator) -> int:
    """The least limit under which the events succeed, to half a percent."""
    low, high = free.peak_allocated, free.peak_reserved
    while high - low > free.peak_allocated // 200:
        limit = (low + high) // 2
        try:
            replay(events, limit)
            high = limit
        except OutOfMemory:
            low = limit
    return high


def main() -> None:
    """Replay the complete T4 rows and publish."""
    everything = sys.argv[1:] == ["all"]
    rows: list[tuple[str, ...]] = []
    processes, factors = [], []
    for run in (*quality_a(), *(archive() if everything else ())):
        events = recorded(run.model, run.recipe)
        free = replay(events)
        allocated = error(free.peak_allocated, run.allocated)
        processes.append(error(free.peak_reserved + T4_CONTEXT, run.process))
        factors.append(needed(events, free) / free.peak_allocated)
        found = (f"{100 * allocated:+.1f} %", f"{100 * processes[-1]:+.1f} %", f"{factors[-1]:.2f}")
        rows.append((*_named(run), *found))
        print(rows[-1], flush=True)
    sizes, ordered = [abs(value) for value in processes], sorted(factors)
    lines = (
        f"- **Process, replayed**: {len(rows)} rows, mean {100 * statistics.fmean(sizes):.1f} %, "
        f"within 7 %: {sum(size <= 0.07 for size in sizes)}, worst {100 * max(sizes):.0f} %.",
        f"- **Needed over allocated**: {ordered[0]:.2f} to {ordered[-1]:.2f}, half of them "
        f"{statistics.median(ordered):.2f} or less, nine in ten {ordered[9 * len(ordered) // 10]:.2f} or less.",
    )
    header = ("row", "model", "base", "batch", "attention", "allocated, replay over measured", "process", "needed")
    folded = f"<details><summary>Every row</summary>\n\n{table(header, rows)}\n\n</details>"
    if everything:
        print("\n".join(lines))
    else:
        publish("segments", "\n".join(lines), folded)


def _named(run: T4Run) -> tuple[str, ...]:
    recipe = run.recipe
    batch = f"{recipe.micro_batch}×{recipe.sequence}"
    return run.id, run.model, recipe.quantization, batch, recipe.attention


if __name__ == "__main__":
    main()
