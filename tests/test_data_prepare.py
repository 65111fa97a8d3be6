"""From raw rows to trained tokens: every row and token is accounted for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from chat_templates import KEEPS_LAST_REASONING, LAST_REASONING
from model_folders import set_template

from qlora_tui.config import DataSection
from qlora_tui.data.encode import Encoder
from qlora_tui.data.formats import Turn
from qlora_tui.data.prepare import CHUNK_ROWS, Prepared, prepare
from qlora_tui.data.reading import read_rows
from qlora_tui.data.source import RawRow, find_source
from qlora_tui.errors import DataError


@pytest.fixture(scope="module")
def encoder(tokenizer_folder: Path) -> Encoder:
    return Encoder.from_folder(tokenizer_folder, DataSection(source="rows.jsonl"))


def rows(*values: dict[str, Any]) -> list[RawRow]:
    return [RawRow(number, value) for number, value in enumerate(values, start=1)]


def pair(prompt: Any, completion: Any) -> dict[str, Any]:
    return {"prompt": prompt, "completion": completion}


def prepared(encoder: Encoder, data: list[RawRow], **settings: Any) -> Prepared:
    return prepare(data, encoder, DataSection(source="rows.jsonl", **settings))


SHORT = pair("Hi", "Hello")
WORDS = "one " * 40


def test_every_row_is_accounted_for(encoder: Encoder) -> None:
    data = rows(SHORT, pair("Hi", ""), pair("Hi", None), pair("Hi", {}), pair("", "x"), SHORT)
    result = prepared(encoder, data)
    report = result.report
    assert [row.number for row in result.rows] == [1, 6]
    assert (report.rows, report.kept) == (6, 2)
    assert report.dropped == {"no answer": 2, "wrong type": 1, "no prompt": 1}
    assert report.first_dropped == {"no answer": 2, "wrong type": 4, "no prompt": 5}
    assert report.format == "prompt-completion"
    assert report.columns == {"prompt": "prompt", "completion": "completion"}
    assert report.warnings == ("4 of 6 rows are not used: 2 no answer, 1 wrong type, 1 no prompt.",)


def test_token_counts(encoder: Encoder) -> None:
    result = prepared(encoder, rows(SHORT, SHORT, pair("Hi", WORDS)))
    lengths = [len(row.input_ids) for row in result.rows]
    tokens = result.report.tokens
    assert list(result.report.lengths) == lengths
    assert (tokens.total, tokens.p50, tokens.p95, tokens.max) == (sum(lengths), lengths[0], lengths[2], lengths[2])
    assert tokens.trained == sum(sum(row.trained) for row in result.rows)
    assert (result.report.truncated, result.report.tokens_lost, result.report.untrained_rows) == (0, 0, 0)
    assert result.report.end_of_turn_trained


def test_turns_travel_with_the_row(encoder: Encoder) -> None:
    row = prepared(encoder, rows(SHORT), system_prompt="Be brief.").rows[0]
    assert row.turns == (Turn("system", "Be brief."), Turn("user", "Hi"), Turn("assistant", "Hello"))


def test_truncation_keeps_the_head_and_counts_what_is_lost(encoder: Encoder) -> None:
    whole = prepared(encoder, rows(pair("Hi", WORDS))).rows[0]
    result = prepared(encoder, rows(pair("Hi", WORDS)), max_length=48)
    cut = result.rows[0]
    assert cut.input_ids == whole.input_ids[:48]
    assert cut.trained == whole.trained[:48]
    assert result.report.truncated == 1
    assert result.report.tokens_lost == len(whole.input_ids) - 48
    assert result.report.tokens.max == len(whole.input_ids)
    assert result.report.tokens.total == 48
    assert "cut to data.max_length" in result.report.warnings[0]


def test_truncation_that_leaves_no_answer_drops_the_row(encoder: Encoder) -> None:
    result = prepared(encoder, rows(SHORT, pair(WORDS, "Hello")), max_length=48)
    assert result.report.dropped == {"no trained token after truncation": 1}
    assert result.report.untrained_rows == 1
    assert (result.report.kept, result.report.truncated, result.report.tokens_lost) == (1, 0, 0)


def test_long_rows_can_be_dropped(encoder: Encoder) -> None:
    result = prepared(encoder, rows(SHORT, pair("Hi", WORDS)), max_length=48, long_rows="drop")
    assert result.report.dropped == {"longer than max_length": 1}
    assert [row.number for row in result.rows] == [1]


def test_split_keeps_the_pieces_that_train(encoder: Encoder) -> None:
    whole = prepared(encoder, rows(pair(WORDS * 2, WORDS))).rows[0]
    result = prepared(encoder, rows(SHORT, pair(WORDS * 2, WORDS)), max_length=48, long_rows="split")
    pieces = [row for row in result.rows if row.number == 2]
    starts = [start for start in range(0, len(whole.input_ids), 48) if True in whole.trained[start : start + 48]]
    assert len(starts) > 1
    assert starts[0] > 0
    assert [row.input_ids for row in pieces] == [whole.input_ids[start : start + 48] for start in starts]
    assert sum(sum(row.trained) for row in pieces) == sum(whole.trained)
    assert result.report.tokens_lost == starts[0]
    assert (result.report.kept, result.report.rows, result.report.truncated) == (2, 2, 1)
    assert (result.report.split, result.report.pieces) == (1, len(pieces))
    assert f"1 rows are longer than data.max_length and split into {len(pieces)} pieces." in result.report.warnings


def test_a_long_row_can_be_an_error(encoder: Encoder) -> None:
    with pytest.raises(DataError, match="Row 2 is too long") as caught:
        prepared(encoder, rows(SHORT, pair("Hi", WORDS)), max_length=48, long_rows="error")
    assert "data.max_length is 48" in caught.value.why


def test_a_row_of_exactly_max_length_is_whole(encoder: Encoder) -> None:
    length = len(prepared(encoder, rows(SHORT)).rows[0].input_ids)
    assert prepared(encoder, rows(SHORT), max_length=length, long_rows="error").report.tokens.total == length


def test_only_unusable_rows_name_the_reason_and_the_first(encoder: Encoder) -> None:
    with pytest.raises(DataError, match="No row can be trained on") as caught:
        prepared(encoder, rows(pair("Hi", ""), pair("Hi", "")))
    assert caught.value.why.startswith("All 2 rows are dropped for this reason: no answer. The first is row 1:")
    with pytest.raises(DataError) as caught:
        prepared(encoder, rows(pair("Hi", {}), pair("Hi", ""), pair("Hi", "")))
    assert (
        "None of the 3 rows is usable: 2 are dropped for this reason: no answer. The first is row 2" in caught.value.why
    )


def test_only_too_long_prompts_hint_at_max_length(encoder: Encoder) -> None:
    with pytest.raises(DataError) as caught:
        prepared(encoder, rows(pair(WORDS, "Hello")), max_length=16)
    assert caught.value.hint == "Raise data.max_length."


def test_no_rows_is_an_error(encoder: Encoder) -> None:
    with pytest.raises(DataError, match="nothing to train on"):
        prepared(encoder, [])


def chat(*contents: str, **columns: Any) -> dict[str, Any]:
    turns = [{"role": "assistant" if index % 2 else "user", "content": text} for index, text in enumerate(contents)]
    return {"messages": turns, **columns}


def test_rows_of_several_sequences_are_counted(model_folder: Path) -> None:
    section = DataSection(source="rows.jsonl", max_length=40)
    encoder = Encoder.from_folder(set_template(model_folder, KEEPS_LAST_REASONING), section)
    thought = chat("Hi", "<think>hm</think>Hello", "More", "No way")
    result = prepare(rows(thought, chat("Hi", "Hello", "x", "y"), thought), encoder, section)
    report = result.report
    assert [(row.number, len(row.turns)) for row in result.rows] == [(1, 2), (1, 4), (2, 4), (3, 2), (3, 4)]
    assert result.rows[0].turns[-1].content == "<think>hm</think>Hello"
    assert (report.rows, report.kept, report.unrolled, report.sequences, report.tokens_lost) == (3, 3, 2, 4, 0)
    assert report.tokens.total == sum(report.lengths) == sum(len(row.input_ids) for row in result.rows)
    assert report.tokens.trained == sum(sum(row.trained) for row in result.rows)
    assert "2 of 3 rows are trained as 4 sequences" in report.warnings[0]


def test_a_sequence_that_is_too_long_is_lost_alone(model_folder: Path) -> None:
    section = DataSection(source="rows.jsonl", max_length=24, long_rows="drop")
    encoder = Encoder.from_folder(set_template(model_folder, KEEPS_LAST_REASONING), section)
    result = prepare(rows(chat("Hi", "<think>hm</think>Hello", WORDS, "No way")), encoder, section)
    assert [len(row.turns) for row in result.rows] == [2]
    report = result.report
    assert (report.kept, report.truncated, report.dropped) == (1, 1, {})
    assert report.tokens_lost == max(report.lengths)


def test_what_the_template_leaves_out_is_counted(encoder: Encoder) -> None:
    thought = {"role": "assistant", "content": "Hello", "reasoning_content": "hm"}
    data = rows({"messages": [{"role": "user", "content": "Hi"}, thought]}, chat("Hi", "Hello"))
    report = prepared(encoder, data).report
    assert report.unseen == {"the reasoning": 1}
    assert report.warnings == ("In 1 of 2 rows the chat template leaves out the reasoning.",)


def test_rows_that_the_template_hides_are_dropped_with_a_reason(model_folder: Path) -> None:
    section = DataSection(source="rows.jsonl")
    hidden = "{% for message in messages %}{{ messages | length }}{% endfor %}"
    with pytest.raises(DataError, match="No row can be trained on") as caught:
        prepare(rows(chat("Hi", "Hello")), Encoder.from_folder(set_template(model_folder, hidden), section), section)
    assert "answer that the chat template hides" in caught.value.why


def test_refused_rows_are_counted(model_folder: Path) -> None:
    refusing = LAST_REASONING + "{% if messages | length > 2 %}{{ raise_exception('too many') }}{% endif %}"
    section = DataSection(source="rows.jsonl")
    encoder = Encoder.from_folder(set_template(model_folder, refusing), section)
    messages = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
    result = prepare(rows({"messages": messages}, {"messages": messages * 2}), encoder, section)
    assert result.report.dropped == {"refused by the chat template": 1}


def test_straddling_rows_are_warned_of(encoder: Encoder) -> None:
    report = prepared(encoder, rows(SHORT, pair("Hi", "  Hello"))).report
    assert report.straddling_rows == 1
    assert "In 1 rows a token covers" in report.warnings[0]


def test_plain_text_ends_and_needs_no_template_warnings(model_folder: Path) -> None:
    (model_folder / "chat_template.jinja").unlink()
    section = DataSection(source="rows.jsonl")
    encoder = Encoder.from_folder(model_folder, section)
    text = prepare(rows({"text": "Once"}), encoder, section)
    assert text.report.end_of_turn_trained
    assert text.report.warnings == ()
    assert text.rows[0].turns == ()
    assert "no chat template" in prepare(rows(SHORT), encoder, section).report.warnings[0]


def test_progress_counts_rows(encoder: Encoder) -> None:
    seen: list[int] = []
    section = DataSection(source="rows.jsonl")
    prepare(rows(*[SHORT] * (CHUNK_ROWS + 5)), encoder, section, seen.append)
    assert seen == [CHUNK_ROWS, CHUNK_ROWS + 5]


def test_kept_rows_share_their_ids(encoder: Encoder) -> None:
    one, other = prepared(encoder, rows(SHORT, SHORT)).rows
    assert all(first is second for first, second in zip(one.input_ids, other.input_ids, strict=True))


def test_long_rows_are_fewer_to_a_chunk(encoder: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qlora_tui.data.prepare.CHUNK_BYTES", 1000)
    seen: list[int] = []
    long = [RawRow(number, SHORT, size=400) for number in range(1, 13)]
    prepare(long, encoder, DataSection(source="rows.jsonl"), seen.append)
    assert seen == [3, 6, 9, 12]


def test_order_and_content_survive_chunks(encoder: Encoder, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    data = [{"instruction": f"Say {n}.", "input": "", "output": str(n) if n % 7 else ""} for n in range(2 * CHUNK_ROWS)]
    path.write_text("".join(json.dumps(row) + "\n" for row in data), encoding="utf-8")
    section = DataSection(source=str(path))
    result = prepare(read_rows(find_source(str(path))), encoder, section)
    assert [row.number for row in result.rows] == [n + 1 for n in range(2 * CHUNK_ROWS) if n % 7]
    for row in result.rows[::97]:
        answer = [token for token, trained in zip(row.input_ids, row.trained, strict=True) if trained]
        assert encoder.tokenizer.decode(answer) == str(row.number - 1)
