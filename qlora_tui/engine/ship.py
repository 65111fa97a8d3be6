"""What ships: the adapter folder, complete with its model card."""

from __future__ import annotations

from qlora_tui.config import RunConfig
from qlora_tui.data.formats import Turn
from qlora_tui.engine.card import model_card
from qlora_tui.engine.card_facts import CardFacts, DataFacts
from qlora_tui.engine.lock import Lock
from qlora_tui.engine.rows import RunRows
from qlora_tui.engine.trainer import Standing
from qlora_tui.models.sources import ModelFiles
from qlora_tui.runs.directory import RunDirectory
from qlora_tui.runs.events import Comparison
from qlora_tui.runs.files import write_atomic

PUBLIC_PROMPT = "Hello! What can you do for me?"


def write_card(
    run: RunDirectory,
    config: RunConfig,
    lock: Lock,
    files: ModelFiles,
    rows: RunRows,
    comparison: dict[str, Comparison],
    standing: Standing,
    steps: int,
) -> None:
    """Put the model card beside the adapter's weights.

    Raises:
        OSError: if it cannot be written.
    """
    # Training rows may be private, so the card shows a prompt that the user chose to watch, or a harmless one.
    prompt = config.evaluation.prompts[0] if config.evaluation.prompts else PUBLIC_PROMPT
    facts = CardFacts(
        config=config,
        model=files,
        lock=lock,
        data=DataFacts(
            training_rows=len(rows.train),
            tokens=sum(len(row.input_ids) for row in rows.train),
            trained_tokens=sum(sum(row.trained) for row in rows.train),
            evaluation_rows=len(rows.test),
            selection_is_test=rows.selection_is_test,
            redacted=rows.redacted,
        ),
        comparison=comparison,
        prompt=prompt,
        rendered_prompt=_rendered(rows, config, prompt),
        end_of_turn=_end_of_turn(rows),
        steps=steps,
        best_step=standing.best_step,
    )
    write_atomic(run.adapter / "README.md", model_card(facts))


def _rendered(rows: RunRows, config: RunConfig, prompt: str) -> str:
    system = config.data.system_prompt
    turns = (*((Turn("system", system),) if system else ()), Turn("user", prompt))
    return "".join(rows.encoder.decode_tokens(rows.encoder.prompt_ids(turns)))


def _end_of_turn(rows: RunRows) -> str | None:
    number = rows.encoder.end_of_turn_id
    return None if number is None else rows.encoder.decode_tokens([number])[0]
