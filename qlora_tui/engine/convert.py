"""A .gguf base model, unpacked once into a folder of bf16 safetensors that everything else can load."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

from qlora_tui.errors import EnvironmentFault, ModelError
from qlora_tui.models.sources import COMPLETE, ModelFiles
from qlora_tui.runs.files import replace_folder, write_atomic

STAGES = ("reading the GGUF tensors", "writing 16-bit weights", "writing the tokenizer", "done")


def convert_gguf(files: ModelFiles, progress: Callable[[int, int, str], None]) -> None:
    """Unpack ``files.gguf`` into ``files.folder``: bf16 weights, tokenizer, chat template.

    The folder appears complete or not at all. transformers refuses to save or train a model that it holds as GGUF,
    even an unpacked one, hence the detour over the disk.

    Args:
        progress: Called with (stage done, stages, what comes next).

    Raises:
        ModelError: if transformers cannot read this file's architecture or types.
        EnvironmentFault: if the disk is full or the cache cannot be written.
    """
    gguf = files.gguf
    assert gguf is not None
    staging = files.folder.with_name(f".{files.folder.name}.partial")
    shutil.rmtree(staging, ignore_errors=True)
    try:
        staging.mkdir(parents=True)
        progress(0, 3, STAGES[0])
        _unpack(gguf, staging, progress)
        write_atomic(staging / COMPLETE, json.dumps({"source": gguf.name, "revision": files.revision}))
        replace_folder(staging, files.folder)
        progress(3, 3, STAGES[3])
    except OSError as error:
        raise EnvironmentFault(
            f"Cannot convert {gguf.name}.",
            f"Writing to {files.folder.parent} failed: {error.strerror or error}.",
            "Free some space, or move the cache with QLORA_TUI_CACHE.",
        ) from error
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
