"""Examples as token ids with a mask of the trained ones: the one encoder that preview and training share.

A conversation is rendered through the model's chat template and tokenised once, as a whole; the mask comes from
character positions (:mod:`qlora_tui.data.speech`), never from comparing ids, so that an end-of-text token that doubles
as padding stays trained.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from qlora_tui.config import DataSection
from qlora_tui.data.formats import Example, Turn
from qlora_tui.data.model_files import named_special_tokens
from qlora_tui.data.problems import RowProblem
from qlora_tui.data.spans import token_range
from qlora_tui.data.speech import Rendering, Speech
from qlora_tui.data.template import ChatTemplate, TemplateRefusal
from qlora_tui.data.template_input import as_messages, template_variables, with_written_arguments
from qlora_tui.data.template_probes import PROBE
from qlora_tui.errors import DataError, ModelError
from qlora_tui.text import one_line

MAX_ROW_CHARS = 4 * 1024 * 1024
"""Longest text tokenised in one piece, as long as the longest novels; it takes seconds and half a gigabyte."""

BATCH_CHARS = 2 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class EncodedRow:
    """One row as tokens.

    ``input_ids`` and ``trained`` have the same length, in tokens. ``straddles`` says that a token covers both the end
    of a prompt and the start of its answer, which the model never meets in that form when it is used. ``turns`` is how
    many turns of the conversation it holds; 0 means all. ``unseen`` names what the chat template leaves out.

    Where the template renders earlier answers otherwise once later ones follow, these have sequences of their own, each
    a beginning of the conversation; they stand in ``more``.
    """

    number: int
    input_ids: list[int]
    trained: list[bool]
    straddles: bool = False
    turns: int = 0
    unseen: tuple[str, ...] = ()
    more: tuple[EncodedRow, ...] = ()


@dataclass(slots=True)
class _Rendered:
    """A row as texts with the spans that are trained in each, and what the chat template leaves out of it."""

    parts: list[Rendering]
    unseen: tuple[str, ...] = ()


class Encoder:
    """Encodes examples for one base model.

    Args:
        tokenizer: A ``tokenizers.Tokenizer``; owned by the encoder from here on.
        template: The model's chat template.
        train_all: Train every token except a beginning-of-text token, instead of the assistant's.

    Attributes:
        end_of_turn_trained: Whether the last trained token of an answer is an end token: the model learns to stop.
        end_of_turn_id: That token's id, or None.
    """

    def __init__(self, tokenizer: Any, template: ChatTemplate, train_all: bool = False) -> None:
        tokens = template.special_tokens
        self.tokenizer = tokenizer
        self.template = template
        self.train_all = train_all
        self.bos_id: int | None = tokenizer.token_to_id(tokens["bos_token"]) if "bos_token" in tokens else None
        self.eos_id: int | None = tokenizer.token_to_id(tokens["eos_token"]) if "eos_token" in tokens else None
        self.adds_bos = _adds_bos(tokenizer, self.bos_id)
        tokenizer.no_truncation()
        tokenizer.no_padding()
        # Post-processors add tokens, which is done here by hand, and some trim white space off the offsets.
        tokenizer.post_processor = None
        added = tokenizer.get_added_tokens_decoder()
        self._end_ids = {number for number, token in added.items() if token.special or number == self.eos_id}
        ends = [added[number].content for number in self._end_ids]
        self._speech = {id(each): Speech(each, ends) for each in (template, template.with_tools) if each is not None}
        self._shared_ids = list(range(max(tokenizer.get_vocab_size(), max(added, default=0) + 1)))
        self.end_of_turn_id = self._probe_end_of_turn()
        self.end_of_turn_trained = self.end_of_turn_id is not None

    @classmethod
    def from_folder(cls, folder: Path, section: DataSection) -> Encoder:
        """The encoder for a model folder, which needs ``tokenizer.json`` and usually ``tokenizer_config.json``.

        Raises:
            ModelError: if a file is missing or broken, or the chat template is unusable.
        """
        tokenizer = load_tokenizer(folder)
        tokens = named_special_tokens(folder)
        bos_id = tokenizer.token_to_id(tokens["bos_token"]) if "bos_token" in tokens else None
        template = ChatTemplate.from_folder(folder, _adds_bos(tokenizer, bos_id))
        return cls(tokenizer, template, section.train_on == "all")

    @property
    def template_fingerprint(self) -> str:
        """SHA-256 of the chat template's source."""
        return self.template.fingerprint

    @cached_property
    def tokenizer_fingerprint(self) -> str:
        """SHA-256 of the tokenizer, whatever file it comes from."""
        return hashlib.sha256(self.tokenizer.to_str().encode()).hexdigest()

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a person should know about training conversations with this model, one sentence each."""
        found = []
        if not self.end_of_turn_trained:
            found.append("The chat template closes answers with no end token, so the model will not learn to stop.")
        if self.template.origin == "plain":
            found.append("The model has no chat template; a plain one is used, and must be used with the adapter too.")
        if self.template.uses_date:
            found.append("The chat template writes today's date into rows: another day gives other tokens.")
        return tuple(found)

    def encode(self, example: Example) -> EncodedRow:
        """One example as tokens, of any length.

        Raises:
            RowProblem: if this row cannot be used.
            DataError: if the template does not suit the whole data.
        """
        row = self.encode_batch([example])[0]
        if isinstance(row, RowProblem):
            raise row
        return row

    def encode_batch(self, examples: Sequence[Example]) -> list[EncodedRow | RowProblem]:
        """As :meth:`encode` for many examples, several times faster; a row's problem stands in its place.

        Raises:
            DataError: if the template does not suit the whole data.
        """
        return self.begin_batch(examples, None)()

    def begin_batch(
        self, examples: Sequence[Example], tokeniser: Executor | None
    ) -> Callable[[], list[EncodedRow | RowProblem]]:
        """What waits for the rows of some examples; ``tokeniser`` makes their tokens meanwhile.

        Raises:
            DataError: as :meth:`encode_batch`.
        """
        rendered = [self._render(example) for example in examples]
        texts = [part.text for item in rendered if isinstance(item, _Rendered) for part in item.parts]
        batches = _batches(texts)
        first = None if tokeniser is None or not texts else tokeniser.submit(self._tokenised, batches[0])

        def rows() -> list[EncodedRow | RowProblem]:
            done = iter(()) if first is None else iter(first.result())
            rest = batches if first is None else batches[1:]
            encodings = chain(done, chain.from_iterable(map(self._tokenised, rest)))
            return [
                self._row(example, item, encodings) if isinstance(item, _Rendered) else item
                for example, item in zip(examples, rendered, strict=True)
            ]

        return rows

    def _tokenised(self, texts: list[str]) -> Sequence[Any]:
        """Each text as an ``Encoding``."""
        encodings: list[Any] = self.tokenizer.encode_batch(texts, add_special_tokens=False)
        return encodings

    def shared(self, input_ids: Sequence[int]) -> list[int]:
        """The same ids, with one object per id instead of one per token: rows are kept by the hundred thousand."""
        return [self._shared_ids[token] for token in input_ids]

    def is_closed(self, row: EncodedRow) -> bool:
        """Whether the last token of a row ends it and is trained."""
        return bool(row.input_ids) and row.trained[-1] and row.input_ids[-1] in self._end_ids

    def rendered(self, example: Example) -> str:
        """The text whose tokens :meth:`encode` makes.

        Raises:
            RowProblem, DataError: as :meth:`encode`.
        """
        item = self._render(example)
        if isinstance(item, RowProblem):
            raise item
        return self.text_of(item.input_ids) if isinstance(item, EncodedRow) else item.parts[0].text

    def text_of(self, input_ids: Sequence[int]) -> str:
        """The text that token ids spell, special tokens included."""
        text: str = self.tokenizer.decode(list(input_ids), skip_special_tokens=False)
        return text

    def prompt_ids(self, turns: Sequence[Turn]) -> list[int]:
        """Token ids of a conversation with an answer opened at its end: what the model is given when it is used.

        Raises:
            DataError: if the chat template refuses the conversation.
        """
        text = self.template.render(as_messages(Example(0, tuple(turns))), add_generation_prompt=True)
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def decode_tokens(self, input_ids: Sequence[int]) -> list[str]:
        """Each token as text of its own, for showing; part of a character shows as the replacement character."""
        texts: list[str] = self.tokenizer.decode_batch([[token] for token in input_ids], skip_special_tokens=False)
        return texts

    def _render(self, example: Example) -> _Rendered | EncodedRow | RowProblem:
        if example.ids is not None:
            return self._given(example.number, *example.ids)
        if example.text is not None:
            return _bounded(example, _Rendered([Rendering(example.text, list(example.spans or ()), 0)]))
        try:
            return _bounded(example, self._spoken(example))
        except TemplateRefusal as refusal:
            other = with_written_arguments(example)
            if other is not None:
                with suppress(TemplateRefusal, RowProblem):
                    return _bounded(example, self._spoken(other))
            if other is not None or example.tools:
                reason, hint = "tool calls that the chat template refuses", "Choose a model whose template knows tools."
                return RowProblem(example.number, reason, refusal.why, hint)
            return RowProblem(example.number, "refused by the chat template", refusal.why, refusal.hint)
        except RowProblem as problem:
            return problem

    def _spoken(self, example: Example) -> _Rendered:
        template = self.template.for_tools(example.tools)
        if self.train_all:
            text = template.render(as_messages(example), variables=template_variables(example))
            return _Rendered([Rendering(text, [], len(example.turns))])
        speech = self._speech[id(template)]
        found = speech.renderings(example)
        return _Rendered(found, speech.unseen(example, found))

    def _given(self, number: int, ids: list[int], trained: list[bool]) -> EncodedRow | RowProblem:
        """A row that is token ids already."""
        if max(ids) >= len(self._shared_ids) or min(ids) < 0:
            detail = f"Token {max(ids)} is beyond the {len(self._shared_ids)} tokens that this model knows."
            return RowProblem(number, "unknown token", detail, "Tokenise the rows with this model's tokenizer.")
        return EncodedRow(number, self.shared(ids), trained)

    def _row(self, example: Example, rendered: _Rendered, encodings: Iterator[Any]) -> EncodedRow:
        first, *more = [self._sequence(example, next(encodings), part) for part in rendered.parts]
        return replace(first, unseen=rendered.unseen, more=tuple(more)) if more or rendered.unseen else first

    def _sequence(self, example: Example, encoding: Any, part: Rendering) -> EncodedRow:
        ids: list[int] = encoding.ids
        is_plain = example.text is not None and example.spans is None
        if is_plain:
            ids = self._closed_text(example.number, ids)
        if is_plain or self.train_all:
            trained = [True] * len(ids)
            if ids and ids[0] == self.bos_id:
                trained[0] = False
            return EncodedRow(example.number, ids, trained)
        trained = [False] * len(ids)
        straddles = False
        for span in part.spans:
            first, stop, early = token_range(encoding, span)
            trained[first:stop] = [True] * (stop - first)
            straddles = straddles or early
        turns = part.turns if part.turns < len(example.turns) else 0
        return EncodedRow(example.number, ids, trained, straddles, turns)

    def _closed_text(self, number: int, ids: list[int]) -> list[int]:
        """Plain text between its beginning and end tokens, which are not doubled if the row spells them itself."""
        if self.eos_id is None:
            raise ModelError(
                "The model names no end-of-text token.",
                f"Row {number} is plain text, whose end would not be learnt.",
                "Choose a model whose tokenizer_config.json names an eos_token.",
            )
        if self.adds_bos and self.bos_id is not None and ids[:1] != [self.bos_id]:
            ids = [self.bos_id, *ids]
        return ids if ids[-1:] == [self.eos_id] else [*ids, self.eos_id]

    def _probe_end_of_turn(self) -> int | None:
        """The end token that closes an answer and is trained, found on a conversation of two turns."""
        try:
            row = self.encode(PROBE)
        except DataError:  # plain text needs no template; conversations report it row by row
            return None
        for token, trained in zip(reversed(row.input_ids), reversed(row.trained), strict=True):
            if trained and token in self._end_ids:
                return token
            if trained and self.tokenizer.decode([token], skip_special_tokens=False).strip():
                return None
        return None


def _batches(texts: list[str]) -> list[list[str]]:
    """The texts, as many at a time as memory allows: their encodings take a hundred times their size."""
    found: list[list[str]] = []
    start = size = 0
    for index, text in enumerate(texts):
        size += len(text)
        if size > BATCH_CHARS or index + 1 == len(texts):
            found.append(texts[start : index + 1])
            start, size = index + 1, 0
    return found


def _bounded(example: Example, rendered: _Rendered) -> _Rendered | RowProblem:
    longest = max(len(part.text) for part in rendered.parts)
    if longest <= MAX_ROW_CHARS:
        return rendered
    detail = f"It is {longest} characters long, and no row of more than {MAX_ROW_CHARS} is tokenised."
    return RowProblem(example.number, "far too long", detail, "Cut the row into several.")


def load_tokenizer(folder: Path) -> Any:
    """The ``tokenizers.Tokenizer`` of a model folder.

    Raises:
        ModelError: if the folder has no ``tokenizer.json`` or it cannot be read.
    """
    path = folder / "tokenizer.json"
    shown = repr(one_line(str(folder), 160))
    if not path.is_file():
        raise ModelError(
            f"The model folder {shown} has no tokenizer.json.",
            "Text cannot become tokens without it.",
            "Download the model with its tokenizer.",
        )
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises bare Exception for every kind of broken file
        raise ModelError(
            f"The tokenizer.json in {shown} cannot be read.", f"{one_line(str(error))}.", "Download the model again."
        ) from error


def _adds_bos(tokenizer: Any, bos_id: int | None) -> bool:
    return bos_id is not None and tokenizer.encode("a").ids[:1] == [bos_id]
