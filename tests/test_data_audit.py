"""What an audit finds in single rows and across them, whatever form the rows have."""

from __future__ import annotations

import random
import re
from pathlib import Path
from typing import Any

import pytest
from chat_templates import CHATML, KEEPS_LAST_REASONING

from qlora_tui.config import DataSection
from qlora_tui.data.audit import Audit
from qlora_tui.data.encode import Encoder
from qlora_tui.data.findings import excerpt, findings
from qlora_tui.data.histogram import BINS, histogram, quantiles
from qlora_tui.data.inspection import Finding, Licences
from qlora_tui.data.licence import concern, licence_of_card
from qlora_tui.data.prepare import Preparation
from qlora_tui.data.privacy import KINDS
from qlora_tui.data.source import RawRow
from qlora_tui.data.template import ChatTemplate
from qlora_tui.data.text_trouble import TROUBLES, main_script, troubles

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def encoder(tokenizer_folder: Path) -> Encoder:
    return Encoder.from_folder(tokenizer_folder, DataSection(source="rows.jsonl"))


def found(encoder: Encoder, *values: dict[str, Any], **settings: Any) -> dict[str, Finding]:
    section = DataSection(source="rows.jsonl", **settings)
    preparation = Preparation([RawRow(number, row) for number, row in enumerate(values, 1)], encoder, section)
    audit = Audit(encoder.text_of)
    for outcomes in preparation.chunks():
        audit.add(outcomes)
    every = findings(preparation.report(), audit, None, section, Licences(model="mit"), {})
    return {finding.kind: finding for finding in every}


def pair(prompt: str, completion: str) -> dict[str, Any]:
    return {"prompt": prompt, "completion": completion}


def rows(count: int) -> list[dict[str, Any]]:
    dice = random.Random(3)
    words = [f"word{number}" for number in range(900)]
    return [pair(" ".join(dice.choices(words, k=12)), " ".join(dice.choices(words, k=12))) for _ in range(count)]


def test_clean_rows_have_no_faults(encoder: Encoder) -> None:
    assert found(encoder, *rows(50)) == {}


def test_repeated_answers_are_told_but_labels_are_not(encoder: Encoder) -> None:
    refusal = "I am sorry, but as a language model I cannot help with that."
    refused = [row | {"completion": refusal} for row in rows(6)]
    labelled = [pair(f"Classify {number}.", "spam") for number in range(30)]
    faults = found(encoder, *refused, *labelled)
    assert set(faults) == {"repeated_answer"}
    assert faults["repeated_answer"].rows == 6
    assert [each.row for each in faults["repeated_answer"].examples] == [1, 2]


def test_echoes_and_empty_turns(encoder: Encoder) -> None:
    empty = {
        "messages": [
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "content": "Hello"},
            {"role": "user", "content": " "},
            {"role": "assistant", "content": "Yes?"},
        ]
    }
    echo = {"messages": [{"role": "user", "content": "Say so."}, {"role": "assistant", "content": "Say so."}]}
    faults = found(encoder, empty, echo)
    assert {kind: finding.rows for kind, finding in faults.items()} == {"empty_turn": 1, "echo": 1}


def test_what_stands_in_tool_calls_is_looked_at(encoder: Encoder) -> None:
    source = CHATML.replace("message['content'] +", "message['content'] + (message.tool_calls or '') | string +")
    shows_calls = Encoder(encoder.tokenizer, ChatTemplate(source, encoder.template.special_tokens, "test"))
    call = {"function": {"name": "mail", "arguments": {"to": "bob@example.org"}}}
    messages = [
        {"role": "user", "content": "Write to Bob."},
        {"role": "assistant", "content": "Done.", "tool_calls": [call]},
    ]
    assert found(shows_calls, {"messages": messages})["email"].rows == 1


def test_token_ids_are_spelt_out(encoder: Encoder) -> None:
    ids = encoder.tokenizer.encode("Write to bob@example.org today.").ids
    assert found(encoder, {"input_ids": ids, "labels": ids})["email"].rows == 1


def test_plain_text_contradicts_nothing(encoder: Encoder) -> None:
    faults = found(encoder, {"text": "Once upon a time."}, {"text": "Twice."}, {"text": "Twice."})
    assert {kind: finding.rows for kind, finding in faults.items()} == {"duplicate": 1}


def test_a_stray_script_is_noticed(encoder: Encoder) -> None:
    faults = found(encoder, *rows(40), pair("Переведи это предложение.", "Это предложение."))
    assert "Cyrillic" in faults["odd_script"].message


@pytest.mark.parametrize(
    ("text", "kinds"),
    [
        ("plain ASCII text & more, a < b", []),
        ("Der Käse ist grün — “sehr” naïve café 日本語 мир 👩‍👩‍👧", []),
        ("cafÃ© naÃ¯ve â€œquotesâ€\x9d", ["control_character", "mojibake"]),
        ("lost \ufffd here", ["replacement_character"]),
        ("bell\x07", ["control_character"]),
        ("line\nfeed\ttab\r\nform\x0cfeed", []),
        ("hidden\u200b space, \u202eturned", ["hidden_character"]),
        ("pаypal with a Cyrillic letter", ["mixed_script"]),
        ("&lt;p&gt; &amp;", ["markup"]),
        ("Write <br> once", []),
    ],
)
def test_damaged_text(text: str, kinds: list[str]) -> None:
    assert sorted(troubles(text)) == kinds


def test_main_script() -> None:
    assert [main_script(text) for text in ("abc", "мир abc мир", "123", "ひらカタ漢")] == [
        "LATIN", "CYRILLIC", None, "JAPANESE",
    ]  # fmt: skip


def test_excerpts_show_the_place_and_hide_the_value() -> None:
    text = "word " * 60 + "mail bob@example.org now " + "word " * 60
    shown = excerpt("email", text)
    assert len(shown) <= 80
    assert "b•••@•••.org" in shown
    assert "bob" not in shown
    # The excerpt begins in the middle of an address, whose rest must not show.
    assert "somebody" not in excerpt("control_character", "word " * 20 + "bob.somebody@example.org x\x07")


def test_histogram_and_quantiles() -> None:
    lengths = [10] * 90 + list(range(100, 110)) + [5000]
    chart = histogram(lengths, 64)
    assert sum(chart.counts) == len(lengths)
    assert len(chart.counts) == len(chart.edges) <= BINS + 1
    assert chart.edges[0] <= 10
    assert chart.counts[-1] == 1
    assert quantiles(lengths)[50] == 10
    assert quantiles([7]) == dict.fromkeys((0, 5, 25, 50, 75, 95, 99, 100), 7)
    assert histogram([3], 64).counts == (1,)


@pytest.mark.parametrize(
    ("card", "licence"),
    [
        ("---\nlicense: mit\n---\ntext", "mit"),
        ("\ufeff---\r\nlicense:\r\n- cc-by-4.0\r\n- mit\r\n---\r\n", "cc-by-4.0, mit"),
        ("---\nlicense: other\nlicense_name: my-licence\n---\n", "my-licence"),
        ("---\nlicense: [\n---\n", None),
        ("---\n- a\n---\n", None),
        ("# no front matter\nlicense: mit", None),
        ('---\nlicense: "\\e[31mmit"\n---\n', "mit"),
    ],
)
def test_the_licence_of_a_card(tmp_path: Path, card: str, licence: str | None) -> None:
    (tmp_path / "README.md").write_text(card, encoding="utf-8", newline="")
    assert licence_of_card(tmp_path / "README.md") == licence
    assert licence_of_card(tmp_path / "none.md") is None


def test_what_licences_have_to_say_to_each_other() -> None:
    def said(data: str | None, model: str | None) -> str:
        return " ".join(finding.message for finding in concern(Licences(data, model)))

    assert said(None, "apache-2.0") == said("mit", "apache-2.0") == ""
    assert "data may not be used commercially" in said("cc-by-nc-sa-4.0", "mit")
    assert "must keep its licence" in said("cc-by-sa-4.0", "mit")
    assert "no licence named" in said("mit", None)
    assert "unknown" in said("unknown", "mit")


def test_what_becomes_of_rows_otherwise_than_one_would_think_is_told(encoder: Encoder) -> None:
    long = pair("Hi", "answer " * 100)
    faults = found(encoder, pair("Hi", "Hello"), long, max_length=64, long_rows="split")
    assert faults["split"].message == "1 row is cut into 3 pieces of at most 64 tokens."
    assert "truncated" not in faults
    asked = pair("word " * 100, "answer " * 100)
    faults = found(encoder, asked, max_length=64, long_rows="split")
    assert "in which nothing is learnt" in faults["truncated"].message
    faults = found(encoder, {"prompt": "Hi", "chosen": "Hello", "rejected": "Go away"})
    assert "chosen" in faults["reading"].message
    template = ChatTemplate(KEEPS_LAST_REASONING, encoder.template.special_tokens, "test")
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "<think>b</think>c"}] * 2
    faults = found(Encoder(encoder.tokenizer, template), {"messages": turns})
    assert faults["unrolled"].message == "1 row is trained as 2 sequences."


def test_every_kind_of_finding_is_explained() -> None:
    source = (ROOT / "qlora_tui" / "data" / "findings.py").read_text(encoding="utf-8")
    kinds = set(re.findall(r'Finding\(\s*"(\w+)"|_tallied\(\s*"(\w+)"|^        \("(eval_\w+)"', source, re.MULTILINE))
    named = {name for names in kinds for name in names if name} | {
        *KINDS,
        *TROUBLES,
        "untrained",
        "empty_answer",
        "dropped",
    }
    page = (ROOT / "docs" / "inspection.md").read_text(encoding="utf-8").split("## Findings")[1].split("## Private")[0]
    explained = {
        name for line in page.splitlines() for name in re.findall(r"`(\w+)`", line.split("|")[1] if "|" in line else "")
    }
    assert named | {"licence"} == explained - {"kind"}
