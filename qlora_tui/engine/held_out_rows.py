"""The held-out rows of a finished run, read again: for spot checks and for the fidelity of a merge."""

from __future__ import annotations

from collections.abc import Sequence

from qlora_tui.config import RunConfig
from qlora_tui.data.prepare import PreparedRow
from qlora_tui.engine.rows import RunRows, load_rows
from qlora_tui.models.sources import ModelFiles, resolve_model


def read_rows(config: RunConfig, files: ModelFiles | None = None) -> RunRows:
    """The run's rows as training had them.

    Raises:
        QloraError: if the data or the model's tokenizer cannot be read any more.
    """
    files = files or resolve_model(config.model, weights=False)
    return load_rows(config, files.folder, lambda _done: None)


def spot_rows(config: RunConfig, count: int) -> list[dict[str, object]]:
    """The first held-out conversations: ``system``, ``turns`` up to the last answer, and the ``reference`` answer.

    Raises:
        QloraError: as :func:`read_rows`.
    """
    return [_spot_row(row) for row in conversations(read_rows(config).test)[:count]]


def _spot_row(row: PreparedRow) -> dict[str, object]:
    turns = row.turns[:-1]
    return {
        "number": row.number,
        "system": "\n\n".join(turn.content for turn in turns if turn.role == "system"),
        "turns": [{"role": turn.role, "content": turn.content} for turn in turns if turn.role != "system"],
        "reference": row.turns[-1].content,
    }


def conversations(rows: Sequence[PreparedRow]) -> list[PreparedRow]:
    """The rows that end with an answer."""
    return [row for row in rows if row.turns and row.turns[-1].role == "assistant"]
