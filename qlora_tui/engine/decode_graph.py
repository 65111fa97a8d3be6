"""Answers without the host's delay: a static cache, and one decoding step recorded as a CUDA graph.

Launching a decoder's kernels one by one takes several times as long as running them: on an H100, an 8B model in NF4
with an adapter gives 10 tokens a second with ``generate`` and 95 from the recorded step (``docs/benchmarks.md``).
Recording takes half a second and is repeated only for longer conversations.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import torch
from transformers import StaticCache, StoppingCriteria
from transformers.generation.logits_process import TemperatureLogitsWarper, TopPLogitsWarper
from transformers.generation.streamers import BaseStreamer

from qlora_tui.engine.requests import Side
from qlora_tui.engine.stream import Sampling

_SLOTS: Final = 512
"""The cache grows by so many tokens, so that a conversation is recorded anew only now and then."""
_WARM_UP: Final = 3
"""Steps that run before one is recorded, as CUDA graphs ask for."""

Choose = Callable[[torch.Tensor], torch.Tensor]


class GraphDecoder:
    """Generates with a model whose cache and decoding step are kept from answer to answer.

    Args:
        model: A PeftModel in evaluation mode.
        record: Whether to record the step; without, it runs as usual (on devices that know no graphs).
    """

    def __init__(self, model: Any, *, record: bool) -> None:
        self._model = model
        self._record = record
        self._slots = 0
        self._steps: dict[Side, Callable[[], None]] = {}
        self._token = torch.zeros((1, 1), dtype=torch.long, device=model.device)
        self._place = torch.zeros((1, 1), dtype=torch.long, device=model.device)

    @torch.no_grad()
    def prepare(self, prompt: list[int], limit: int, side: Side) -> None:
        """Read the prompt, and make ready to generate ``limit`` tokens after it with the adapter as it is switched now.

        Raises:
            Exception: whatever a model that cannot be recorded, or short memory, makes of it; nothing was generated.
        """
        self._reserve(len(prompt) + limit)
        self._prompt = ids = torch.tensor([prompt], device=self._model.device)
        self._read(ids)
        if side not in self._steps:
            self._steps[side] = self._recorded() if self._record else self._step
            self._read(ids)

    @torch.no_grad()
    def generate(
        self, limit: int, side: Side, sampling: Sampling, streamer: BaseStreamer, stopping: StoppingCriteria
    ) -> None:
        """Give ``streamer`` at most ``limit`` tokens of an answer to the prompt that was read last."""
        ends = self._model.generation_config.eos_token_id
        choose, step = _chooser(sampling), self._steps[side]
        # As transformers has it, the prompt comes first.
        streamer.put(self._prompt)
        for remaining in range(limit, 0, -1):
            token = choose(self._logits)
            streamer.put(token.cpu())
            if int(token) in ends or remaining == 1 or bool(stopping(token[None], None).any()):
                return
            self._token.copy_(token[None])
            step()

    def _reserve(self, tokens: int) -> None:
        if tokens <= self._slots:
            return
        self._slots = -(-tokens // _SLOTS) * _SLOTS
        # Recorded steps refer to the old cache.
        self._steps.clear()
        self._cache = StaticCache(config=self._model.get_base_model().config, max_cache_len=self._slots)

    def _read(self, ids: torch.Tensor) -> None:
        """Fill the cache from a prompt [1, T]; its next token's logits are left in place."""
        self._cache.reset()
        self._place.fill_(ids.shape[1])
        self._logits = self._forward(ids, torch.arange(ids.shape[1], device=ids.device)[None])

    def _step(self) -> None:
        """Read one token at its place."""
        logits = self._forward(self._token, self._place)
        self._place.add_(1)
        self._logits = logits

    def _forward(self, ids: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        """Logits [1, vocabulary] of the last of the tokens [1, T] at ``positions`` [1, T]."""
        output = self._model(
            input_ids=ids, position_ids=positions, past_key_values=self._cache, use_cache=True, logits_to_keep=1
        )
        logits: torch.Tensor = output.logits[:, -1]
        return logits

    def _recorded(self) -> Callable[[], None]:
        with _side_stream():
            for _ in range(_WARM_UP):
                self._step()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            self._step()
        logits = self._logits

        def replay() -> None:
            graph.replay()
            self._logits = logits

        return replay


@contextmanager
def _side_stream() -> Iterator[None]:
    """What is recorded has to have run before, on another stream than the usual one."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        yield
    torch.cuda.current_stream().wait_stream(stream)


def _chooser(sampling: Sampling) -> Choose:
    """How ``generate`` of transformers chooses the token [1] after logits [1, vocabulary]."""
    if sampling.temperature <= 0:
        return lambda logits: logits.argmax(-1)
    torch.manual_seed(sampling.seed)
    warpers = [TemperatureLogitsWarper(sampling.temperature)]
    if sampling.top_p < 1:
        warpers.append(TopPLogitsWarper(top_p=sampling.top_p))

    def choose(logits: torch.Tensor) -> torch.Tensor:
        scores = logits.float()
        for warper in warpers:
            scores = warper(None, scores)
        return torch.multinomial(scores.softmax(-1), num_samples=1)[0]

    return choose
