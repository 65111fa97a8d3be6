"""Looking at the data of a config: what its rows teach, what is wrong with them, and single rows to read.

Nothing here loads torch. Rows pass through in pieces and are forgotten, so a file of any size can be looked at.
The first answers wait for every import: what only the whole account takes is imported where that is made.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import islice
from typing import TYPE_CHECKING

from qlora_tui.config import DataSection, RunConfig
from qlora_tui.data.encode import Encoder
from qlora_tui.data.formats import Example
from qlora_tui.data.inspection import Finding, Glance, Inspection, Licences
from qlora_tui.data.prepare import DETECTION_ROWS, Outcome, Preparation, collector_paused
from qlora_tui.data.preview import Preview, Which, preview
from qlora_tui.data.problems import RowProblem
from qlora_tui.data.report import PreparationReport
from qlora_tui.data.source import RawRow
from qlora_tui.engine import inspection_cache as cache
from qlora_tui.engine.inspect_files import Part, evaluation_part, training_part
from qlora_tui.engine.tokenizer_files import tokenizer_folder
from qlora_tui.errors import DataError
from qlora_tui.models.sources import ModelFiles, resolve_model

if TYPE_CHECKING:
    from qlora_tui.data.audit import Audit
    from qlora_tui.data.privacy import Redactor


class Cancelled(Exception):
    """Whoever asked no longer wants to know."""


@dataclass(frozen=True, slots=True)
class Stage:
    """How far an inspection is: ``done`` of ``total`` in ``unit``; ``total`` is None where it is not known."""

    name: str
    done: int
    total: int | None
    unit: str


def inspect(
    config: RunConfig,
    progress: Callable[[Stage], None] = lambda _stage: None,
    cancelled: Callable[[], bool] = lambda: False,
) -> Inspection:
    """The whole account of the data of ``config``, from the cache if nothing has changed.

    Args:
        progress: Called often; shows how far it is.
        cancelled: Asked often; once it says yes, nothing more is done.

    Raises:
        Cancelled: if ``cancelled`` said so.
        DataError, ModelError, EnvironmentFault: for what a user can mend.
    """
    return Inspector(config, progress, cancelled).inspect()


class Inspector:
    """The data of one config, for one inspection and any number of previews.

    Raises:
        DataError, ModelError, EnvironmentFault: if there is no such data or model.
    """

    def __init__(
        self,
        config: RunConfig,
        progress: Callable[[Stage], None] = lambda _stage: None,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> None:
        self.config = config
        self._progress = progress
        self._cancelled = cancelled
        self._inspection: Inspection | None = None
        self.training = training_part(config.data, partial(self._report, "data", unit="bytes"))
        self.evaluation = evaluation_part(config.data, self.training, partial(self._report, "data", unit="bytes"))

    @property
    def _section(self) -> DataSection:
        return self.config.data

    def _report(self, name: str, done: int, total: int | None, unit: str = "rows") -> None:
        if self._cancelled():
            raise Cancelled
        self._progress(Stage(name, done, total, unit))

    def _passing(self, name: str) -> Callable[[int], None]:
        return partial(self._report, f"{name} rows before data.split", total=None)

    @cached_property
    def model(self) -> ModelFiles:
        """The model's small files; its weights are not needed."""
        return resolve_model(
            self.config.model, lambda done, total: self._report("model", done, total, "bytes"), weights=False
        )

    @cached_property
    def encoder(self) -> Encoder:
        """What turns rows into tokens, as in training."""
        stage = "taking the tokenizer out of the GGUF file, once"
        folder = tokenizer_folder(self.model, partial(self._report, stage, total=None, unit="seconds"))
        return Encoder.from_folder(folder, self._section)

    @cached_property
    def _first(self) -> tuple[RawRow, ...]:
        return tuple(islice(self.training.rows(self._passing("train")), DETECTION_ROWS))

    def _outcome(self, raw: RawRow, redactor: Redactor | None = None) -> Outcome:
        """What becomes of one row, whatever is wrong with it."""
        try:
            return Preparation(self._first, self.encoder, self._section, redactor).add([raw])[0]
        except DataError as error:
            return Outcome(raw, problem=RowProblem(raw.number, error.what.rstrip("."), error.why, error.hint))

    def glance(self, which: Which = "first") -> Glance:
        """What the first rows tell, long before all are read.

        Args:
            which: The row to show; one that only all rows together tell is replaced by the first.

        Raises:
            DataError: if the rows cannot be read or mapped, or there is no such row.
        """
        with self.training.data.named():
            mapping = Preparation(self._first, self.encoder, self._section).mapping
        shown = self.preview(which if isinstance(which, int) else "first")
        return Glance(mapping.format, mapping.columns, mapping.reason, shown)

    def preview(self, which: Which = "first") -> Preview:
        """One row to read.

        Args:
            which: A row's number, or ``first``, ``longest``, ``shortest`` or ``random``; these look at all rows first,
                unless that was done before.

        Raises:
            DataError: if there is no such row.
        """
        if which == "first":
            raw: RawRow | None = self._first[0] if self._first else None
        elif which == "random":
            raw = self._any_row()
        else:
            number = which if isinstance(which, int) else self.inspect().special_rows[which]
            raw = self.training.some([number], self._looking).get(number)
        if raw is None:
            raise DataError(
                f"There is no row {which}.",
                f"The rows that data.split {self._section.split!r} selects have other numbers; blank lines count.",
                "Give the number of a line that holds a row.",
            )
        return preview(self._outcome(raw, self._redactor_before(raw)), self.encoder, str(which))

    def _looking(self, read: int) -> None:
        self._report("rows read to find one", read, None)

    def _redactor_before(self, raw: RawRow) -> Redactor | None:
        """A redactor that has met all rows before this one, so that its placeholders are those of training."""
        if not self._section.redact:
            return None
        from qlora_tui.data.privacy import Redactor

        redactor = Redactor()
        for row in self.training.read(self._looking):
            if row.number >= raw.number:
                break
            redactor.values(row.values)
        return redactor

    def _any_row(self) -> RawRow | None:
        place = random.randrange(self.inspect().rows)
        return next(islice(self.training.read(self._looking), place, None), None)

    def inspect(self) -> Inspection:
        """The whole account, without samples; see :func:`inspect`."""
        if self._inspection is None:
            start = time.monotonic()
            encoder = self.encoder
            prints: dict[str, str] = {}
            lines: dict[str, int | None] = {}
            for name, part in self._parts():
                stage = f"fingerprint of the {name} data"
                prints[name], lines[name] = part.fingerprint(partial(self._report, stage, unit="bytes"))
            key = cache.key(self.config, prints, encoder, self.model)
            found = cache.read(key)
            if found is None:
                with collector_paused():
                    found = self._inspected(lines)
                cache.write(key, replace(found, seconds=round(time.monotonic() - start, 3)))
            self._inspection = replace(found, seconds=round(time.monotonic() - start, 3))
        return self._inspection

    def _parts(self) -> Iterator[tuple[str, Part]]:
        yield "train", self.training
        if self.evaluation is not None:
            yield "evaluation", self.evaluation

    def _audited(
        self, name: str, part: Part, rows: int | None, audit: Audit, redactor: Redactor | None
    ) -> PreparationReport:
        with part.data.named():
            self._report(f"{name} rows", 0, rows)
            preparation = Preparation(part.rows(self._passing(name)), self.encoder, self._section, redactor)
            for outcomes in preparation.chunks():
                audit.add(outcomes)
                self._report(f"{name} rows", preparation.seen, rows and max(rows, preparation.seen))
            self._report(f"{name} rows", preparation.seen, preparation.seen)
            return preparation.report()

    def _inspected(self, lines: dict[str, int | None]) -> Inspection:
        from qlora_tui.data.audit import Audit, Overlap
        from qlora_tui.data.findings import findings, with_excerpts
        from qlora_tui.data.histogram import histogram, quantiles
        from qlora_tui.data.privacy import Redactor

        training = Audit(self.encoder.text_of)
        redactor = Redactor() if self._section.redact else None
        report = self._audited("train", self.training, lines["train"], training, redactor)
        evaluation: Audit | None = None
        evaluation_report: PreparationReport | None = None
        if self.evaluation is not None:
            evaluation = Audit(self.encoder.text_of, training)
            evaluation_report = self._audited("evaluation", self.evaluation, lines["evaluation"], evaluation, redactor)
        common = training.compare(partial(self._report, "rows compared with each other", unit="steps"))
        seen = Overlap()
        if evaluation is not None:
            stage = "evaluation rows compared with training rows"
            seen = evaluation.compare(partial(self._report, stage, unit="steps")).overlap
        licences = Licences(self.training.licence, self.model.licence)
        redacted = {} if redactor is None else dict(redactor.replaced)
        report = replace(report, notes=(*self.training.data.notes, *report.notes))
        found = findings(report, training, evaluation, self._section, licences, redacted)
        assert training.longest is not None
        assert training.shortest is not None
        return Inspection(
            source=self._section.source,
            format=report.format,
            columns=report.columns,
            reason=report.reason,
            rows=report.rows,
            kept=report.kept,
            dropped=report.dropped,
            first_dropped=report.first_dropped,
            truncated=report.truncated,
            tokens_lost=report.tokens_lost,
            tokens=report.tokens,
            quantiles=quantiles(report.lengths),
            histogram=histogram(report.lengths, self._section.max_length),
            untrained_rows=report.untrained_rows,
            end_of_turn_trained=report.end_of_turn_trained,
            duplicates=len(common.repeated),
            near_duplicates=len(common.almost),
            evaluation_rows=None if evaluation_report is None else evaluation_report.rows,
            eval_overlap=len(seen.same),
            findings=tuple(with_excerpts(found, self._texts(found))),
            licences=licences,
            redacted=redacted,
            special_rows={"longest": training.longest[1], "shortest": training.shortest[1]},
        )

    def _texts(self, found: list[Finding]) -> Callable[[str, int], str | None]:
        """Looks up the text of the rows that the findings show, which are read again."""
        from qlora_tui.data.privacy import Redactor

        texts: dict[tuple[str, int], str] = {}
        for name, part in self._parts():
            numbers = {each.row for finding in found for each in finding.examples if each.part == name}
            report = partial(self._report, "rows that show what was found", total=None)
            for number, raw in part.some(numbers, report).items():
                example = self._outcome(raw, Redactor() if self._section.redact else None).example
                texts[name, number] = self._text(example) if example is not None else str(raw.values)
        return lambda name, number: texts.get((name, number))

    def _text(self, example: Example) -> str:
        from qlora_tui.data.audit import turn_text

        if example.ids is not None:
            return self.encoder.text_of(example.ids[0])
        return example.text if example.text is not None else "\n".join(map(turn_text, example.turns))
