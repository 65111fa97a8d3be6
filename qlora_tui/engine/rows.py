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
from qlora_tui.engine.data_source import open_evaluation, open_training
from qlora_tui.errors import DataError
from qlora_tui.models.hub_progress import Progress

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
    warnings: tuple[str, ...] = ()
    """What a person should know of the rows and their source, one sentence each."""

    @property
    def selection_is_test(self) -> bool:
        return bool(self.test) and self.selection == self.test


def load_rows(
    config: RunConfig, folder: Path, on_progress: Callable[[int], None], on_fetch: Progress | None = None
) -> RunRows:
    """Read and encode the training rows and the held-out rows.

    Args:
        folder: The model's folder with its tokenizer and chat template.
        on_progress: Called with the number of rows read; may raise to stop.
        on_fetch: Called with bytes done and bytes in all of each file that comes from the hub; may raise to stop.

    Raises:
        DataError: if a file cannot be read or no row can be used.
        ModelError: if the tokenizer or chat template is unusable.
        EnvironmentFault: if the hub cannot be reached.
    """
    encoder = Encoder.from_folder(folder, config.data)
    redactor = Redactor() if config.data.redact else None
    training = open_training(config.data, on_fetch)
    evaluation = open_evaluation(config.data, training, on_fetch)
    with training.named():
        prepared = prepare(training.rows(), encoder, config.data, on_progress, redactor)
    fingerprints, warnings = {"train": training.fingerprint()}, [*training.notes, *prepared.report.warnings]
    if evaluation is not None:
        with evaluation.named():
            measured = prepare(evaluation.rows(), encoder, config.data, on_progress, redactor)
        fingerprints["evaluation"] = evaluation.fingerprint()
        told = [*evaluation.notes, *measured.report.row_warnings()]
        warnings += [f"Evaluation rows: {warning}" for warning in told]
        train, held_out = prepared.rows, measured.rows
    else:
        split = hold_out(prepared.rows, config.data.evaluation.fraction, config.training.seed)
        train, held_out = split.train, split.evaluation
    if not train:
        raise DataError(
            "There is nothing to train on.",
            f"All {len(prepared.rows)} usable rows were held out for evaluation.",
            "Lower data.evaluation.fraction or add rows.",
        )
    test, selection = _share_out(held_out, config.evaluation.rows)
    redacted = dict(redactor.replaced) if redactor is not None else {}
    return RunRows(encoder, train, test, selection, prepared.report, fingerprints, redacted, tuple(warnings))


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
