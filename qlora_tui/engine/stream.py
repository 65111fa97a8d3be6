"""An answer while it is generated: tokens as they come, as pieces of text, until it ends or is ended."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from queue import SimpleQueue
from threading import Event, Thread
from typing import Any, Literal

import torch
from transformers import StoppingCriteria, StoppingCriteriaList
from transformers.generation.streamers import BaseStreamer

from qlora_tui.data.encode import Encoder

StoppedBy = Literal["end_of_turn", "max_tokens", "cancelled"]


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the next token is chosen. ``temperature`` 0 takes the likeliest one, and then the rest plays no part."""

    max_tokens: int = 256
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 42


_UNFINISHED = "\N{REPLACEMENT CHARACTER}"


class TextPieces:
    """Token ids as pieces of text that never end inside a character.

    Args:
        decode: Token ids to text, without special tokens; bytes that make no character yet become U+FFFD.
    """

    def __init__(self, decode: Callable[[Sequence[int]], str]) -> None:
        self._decode = decode
        self._ids: list[int] = []
        self._given = 0

    def add(self, token: int) -> str:
        """The text that ``token`` completes; empty while a character is unfinished."""
        self._ids.append(token)
        # The whole is decoded each time because what a token adds depends on those before it (spaces, bytes). Tokens
        # take far longer to generate.
        text = self._decode(self._ids).rstrip(_UNFINISHED)
        piece = text[self._given :]
        self._given = max(self._given, len(text))
        return piece


class Reply:
    """One answer. Iterating generates it and gives its text piece by piece; breaking off ends the generation.

    Attributes:
        tokens: Tokens generated so far, the end of turn not counted.
        seconds: Time from the start of the generation to its end.
        stopped_by: What ended the answer; None before the end.
    """

    def __init__(
        self,
        generate: Callable[[BaseStreamer, StoppingCriteria], None],
        pieces: TextPieces,
        end_ids: frozenset[int],
    ) -> None:
        self.tokens = 0
        self.seconds = 0.0
        self.stopped_by: StoppedBy | None = None
        self._generate = generate
        self._pieces = pieces
        self._end_ids = end_ids
        self._cancelled = Event()

    def cancel(self) -> None:
        """End the generation after the token it is at; may be called from any thread."""
        self._cancelled.set()

    def __iter__(self) -> Iterator[str]:
        queue: SimpleQueue[int | Exception | None] = SimpleQueue()
        thread = Thread(target=self._run, args=(queue,), name="generation", daemon=True)
        start = time.monotonic()
        thread.start()
        try:
            while (item := queue.get()) is not None and not self._cancelled.is_set():
                if isinstance(item, Exception):
                    raise item
                if item in self._end_ids:
                    self.stopped_by = "end_of_turn"
                    break
                self.tokens += 1
                if piece := self._pieces.add(item):
                    yield piece
            self.stopped_by = self.stopped_by or ("cancelled" if self._cancelled.is_set() else "max_tokens")
        finally:
            self.stopped_by = self.stopped_by or "cancelled"
            self._cancelled.set()
            thread.join()
            self.seconds = time.monotonic() - start

    def _run(self, queue: SimpleQueue[int | Exception | None]) -> None:
        try:
            self._generate(_TokenQueue(queue), _Cancelled(self._cancelled))
        except Exception as error:  # raised again where the answer is read
            queue.put(error)
        finally:
            queue.put(None)


class _TokenQueue(BaseStreamer):
    """Passes generated tokens on; the prompt, which comes first, is left out."""

    def __init__(self, queue: SimpleQueue[int | Exception | None]) -> None:
        self._queue = queue
        self._prompt_seen = False

    def put(self, value: torch.Tensor) -> None:
        """Take the prompt [1, T] or one token [1]."""
        if self._prompt_seen:
            self._queue.put(int(value.item()))
        self._prompt_seen = True

    def end(self) -> None:
        """Nothing is held back."""


class _Cancelled(StoppingCriteria):
    def __init__(self, event: Event) -> None:
        self._event = event

    def __call__(self, input_ids: torch.Tensor, scores: Any, **_keywords: Any) -> torch.Tensor:
        return torch.full((input_ids.shape[0],), self._event.is_set(), device=input_ids.device, dtype=torch.bool)


def generate_tokens(
    model: Any, prompt: list[int], limit: int, sampling: Sampling, streamer: BaseStreamer, stopping: StoppingCriteria
) -> None:
    """Answer a prompt of token ids with at most ``limit`` tokens, each given to ``streamer`` as it comes."""
    ids = torch.tensor([prompt], device=model.device)
    chosen: dict[str, Any] = {"do_sample": False}
    if sampling.temperature > 0:
        chosen = {"do_sample": True, "temperature": sampling.temperature, "top_p": sampling.top_p, "top_k": 0}
        torch.manual_seed(sampling.seed)
    model.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=limit,
        use_cache=True,
        streamer=streamer,
        stopping_criteria=StoppingCriteriaList([stopping]),
        **chosen,
    )


def find_end_ids(model: Any, encoder: Encoder) -> list[int]:
    """Every token that ends an answer: the template's, the tokenizer's and the model's own."""
    own = model.generation_config.eos_token_id
    found = [encoder.end_of_turn_id, encoder.eos_id, *(own if isinstance(own, list) else [own])]
    return list(dict.fromkeys(token for token in found if token is not None)) or [0]
