"""What is known of the data now: it comes piece by piece from a process of its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from qlora_tui.config import RunConfig
from qlora_tui.errors import QloraError
from qlora_tui.memory.fit import NO_ROWS, Rows

if TYPE_CHECKING:
    from qlora_tui.data.inspection import Inspection
    from qlora_tui.data.preview import Preview


@dataclass(frozen=True, slots=True)
class Seen:
    """An inspection under way or done; ``key`` is what it depends on."""

    key: Any
    progress: str = ""
    reason: str = ""
    """How the format was recognised, once the first rows are read."""
    preview: Preview | None = None
    inspection: Inspection | None = None
    error: QloraError | None = None


def key_of(config: RunConfig) -> Any:
    """What an inspection depends on."""
    held_out = config.data.evaluation.model_copy(update={"fraction": 0.0})
    return config.model, config.data.model_copy(update={"packing": "auto", "evaluation": held_out})


def rows_of(seen: Seen | None, config: RunConfig) -> Rows:
    """What the arithmetic can know of the rows: those that stay after some are held out."""
    inspection = seen.inspection if seen else None
    if inspection is None or not inspection.kept:
        return NO_ROWS
    held_out = config.data.evaluation
    share = 1.0 if held_out.source is not None else 1 - held_out.fraction
    tokens = max(1, round(inspection.tokens.total * share))
    rows = max(1, round(inspection.kept * share))
    packed = config.data.packing
    if packed == "auto":
        from qlora_tui.advice.playbook import wants_packing

        packed, _ = wants_packing([max(1, tokens // rows)], config.data.max_length)
    length = config.data.max_length
    return Rows(
        packed=packed,
        longest=None if packed else min(length, inspection.tokens.max),
        sequences=max(1, -(-tokens // length)) if packed else rows,
        tokens=tokens,
    )
