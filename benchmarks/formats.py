"""The forms of rows that other trainers document: what is each taken for, and is it right?

    python -m benchmarks.formats

The rows are written anew in the forms of the documentation of TRL (``docs/source/dataset_formats.md``), LLaMA-Factory
(``data/README.md``), axolotl (``docs/dataset-formats``, ``docs/rlhf.qmd``) and unsloth (datasets guide), and of data
sets that many people train on. A form is right if its turns are those expected, or if the program asks or refuses where
the rows do not say what should be learnt. It is lossy if text of the row is in no turn and nobody is told.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks.tables import publish, table
from qlora_tui.config import DataSection
from qlora_tui.data.detection import detect
from qlora_tui.data.formats import Example, RowMapping, Turn
from qlora_tui.data.guess import AmbiguousFormat
from qlora_tui.data.mapping import RowMapper
from qlora_tui.data.problems import RowProblem
from qlora_tui.data.source import RawRow
from qlora_tui.errors import DataError

Row = dict[str, Any]
ASKED = "asks: "
REFUSED = "refused: "
LEFT_OUT = "left out: "


@dataclass(frozen=True)
class Case:
    """A form and what it should be taken for.

    ``expected`` has a line for each row: its turns (see :func:`transcript`), or why it is left out. For rows that are
    not guessed at it is one line: what is asked, or why they are refused.
    """

    peer: str
    form: str
    rows: Sequence[Row]
    format: str
    expected: Sequence[str]
    settings: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """What a form was taken for."""

    format: str
    lines: list[str]
    lost: list[str]
    """Texts of the rows that nobody trains or reads, and nobody is told of."""

    def verdict(self, case: Case) -> str:
        """``right``, or what is not."""
        if (self.format, self.lines) != (case.format, list(case.expected)):
            return "WRONG"
        return "LOSSY" if self.lost else "right"


def judge(case: Case) -> Outcome:
    """Read the rows of a case."""
    rows = [RawRow(number, values) for number, values in enumerate(case.rows, start=1)]
    section = DataSection(source="rows.jsonl", **case.settings)
    try:
        mapping = detect(rows, section)
    except AmbiguousFormat as question:
        for reading in question.readings:  # each must settle it
            mapping = detect(rows, DataSection(source="rows.jsonl", **reading.settings))
        return Outcome("", [ASKED + " / ".join(" and ".join(each.lines) for each in question.readings)], [])
    except DataError as error:
        return Outcome("", [REFUSED + error.what], [])
    mapper = RowMapper(mapping, section.system_prompt)
    lines, lost = [], []
    for row in rows:
        try:
            example = mapper.example(row)
        except RowProblem as problem:
            lines.append(LEFT_OUT + problem.reason)
            continue
        lines.append(transcript(example))
        lost += [text for text in _texts(row.values, mapping) if text not in lines[-1]]
    return Outcome(mapping.format, lines, lost)


def transcript(example: Example) -> str:
    """An example in one line: ``role: text`` for each turn, with a star where it is trained."""
    if example.ids is not None:
        return " ".join(f"{token}{'*' if trained else ''}" for token, trained in zip(*example.ids, strict=True))
    if example.text is not None:
        spans = ((0, len(example.text)),) if example.spans is None else example.spans
        return "text " + "".join(
            f"{'*' if any(start <= at < end for start, end in spans) else ''}{sign}"
            for at, sign in enumerate(example.text)
        ).replace("*", "") + ("*" if example.spans is None else f" {list(spans)}")  # fmt: skip
    tools = "" if example.tools is None else f" tools: {json.dumps(example.tools, ensure_ascii=False)}"
    turns = [_turn(turn, index >= example.context) for index, turn in enumerate(example.turns)]
    return " | ".join(turns) + tools + (f" values: {json.dumps(example.values)}" if example.values else "")


def _turn(turn: Turn, answers: bool) -> str:
    star = "*" if turn.role == "assistant" and turn.trained and answers else ""
    fields = {name: value for name, value in (turn.fields or {}).items() if value is not None and name != "thinking"}
    return f"{turn.role}{star}: {turn.content}" + (f" {json.dumps(fields, ensure_ascii=False)}" if fields else "")


def _texts(values: Row, mapping: RowMapping) -> Iterator[str]:
    """Texts in the columns that the reason does not call unused; the rejected answer is named in it too."""
    for column, value in values.items():
        if f'"{column}"' in mapping.reason.partition("not used:")[2] or column == mapping.columns.get("rejected"):
            continue
        yield from _strings(value, ("role", "from", "type", mapping.keys[0]))


def _strings(value: Any, names: Sequence[str | None]) -> Iterator[str]:
    """The texts in a value, without those that stand under one of ``names``."""
    if isinstance(value, dict):
        for name, item in value.items():
            if name not in names:
                yield from _strings(item, names)
    elif isinstance(value, list):
        for item in value:
            yield from _strings(item, names)
    elif isinstance(value, str) and len(value) > 2 and not value.startswith(("[", "{", "\n\n")):
        yield value


_Q, _A = "What colour is the sky?", "It is blue."
_USER, _ASSISTANT = {"role": "user", "content": _Q}, {"role": "assistant", "content": _A}
_HUMAN, _GPT = {"from": "human", "value": _Q}, {"from": "gpt", "value": _A}
_PAIR = f"user: {_Q} | assistant*: {_A}"
_FUNCTION = {"name": "light", "description": "Switches a light.", "parameters": {"type": "object", "properties": {}}}
_TOOL = {"type": "function", "function": _FUNCTION}
_CALL = {"type": "function", "function": {"name": "light", "arguments": {"room": "hall"}}}
_CALLS = json.dumps({"tool_calls": [_CALL]})
_TOOLS = f" tools: {json.dumps([_TOOL])}"

CASES: list[Case] = [
    # TRL
    Case("TRL", "language modelling", [{"text": "The sky is blue."}], "text", ["text The sky is blue.*"]),
    Case("TRL", "language modelling, conversational", [{"messages": [_USER, _ASSISTANT]}], "messages", [_PAIR]),
    Case("TRL", "prompt only", [{"prompt": "The sky is"}], "", ["refused: The rows hold prompts but no answers."]),
    Case("TRL", "prompt only, conversational", [{"prompt": [_USER]}], "",
         ["refused: The rows hold prompts but no answers."]),
    Case("TRL", "prompt and completion", [{"prompt": "The sky is", "completion": " blue."}], "prompt-completion",
         ["user: The sky is | assistant*:  blue."]),
    Case("TRL", "prompt and completion, conversational", [{"prompt": [_USER], "completion": [_ASSISTANT]}],
         "prompt-completion", [_PAIR]),
    Case("TRL", "preference", [{"prompt": "The sky is", "chosen": " blue.", "rejected": " green."}], "preference",
         ["user: The sky is | assistant*:  blue."]),
    Case("TRL", "preference, implicit prompt", [{"chosen": "The sky is blue.", "rejected": "The sky is green."}],
         "preference", ["text The sky is blue.*"]),
    Case("TRL", "preference, conversational",
         [{"prompt": [_USER], "chosen": [_ASSISTANT], "rejected": [{"role": "assistant", "content": "Green."}]}],
         "preference", [_PAIR]),
    Case("TRL", "preference, conversational, implicit prompt",
         [{"chosen": [_USER, _ASSISTANT], "rejected": [_USER, {"role": "assistant", "content": "Green."}]}],
         "preference", [_PAIR]),
    Case("TRL", "unpaired preference",
         [{"prompt": "The sky is", "completion": " blue.", "label": True},
          {"prompt": "The sky is", "completion": " green.", "label": False}],
         "prompt-completion", ["user: The sky is | assistant*:  blue.", "left out: answer that was not liked"]),
    Case("TRL", "unpaired preference, conversational",
         [{"prompt": [_USER], "completion": [_ASSISTANT], "label": True},
          {"prompt": [_USER], "completion": [{"role": "assistant", "content": "It is green."}], "label": False}],
         "prompt-completion", [_PAIR, "left out: answer that was not liked"]),
    Case("TRL", "stepwise supervision",
         [{"prompt": "Which is larger, 9.8 or 9.11?", "completions": ["0.8 is 0.80.", "So 9.11."],
           "labels": [True, False]}],
         "", ["refused: The rows hold several answers with a judgement of each."]),
    Case("TRL", "tool calling",
         [{"messages": [_USER, {"role": "assistant", "tool_calls": [_CALL]},
                        {"role": "tool", "name": "light", "content": "It is on."},
                        {"role": "assistant", "content": "Done!"}], "tools": [_TOOL]}],
         "messages",
         [f'user: {_Q} | assistant*:  {_CALLS} | tool: It is on. {{"name": "light"}} | assistant*: Done!{_TOOLS}']),
    Case("TRL", "tools as JSON text", [{"messages": [_USER, _ASSISTANT], "tools": json.dumps([_TOOL])}], "messages",
         [_PAIR + _TOOLS]),
    Case("TRL", "harmony: developer and thinking",
         [{"messages": [{"role": "developer", "content": "Be friendly."}, _USER,
                        {"role": "assistant", "thinking": "Hmm.", "content": _A}]}],
         "messages",
         [f'system: Be friendly. | user: {_Q} | assistant*: {_A} {{"reasoning_content": "Hmm."}}']),
    Case("TRL", "chat_template_kwargs", [{"messages": [_USER, _ASSISTANT], "chat_template_kwargs": {"effort": "low"}}],
         "messages", [_PAIR + ' values: {"effort": "low"}']),
    Case("TRL", "conversations with from and value", [{"conversations": [_HUMAN, _GPT]}], "sharegpt", [_PAIR]),
    Case("TRL", "pre-tokenised with completion_mask", [{"input_ids": [5, 6, 7], "completion_mask": [0, 1, 1]}],
         "pre-tokenised", ["5 6* 7*"]),
    Case("TRL", "vision: images beside messages", [{"messages": [_USER, _ASSISTANT], "images": ["sky.png"]}], "",
         ["asks: columns: {messages: messages}"]),
    # LLaMA-Factory
    Case("LLaMA-Factory", "alpaca", [{"instruction": "Translate.", "input": "bonjour", "output": "hello"},
                                     {"instruction": "Say hi.", "input": "", "output": "hi!"}],
         "alpaca", ["user: Translate.\n\nbonjour | assistant*: hello", "user: Say hi. | assistant*: hi!"]),
    Case("LLaMA-Factory", "alpaca with system and history",
         [{"instruction": "And now?", "input": "", "output": "Rain.", "system": "You forecast.",
           "history": [["Today?", "Sun."], ["Tonight?", "Fog."]]}],
         "alpaca",
         ["system: You forecast. | user: Today? | assistant*: Sun. | user: Tonight? | assistant*: Fog. | "
          "user: And now? | assistant*: Rain."]),
    Case("LLaMA-Factory", "pre-training", [{"text": "document one"}, {"text": "document two"}], "text",
         ["text document one*", "text document two*"]),
    Case("LLaMA-Factory", "alpaca preference",
         [{"instruction": "Translate.", "input": "bonjour", "chosen": "hello", "rejected": "bye"}], "preference",
         ["user: Translate.\n\nbonjour | assistant*: hello"]),
    Case("LLaMA-Factory", "alpaca KTO",
         [{"instruction": "Translate.", "input": "bonjour", "output": "hello", "kto_tag": True},
          {"instruction": "Translate.", "input": "merci", "output": "sorry", "kto_tag": False}], "alpaca",
         ["user: Translate.\n\nbonjour | assistant*: hello", "left out: answer that was not liked"]),
    Case("LLaMA-Factory", "alpaca with images",
         [{"instruction": "Describe.", "input": "", "output": "A cat.", "images": ["cat.png"]}], "",
         ["asks: columns: {instruction: instruction, output: output, input: input}"]),
    Case("LLaMA-Factory", "sharegpt with system and tools",
         [{"conversations": [
             _HUMAN, {"from": "function_call", "value": '{"name": "light", "arguments": {"room": "hall"}}'},
             {"from": "observation", "value": "It is on."}, {"from": "gpt", "value": "Done!"}],
           "system": "You switch.", "tools": json.dumps([_FUNCTION])}],
         "sharegpt",
         [f"system: You switch. | user: {_Q} | assistant*:  {_CALLS} | tool: It is on. | assistant*: Done!{_TOOLS}"]),
    Case("LLaMA-Factory", "sharegpt preference",
         [{"conversations": [_HUMAN], "chosen": _GPT, "rejected": {"from": "gpt", "value": "It is green."}}],
         "preference", [_PAIR]),
    Case("LLaMA-Factory", "sharegpt KTO",
         [{"conversations": [_HUMAN, _GPT], "kto_tag": True}, {"conversations": [_HUMAN, _GPT], "kto_tag": False}],
         "sharegpt", [_PAIR, "left out: answer that was not liked"]),
    Case("LLaMA-Factory", "openai", [{"messages": [{"role": "system", "content": "Be brief."}, _USER, _ASSISTANT]}],
         "messages", [f"system: Be brief. | {_PAIR}"]),
    Case("LLaMA-Factory", "own tags, named in the config",
         [{"dialog": [{"who": "Patient", "said": _Q}, {"who": "Doctor", "said": _A}]}], "messages", [_PAIR],
         {"columns": {"messages": "dialog", "role": "who", "content": "said",
                      "user": "Patient", "assistant": "Doctor"}}),
    # axolotl
    Case("axolotl", "completion", [{"text": "first row"}, {"text": "second row"}], "text",
         ["text first row*", "text second row*"]),
    Case("axolotl", "tokenised with labels",
         [{"input_ids": [5, 6, 7, 0], "attention_mask": [1, 1, 1, 0], "labels": [-100, 6, 7, -100]}], "pre-tokenised",
         ["5 6* 7*"]),
    Case("axolotl", "input_output segments",
         [{"segments": [{"label": False, "text": "<s>Hello\n"}, {"label": True, "text": "hi</s>"}]}], "segments",
         ["text <s>Hello\nhi</s> [(9, 15)]"]),
    Case("axolotl", "chat_template", [{"conversations": [_USER, _ASSISTANT]}], "messages", [_PAIR]),
    Case("axolotl", "pygmalion", [{"conversations": [{"role": "human", "value": _Q}, {"role": "bot", "value": _A}]}],
         "messages", [_PAIR]),
    Case("axolotl", "turns chosen by train",
         [{"conversations": [{**_HUMAN, "train": False}, {**_GPT, "train": False}, _HUMAN, {**_GPT, "train": True}]}],
         "sharegpt", [f"user: {_Q} | assistant: {_A} | {_PAIR}"]),
    Case("axolotl", "parts chosen by train_detail",
         [{"conversations": [
             _HUMAN, {**_GPT, "train_detail": [{"begin_offset": 0, "end_offset": 1, "train": False}]}]}],
         "sharegpt", ["left out: unknown training mark"]),
    Case("axolotl", "jeopardy", [{"question": "Who?", "category": "SCIENCE", "answer": "Newton"}], "prompt-completion",
         ["user: Who? | assistant*: Newton"]),
    Case("axolotl", "oasst", [{"INSTRUCTION": "Say hi.", "RESPONSE": "hi!"}], "alpaca",
         ["user: Say hi. | assistant*: hi!"]),
    Case("axolotl", "gpteacher", [{"instruction": "Translate.", "input": "merci", "response": "thanks"}], "alpaca",
         ["user: Translate.\n\nmerci | assistant*: thanks"]),
    Case("axolotl", "reflection",
         [{"instruction": "Add.", "input": "1+1", "output": "3", "reflection": "Too much.", "corrected": "2"}], "",
         ["asks: columns: {instruction: instruction, input: input, output: output} / "
          "columns: {instruction: instruction, input: input, output: output, reasoning: reflection} / "
          "columns: {instruction: instruction, input: input, output: reflection}"]),
    Case("axolotl", "explainchoice",
         [{"question": "Which?", "choices": ["one", "two"], "solution": "two", "explanation": "It is even."}], "",
         [r'asks: template: "{choices}\n\n{question}" and columns: {completion: solution} / '
          "columns: {prompt: question, completion: solution}"]),
    Case("axolotl", "explainchoice, settled",
         [{"question": "Which?", "choices": ["one", "two"], "solution": "two", "explanation": "It is even."}],
         "prompt-completion", ["user: one\ntwo\n\nWhich? | assistant*: It is even."],
         {"template": "{choices}\n\n{question}", "columns": {"completion": "explanation"}}),
    Case("axolotl", "summarizetldr", [{"article": "A long story.", "summary": "Short."}], "prompt-completion",
         ["user: A long story. | assistant*: Short."]),
    Case("axolotl", "camel_ai", [{"message_1": "Hello?", "message_2": "Yes."}], "prompt-completion",
         ["user: Hello? | assistant*: Yes."]),
    Case("axolotl", "open_orca", [{"system_prompt": "Be brief.", "question": "Who?", "response": "Newton"}],
         "prompt-completion", ["system: Be brief. | user: Who? | assistant*: Newton"]),
    Case("axolotl", "context_qa", [{"article": "Apples fall.", "question": "Who?", "answer": "Newton"}], "",
         [r'asks: template: "{article}\n\n{question}" and columns: {completion: answer} / '
          "columns: {prompt: question, completion: answer}"]),
    Case("axolotl", "context_qa, settled", [{"article": "Apples fall.", "question": "Who?", "answer": "Newton"}],
         "prompt-completion", ["user: Apples fall.\n\nWho? | assistant*: Newton"],
         {"template": "{article}\n\n{question}", "columns": {"completion": "answer"}}),
    Case("axolotl", "context_qa.load_404", [{"article": "Apples fall.", "unanswerable_question": "When?"}], "",
         ["refused: The format of the rows is not recognised."]),
    Case("axolotl", "creative_acr.load_answer", [{"instruction": "Write.", "revision": "Written."}], "",
         ["refused: The format of the rows is not recognised."]),
    Case("axolotl", "metharme", [{"prompt": "Once", "generation": "upon a time"}], "prompt-completion",
         ["user: Once | assistant*: upon a time"]),
    Case("axolotl", "DPO chatml.argilla",
         [{"system": "Be brief.", "instruction": "Who?", "chosen_response": "Newton", "rejected_response": "Nobody"}],
         "preference", ["system: Be brief. | user: Who? | assistant*: Newton"]),
    Case("axolotl", "DPO chatml.icr", [{"input": "Who?", "chosen": "Newton", "rejected": "Nobody"}], "preference",
         ["user: Who? | assistant*: Newton"]),
    Case("axolotl", "DPO chatml.intel", [{"system": "", "question": "Who?", "chosen": "Newton", "rejected": "Nobody"}],
         "preference", ["user: Who? | assistant*: Newton"]),
    Case("axolotl", "DPO chatml.ultra",
         [{"prompt": _Q, "chosen": [_USER, _ASSISTANT], "rejected": [_USER, {"role": "assistant", "content": "No."}]}],
         "preference", [_PAIR]),
    Case("axolotl", "DPO zephyr.nectar", [{"prompt": "Who?", "answers": [{"answer": "Newton", "rank": 1}]}], "",
         ["refused: The rows hold prompts but no answers."]),
    Case("axolotl", "DPO chat_template.default",
         [{"messages": [_USER], "chosen": _ASSISTANT, "rejected": {"role": "assistant", "content": "Green."}}],
         "preference", [_PAIR]),
    Case("axolotl", "KTO chatml.argilla", [{"system": "Be brief.", "instruction": "Who?", "completion": "Newton"}],
         "alpaca", ["system: Be brief. | user: Who? | assistant*: Newton"]),
    # unsloth
    Case("unsloth", "raw corpus", [{"text": "Pasta carbonara is a Roman dish."}], "text",
         ["text Pasta carbonara is a Roman dish.*"]),
    Case("unsloth", "instruct", [{"Instruction": "Sum up.", "Input": "A long text.", "Output": "Short."}], "alpaca",
         ["user: Sum up.\n\nA long text. | assistant*: Short."]),
    Case("unsloth", "ShareGPT", [{"conversations": [_HUMAN, _GPT, _HUMAN, _GPT]}], "sharegpt", [f"{_PAIR} | {_PAIR}"]),
    Case("unsloth", "ChatML", [{"messages": [_USER, _ASSISTANT, _USER, _ASSISTANT]}], "messages",
         [f"{_PAIR} | {_PAIR}"]),
    Case("unsloth", "several columns merged into one prompt",
         [{"Survived": "0", "Age": 22, "Fare": 7.25}], "prompt-completion",
         ["user: Age 22, fare 7.25. | assistant*: 0"],
         {"template": "Age {Age}, fare {Fare}.", "columns": {"completion": "Survived"}}),
    Case("unsloth", "content in parts",
         [{"messages": [{"role": "user", "content": [{"type": "text", "text": _Q}]},
                        {"role": "assistant", "content": [{"type": "text", "text": _A}]}]}], "messages", [_PAIR]),
    Case("unsloth", "content with a picture",
         [{"messages": [{"role": "user", "content": [{"type": "text", "text": _Q}, {"type": "image"}]}, _ASSISTANT]}],
         "messages", ["left out: not text"]),
    # Data sets that many people train on
    Case("data sets", "OpenAI, turns chosen by weight",
         [{"messages": [_USER, {**_ASSISTANT, "weight": 0}, _USER, {**_ASSISTANT, "weight": 1}]}], "messages",
         [f"user: {_Q} | assistant: {_A} | {_PAIR}"]),
    Case("data sets", "OpenAI, tool calls with JSON arguments",
         [{"messages": [_USER, {"role": "assistant", "content": None, "tool_calls": [
             {"id": "call_1", "type": "function", "function": {"name": "light", "arguments": '{"room": "hall"}'}}]}],
           "tools": [_TOOL], "parallel_tool_calls": False}], "messages",
         [f'user: {_Q} | assistant*:  {{"tool_calls": [{{"type": "function", "id": "call_1", '
          f'"function": {{"name": "light", "arguments": {{"room": "hall"}}}}}}]}}{_TOOLS}']),
    Case("data sets", "OpenAI, legacy function_call",
         [{"messages": [_USER, {"role": "assistant", "content": None,
                                "function_call": {"name": "light", "arguments": '{"room": "hall"}'}}],
           "functions": [_FUNCTION]}], "messages", [f"user: {_Q} | assistant*:  {_CALLS}{_TOOLS}"]),
    Case("data sets", "OpenAI preference",
         [{"input": {"messages": [_USER], "tools": [], "parallel_tool_calls": True}, "preferred_output": [_ASSISTANT],
           "non_preferred_output": [{"role": "assistant", "content": "Green."}]}], "preference", [_PAIR]),
    Case("data sets", "Dolly", [{"instruction": "When?", "context": "In 1687.", "response": "1687", "category": "qa"}],
         "alpaca", ["user: When?\n\nIn 1687. | assistant*: 1687"]),
    Case("data sets", "Alpaca with its rendered text",
         [{"instruction": "Say hi.", "input": "", "output": "hi!", "text": "Below is an instruction ... hi!"}],
         "alpaca", ["user: Say hi. | assistant*: hi!"]),
    Case("data sets", "UltraChat", [{"prompt": _Q, "prompt_id": "f0e", "messages": [_USER, _ASSISTANT]}], "messages",
         [_PAIR]),
    Case("data sets", "UltraFeedback, binarised",
         [{"prompt": _Q, "prompt_id": "f0e", "chosen": [_USER, _ASSISTANT], "score_chosen": 8.0,
           "rejected": [_USER, {"role": "assistant", "content": "Green."}], "messages": [_USER, _ASSISTANT]}],
         "preference", [_PAIR]),
    Case("data sets", "HH-RLHF",
         [{"chosen": f"\n\nHuman: {_Q}\n\nAssistant: {_A}", "rejected": f"\n\nHuman: {_Q}\n\nAssistant: Green."}],
         "preference", [_PAIR]),
    Case("data sets", "OpenHermes", [{"conversations": [_HUMAN, _GPT], "source": "x", "system_prompt": None}],
         "sharegpt", [_PAIR]),
    Case("data sets", "Capybara", [{"source": "x", "conversation": [{"input": _Q, "output": _A}]}], "messages",
         [_PAIR]),
    Case("data sets", "GSM8K", [{"question": "1+1?", "answer": "1+1=2\n#### 2"}], "prompt-completion",
         ["user: 1+1? | assistant*: 1+1=2\n#### 2"]),
    Case("data sets", "answers that are numbers", [{"question": "1+1?", "answer": 2}], "prompt-completion",
         ["user: 1+1? | assistant*: 2"]),
    Case("data sets", "medical reasoning",
         [{"Question": "What is it?", "Complex_CoT": "Fever, so ...", "Response": "The flu."}], "",
         ["asks: columns: {prompt: Question, completion: Response} / "
          "columns: {prompt: Question, completion: Response, reasoning: Complex_CoT} / "
          "columns: {prompt: Question, completion: Complex_CoT}"]),
    Case("data sets", "medical reasoning, settled",
         [{"Question": "What is it?", "Complex_CoT": "Fever, so ...", "Response": "The flu."}], "prompt-completion",
         ['user: What is it? | assistant*: The flu. {"reasoning_content": "Fever, so ..."}'],
         {"columns": {"prompt": "Question", "reasoning": "Complex_CoT", "completion": "Response"}}),
    Case("data sets", "classification", [{"text": "Great film!", "label": 1}], "",
         ["asks: columns: {prompt: text, completion: label} / format: text"]),
    Case("data sets", "SQuAD",
         [{"id": "5", "title": "Newton", "context": "In 1687.", "question": "When?",
           "answers": {"text": ["1687"], "answer_start": [3]}}], "",
         ["refused: The format of the rows is not recognised."]),
    Case("data sets", "OASST tree", [{"message_id": "1", "parent_id": None, "text": "Hello", "role": "prompter"}], "",
         ["refused: The rows hold one message each."]),
    Case("data sets", "two answers", [{"question": "Who?", "answer": "Newton", "response": "Sir Isaac"}], "",
         ["asks: columns: {completion: response, prompt: question} / columns: {completion: answer, prompt: question}"]),
    Case("data sets", "two questions", [{"question": "Who?", "query": "Name?", "answer": "Newton"}], "",
         ["asks: columns: {prompt: question, completion: answer} / columns: {prompt: query, completion: answer} / "
          r'template: "{question}\n\n{query}" and columns: {completion: answer}']),
    Case("data sets", "judgement of 0 and 1", [{"prompt": "a", "completion": "b", "label": 1},
                                               {"prompt": "c", "completion": "d", "label": 0}], "",
         ["asks: columns: {prompt: prompt, completion: completion, label: label} / "
          "columns: {prompt: prompt, completion: completion}"]),
    Case("data sets", "two formats in one file",
         [{"messages": [_USER, _ASSISTANT]}, {"prompt": "a", "completion": "b"}], "",
         ["refused: The rows have different formats."]),
    Case("data sets", "CSV with messages as JSON", [{"id": "1", "messages": json.dumps([_USER, _ASSISTANT])}],
         "messages", [_PAIR]),
    Case("data sets", "the assistant greets first",
         [{"messages": [{"role": "assistant", "content": "Hello!"}, _USER, _ASSISTANT]}], "messages",
         [f"assistant*: Hello! | {_PAIR}"]),
]  # fmt: skip


def main() -> None:
    """Judge all cases and publish."""
    rows, wrong = [], 0
    for case in CASES:
        outcome = judge(case)
        verdict = outcome.verdict(case)
        wrong += verdict != "right"
        if verdict != "right":
            print(f"{case.peer}, {case.form}: {verdict}\n  {outcome.format} {outcome.lines}\n  {outcome.lost}")
        told = outcome.format if not outcome.lines[0].startswith((ASKED, REFUSED)) else outcome.lines[0]
        rows.append([case.peer, case.form, ", ".join(case.rows[0]), told, verdict])
    summary = f"{len(CASES) - wrong} of {len(CASES)} forms are right, {wrong} wrong or silently lossy."
    publish("formats", summary, table(["from", "form", "columns", "taken for", "verdict"], rows))
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
