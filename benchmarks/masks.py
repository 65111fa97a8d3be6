"""Our renderings and masks against those of transformers and TRL, for every chat template that TRL brings.

    python -m benchmarks.masks

TRL ships a training template for each family, with ``{% generation %}`` marks; the assistant mask that transformers
makes of these is what we are held against, token for token. The same template with its marks taken out shows what we
find by ourselves, as in the templates that models come with. Tokenizer: that of SmolLM2, with each template's own
special tokens added.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import trl
from tokenizers import AddedToken, Tokenizer
from transformers import PreTrainedTokenizerFast

from benchmarks.conversations import Conversation, Message, conversations
from benchmarks.tables import publish, table
from qlora_tui.config import ModelSection
from qlora_tui.data.encode import EncodedRow, Encoder
from qlora_tui.data.formats import Example
from qlora_tui.data.messages import read_turns, tool_definitions
from qlora_tui.data.problems import RowProblem
from qlora_tui.data.template import ChatTemplate, TemplateRefusal
from qlora_tui.data.template_input import as_messages, template_variables
from qlora_tui.engine.tokenizer_files import tokenizer_folder
from qlora_tui.models.sources import resolve_model

FOLDER = Path(trl.__file__).parent / "chat_templates"
NAMES = {"bos_token": "<bos>", "eos_token": "<eos>"}
IN_PARTS = ("idefics3", "smolvlm", "llava_next")
"""Templates that read contents as lists of parts only."""

_SPECIAL = re.compile(r"<[|｜]?[^<>\s{}'\"]{1,40}[|｜]?>|\[/?[A-Z_]{3,20}\]")
_BEGINS = re.compile(r"\{%(-?)\s*generation\s*(-?)%\}")
_TOOL_OPENS = re.compile(r"<[^<>]*tool_response[^<>]*>")
_TOOL_ENDS = re.compile(r"<[^<>]*outputs▁end[^<>]*>")
"""What a template writes around the result of a tool, before the answer that follows."""
_ENDS = re.compile(r"\{%(-?)\s*endgeneration\s*(-?)%\}")


@dataclass
class Tally:
    """What came of the conversations with one template."""

    same: int = 0
    forgotten: int = 0
    """Masks that are the same but for the last tokens of a character that several spell, where a mark ends with it:
    transformers takes the first of them only."""
    refused: int = 0
    left_out: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    alone_same: int = 0
    alone_besides: Counter[str] = field(default_factory=Counter)
    alone_unrolled: int = 0
    alone_left_out: int = 0
    alone_wrong: list[str] = field(default_factory=list)


@cache
def tokenizer_file() -> Path:
    """SmolLM2's ``tokenizer.json``."""
    return tokenizer_folder(resolve_model(ModelSection(), weights=False)) / "tokenizer.json"


class Candidate:
    """A chat template with a tokenizer for it, ours and that of transformers."""

    def __init__(self, path: Path, tokenizer: Path | None = None) -> None:
        self.name = path.stem.removesuffix("_training")
        self.source = path.read_text(encoding="utf-8")
        self._file = tokenizer or tokenizer_file()

    def _tokenizer(self) -> Any:
        tokenizer = Tokenizer.from_file(str(self._file))
        special = [*NAMES.values(), *sorted(set(_SPECIAL.findall(self.source)))]
        tokenizer.add_special_tokens([AddedToken(each, special=True, normalized=False) for each in special])
        return tokenizer

    @cached_property
    def theirs(self) -> Any:
        """The tokenizer of transformers."""
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=self._tokenizer(), **NAMES)
        tokenizer.chat_template = self.source
        return tokenizer

    @cached_property
    def ours(self) -> Encoder:
        """Our encoder."""
        return Encoder(self._tokenizer(), ChatTemplate(self.source, NAMES, self.name))

    @cached_property
    def alone(self) -> Encoder:
        """Our encoder without the template's marks."""
        source = _ENDS.sub(r"{%\1 endif \2%}", _BEGINS.sub(r"{%\1 if true \2%}", self.source))
        return Encoder(self._tokenizer(), ChatTemplate(source, NAMES, self.name))

    def messages(self, conversation: Conversation) -> list[Message]:
        """The messages as transformers is given them."""
        if self.name not in IN_PARTS:
            return list(conversation.messages)
        return [
            {**each, "content": [{"type": "text", "text": each["content"]}]} if "content" in each else each
            for each in conversation.messages
        ]

    def their_mask(self, conversation: Conversation) -> tuple[list[int], list[bool]] | None:
        """Token ids and mask of transformers; None if the template refuses the conversation."""
        try:
            found = self.theirs.apply_chat_template(
                self.messages(conversation),
                tools=conversation.tools,
                return_dict=True,
                return_assistant_tokens_mask=True,
            )
        except Exception:  # a template raises whatever it likes
            return None
        return found["input_ids"], list(map(bool, found["assistant_masks"]))

    def their_text(self, conversation: Conversation, messages: Sequence[Message], opened: bool) -> str | None:
        """The rendering of transformers; None if the template refuses."""
        try:
            return str(
                self.theirs.apply_chat_template(
                    messages, tools=conversation.tools, tokenize=False, add_generation_prompt=opened
                )
            )
        except Exception:
            return None


def example_of(conversation: Conversation) -> Example:
    """The conversation as our reading of the data gives it, also where no row would be trained on an empty answer."""
    return Example(1, read_turns(1, list(conversation.messages)), tools=tool_definitions(1, conversation.tools))


def with_marks() -> list[Path]:
    """The templates that carry marks: those for training, and those of models that come with them."""
    return [path for path in sorted(FOLDER.glob("*.jinja")) if _BEGINS.search(path.read_text(encoding="utf-8"))]


def compare(candidate: Candidate, some: Sequence[Conversation]) -> Tally:
    """Masks with the template's marks and without them."""
    tally = Tally()
    for conversation in some:
        expected = candidate.their_mask(conversation)
        example = example_of(conversation)
        found = candidate.ours.encode_batch([example])[0]
        if isinstance(found, RowProblem):
            if expected is None:
                tally.refused += 1
            else:
                tally.left_out[found.reason] += 1
        elif expected is None or found.input_ids != expected[0]:
            tally.wrong.append(conversation.name)
        elif found.trained == expected[1] or _is_forgotten(candidate, found, expected[1]):
            tally.same += found.trained == expected[1]
            tally.forgotten += found.trained != expected[1]
            _compare_alone(candidate, conversation, example, found.trained, tally)
        else:
            tally.wrong.append(conversation.name)
    return tally


def _is_forgotten(candidate: Candidate, row: EncodedRow, expected: list[bool]) -> bool:
    """Whether the masks differ only in last tokens of characters whose first ones are trained in both."""
    return all(
        ours and not text.strip("\N{REPLACEMENT CHARACTER}") for text, ours in _differences(candidate, row, expected)
    )


def _compare_alone(
    candidate: Candidate, conversation: Conversation, example: Example, expected: list[bool], tally: Tally
) -> None:
    found = candidate.alone.encode_batch([example])[0]
    if isinstance(found, RowProblem):
        tally.alone_left_out += 1
    elif found.more or found.input_ids != candidate.ours.encode(example).input_ids:
        tally.alone_unrolled += 1
    elif found.trained == expected:
        tally.alone_same += 1
    else:
        kinds = {_kind(candidate, text, ours) for text, ours in _differences(candidate, found, expected)}
        if None in kinds:
            tally.alone_wrong.append(conversation.name)
        tally.alone_besides.update(kind for kind in kinds if kind)
        tally.alone_same += None not in kinds


def _differences(candidate: Candidate, row: EncodedRow, expected: list[bool]) -> Iterator[tuple[str, bool]]:
    """Texts that one of the masks has and the other has not, and whether it is ours."""
    index = 0
    while index < len(expected):
        stop = index + 1
        if row.trained[index] != expected[index]:
            while stop < len(expected) and row.trained[stop] != expected[stop] == expected[index]:
                stop += 1
            yield candidate.ours.text_of(row.input_ids[index:stop]), row.trained[index]
        index = stop


def _kind(candidate: Candidate, text: str, ours: bool) -> str | None:
    """What a text is that only one mask has; None if the model has to write it, or the other mask had to have it."""
    rest = text.replace(NAMES["eos_token"], "").strip()
    if not rest and not ours:
        return "what follows the end of turn"
    prompt = candidate.alone.template.render(as_messages(Example(0, example_of(_HELLO).turns[:1])), True)
    if ours:
        is_opening = rest in prompt or _TOOL_OPENS.fullmatch(rest)
        return (
            "openings around a tool's result, which its generation prompt leaves to the model" if is_opening else None
        )
    return "a part of the generation prompt" if rest in prompt or _TOOL_ENDS.fullmatch(rest) else None


_HELLO = Conversation("hello", ({"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}))


def renderings(candidate: Candidate, some: Sequence[Conversation]) -> tuple[int, list[str]]:
    """How many renderings equal those of transformers, with and without an opened answer, and which do not."""
    same, wrong = 0, []
    for conversation in some:
        example = example_of(conversation)
        ours = as_messages(example)
        theirs = candidate.messages(conversation)
        for messages, raw, opened in ((ours, theirs, False), (ours[:-1], theirs[:-1], True)):
            try:
                text: str | None = candidate.ours.template.render(messages, opened, template_variables(example))
            except TemplateRefusal:
                text = None
            if text == candidate.their_text(conversation, raw, opened):
                same += 1
            else:
                wrong.append(conversation.name)
    return same, wrong


def main() -> None:
    """Compare all and publish."""
    some = list(conversations())
    rows: list[list[object]] = []
    bad = 0
    for path in with_marks():
        candidate = Candidate(path)
        tally = compare(candidate, some)
        bad += len(tally.wrong) + len(tally.alone_wrong) + (tally.same < 50)
        print(candidate.name, tally, flush=True)
        besides = "; ".join(sorted(tally.alone_besides)) or "nothing"
        equal = f"{tally.same} of {tally.same + tally.forgotten + len(tally.wrong)}"
        equal += f", {tally.forgotten} but for last bytes" if tally.forgotten else ""
        rows.append([path.stem, equal, tally.refused, sum(tally.left_out.values()), tally.alone_same, besides,
                     tally.alone_unrolled, tally.alone_left_out, len(tally.alone_wrong)])  # fmt: skip
    rendered: list[tuple[str, int, int]] = []
    for path in sorted(FOLDER.glob("*.jinja")):
        same, wrong = renderings(Candidate(path), some)
        bad += len(wrong)
        rendered.append((path.stem, same, len(wrong)))
        print(path.stem, same, wrong, flush=True)
    header = ["template", "mask equal", "refused by both", "left out", "without marks: equal", "but for",
              "unrolled", "left out", "wrong"]  # fmt: skip
    total = sum(same for _, same, _ in rendered)
    different = sum(each for _, _, each in rendered)
    told = (
        f"{len(some)} conversations, {len(rows)} templates with marks. {total} renderings by all {len(rendered)} "
        f"templates that TRL brings, with and without an opened answer: {different} differ from those of transformers."
    )
    publish("masks", told, table(header, rows))
    sys.exit(bool(bad))


if __name__ == "__main__":
    main()
