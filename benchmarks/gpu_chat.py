"""Tokens per second of answers on the quantised 8B shape with an adapter, and the time to the first token."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any, Final

import torch
from peft import get_peft_model
from transformers import GenerationConfig, StoppingCriteria
from transformers.generation.streamers import BaseStreamer

from benchmarks.gpu import Bench, Case
from benchmarks.gpu_runs import Model, config_of
from benchmarks.random_model import bare_again
from qlora_tui.engine.decode_graph import GraphDecoder
from qlora_tui.engine.load import lora_config
from qlora_tui.engine.stream import Sampling

MODEL: Final = "llama 8B"
PROMPT: Final = 500
TOKENS: Final = 128


def main(bench: Bench) -> None:
    """Each way of generating; those that a library does not manage say why."""
    model = Model(bench, MODEL)
    config = config_of(bench, model, evaluation=0)
    chat: Any = get_peft_model(model.base.model, lora_config(config.adapter)).eval()
    _fill(chat)
    tokens = 4 if bench.rehearse else TOKENS
    prompt = torch.randint(3, 1000, (1, 20 if bench.rehearse else PROMPT), device=model.base.device)
    ways: dict[str, Callable[[], Case]] = {
        "plain generate": lambda: _generate(chat, prompt, tokens),
        "plain generate, base alone": lambda: _base_alone(chat, prompt, tokens),
        "static cache": lambda: _generate(chat, prompt, tokens, cache_implementation="static", disable_compile=True),
        "graph of one step": lambda: _graph(chat, prompt, tokens),
        "static cache, compiled": lambda: _generate(chat, prompt, tokens, cache_implementation="static"),
    }
    try:
        for name, work in ways.items():
            if not bench.run(name, work):
                return
    finally:
        chat.unload()
        bare_again(model.base, None)


def _fill(chat: Any) -> None:
    """An adapter that says something."""
    for name, parameter in chat.named_parameters():
        if "lora_" in name:
            parameter.data = parameter.data.to(chat.dtype)
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.01)


def _settings(tokens: int, **more: Any) -> GenerationConfig:
    return GenerationConfig(
        max_new_tokens=tokens,
        min_new_tokens=tokens,
        do_sample=False,
        use_cache=True,
        pad_token_id=0,
        eos_token_id=1,
        **more,
    )


def _timed(work: Callable[[], Any]) -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    start = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


@torch.no_grad()
def _generate(chat: Any, prompt: torch.Tensor, tokens: int, **more: Any) -> Case:
    mask = torch.ones_like(prompt)

    def answer(count: int) -> Any:
        return chat.generate(input_ids=prompt, attention_mask=mask, generation_config=_settings(count, **more))

    first_call = _timed(lambda: answer(tokens))
    firsts = [_timed(lambda: answer(1)) for _ in range(3)]
    wholes = [_timed(lambda: answer(tokens)) for _ in range(2)]
    first, whole = statistics.median(firsts), statistics.median(wholes)
    return {
        "first_call_seconds": round(first_call, 3),
        "first_token_seconds": round(first, 4),
        "tokens_per_second": round((tokens - 1) / max(1e-9, whole - first), 2),
        "with_prompt_tokens_per_second": round(tokens / whole, 2),
        "answer": answer(tokens)[0, prompt.shape[1] :][:16].tolist(),
        "allocated": torch.cuda.max_memory_allocated() if torch.cuda.is_available() else None,
    }


def _base_alone(chat: Any, prompt: torch.Tensor, tokens: int) -> Case:
    with chat.disable_adapter():
        return _generate(chat, prompt, tokens)


def _graph(chat: Any, prompt: torch.Tensor, tokens: int, repeat: int = 2) -> Case:
    """What the playground does on a GPU: one decoding step recorded as a CUDA graph, the choice outside."""
    decoder = GraphDecoder(chat, record=torch.cuda.is_available())
    ids, sampling = prompt[0].tolist(), Sampling(tokens)
    chat.generation_config = _settings(tokens)
    chat.generation_config.eos_token_id = []
    answer = _Answer()

    def generate(limit: int) -> None:
        decoder.prepare(ids, limit, "adapter")
        answer.tokens.clear()
        decoder.generate(limit, "adapter", sampling, answer, _Never())

    first_call = _timed(lambda: decoder.prepare(ids, tokens, "adapter"))
    firsts = [_timed(lambda: generate(1)) for _ in range(3)]
    wholes = [_timed(lambda: generate(tokens)) for _ in range(repeat)]
    first, whole = statistics.median(firsts), statistics.median(wholes)
    return {
        "first_call_seconds": round(first_call, 3),
        "first_token_seconds": round(first, 4),
        "tokens_per_second": round((tokens - 1) / max(1e-9, whole - first), 2),
        "answer": answer.tokens[1:17],
        "allocated": torch.cuda.max_memory_allocated() if torch.cuda.is_available() else None,
    }


class _Answer(BaseStreamer):
    """The tokens that came, after the prompt."""

    def __init__(self) -> None:
        self.tokens: list[int] = []

    def put(self, value: torch.Tensor) -> None:
        self.tokens.append(int(value.flatten()[-1]))

    def end(self) -> None:
        pass


class _Never(StoppingCriteria):
    def __call__(self, input_ids: torch.Tensor, scores: Any, **_keywords: Any) -> torch.Tensor:
        return torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)
