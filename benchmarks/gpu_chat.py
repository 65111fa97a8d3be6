"""Tokens per second of answers on the quantised 8B shape with an adapter, and the time to the first token."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import torch
from peft import get_peft_model
from transformers import GenerationConfig, StaticCache

from benchmarks.gpu import Bench, Case
from benchmarks.gpu_runs import Model, config_of
from benchmarks.random_model import bare_again
from qlora_tui.engine.load import lora_config

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


@torch.no_grad()
def _graph(chat: Any, prompt: torch.Tensor, tokens: int, repeat: int = 2) -> Case:
    """A static cache, and one decoding step recorded as a CUDA graph that is replayed for each token.

    No compilation: recording takes a second. Greedy choice is part of the graph.
    """
    base = chat.get_base_model()
    length = prompt.shape[1]
    cache = StaticCache(config=base.config, max_cache_len=length + tokens + 8)
    token = torch.zeros((1, 1), dtype=torch.long, device=prompt.device)
    place = torch.zeros((1, 1), dtype=torch.long, device=prompt.device)

    def prefill() -> None:
        cache.reset()
        positions = torch.arange(length, device=prompt.device)[None]
        output = chat(input_ids=prompt, position_ids=positions, past_key_values=cache, use_cache=True, logits_to_keep=1)
        token.copy_(output.logits[:, -1:].argmax(-1))
        place.fill_(length)

    def step() -> None:
        output = chat(input_ids=token, position_ids=place, past_key_values=cache, use_cache=True, logits_to_keep=1)
        token.copy_(output.logits[:, -1:].argmax(-1))
        place.add_(1)

    replay, recording = step, 0.0
    prefill()
    if torch.cuda.is_available():
        start = time.perf_counter()
        with _side_stream():
            for _ in range(3):
                step()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            step()
        recording, replay = time.perf_counter() - start, graph.replay
    firsts, wholes, answer = [], [], []
    for _ in range(repeat):
        firsts.append(_timed(prefill))
        answer = [token.clone()]

        def decode() -> None:
            for _ in range(tokens - 1):
                replay()
                answer.append(token.clone())  # noqa: B023

        wholes.append(_timed(decode))
    return {
        "recording_seconds": round(recording, 3),
        "first_token_seconds": round(min(firsts), 4),
        "tokens_per_second": round((tokens - 1) / min(wholes), 2),
        "answer": [int(each) for each in answer[:16]],
        "allocated": torch.cuda.max_memory_allocated() if torch.cuda.is_available() else None,
    }


@contextmanager
def _side_stream() -> Iterator[None]:
    """What is recorded has to have run before, on another stream than the usual one."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        yield
    torch.cuda.current_stream().wait_stream(stream)
