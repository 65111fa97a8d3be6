"""The rows of a run: read, encoded, held out, packed, in the form that the trainer takes them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from qlora_tui.config import DataSection, RunConfig
from qlora_tui.data.encode import Encoder
from qlora_tui.data.holdout import hold_out
from qlora_tui.data.prepare import PreparedRow, prepare
from qlora_tui.data.privacy import Redactor
from qlora_tui.data.report import PreparationReport
from qlora_tui.data.source import file_fingerprint, locate, read_jsonl
from qlora_tui.errors import DataError
from qlora_tui.text import one_line

if TYPE_CHECKING:
    from datasets import Dataset

MIN_SELECTION_ROWS = 32


@dataclass(frozen=True, slots=True)
class RunRows:
    """All rows of a run.

    ``test`` is measured before and after training. ``selection`` chooses the best adapter and decides when to stop;
    where there are enough held-out rows the two share none, so the choice cannot flatter the measurement.
    """

    encoder: Encoder
    train: tuple[PreparedRow, ...]
    test: tuple[PreparedRow, ...]
    selection: tuple[PreparedRow, ...]
    report: PreparationReport
    fingerprints: dict[str, str]
    redacted: dict[str, int]
    """Private values that placeholders stand for now, by kind; empty unless ``data.redact`` is on."""

    @property
    def selection_is_test(self) -> bool:
        return bool(self.test) and self.selection == self.test


def load_rows(config: RunConfig, folder: Path, on_progress: Callable[[int], None]) -> RunRows:
    """Read and encode the training rows and the held-out rows.

    Args:
        folder: The model's folder with its tokenizer and chat template.
        on_progress: Called with the number of rows read; may raise to stop.

    Raises:
        DataError: if a file cannot be read or no row can be used.
        ModelError: if the tokenizer or chat template is unusable.
    """
    _refuse_subset(config.data)
    encoder = Encoder.from_folder(folder, config.data)
    redactor = Redactor() if config.data.redact else None
    path = locate(config.data.source)
    prepared = prepare(read_jsonl(path, config.data.split), encoder, config.data, on_progress, redactor)
    fingerprints = {"train": file_fingerprint(path)}
    evaluation = config.data.evaluation
    if evaluation.source:
        path = locate(evaluation.source)
        section = config.data.model_copy(update={"split": "train"})
        held_out = prepare(read_jsonl(path), encoder, section, on_progress, redactor).rows
        fingerprints["evaluation"] = file_fingerprint(path)
        train = prepared.rows
    else:
        split = hold_out(prepared.rows, evaluation.fraction, config.training.seed)
        train, held_out = split.train, split.evaluation
    if not train:
        raise DataError(
            "There is nothing to train on.",
            f"All {len(prepared.rows)} usable rows were held out for evaluation.",
            "Lower data.evaluation.fraction or add rows.",
        )
    test, selection = _share_out(held_out, config.evaluation.rows)
    redacted = dict(redactor.replaced) if redactor is not None else {}
    return RunRows(encoder, train, test, selection, prepared.report, fingerprints, redacted)


def _refuse_subset(section: DataSection) -> None:
    if section.subset:
        raise DataError(
            f"There is no subset {one_line(section.subset, 40)!r}.",
            "Files have no subsets; only data sets on the hub do, which this version does not read.",
            "Remove data.subset from the config.",
        )


def _share_out(
    held_out: tuple[PreparedRow, ...], test_rows: int
) -> tuple[tuple[PreparedRow, ...], tuple[PreparedRow, ...]]:
    rest = held_out[test_rows:]
    if len(rest) >= MIN_SELECTION_ROWS:
        return held_out[:test_rows], rest[:test_rows]
    return held_out[:test_rows], held_out[:test_rows]


def as_dataset(rows: Sequence[PreparedRow], section: DataSection, *, packing: bool) -> Dataset:
    """The trainer's data set: ``input_ids`` and ``labels`` (-100 where untrained), packed if asked for.

    Packing puts whole rows together up to ``max_length`` tokens (best fit decreasing) and records their lengths in
    ``seq_lengths``; rows are no longer than that already, so none is cut.
    """
    from datasets import Dataset
    from trl import pack_dataset

    dataset = Dataset.from_dict(
        {
            "input_ids": [row.input_ids for row in rows],
            "labels": [
                [token if trained else -100 for token, trained in zip(row.input_ids, row.trained, strict=True)]
                for row in rows
            ],
        }
    )
    return pack_dataset(dataset, section.max_length, "bfd") if packing else dataset
