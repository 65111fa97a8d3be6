"""The measurements of a run on its held-out rows, with their events and progress."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal

from qlora_tui.config import RunConfig
from qlora_tui.data.formats import Turn
from qlora_tui.data.prepare import PreparedRow
from qlora_tui.engine import metrics
from qlora_tui.engine.control import Control
from qlora_tui.engine.evaluate import (
    MAX_NEW_TOKENS,
    TOKENS_PER_BATCH,
    Labels,
    generate,
    heaviest,
    measure,
    prompt_turns,
    reference,
)
from qlora_tui.engine.measurement import Measurement
from qlora_tui.engine.report import EventLog
from qlora_tui.engine.rows import RunRows
from qlora_tui.runs.events import Eval, PhaseName

SAMPLE_TOKENS = 96
_GENERATED = {"exact_match": metrics.exact_match, "rouge": metrics.rouge, "bleu": metrics.bleu}


class HeldOutMeasure:
    """Measures one model on the rows of one run.

    Args:
        model: The trainer's model; it is left in the mode it was in.
        tokenizer: Its tokenizer, for decoding answers.
    """

    def __init__(
        self, model: Any, tokenizer: Any, rows: RunRows, config: RunConfig, log: EventLog, control: Control
    ) -> None:
        self._model = model
        self._tokenizer = tokenizer
        self._encoder = rows.encoder
        self._config = config
        self._log = log
        self._control = control
        self._labels = self._find_labels(rows)
        self._end_ids = _end_ids(model, rows)

    def _find_labels(self, rows: RunRows) -> Labels | None:
        if "accuracy" not in self._config.evaluation.metrics or not rows.test:
            return None
        labels = Labels.of([*rows.train, *rows.test, *rows.selection])
        if labels is None:
            self._log.warn(
                "metrics",
                "Accuracy is left out: it needs rows whose answers come from a small set and begin differently; "
                "exact_match works for all others.",
            )
        return labels

    def loss_of(self, rows: Sequence[PreparedRow]) -> Measurement:
        """Loss and accuracy only: what an evaluation during training needs."""
        return measure(self._model, rows, self._pad_id, self._labels, tokens_per_batch=self.tokens_per_batch)

    def probe(self, rows: Sequence[PreparedRow]) -> None:
        """Go through the batch of ``rows`` that needs most memory, without a trace."""
        self.loss_of(heaviest(rows, self.tokens_per_batch))

    def full(
        self,
        rows: Sequence[PreparedRow],
        stage: Literal["before", "after"],
        step: int,
        epoch: float,
        phase: PhaseName,
    ) -> Measurement:
        """All metrics asked for, reported as an event.

        Raises:
            StopRequested: if a stop is asked for on the way.
        """
        wanted: list[str] = [name for name in self._config.evaluation.metrics if name in _GENERATED]
        total = len(rows) * (2 if wanted else 1)

        def on_progress(done: int) -> None:
            self._control.raise_if_stopped()
            self._log.progress(phase, done, total, "rows")

        on_progress(0)
        result = measure(self._model, rows, self._pad_id, self._labels, on_progress, self.tokens_per_batch)
        if wanted:
            result = self._with_answers(result, rows, wanted, lambda done: on_progress(len(rows) + done))
        self._log.write(
            Eval(
                stage=stage,
                step=step,
                epoch=epoch,
                loss=result.loss,
                perplexity=result.perplexity,
                rows=len(result.rows),
                tokens=result.tokens,
                seconds=round(result.seconds, 3),
                metrics=result.metrics,
            )
        )
        return result

    def _with_answers(
        self, result: Measurement, rows: Sequence[PreparedRow], wanted: list[str], on_progress: Any
    ) -> Measurement:
        references = [reference(row) for row in rows]
        if any(answer is None for answer in references):
            self._log.warn("metrics", f"{', '.join(wanted)} left out: these rows are plain text without answers.")
            return result
        texts = [answer or "" for answer in references]
        longest = max(sum(row.trained) for row in rows)
        prompts = [self._encoder.prompt_ids(prompt_turns(row)) for row in rows]
        limit = min(MAX_NEW_TOKENS, longest + 16)
        answers = generate(self._model, self._tokenizer, prompts, limit, self._end_ids, on_progress)
        for name in wanted:
            result = result.with_metric(name, _GENERATED[name](answers, texts))
        return result

    def answers_to_prompts(self) -> Iterator[tuple[str, str]]:
        """The model's greedy answers to the config's fixed prompts."""
        prompts = self._config.evaluation.prompts
        if not prompts:
            return
        system = self._config.data.system_prompt
        head = (Turn("system", system),) if system else ()
        ids = [self._encoder.prompt_ids((*head, Turn("user", prompt))) for prompt in prompts]
        answers = generate(self._model, self._tokenizer, ids, SAMPLE_TOKENS, self._end_ids)
        yield from zip(prompts, answers, strict=True)

    @property
    def tokens_per_batch(self) -> int:
        """Most tokens of a batch; on a GPU those of a micro-batch: an evaluation then needs less memory than a step."""
        if self._model.device.type == "cpu":
            return TOKENS_PER_BATCH
        return int(self._config.training.micro_batch) * self._config.data.max_length

    @property
    def _pad_id(self) -> int:
        return self._end_ids[0]


def _end_ids(model: Any, rows: RunRows) -> list[int]:
    """Every token that ends an answer: the template's end of turn, the tokenizer's and the model's own end tokens."""
    configured = model.generation_config.eos_token_id
    known = configured if isinstance(configured, list) else [configured]
    found = [rows.encoder.end_of_turn_id, rows.encoder.eos_id, *known]
    return list(dict.fromkeys(token for token in found if token is not None)) or [0]
