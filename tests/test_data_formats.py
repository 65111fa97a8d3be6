"""Detection that explains itself, and rows as turns with every unusable row's reason."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from benchmarks.formats import CASES, Case, judge
from qlora_tui.config import DataSection
from qlora_tui.data.detection import detect
from qlora_tui.data.formats import Example, Turn
from qlora_tui.data.guess import AmbiguousFormat, Reading
from qlora_tui.data.mapping import RowMapper
from qlora_tui.data.problems import RowProblem
from qlora_tui.data.source import RawRow
from qlora_tui.errors import DataError


def section(**values: Any) -> DataSection:
    return DataSection(source="rows.jsonl", **values)


def mapped(values: dict[str, Any], **settings: Any) -> Example:
    row = RawRow(7, values)
    chosen = section(**settings)
    return RowMapper(detect([row], chosen), chosen.system_prompt).example(row)


@pytest.mark.parametrize("form", CASES, ids=lambda case: f"{case.peer}-{case.form}")
def test_documented_forms_are_read_right(form: Case) -> None:
    outcome = judge(form)
    assert outcome.verdict(form) == "right", (outcome, form.expected)


QUESTION, ANSWER = Turn("user", "q"), Turn("assistant", "a")
MESSAGES = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]


@pytest.mark.parametrize(
    ("values", "name", "columns"),
    [
        ({"messages": MESSAGES}, "messages", {"messages": "messages"}),
        ({"conversations": MESSAGES}, "messages", {"messages": "conversations"}),
        ({"prompt": "q", "completion": "a"}, "prompt-completion", {"prompt": "prompt", "completion": "completion"}),
        ({"question": "q", "answer": "a"}, "prompt-completion", {"prompt": "question", "completion": "answer"}),
        ({"instruction": "q", "output": "a"}, "alpaca", {"instruction": "instruction", "output": "output"}),
        (
            {"instruction": "q", "input": "", "output": "a"},
            "alpaca",
            {"instruction": "instruction", "input": "input", "output": "output"},
        ),
        ({"text": "t"}, "text", {"text": "text"}),
        ({"messages": MESSAGES, "prompt": "q", "completion": "a", "text": "t"}, "messages", {"messages": "messages"}),
    ],
)
def test_formats_are_recognised(values: dict[str, Any], name: str, columns: dict[str, str]) -> None:
    found = detect([RawRow(1, values)], section())
    assert (found.format, found.columns) == (name, columns)
    assert found.reason.startswith(f"Rows are read as {name} from column")
    assert found.reason.endswith(".")


def test_the_reason_names_columns_that_are_not_used() -> None:
    assert 'not used: "url"' in detect([RawRow(1, {"text": "t", "url": "u"})], section()).reason


def test_columns_of_all_first_rows_count() -> None:
    rows = [RawRow(1, {"prompt": "q"}), RawRow(2, {"prompt": "q", "completion": "a"})]
    assert detect(rows, section()).format == "prompt-completion"


def test_unknown_columns_are_listed() -> None:
    with pytest.raises(DataError, match="not recognised") as caught:
        detect([RawRow(1, {"foo": 1, "bar\x1b[31m": 2})], section())
    assert '"foo", "bar"' in caught.value.why


def test_columns_overrule_detection() -> None:
    found = detect(
        [RawRow(1, {"text": "t", "ask": "q", "say": "a"})], section(columns={"prompt": "ask", "completion": "say"})
    )
    assert (found.format, found.columns) == ("prompt-completion", {"prompt": "ask", "completion": "say"})


def test_the_configured_format_overrules_detection() -> None:
    found = detect([RawRow(1, {"messages": MESSAGES, "text": "t"})], section(format="text"))
    assert found.format == "text"
    assert "as configured" in found.reason


@pytest.mark.parametrize(
    ("settings", "what", "hint"),
    [
        ({"columns": {"prompt": "promt"}}, "no column 'promt'", "'prompt'"),
        ({"columns": {"prmpt": "prompt"}}, "role 'prmpt'", "'prompt'"),
        ({"format": "alpaca"}, "no column 'instruction'", "Name the right one"),
        ({"format": "text", "columns": {"prompt": "prompt"}}, "does not belong", "Remove prompt"),
        ({"columns": {"prompt": "prompt", "text": "completion"}}, "different formats", "alpaca"),
        ({"template": "{promt}"}, "no column 'promt'", "'prompt'"),
        ({"template": "{prompt}", "format": "text"}, "does not go with", "auto"),
        ({"template": "{prompt}", "columns": {"prompt": "prompt"}}, "not used", "Remove"),
    ],
)
def test_wrong_columns_name_what_there_is_and_the_nearest(settings: dict[str, Any], what: str, hint: str) -> None:
    with pytest.raises(DataError, match=what) as caught:
        detect([RawRow(1, {"prompt": "q", "completion": "a"})], section(**settings))
    assert hint in caught.value.hint


def test_messages_become_turns() -> None:
    values = {
        "messages": [{"role": "system", "content": "s"}, *MESSAGES, {"role": "tool", "content": "t", "name": "x"}]
    }
    assert mapped(values) == Example(7, (Turn("system", "s"), QUESTION, ANSWER))
    values["messages"].append({"role": "assistant", "content": "b"})
    turns = (Turn("system", "s"), QUESTION, ANSWER, Turn("tool", "t", {"name": "x"}), Turn("assistant", "b"))
    assert mapped(values) == Example(7, turns)


def test_prompt_and_completion_become_turns() -> None:
    assert mapped({"prompt": "q", "completion": "a"}) == Example(7, (QUESTION, ANSWER), None, context=1)


def test_the_assistant_turns_of_a_prompt_are_context() -> None:
    values = {
        "prompt": [*MESSAGES, {"role": "user", "content": "more"}],
        "completion": [{"role": "assistant", "content": "b"}],
    }
    example = mapped(values)
    assert [turn.content for turn in example.turns] == ["q", "a", "more", "b"]
    assert example.context == 3


def test_alpaca_joins_instruction_and_input() -> None:
    example = mapped({"instruction": "Sum up.", "input": "Long text.", "output": "Short."})
    assert example.turns == (Turn("user", "Sum up.\n\nLong text."), Turn("assistant", "Short."))
    assert mapped({"instruction": "q", "input": None, "output": "a"}).turns == (QUESTION, ANSWER)


def test_text_stays_text() -> None:
    assert mapped({"text": "t\n"}, system_prompt="ignored") == Example(7, (), "t\n")


def test_a_template_builds_the_prompt() -> None:
    values = {"question": "q?", "year": 1999, "context": None, "answer": "a"}
    example = mapped(values, template="{question} {{{year}}}\n{context}")
    assert example.turns == (Turn("user", "q? {1999}\n"), ANSWER)


def test_a_template_takes_any_answer_column() -> None:
    values = {"q": "q", "say": "a"}
    assert mapped(values, template="{q}", columns={"completion": "say"}).turns == (QUESTION, ANSWER)
    with pytest.raises(DataError, match="no column for the answer"):
        mapped(values, template="{q}")


@pytest.mark.parametrize("template", ["{", "{}", "{a.b}", "{a[0]}", "{a!r}", "{a:>9}", "no columns", "{0.__class__}"])
def test_a_template_holds_plain_names_only(template: str) -> None:
    with pytest.raises(DataError, match=r"data\.template cannot be used"):
        detect([RawRow(1, {"a": "q", "answer": "a"})], section(template=template))


def test_the_system_prompt_is_put_before_rows_without_one() -> None:
    system = Turn("system", "Be brief.")
    assert mapped({"messages": MESSAGES}, system_prompt="Be brief.").turns == (system, QUESTION, ANSWER)
    own = {"messages": [{"role": "system", "content": "Mine."}, *MESSAGES]}
    assert mapped(own, system_prompt="Be brief.").turns[0].content == "Mine."
    assert mapped({"prompt": "q", "completion": "a"}, system_prompt="Be brief.").context == 2


@pytest.mark.parametrize(
    ("values", "reason", "why"),
    [
        ({"prompt": "q", "completion": None}, "no answer", "'completion' is empty"),
        ({"prompt": "q", "completion": " \n"}, "no answer", "no assistant turn"),
        ({"prompt": None, "completion": "a"}, "no prompt", "missing or empty"),
        ({"prompt": "q", "completion": ["a"]}, "wrong type", "an object with role and content"),
        ({"prompt": "q", "completion": True}, "wrong type", "Column 'completion' holds a boolean where text is needed"),
        ({"prompt": {"x": 1}, "completion": "a"}, "wrong type", "holds an object"),
        ({"prompt": MESSAGES, "completion": [{"role": "user", "content": "x"}]}, "no answer", "no assistant turn"),
        ({"instruction": "q", "output": ""}, "no answer", "'output' is empty"),
        ({"instruction": "", "input": "", "output": "a"}, "no prompt", "empty"),
        ({"instruction": ["q"], "output": "a"}, "wrong type", "holds a list"),
        ({"messages": []}, "no answer", "no messages"),
        ({"messages": MESSAGES[:1]}, "no answer", "no assistant turn"),
        ({"messages": "hello"}, "wrong type", "a list of messages"),
        ({"messages": ["hello"]}, "wrong type", "an object with role and content"),
        ({"messages": '[{"role": "user", '}, "wrong type", "not the JSON of messages"),
        ({"messages": [{"role": "user", "content": None}, ANSWER]}, "wrong type", "holds nothing"),
        ({"messages": [{"role": "doctor", "content": "q"}]}, "unknown role", "'doctor'"),
        ({"messages": [{"role": ["user"], "content": "q"}]}, "unknown role", "system, user, assistant, tool"),
        ({"messages": [{"content": "q"}]}, "unknown role", "None"),
        ({"messages": [MESSAGES[0], {"role": "assistant", "content": "\ud800"}]}, "not Unicode", "character 1"),
        ({"text": None}, "no text", "empty"),
        ({"text": True}, "wrong type", "a boolean"),
        ({"text": "a\udfff"}, "not Unicode", "character 2"),
    ],
)
def test_an_unusable_row_has_a_reason(values: dict[str, Any], reason: str, why: str) -> None:
    with pytest.raises(RowProblem) as caught:
        mapped(values)
    assert (caught.value.number, caught.value.reason) == (7, reason)
    assert why in caught.value.why


def test_a_template_over_nested_lists_is_a_wrong_type() -> None:
    with pytest.raises(RowProblem) as caught:
        mapped({"q": [["x"]], "answer": "a"}, template="{q}")
    assert caught.value.reason == "wrong type"
    with pytest.raises(RowProblem, match="no prompt"):
        mapped({"q": None, "answer": "a"}, template="Question: {q}")


def test_a_question_names_the_lines_that_settle_it() -> None:
    with pytest.raises(AmbiguousFormat) as caught:
        detect([RawRow(1, {"question": "q", "my text": "x", "article": "t", "answer": "a"})], section())
    assert caught.value.hint == (
        'Write one of these under data: template: "{article}\\n\\n{question}" and columns: {completion: answer} '
        '(all of it is the prompt); columns: {prompt: question, completion: answer} ("article" is left out).'
    )
    for reading in caught.value.readings:
        assert yaml.safe_load("\n".join(reading.lines)) == reading.settings


@pytest.mark.parametrize("name", ["a", "two words", "yes", "1", "-x", "é", "a:b", "{q}", "it's", 'a "b"', "#x", ""])
def test_settings_are_written_as_yaml(name: str) -> None:
    reading = Reading("", {"columns": {"prompt": name}})
    assert yaml.safe_load(reading.lines[0]) == reading.settings


def test_named_columns_are_taken_alone() -> None:
    values = {"system": "s", "prompt": "q", "completion": "a", "label": False}
    with pytest.raises(RowProblem, match="not liked"):
        mapped(values)
    assert mapped(values, columns={"prompt": "prompt", "completion": "completion"}).turns == (QUESTION, ANSWER)
    assert mapped(values, columns={"system": "system"}).turns == (Turn("system", "s"), QUESTION, ANSWER)


def test_a_configured_format_finds_columns_with_other_names() -> None:
    assert mapped({"Question": "q", "reply": "a"}, format="prompt-completion").turns == (QUESTION, ANSWER)


def test_a_row_of_another_format_behind_the_first_ones_is_dropped_with_a_reason() -> None:
    chosen = section()
    mapper = RowMapper(detect([RawRow(1, {"prompt": "q", "completion": "a"})], chosen), None)
    with pytest.raises(RowProblem, match="no answer"):
        mapper.example(RawRow(2, {"messages": MESSAGES}))


def test_not_a_number_is_nothing() -> None:
    assert mapped({"instruction": "q", "input": float("nan"), "output": "a"}).turns == (QUESTION, ANSWER)
    with pytest.raises(RowProblem, match="no answer"):
        mapped({"prompt": "q", "completion": float("nan")}, format="prompt-completion")


def test_what_follows_the_last_answer_is_left_out() -> None:
    assert mapped({"messages": [*MESSAGES, {"role": "user", "content": "thanks"}]}).turns == (QUESTION, ANSWER)


def test_reasoning_has_every_name_that_templates_read() -> None:
    turn = mapped({"messages": [MESSAGES[0], {"role": "assistant", "content": "a", "reasoning": "r"}]}).turns[1]
    assert turn.fields == {"thinking": "r", "reasoning": "r", "reasoning_content": "r"}


def test_a_template_takes_lists_line_by_line() -> None:
    assert mapped({"q": ["x", 2], "answer": "a"}, template="{q}").turns[0] == Turn("user", "x\n2")


@pytest.mark.parametrize(
    ("message", "reason", "why"),
    [
        ({"role": "assistant", "tool_calls": "oops"}, "wrong type", "not JSON"),
        ({"role": "assistant", "tool_calls": [1]}, "wrong type", "holds a number"),
        ({"role": "assistant", "tool_calls": [{"function": {}}]}, "wrong type", "names no function"),
        ({"role": "assistant", "content": "a", "weight": 0.5}, "unknown training mark", "weight 0.5"),
        ({"role": "assistant", "content": [{"type": "image_url"}]}, "not text", "'image_url'"),
        ({"role": "assistant", "content": [1]}, "wrong type", "holds a number"),
        ({"role": "assistant", "content": "a", "name": "\ud800"}, "not Unicode", "surrogate"),
        ({"from": "function_call", "value": "light()"}, "wrong type", "not JSON"),
    ],
)
def test_an_odd_message_drops_its_row(message: dict[str, Any], reason: str, why: str) -> None:
    with pytest.raises(RowProblem) as caught:
        mapped({"messages": [MESSAGES[0], message, MESSAGES[1]]}, format="messages")
    assert caught.value.reason == reason
    assert why in caught.value.why


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"input_ids": [1, 2], "labels": [1]}, "wrong type"),
        ({"input_ids": [1, 2], "labels": [1, 3]}, "wrong type"),
        ({"input_ids": [1, "x"], "labels": [1, 2]}, "wrong type"),
        ({"input_ids": [], "labels": []}, "no text"),
        ({"segments": [{"text": "x", "label": False}]}, "no answer"),
        ({"segments": [{"text": 1, "label": True}]}, "wrong type"),
        ({"instruction": "q", "output": "a", "history": [["x"]]}, "wrong type"),
        ({"messages": MESSAGES, "tools": "oops"}, "wrong type"),
    ],
)
def test_an_odd_row_has_a_reason(values: dict[str, Any], reason: str) -> None:
    whole = {"input_ids": [1], "segments": [{"text": "x", "label": True}], "history": [["x", "y"]], "tools": "[]"}
    first = {name: whole.get(name, value) for name, value in values.items()}
    chosen = section()
    mapper = RowMapper(detect([RawRow(1, first | ({"labels": [1]} if "labels" in first else {}))], chosen), None)
    with pytest.raises(RowProblem) as caught:
        mapper.example(RawRow(2, values))
    assert caught.value.reason == reason


def test_a_mixture_of_formats_is_told_with_its_numbers() -> None:
    pairs = [{"prompt": f"{number}?", "completion": "Yes."} for number in range(6)]
    values = pairs + [{"messages": MESSAGES}] * 4
    with pytest.raises(DataError, match="different formats") as caught:
        detect([RawRow(number, row) for number, row in enumerate(values, start=1)], section())
    assert caught.value.why.startswith("4 of the first 10 are read as messages")
    assert "row 1 looks like prompt-completion" in caught.value.why
