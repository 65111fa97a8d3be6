"""A .gguf base model, unpacked once into a folder of bf16 safetensors that everything else can load."""

from __future__ import annotations

import fcntl
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

from qlora_tui.errors import EnvironmentFault, ModelError
from qlora_tui.models.sources import COMPLETE, ModelFiles, is_converted
from qlora_tui.runs.files import replace_folder, write_atomic

STAGES = ("reading the GGUF tensors", "writing 16-bit weights", "writing the tokenizer", "done")
WAITING = "waiting for another process that converts it"


def convert_gguf(files: ModelFiles, progress: Callable[[int, int, str], None]) -> None:
    """Unpack ``files.gguf`` into ``files.folder``: bf16 weights, tokenizer, chat template.

    The folder appears complete or not at all, and is written once however many processes ask for it. transformers
    refuses to save or train a model that it holds as GGUF, even an unpacked one, hence the detour over the disk.

    Args:
        progress: Called with (stage done, stages, what comes next).

    Raises:
        ModelError: if transformers cannot read this file's architecture or types.
        EnvironmentFault: if the disk is full or the cache cannot be written.
    """
    gguf = files.gguf
    assert gguf is not None
    try:
        with _alone(files.folder, lambda: progress(0, 3, WAITING)):
            if not is_converted(files.folder):
                progress(0, 3, STAGES[0])
                _write(files, gguf, progress)
        progress(3, 3, STAGES[3])
    except OSError as error:
        raise EnvironmentFault(
            f"Cannot convert {gguf.name}.",
            f"Writing to {files.folder.parent} failed: {error.strerror or error}.",
            "Free some space, or move the cache with QLORA_TUI_CACHE.",
        ) from error


@contextmanager
def _alone(folder: Path, wait: Callable[[], None]) -> Iterator[None]:
    """Hold the only right to write ``folder``; ``wait`` is called if another process has it."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_name(f".{folder.name}.lock").open("w") as guard:
        try:
            fcntl.flock(guard, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            wait()
            fcntl.flock(guard, fcntl.LOCK_EX)
        yield


def _write(files: ModelFiles, gguf: Path, progress: Callable[[int, int, str], None]) -> None:
    staging = files.folder.with_name(f".{files.folder.name}.partial")
    shutil.rmtree(staging, ignore_errors=True)
    try:
        staging.mkdir()
        _unpack(gguf, staging, progress)
        write_atomic(staging / COMPLETE, json.dumps({"source": gguf.name, "revision": files.revision}))
        replace_folder(staging, files.folder)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _unpack(gguf: Path, staging: Path, progress: Callable[[int, int, str], None]) -> None:
    try:
        model = AutoModelForCausalLM.from_pretrained(
            gguf.parent,
            gguf_file=gguf.name,
            dtype=torch.bfloat16,
            quantization_config=GgufConfig(dequantize=True),
        )
        tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    except (ValueError, KeyError, NotImplementedError, RuntimeError, IndexError) as error:
        raise ModelError(
            f"Cannot read {gguf.name}.",
            f"transformers does not understand this GGUF file: {error}",
            "Use the model's safetensors version from the hub instead.",
        ) from error
    progress(1, 3, STAGES[1])
    model.save_pretrained(staging)
    progress(2, 3, STAGES[2])
    tokenizer.save_pretrained(staging)
