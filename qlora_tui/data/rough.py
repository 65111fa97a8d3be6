"""How long the rows of a file are, roughly and fast: from the bytes of its lines, no tokenizer."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from qlora_tui.data.slices import parse_split

if TYPE_CHECKING:
    from qlora_tui.config import RunConfig

_BYTES_PER_TOKEN: Final = 4
_MOST_BYTES: Final = 32 << 20
"""Of a larger file this much is read, and the rest is taken to be like it."""


def rough_lengths(config: RunConfig, beside: Path) -> list[int]:
    """Tokens of each training row, at most ``max_length``; empty if the data is no file here.

    Args:
        beside: Where relative paths are looked for, after the current folder.
    """
    path = next((each for each in (Path(config.data.source), beside / config.data.source) if each.is_file()), None)
    if path is None or path.suffix not in (".jsonl", ".ndjson"):
        return []
    try:
        with path.open("rb") as file:
            content = file.read(_MOST_BYTES)
        share = path.stat().st_size / max(1, len(content))
    except OSError:
        return []
    lengths = [
        min(config.data.max_length, max(1, len(line) // _BYTES_PER_TOKEN))
        for line in content.splitlines()
        if line.strip()
    ]
    start, stop = parse_split(config.data.split).bounds(round(len(lengths) * share))
    if share > 1:
        lengths = (lengths * (int(share) + 1))[: round(len(lengths) * share)]
    kept = lengths[start:stop]
    held_out = 0 if config.data.evaluation.source else round(len(kept) * config.data.evaluation.fraction)
    return kept[: len(kept) - held_out]
