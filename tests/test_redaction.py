"""Redaction in a run: the same value is the same placeholder in all of its data, and it is counted."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

from test_card import FACTS

from qlora_tui.config import RunConfig
from qlora_tui.engine.card import model_card
from qlora_tui.engine.control import Control
from qlora_tui.engine.prepare import _rows as prepare_rows
from qlora_tui.engine.report import EventLog
from qlora_tui.engine.rows import load_rows
from qlora_tui.models.sources import ModelFiles
from qlora_tui.runs.events import Phase
from qlora_tui.runs.feed import read_events


def write(path: Path, *pairs: tuple[str, str]) -> str:
    rows = (json.dumps({"prompt": prompt, "completion": completion}) + "\n" for prompt, completion in pairs)
    path.write_text("".join(rows), encoding="utf-8")
    return str(path)


def test_training_and_evaluation_rows_share_their_placeholders(tokenizer_folder: Path, tmp_path: Path) -> None:
    train = write(
        tmp_path / "train.jsonl", ("Who is a@x.org?", "Ask b@x.org."), ("And B@X.ORG?", "4111 1111 1111 1111")
    )
    held_out = write(tmp_path / "held.jsonl", ("c@x.org?", "No, a@x.org."))
    config = RunConfig.model_validate(
        {
            "name": "x",
            "data": {
                "source": train,
                "evaluation": {"source": held_out},
                "redact": True,
                "system_prompt": "Mail help@x.org.",
            },
        }
    )
    rows = load_rows(config, tokenizer_folder, lambda _done: None)
    said = [[turn.content for turn in row.turns] for row in (*rows.train, *rows.test)]
    assert said == [
        ["Mail help@x.org.", "Who is <EMAIL_1>?", "Ask <EMAIL_2>."],
        ["Mail help@x.org.", "And <EMAIL_2>?", "<CARD_1>"],
        ["Mail help@x.org.", "<EMAIL_3>?", "No, <EMAIL_1>."],
    ]
    assert rows.redacted == {"email": 5, "card": 1}
    assert "a@x.org" not in rows.encoder.tokenizer.decode(rows.train[0].input_ids)


def test_the_card_tells_what_was_replaced() -> None:
    card = model_card(
        replace(
            FACTS,
            config=FACTS.config.changed(data={"redact": True}),
            data=replace(FACTS.data, redacted={"email": 1200, "card": 3}),
        )
    )
    assert "1,200 email, 3 card" in card
    assert "names and street addresses are not recognised" in card
    assert "was not replaced" in model_card(FACTS)


def test_the_log_counts_what_was_replaced(tokenizer_folder: Path, tmp_path: Path) -> None:
    source = write(tmp_path / "rows.jsonl", *((f"Who is {n}@x.org?", "Nobody.") for n in range(20)))
    config = RunConfig.model_validate({"name": "x", "data": {"source": source, "redact": True}})
    files = ModelFiles(str(tokenizer_folder), "folder", tokenizer_folder, None, None, True, None, False)
    log = EventLog(tmp_path / "events.jsonl")
    prepare_rows(config, files, log, cast(Control, SimpleNamespace(raise_if_stopped=lambda: None)))
    phases = [each.event for each in read_events(tmp_path / "events.jsonl") if isinstance(each.event, Phase)]
    assert {"redacted": 20, "redacted_email": 20}.items() <= phases[-1].details.items()
