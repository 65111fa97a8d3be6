"""Masks token by token: exactly the assistant's answers and their end of turn, whatever the text and the template."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from chat_templates import (
    ALTERNATES,
    CHATML,
    CLOSES_CONVERSATION,
    CUTS_REASONING,
    HEADERS,
    KEEPS_LAST_REASONING,
    LAST_REASONING,
    MARKED,
    MOVES_SYSTEM,
)
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from model_folders import begin_texts_with, change_json, set_template

from qlora_tui.config import DataSection
from qlora_tui.data.encode import Encoder
from qlora_tui.data.formats import Example, Turn
from qlora_tui.data.problems import RowProblem
from qlora_tui.data.template import TemplateRefusal
from qlora_tui.errors import ModelError

ASSISTANT_ONLY = DataSection(source="rows.jsonl")
EVERYTHING = DataSection(source="rows.jsonl", train_on="all")


@pytest.fixture(scope="module")
def encoder(tokenizer_folder: Path) -> Encoder:
    return Encoder.from_folder(tokenizer_folder, ASSISTANT_ONLY)


def conversation(*contents: str, system: str | None = None, context: int = 0) -> Example:
    """Alternating user and assistant turns, after a system turn if there is one."""
    head = () if system is None else (Turn("system", system),)
    turns = [Turn("assistant" if index % 2 else "user", content) for index, content in enumerate(contents)]
    return Example(1, (*head, *turns), None, context)


def shown(encoder: Encoder, example: Example) -> list[tuple[str, bool]]:
    row = encoder.encode(example)
    assert len(row.input_ids) == len(row.trained)
    return list(zip(encoder.decode_tokens(row.input_ids), row.trained, strict=True))


def trained_text(encoder: Encoder, example: Example) -> str:
    row = encoder.encode(example)
    ids = [token for token, trained in zip(row.input_ids, row.trained, strict=True) if trained]
    return str(encoder.tokenizer.decode(ids, skip_special_tokens=False))


def test_a_conversation_token_by_token(encoder: Encoder) -> None:
    assert shown(encoder, conversation("Hi there", "Hello", "More", "No way", system="Be brief")) == [
        ("<|im_start|>", False), ("system", False), ("\n", False), ("Be", False), (" brief", False),
        ("<|im_end|>", False), ("\n", False),
        ("<|im_start|>", False), ("user", False), ("\n", False), ("Hi", False), (" there", False),
        ("<|im_end|>", False), ("\n", False),
        ("<|im_start|>", False), ("ass", False), ("istant", False), ("\n", False), ("Hello", True),
        ("<|im_end|>", True), ("\n", False),
        ("<|im_start|>", False), ("user", False), ("\n", False), ("More", False), ("<|im_end|>", False), ("\n", False),
        ("<|im_start|>", False), ("ass", False), ("istant", False), ("\n", False), ("No", True), (" way", True),
        ("<|im_end|>", True), ("\n", False),
    ]  # fmt: skip


def test_the_system_prompt_of_the_template_is_not_trained(encoder: Encoder) -> None:
    tokens = shown(encoder, conversation("Hi", "Hello"))
    assert "SmolLM" in "".join(text for text, _ in tokens)
    assert [text for text, trained in tokens if trained] == ["Hello", "<|im_end|>"]


def test_all_tokens_of_a_character_are_trained(encoder: Encoder) -> None:
    row = encoder.encode(conversation("🎉", "🎉"))
    party = encoder.tokenizer.encode("🎉", add_special_tokens=False).ids
    assert len(party) > 1
    assert [token for token, trained in zip(row.input_ids, row.trained, strict=True) if trained] == [*party, 2]


@pytest.mark.parametrize(
    "answers",
    [
        ["Grüße, 你好"],
        ["👩‍👩‍👧 family"],
        ["שלום עולם"],
        ["مرحبا"],
        [""],
        ["", "second"],
        ["ends in space  \n\n"],
        ["a<|im_end|>b"],
        ["<|im_start|>assistant\nfake"],
        ["one", "two", "three"],
        ["same", "same"],
    ],
)
def test_exactly_the_answers_are_trained(encoder: Encoder, answers: list[str]) -> None:
    contents = [part for answer in answers for part in ("Hi", answer)]
    assert trained_text(encoder, conversation(*contents)) == "".join(answer + "<|im_end|>" for answer in answers)


def round_trip(encoder: Encoder, text: str) -> str:
    """What is left of a text as tokens."""
    return str(encoder.tokenizer.decode(encoder.tokenizer.encode(text).ids))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.text(max_size=12), st.text(max_size=12)), min_size=1, max_size=3), st.booleans())
def test_any_text_trains_its_answers_only(encoder: Encoder, pairs: list[tuple[str, str]], with_system: bool) -> None:
    # Without the characters that the tokenizer drops.
    contents = [round_trip(encoder, part) for pair in pairs for part in pair]
    assume(all(round_trip(encoder, part) == part for part in contents))
    example = conversation(*contents, system="s" if with_system else None)
    row = encoder.encode(example)
    expected = "".join(answer + "<|im_end|>" for answer in contents[1::2])
    if row.straddles:  # an answer that begins with white space may share a token with the line break before it
        assert trained_text(encoder, example).replace("\n", "") == expected.replace("\n", "")
    else:
        assert trained_text(encoder, example) == expected


def test_a_token_over_the_edge_is_trained_and_reported(encoder: Encoder) -> None:
    example = conversation("Hi", "  Hello")
    assert encoder.encode(example).straddles
    assert [text for text, trained in shown(encoder, example) if trained] == ["\n ", " Hello", "<|im_end|>"]
    assert not encoder.encode(conversation("Hi", "Hello")).straddles


def test_characters_the_tokenizer_drops_move_no_edge(encoder: Encoder) -> None:
    assert encoder.tokenizer.encode("\x16", add_special_tokens=False).ids == []
    assert (
        trained_text(encoder, conversation("\x16Hi\x16", "\x16Hello\x16", "x", "\x16")) == "Hello<|im_end|><|im_end|>"
    )


def test_eos_is_trained_although_it_is_the_padding_token(encoder: Encoder) -> None:
    tokens = encoder.template.special_tokens
    assert tokens["pad_token"] == tokens["eos_token"] == "<|im_end|>"
    row = encoder.encode(conversation("Hi", "Hello"))
    last = max(index for index, trained in enumerate(row.trained) if trained)
    assert row.input_ids[last] == encoder.eos_id == encoder.end_of_turn_id
    assert encoder.end_of_turn_trained


def test_context_turns_are_not_trained(encoder: Encoder) -> None:
    assert trained_text(encoder, conversation("a", "b", "c", "d", context=3)) == "d<|im_end|>"


def test_tool_turns_are_not_trained(encoder: Encoder) -> None:
    turns = (Turn("user", "q"), Turn("assistant", "call"), Turn("tool", "result"), Turn("assistant", "done"))
    assert trained_text(encoder, Example(1, turns)) == "call<|im_end|>done<|im_end|>"


def test_train_on_all_trains_everything_but_bos(tokenizer_folder: Path) -> None:
    row = Encoder.from_folder(tokenizer_folder, EVERYTHING).encode(conversation("Hi", "Hello"))
    assert row.trained == [False] + [True] * (len(row.trained) - 1)


def test_ids_are_those_of_transformers(encoder: Encoder, tokenizer_folder: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(tokenizer_folder))
    example = conversation("Grüße 🎉\n\n  code()", "שלום\t", "", "x", system=" s ")
    messages = [{"role": turn.role, "content": turn.content} for turn in example.turns]
    assert encoder.encode(example).input_ids == tokenizer.apply_chat_template(messages, return_dict=False)
    expected = tokenizer.apply_chat_template(messages[:-1], add_generation_prompt=True, return_dict=False)
    assert encoder.prompt_ids(example.turns[:-1]) == expected


def test_a_prompt_and_its_answer_make_the_row(encoder: Encoder) -> None:
    row = encoder.encode(conversation("Hi", "Hello"))
    prompt = encoder.prompt_ids((Turn("user", "Hi"),))
    assert row.input_ids[: len(prompt)] == prompt
    assert row.trained.index(True) == len(prompt)


def test_one_at_a_time_equals_a_batch(encoder: Encoder) -> None:
    examples = [conversation("Hi", "x" * size) for size in range(5)]
    assert encoder.encode_batch(examples) == [encoder.encode(example) for example in examples]


def test_plain_text_is_closed_and_trained(encoder: Encoder, model_folder: Path) -> None:
    assert shown(encoder, Example(1, (), "Once upon")) == [("Once", True), (" upon", True), ("<|im_end|>", True)]
    assert shown(encoder, Example(1, (), "Once<|im_end|>"))[-2:] == [("Once", True), ("<|im_end|>", True)]
    with_bos = Encoder.from_folder(begin_texts_with(model_folder, "<|endoftext|>"), ASSISTANT_ONLY)
    expected = [("<|endoftext|>", False), ("Once", True), ("<|im_end|>", True)]
    assert shown(with_bos, Example(1, (), "Once")) == expected
    assert shown(with_bos, Example(1, (), "<|endoftext|>Once")) == expected


def test_bos_of_the_tokenizer_is_not_doubled_in_conversations(model_folder: Path) -> None:
    begin_texts_with(
        set_template(model_folder, HEADERS, ("<|start_header|>", "<|end_header|>", "<|eot|>")), "<|endoftext|>"
    )
    encoder = Encoder.from_folder(model_folder, ASSISTANT_ONLY)
    row = encoder.encode(conversation("Hi", " Hello "))
    assert row.input_ids.count(encoder.bos_id or 0) == 1
    assert trained_text(encoder, conversation("Hi", " Hello ", "x", "y")) == "Hello<|eot|>y<|eot|>"
    assert encoder.end_of_turn_id == encoder.tokenizer.token_to_id("<|eot|>") != encoder.eos_id


def test_truncation_and_padding_stored_with_the_tokenizer_are_off(model_folder: Path, encoder: Encoder) -> None:
    change_json(
        model_folder / "tokenizer.json",
        truncation={"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0},
        padding={
            "strategy": {"Fixed": 64}, "direction": "Right", "pad_to_multiple_of": None, "pad_id": 2,
            "pad_type_id": 0, "pad_token": "<|im_end|>",
        },
    )  # fmt: skip
    example = conversation("Hi", "Hello")
    assert Encoder.from_folder(model_folder, ASSISTANT_ONLY).encode(example) == encoder.encode(example)


def test_offsets_are_not_trimmed(model_folder: Path) -> None:
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    change_json(model_folder / "tokenizer.json", post_processor=byte_level)
    encoder = Encoder.from_folder(model_folder, ASSISTANT_ONLY)
    assert trained_text(encoder, conversation("Hi", "a b\n\n c \n")) == "a b\n\n c \n<|im_end|>"


@pytest.mark.parametrize("strips_right", [False, True])
def test_a_token_behind_the_conversation_is_not_trained(model_folder: Path, strips_right: bool) -> None:
    special = ("<|user|>", "<|assistant|>", "<|system|>", "<|end|>")
    encoder = Encoder.from_folder(
        set_template(model_folder, CLOSES_CONVERSATION, special, strips_right), ASSISTANT_ONLY
    )
    assert trained_text(encoder, conversation("Hi", "Hello", "x", "y")) == "Hello<|end|>y<|end|>"
    assert encoder.end_of_turn_id == encoder.tokenizer.token_to_id("<|end|>")


def test_reasoning_shown_in_the_last_answer_only(model_folder: Path) -> None:
    encoder = Encoder.from_folder(set_template(model_folder, LAST_REASONING), ASSISTANT_ONLY)
    expected = "Hello<|im_end|><think>\n\n</think>\n\ny<|im_end|>"
    assert trained_text(encoder, conversation("Hi", "Hello", "x", "y")) == expected


def learnt(encoder: Encoder, example: Example) -> list[tuple[str, int]]:
    """The trained text of each sequence of a row, with the number of its turns."""
    row = encoder.encode(example)
    found = []
    for sequence in (row, *row.more):
        ids = [token for token, trained in zip(sequence.input_ids, sequence.trained, strict=True) if trained]
        found.append((str(encoder.tokenizer.decode(ids, skip_special_tokens=False)), sequence.turns))
    return found


def test_an_answer_whose_reasoning_is_cut_later_has_a_sequence_of_its_own(model_folder: Path) -> None:
    encoder = Encoder.from_folder(set_template(model_folder, KEEPS_LAST_REASONING), ASSISTANT_ONLY)
    example = conversation("Hi", "<think>hm</think>Hello", "x", "<think>oh</think>y", "z", "plain")
    assert learnt(encoder, example) == [
        ("plain<|im_end|>", 0),
        ("<think>oh</think>y<|im_end|>", 4),
        ("<think>hm</think>Hello<|im_end|>", 2),
    ]
    row = encoder.encode(example)
    text = encoder.text_of(row.more[0].input_ids)
    assert "hm" not in text, "the model sees no earlier reasoning when it gives this answer"
    assert text.startswith(encoder.template.render([{"role": "user", "content": "Hi"}]))
    assert encoder.encode(conversation("Hi", "Hello", "x", "y")).more == ()
    assert learnt(encoder, conversation("a", "<think>b</think>c", "d", "e", context=3)) == [("e<|im_end|>", 0)]


def test_answers_share_a_sequence_as_far_as_they_stand_there_whole(model_folder: Path) -> None:
    encoder = Encoder.from_folder(set_template(model_folder, KEEPS_LAST_REASONING), ASSISTANT_ONLY)
    calls = [Turn("assistant", "<think>f</think>call f"), Turn("tool", "1"), Turn("assistant", "<think>g</think>done")]
    example = Example(1, (Turn("user", "q"), *calls, Turn("user", "r"), Turn("assistant", "bye")))
    assert learnt(encoder, example) == [
        ("bye<|im_end|>", 0),
        ("<think>f</think>call f<|im_end|><think>g</think>done<|im_end|>", 4),
    ]


def test_reasoning_that_the_template_always_cuts_is_learnt_behind_the_prompt(model_folder: Path) -> None:
    encoder = Encoder.from_folder(set_template(model_folder, CUTS_REASONING), ASSISTANT_ONLY)
    row = encoder.encode(conversation("Hi", "<think>\nhm\n</think>\n\nHello"))
    assert encoder.text_of(row.input_ids) == (
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n<think>\nhm\n</think>\n\nHello<|im_end|>"
    )
    assert learnt(encoder, conversation("Hi", "<think>\nhm\n</think>\n\nHello")) == [
        ("hm\n</think>\n\nHello<|im_end|>", 0)
    ]
    assert learnt(encoder, conversation("Hi", "Hello", "x", "y")) == [("Hello<|im_end|>y<|im_end|>", 0)]


def test_a_template_that_moves_text_gives_each_answer_its_own_sequence(model_folder: Path) -> None:
    encoder = Encoder.from_folder(set_template(model_folder, MOVES_SYSTEM), ASSISTANT_ONLY)
    assert learnt(encoder, conversation("a", "b", "c", "d", system="s")) == [("d<|im_end|>", 0), ("b<|im_end|>", 3)]


def test_an_answer_that_is_not_shown_drops_its_row(model_folder: Path) -> None:
    hidden = CHATML.replace("message['content'] +", "(message['content'] | length | string) +")
    encoder = Encoder.from_folder(set_template(model_folder, hidden + "{{ messages | length }}"), ASSISTANT_ONLY)
    found = encoder.encode_batch([conversation("a", "bcd", "e", "fg")])[0]
    assert isinstance(found, RowProblem)
    assert found.reason == "answer that the chat template hides"


def test_what_the_template_leaves_out_is_told(model_folder: Path) -> None:
    encoder = Encoder.from_folder(set_template(model_folder, CHATML), ASSISTANT_ONLY)
    thought = Turn("assistant", "Hello", {"reasoning_content": "hm", "thinking": "hm"})
    assert encoder.encode(Example(1, (Turn("user", "Hi"), thought))).unseen == ("the reasoning",)
    source = CHATML.replace(
        "{% for message in messages %}", "{% for message in messages if message.role != 'system' %}"
    )
    other = Path(shutil.copytree(model_folder, model_folder.with_name("other")))
    encoder = Encoder.from_folder(set_template(other, source), ASSISTANT_ONLY)
    assert encoder.encode(conversation("Hi", "Hello", system="s")).unseen == ("the system turn",)
    assert encoder.encode(conversation("Hi", "Hello")).unseen == ()


@pytest.mark.parametrize("field", ["tools", "tool calls"])
def test_tools_that_the_template_does_not_show_drop_the_row(encoder: Encoder, field: str) -> None:
    call = {"tool_calls": [{"function": {"name": "switch_light", "arguments": {}}}]} if field == "tool calls" else None
    tools = [{"function": {"name": "switch_light"}}] if field == "tools" else None
    turns = (Turn("user", "Hi"), Turn("assistant", "Hello", call))
    with pytest.raises(RowProblem, match=f"{field} that the chat template does not show"):
        encoder.encode(Example(1, turns, tools=tools))


def test_arguments_are_written_where_the_template_wants_text(model_folder: Path) -> None:
    source = CHATML.replace(
        "message['content'] +",
        "message['content'] + (message.tool_calls[0].function.name + message.tool_calls[0].function.arguments "
        "if message.tool_calls else '') +",
    )
    encoder = Encoder.from_folder(set_template(model_folder, source), ASSISTANT_ONLY)
    call = {"tool_calls": [{"function": {"name": "f", "arguments": {"x": "é"}}}]}
    example = Example(1, (Turn("user", "Hi"), Turn("assistant", "", call)))
    assert trained_text(encoder, example) == 'f{"x": "é"}<|im_end|>'


def test_tool_calls_that_the_template_refuses_are_named_as_such(model_folder: Path) -> None:
    encoder = Encoder.from_folder(set_template(model_folder, CHATML), ASSISTANT_ONLY)
    call = {"content": None, "tool_calls": [{"function": {"name": "f", "arguments": {}}}]}
    with pytest.raises(RowProblem, match="tool calls that the chat template refuses") as caught:
        encoder.encode(Example(1, (Turn("user", "Hi"), Turn("assistant", "", call))))
    assert "knows tools" in caught.value.hint


def test_contents_are_parts_where_the_template_wants_them(model_folder: Path) -> None:
    source = (
        "{% for message in messages %}{{ message['role'] | capitalize }}:\n{% for part in message['content'] %}"
        "{% if part['type'] == 'text' %}{{ part['text'] }}{% endif %}{% endfor %}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}{{ 'Assistant:\n' }}{% endif %}"
    )
    encoder = Encoder.from_folder(set_template(model_folder, source), ASSISTANT_ONLY)
    assert trained_text(encoder, conversation("Hi", "Hello", "x", "y")) == "Hello<|im_end|>y<|im_end|>"
    assert encoder.text_of(encoder.encode(conversation("Hi", "Hello")).input_ids).startswith("User:\nHi<|im_end|>")


def test_several_end_tokens_in_a_row_are_all_trained(model_folder: Path) -> None:
    source = CHATML.replace("<|im_end|>\n", "<|stop|><|im_end|>")
    encoder = Encoder.from_folder(set_template(model_folder, source, ("<|stop|>",)), ASSISTANT_ONLY)
    assert trained_text(encoder, conversation("Hi", "Hello", "x", "y")) == "Hello<|stop|><|im_end|>y<|stop|><|im_end|>"


def test_the_last_answer_may_end_otherwise_than_earlier_ones(model_folder: Path) -> None:
    source = CHATML.replace(
        "'<|im_end|>\n'", "('<|return|>' if loop.last and message.role == 'assistant' else '<|im_end|>')"
    )
    encoder = Encoder.from_folder(set_template(model_folder, source, ("<|return|>",)), ASSISTANT_ONLY)
    assert trained_text(encoder, conversation("Hi", "Hello", "x", "y")) == "Hello<|im_end|>y<|return|>"
    thinking = Turn("assistant", "Hello", {"name": "me"})  # found by rendering what comes before it
    turns = (Turn("user", "Hi"), thinking, Turn("user", "x"), Turn("assistant", "y"))
    assert trained_text(encoder, Example(1, turns)) == "Hello<|im_end|>y<|return|>"


def test_text_that_looks_like_an_answer_moves_no_edge(encoder: Encoder) -> None:
    fake = "x<|im_end|>\n<|im_start|>assistant\nHello<|im_end|>\n"
    assert trained_text(encoder, conversation(fake, "Hello", fake, "Hello")) == "Hello<|im_end|>Hello<|im_end|>"
    assert trained_text(encoder, conversation("Hi", fake)) == fake + "<|im_end|>"


def test_a_template_of_its_own_serves_tools(model_folder: Path) -> None:
    (model_folder / "chat_template.jinja").unlink()
    named = [
        {"name": "default", "template": CHATML},
        {"name": "tool_use", "template": "{{ tools[0].name }}\n" + CHATML},
    ]
    change_json(model_folder / "tokenizer_config.json", chat_template=named)
    encoder = Encoder.from_folder(model_folder, ASSISTANT_ONLY)
    example = conversation("Hi", "Hello")
    assert encoder.rendered(example).startswith("<|im_start|>")
    assert encoder.rendered(replace(example, tools=[{"name": "light"}])).startswith("light\n")


def test_far_too_long_rows_are_dropped(encoder: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qlora_tui.data.encode.MAX_ROW_CHARS", 1000)
    monkeypatch.setattr("qlora_tui.data.encode.BATCH_CHARS", 600)
    rows = encoder.encode_batch([conversation("Hi", "x " * size) for size in (1, 100, 2000, 3)])
    assert [isinstance(row, RowProblem) for row in rows] == [False, False, True, False]


def test_marks_serve_where_prefixes_do_not(model_folder: Path) -> None:
    encoder = Encoder.from_folder(set_template(model_folder, MARKED), ASSISTANT_ONLY)
    assert trained_text(encoder, conversation("Hi", "Hello", "x", "y ")) == "Hello<|im_end|>y <|im_end|>"
    assert trained_text(encoder, conversation("a", "b", "c", "d", context=3)) == "d<|im_end|>"
    assert encoder.end_of_turn_trained


def test_a_row_the_template_refuses_is_a_row_problem(model_folder: Path) -> None:
    encoder = Encoder.from_folder(set_template(model_folder, ALTERNATES), ASSISTANT_ONLY)
    good, bad = conversation("Hi", "Hello"), conversation("Hi", "Hello", system="s")
    first, second = encoder.encode_batch([bad, good])
    assert isinstance(first, RowProblem)
    assert first.reason == "refused by the chat template"
    assert "System role not supported" in first.why
    assert second == encoder.encode(good)
    with pytest.raises(TemplateRefusal):
        encoder.prompt_ids(bad.turns)


def test_a_greeting_is_trained_where_the_template_can_open_with_it(encoder: Encoder, model_folder: Path) -> None:
    turns = (Turn("assistant", "Welcome"), Turn("user", "Hi"), Turn("assistant", "Hello"))
    assert trained_text(encoder, Example(3, turns)) == "Welcome<|im_end|>Hello<|im_end|>"
    strict = "{{ messages[0].role }}\n" + CHATML
    other = Encoder.from_folder(set_template(model_folder, strict), ASSISTANT_ONLY)
    assert trained_text(other, Example(3, turns)) == "Hello<|im_end|>"
    assert other.encode(Example(3, turns)).unseen == ("the first answer, which has no prompt",)
    with pytest.raises(RowProblem, match="starts with the assistant"):
        other.encode(Example(3, turns[:1]))


def test_an_answer_without_end_token_is_noticed(model_folder: Path) -> None:
    encoder = Encoder.from_folder(set_template(model_folder, CHATML.replace("<|im_end|>", "")), ASSISTANT_ONLY)
    assert not encoder.end_of_turn_trained
    assert "will not learn to stop" in encoder.warnings[0]
    assert trained_text(encoder, conversation("Hi", "Hello", "x", "y")) == "Helloy"


def test_turns_that_are_not_to_be_trained_are_only_read(encoder: Encoder) -> None:
    first, second, third, last = conversation("a", "b", "c", "d").turns
    example = Example(1, (first, replace(second, trained=False), third, last))
    assert trained_text(encoder, example) == "d<|im_end|>"


def test_segments_are_trained_as_they_say(encoder: Encoder) -> None:
    example = Example(1, (), "Hi there<|im_end|>", spans=((2, 8), (8, 18)))
    assert shown(encoder, example) == [("Hi", False), (" there", True), ("<|im_end|>", True)]
    assert encoder.is_closed(encoder.encode(example))
    assert not encoder.is_closed(encoder.encode(Example(1, (), "Hi there", spans=((2, 8),))))


def test_token_ids_are_taken_as_they_are(encoder: Encoder) -> None:
    row = encoder.encode(Example(1, (), ids=([5, 6], [False, True])))
    assert (row.input_ids, row.trained) == ([5, 6], [False, True])
    for ids in ([10**9], [-1]):
        with pytest.raises(RowProblem, match="unknown token"):
            encoder.encode(Example(1, (), ids=(ids, [True])))


def test_tools_and_fields_reach_the_template(model_folder: Path) -> None:
    source = "{{ tools | tojson }}{{ effort }}" + CHATML.replace(
        "message['content'] +",
        "(message.content or '') + (message.tool_calls | tojson if message.tool_calls else '') +",
    )
    encoder = Encoder.from_folder(set_template(model_folder, source), ASSISTANT_ONLY)
    call = {"content": None, "tool_calls": [{"function": {"name": "f", "arguments": {}}}]}
    turns = (Turn("user", "q"), Turn("assistant", "", call))
    example = Example(1, turns, tools=[{"name": "f"}], values={"effort": "low"})
    assert trained_text(encoder, example) == '[{"function": {"name": "f", "arguments": {}}}]<|im_end|>'
    text = encoder.tokenizer.decode(encoder.encode(example).input_ids, skip_special_tokens=False)
    assert text.startswith('[{"name": "f"}]low<|im_start|>user')


def test_the_plain_template_trains_eos(model_folder: Path) -> None:
    (model_folder / "chat_template.jinja").unlink()
    encoder = Encoder.from_folder(model_folder, ASSISTANT_ONLY)
    assert trained_text(encoder, conversation("Hi", "Hello", "x", "y")) == "Hello<|im_end|>y<|im_end|>"
    assert encoder.warnings == (
        "The model has no chat template; a plain one is used, and must be used with the adapter too.",
    )


@pytest.mark.parametrize("content", [None, b"{}", b"\xff"])
def test_a_folder_without_a_usable_tokenizer_is_a_model_error(model_folder: Path, content: bytes | None) -> None:
    path = model_folder / "tokenizer.json"
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ModelError, match=r"tokenizer\.json"):
        Encoder.from_folder(model_folder, ASSISTANT_ONLY)


def test_plain_text_needs_an_eos_token(model_folder: Path) -> None:
    change_json(model_folder / "tokenizer_config.json", eos_token=None)
    with pytest.raises(ModelError, match="no end-of-text token"):
        Encoder.from_folder(model_folder, ASSISTANT_ONLY).encode(Example(1, (), "text"))


def test_nothing_heavy_is_imported() -> None:
    code = (
        "import sys, qlora_tui.data.prepare, qlora_tui.data.holdout;"
        "print([name for name in ('torch', 'transformers', 'datasets', 'pyarrow') if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
