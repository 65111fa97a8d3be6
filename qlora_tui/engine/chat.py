"""The playground: a base model with an adapter in memory, answering prompts as it was trained to.

:class:`ChatSession` loads once and then answers any number of prompts, with the adapter or without it.
``python -m qlora_tui.engine chat`` is one question to such a session: a JSON request on stdin, JSON lines on stdout.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from threading import Event, Thread
from typing import Annotated, Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from transformers import GenerationConfig, StoppingCriteria, StoppingCriteriaList
from transformers.generation.streamers import BaseStreamer

from qlora_tui.config import DataSection, ModelSection, RunConfig
from qlora_tui.data.encode import Encoder
from qlora_tui.data.formats import Turn
from qlora_tui.engine.checkpoints import complete_checkpoints
from qlora_tui.engine.convert import convert_gguf
from qlora_tui.engine.load import attach_saved_adapter, load_base
from qlora_tui.errors import ExitCode, InternalFault, ModelError, OutOfMemory, QloraError, RunError, UsageError
from qlora_tui.models.sources import ModelFiles, resolve_model
from qlora_tui.runs.directory import RunDirectory
from qlora_tui.text import one_line

Side = Literal["adapter", "base"]
StoppedBy = Literal["end_of_turn", "max_tokens", "cancelled"]
Progress = Callable[[str], None]

ADAPTER_FILE = "adapter_model.safetensors"
MAX_REQUEST_BYTES = 16 << 20
_GIB = 2**30
_UNFINISHED = "\N{REPLACEMENT CHARACTER}"


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the next token is chosen. ``temperature`` 0 takes the likeliest one, and then the rest plays no part."""

    max_tokens: int = 256
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 42


class ChatRequest(BaseModel):
    """One question. None leaves the choice to the run: its system prompt, its seed; an empty system prompt is none."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    prompt: Annotated[str, Field(min_length=1)]
    system: str | None = None
    compare: bool = False
    """Ask both sides, whatever ``sides`` says."""
    sides: Annotated[tuple[Side, ...], Field(min_length=1)] = ("adapter",)
    max_tokens: Annotated[int, Field(ge=1, le=1_048_576)] = 256
    temperature: Annotated[float, Field(ge=0, le=10, allow_inf_nan=False)] = 0.0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    seed: Annotated[int, Field(ge=0, lt=2**63)] | None = None

    @property
    def asked_sides(self) -> tuple[Side, ...]:
        """The sides to ask, each once, in order."""
        return tuple(dict.fromkeys((*self.sides, "adapter", "base") if self.compare else self.sides))


def parse_request(content: bytes) -> ChatRequest:
    """The request in one JSON object.

    Raises:
        UsageError: if it is none, or holds a value that is not allowed.
    """
    try:
        return ChatRequest.model_validate_json(content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the request"
        why = f"{one_line(where, 60)}: {one_line(first['msg'])}."
        hint = "Send one JSON object with prompt and, if wanted, system, compare, max_tokens, temperature, top_p, seed."
        raise UsageError("The chat request cannot be used.", why, hint) from error


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
        self._end_ids = _end_ids(model, encoder)
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
        said = self.config.data.system_prompt if system is None else system
        head = (Turn("system", said),) if said else ()
        return (*head, Turn("user", prompt))

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
            ids = torch.tensor([prompt], device=self._model.device)
            chosen: dict[str, Any] = {"do_sample": False}
            if sampling.temperature > 0:
                chosen = {"do_sample": True, "temperature": sampling.temperature, "top_p": sampling.top_p, "top_k": 0}
                torch.manual_seed(sampling.seed)
            with self._model.disable_adapter() if side == "base" else nullcontext():
                self._model.generate(
                    input_ids=ids,
                    attention_mask=torch.ones_like(ids),
                    max_new_tokens=limit,
                    use_cache=True,
                    streamer=streamer,
                    stopping_criteria=StoppingCriteriaList([stopping]),
                    **chosen,
                )

        return Reply(generate, TextPieces(self._decode), frozenset(self._end_ids))

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


def _end_ids(model: Any, encoder: Encoder) -> list[int]:
    """Every token that ends an answer: the template's, the tokenizer's and the model's own."""
    own = model.generation_config.eos_token_id
    found = [encoder.end_of_turn_id, encoder.eos_id, *(own if isinstance(own, list) else [own])]
    return list(dict.fromkeys(token for token in found if token is not None)) or [0]


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


@dataclass(frozen=True, slots=True)
class ChatArguments:
    """The arguments of one chat process."""

    target: Path
    base: str | None = None


def main(arguments: list[str]) -> int:
    """``python -m qlora_tui.engine chat``; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m qlora_tui.engine chat")
    parser.add_argument("--target", type=Path, required=True, help="run directory, adapter or checkpoint folder")
    parser.add_argument("--base", help="base model instead of the recorded one")
    parser.add_argument("--prompt-file", choices=["-"], default="-", help="the request comes on standard input")
    values = parser.parse_args(arguments)
    return run_chat(ChatArguments(values.target, values.base))


def run_chat(arguments: ChatArguments) -> int:
    """Answer the one JSON request on stdin with JSON lines on stdout; the exit status.

    Events: ``progress`` (message), ``token`` (side, text), ``done`` (side, tokens, seconds, stopped_by), ``error``
    (message, hint, exit_code). Everything else goes to stderr.
    """
    with _events_on_stdout() as write:
        try:
            request = parse_request(_read_request())
            target = find_target(arguments.target, arguments.base)
            session = ChatSession.load(target, lambda message: write({"event": "progress", "message": message}))
            _answer(session, request, write)
        except (KeyboardInterrupt, BrokenPipeError):
            return ExitCode.INTERRUPTED
        except Exception as error:
            if not isinstance(error, QloraError):
                traceback.print_exc()
            fault = _as_qlora_error(error)
            message = f"{fault.what} {fault.why}"
            write({"event": "error", "message": message, "hint": fault.hint, "exit_code": int(fault.exit_code)})
            return int(fault.exit_code)
    return ExitCode.OK


def _read_request() -> bytes:
    content = sys.stdin.buffer.readline(MAX_REQUEST_BYTES + 1)
    if len(content) > MAX_REQUEST_BYTES:
        limit = f"It is longer than {MAX_REQUEST_BYTES >> 20} MiB."
        raise UsageError("The chat request cannot be used.", limit, "Ask something shorter.")
    return content


def _answer(session: ChatSession, request: ChatRequest, write: Callable[[dict[str, Any]], None]) -> None:
    seed = session.config.training.seed if request.seed is None else request.seed
    sampling = Sampling(request.max_tokens, request.temperature, request.top_p, seed)
    turns = session.turns(request.prompt, request.system)
    for side in request.asked_sides:
        reply = session.reply(turns, side, sampling)
        for text in reply:
            write({"event": "token", "side": side, "text": text})
        write(
            {
                "event": "done",
                "side": side,
                "tokens": reply.tokens,
                "seconds": round(reply.seconds, 3),
                "stopped_by": reply.stopped_by,
            }
        )


@contextmanager
def _events_on_stdout() -> Iterator[Callable[[dict[str, Any]], None]]:
    """A function that writes events to stdout, while whatever libraries print goes to stderr, native code included."""
    sys.stdout.flush()
    stdout = os.dup(1)
    os.dup2(2, 1)
    try:
        with os.fdopen(os.dup(stdout), "wb", buffering=0) as stream, redirect_stdout(sys.stderr):

            def write(event: dict[str, Any]) -> None:
                stream.write(json.dumps(event, ensure_ascii=False).encode("utf-8", "replace") + b"\n")

            yield write
    finally:
        os.dup2(stdout, 1)
        os.close(stdout)


def _as_qlora_error(error: Exception) -> QloraError:
    if isinstance(error, QloraError):
        return error
    text = one_line(str(error)) or "no message"
    if isinstance(error, torch.OutOfMemoryError | MemoryError) or re.search(
        "can't allocate memory|out of memory", text
    ):
        return OutOfMemory(
            "There is no answer because memory ran out.",
            f"{text}.",
            "End other processes that use this device, or ask something shorter.",
        )
    return InternalFault(
        "There is no answer because of an unexpected fault.",
        f"{type(error).__name__}: {text}.",
        "The traceback is in the log; `qlora-tui doctor` checks the installation.",
    )
