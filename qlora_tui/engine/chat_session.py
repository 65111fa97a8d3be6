"""A base model with an adapter in memory, answering prompts as it was trained to.

:func:`find_target` says what to load; :class:`ChatSession` loads it once and then answers any number of prompts, with
the adapter or without it.
"""

from __future__ import annotations

import json
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import GenerationConfig, StoppingCriteria
from transformers.generation.streamers import BaseStreamer

from qlora_tui.config import DataSection, ModelSection, RunConfig
from qlora_tui.data.encode import Encoder
from qlora_tui.data.formats import Turn
from qlora_tui.engine.checkpoints import complete_checkpoints
from qlora_tui.engine.convert import convert_gguf
from qlora_tui.engine.decode_graph import GraphDecoder
from qlora_tui.engine.load import attach_saved_adapter, load_base
from qlora_tui.engine.requests import Side
from qlora_tui.engine.stream import Reply, Sampling, TextPieces, find_end_ids, generate_tokens
from qlora_tui.errors import ModelError, RunError, UsageError
from qlora_tui.models.sources import ModelFiles, resolve_model
from qlora_tui.runs.directory import RunDirectory
from qlora_tui.text import one_line

Progress = Callable[[str], None]

ADAPTER_FILE = "adapter_model.safetensors"
_GIB = 2**30


@dataclass(frozen=True, slots=True)
class ChatTarget:
    """What to chat with: an adapter's folder, and the config that says on which base and how it was trained."""

    adapter: Path
    config: RunConfig


def find_target(path: Path, base: str | None = None) -> ChatTarget:
    """The adapter that ``path`` means.

    Args:
        path: A run directory (its best adapter, or else its newest checkpoint), an adapter's or a checkpoint's folder.
        base: Base model instead of the one that was trained on.

    Raises:
        RunError: if there is no such folder, or no adapter in it.
        ModelError: if nothing names the base model.
        ConfigError: if the run's config is damaged.
    """
    path = path.expanduser().absolute()
    if not path.is_dir():
        raise RunError(
            f"Cannot chat with {one_line(str(path))}.",
            "There is no such folder.",
            "Give a run, its adapter folder or a checkpoint; `qlora-tui runs` lists the runs.",
        )
    run = _run_around(path)
    adapter = _newest_adapter(run) if run and run.path == path else path
    if not (adapter / ADAPTER_FILE).is_file():
        raise RunError(
            f"Cannot chat with {one_line(str(path))}.",
            f"The folder has no {ADAPTER_FILE}.",
            "Give a run, its adapter folder or a checkpoint; pickle adapters (.bin) are not read.",
        )
    return ChatTarget(adapter, _with_base(run.read_config() if run else None, adapter, base))


def _run_around(path: Path) -> RunDirectory | None:
    """The run that ``path`` is, or whose adapter or checkpoint it is."""
    candidates = [path]
    if path.name == "adapter":
        candidates.append(path.parent)
    if path.parent.name == "checkpoints":
        candidates.append(path.parent.parent)
    for run in map(RunDirectory, candidates):
        # Other trainers leave a config.yaml beside their adapters too.
        if run.config.is_file() and (run.control.is_dir() or run.events.is_file()):
            return run
    return None


def _newest_adapter(run: RunDirectory) -> Path:
    if (run.adapter / ADAPTER_FILE).is_file():
        return run.adapter
    found = complete_checkpoints(run.checkpoints)
    if not found:
        raise RunError(
            f"Cannot chat with the run {run.name}.",
            f"It has no adapter and no checkpoint yet ({run.status()}).",
            f"See how far it is with `qlora-tui attach {run.name}`.",
        )
    return found[-1]


def _with_base(config: RunConfig | None, adapter: Path, base: str | None) -> RunConfig:
    """The run's config, or defaults for an adapter from elsewhere, on the base that is to be used."""
    if config is None:
        recorded = {} if base is not None else _recorded_base(adapter)
        config = RunConfig(name="chat", model=ModelSection(**recorded), data=DataSection(source="none"))
    if base is not None and base != config.model.source:
        # Leave to run a model's own code was given for one model and does not pass on to another.
        config = config.changed(model={"source": base, "revision": None, "trust_remote_code": False})
    return config


def _recorded_base(adapter: Path) -> dict[str, str]:
    """Source and revision of the base in ``adapter_config.json``.

    Raises:
        ModelError: if it names none.
    """
    try:
        values = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))
        found = {"source": values["base_model_name_or_path"], "revision": values.get("revision")}
        if not isinstance(found["source"], str) or not found["source"]:
            raise ValueError("no name")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(
            f"Cannot tell the base model of {one_line(str(adapter))}.",
            "Its adapter_config.json has no base_model_name_or_path.",
            "Name the base model with --base.",
        ) from error
    return {name: value for name, value in found.items() if isinstance(value, str)}


class ChatSession:
    """A base model with an adapter, ready to answer; :meth:`load` makes one.

    Args:
        model: A PeftModel in evaluation mode.
        encoder: Renders and tokenises as in training.
        config: The run's config, or defaults.
    """

    def __init__(self, model: Any, encoder: Encoder, config: RunConfig) -> None:
        self.config = config
        self._model = model
        self._encoder = encoder
        self._end_ids = find_end_ids(model, encoder)
        self._decoder = GraphDecoder(model, record=True) if model.device.type == "cuda" else None
        # A model's own defaults (repetition penalty, top-k, …) would change what was asked for.
        model.generation_config = GenerationConfig(eos_token_id=self._end_ids, pad_token_id=self._end_ids[0])

    @classmethod
    def load(cls, target: ChatTarget, progress: Progress) -> ChatSession:
        """Find, convert and load base and adapter.

        Args:
            progress: Called with what is being done, in a few words, from this or a download's thread.

        Raises:
            QloraError: if the base or the adapter cannot be used.
        """
        config = target.config
        progress(f"finding {config.model.source}")
        files = resolve_model(config.model, _download_progress(progress))
        if files.gguf is not None and not files.converted:
            convert_gguf(files, lambda _done, _total, what: progress(f"converting {files.source}: {what}"))
        weights = "16 bits" if config.quantization.type == "none" else f"4 bits ({config.quantization.type})"
        progress(f"loading {config.model.source} in {weights}")
        loaded = load_base(files, config, training=False)
        progress(f"attaching the adapter {target.adapter.name}")
        model = attach_saved_adapter(loaded, target.adapter).eval()
        return cls(model, _encoder(target.adapter, files, config), config)

    def turns(self, prompt: str, system: str | None = None) -> tuple[Turn, ...]:
        """A first question as turns; ``system`` None takes the system prompt of training, an empty one none."""
        return self.conversation([Turn("user", prompt)], system)

    def conversation(self, turns: Sequence[Turn], system: str | None = None) -> tuple[Turn, ...]:
        """Turns of user and assistant with the system turn that belongs before them; as :meth:`turns`."""
        said = self.config.data.system_prompt if system is None else system
        return (*((Turn("system", said),) if said else ()), *turns)

    def reply(self, turns: Sequence[Turn], side: Side, sampling: Sampling) -> Reply:
        """The answer to a conversation; it is generated while the result is iterated, one answer at a time.

        Raises:
            DataError: if the chat template refuses the conversation.
            UsageError: if the conversation fills the model's context.
        """
        prompt = self._encoder.prompt_ids(turns)
        limit = self._room(len(prompt), sampling.max_tokens)
        self._check_ids(prompt)

        def generate(streamer: BaseStreamer, stopping: StoppingCriteria) -> None:
            with self._model.disable_adapter() if side == "base" else nullcontext():
                if (decoder := self._ready(prompt, limit, side)) is not None:
                    decoder.generate(limit, side, sampling, streamer, stopping)
                else:
                    generate_tokens(self._model, prompt, limit, sampling, streamer, stopping)

        return Reply(generate, TextPieces(self._decode), frozenset(self._end_ids))

    def _ready(self, prompt: list[int], limit: int, side: Side) -> GraphDecoder | None:
        """The fast decoder with the prompt read; None where there is none, or this model cannot be recorded."""
        if self._decoder is not None:
            try:
                self._decoder.prepare(prompt, limit, side)
            except Exception:  # any operation of any model may be one that a graph cannot hold
                traceback.print_exc()
                self._decoder = None
                torch.cuda.empty_cache()
        return self._decoder

    def _decode(self, ids: Sequence[int]) -> str:
        text: str = self._encoder.tokenizer.decode(list(ids), skip_special_tokens=True)
        return text

    def _room(self, used: int, wanted: int) -> int:
        """Tokens that may be generated after ``used`` tokens of conversation, at most ``wanted``."""
        context = getattr(self._model.config.get_text_config(), "max_position_embeddings", None)
        if not isinstance(context, int):
            return wanted
        if used >= context:
            raise UsageError(
                "The conversation is too long for this model.",
                f"It has {used:,} tokens, and the model reads {context:,}.",
                "Ask something shorter.",
            )
        return min(wanted, context - used)

    def _check_ids(self, ids: Sequence[int]) -> None:
        """A token beyond the embedding would end a GPU process without a usable message."""
        rows = self._model.get_input_embeddings().weight.shape[0]
        if ids and max(ids) >= rows:
            raise ModelError(
                "The adapter's tokenizer does not belong to this base model.",
                f"It makes the token {max(ids)}, and the base knows {rows}.",
                "Use the base model that the adapter was trained on.",
            )


def _encoder(adapter: Path, files: ModelFiles, config: RunConfig) -> Encoder:
    """The encoder of training: it is saved with the adapter; an adapter without one was trained with its base's."""
    return Encoder.from_folder(adapter if (adapter / "tokenizer.json").is_file() else files.folder, config.data)


def _download_progress(progress: Progress) -> Callable[[int, int | None], None]:
    """Bytes as words, about once a second."""
    last = 0.0

    def on_bytes(done: int, total: int | None) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= 1.0:
            last = now
            of = f" of {total / _GIB:.1f}" if total else ""
            progress(f"downloading: {done / _GIB:.1f}{of} GiB")

    return on_bytes
