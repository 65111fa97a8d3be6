"""The folder with a model's tokenizer and chat template, which is all of the model that looking at data takes.

A GGUF file that was not converted yet keeps both inside. transformers takes them out, in a process of its own, because
it brings torch along; the result stays in the cache.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from qlora_tui.errors import EnvironmentFault, ModelError
from qlora_tui.models.sources import ModelFiles
from qlora_tui.text import one_line

_SECONDS = 600
_TAKE_OUT = """
import sys
from transformers import AutoTokenizer
folder, name, target = sys.argv[1:]
AutoTokenizer.from_pretrained(folder, gguf_file=name).save_pretrained(target)
"""


def tokenizer_folder(files: ModelFiles, waiting: Callable[[int], None] = lambda _seconds: None) -> Path:
    """The folder that holds ``tokenizer.json`` and its companions.

    Args:
        waiting: Called with the seconds so far while they are taken out, about half a minute; may raise to stop.

    Raises:
        ModelError: if transformers cannot read the GGUF file.
        EnvironmentFault: if the cache cannot be written, or the process ends in another way.
    """
    if files.gguf is None or files.converted:
        return files.folder
    folder = files.folder.with_name(f"{files.folder.name}-tokenizer")
    if not (folder / "tokenizer.json").is_file():
        _take_out(files.gguf, folder, waiting)
    return folder


def _take_out(gguf: Path, folder: Path, waiting: Callable[[int], None]) -> None:
    # Imported here: it brings the events along, and the first answers wait for every import.
    from qlora_tui.runs.launch import engine_environment

    staging = folder.with_name(f".{folder.name}.partial")
    command = [sys.executable, "-c", _TAKE_OUT, str(gguf.parent), gguf.name, str(staging)]
    try:
        shutil.rmtree(staging, ignore_errors=True)
        folder.parent.mkdir(parents=True, exist_ok=True)
        with subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env=engine_environment(),
        ) as process:
            said = _said_by(process, waiting)
        if process.returncode == 0:
            shutil.rmtree(folder, ignore_errors=True)
            staging.rename(folder)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise EnvironmentFault(
            f"The tokenizer of {one_line(gguf.name)} cannot be taken out.",
            f"{one_line(str(error))}.",
            "Free some space, or move the cache with QLORA_TUI_CACHE.",
        ) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    if process.returncode:
        lines = said.decode("utf-8", "replace").strip().splitlines()
        raise ModelError(
            f"The tokenizer of {one_line(gguf.name)} cannot be read.",
            f"transformers says: {one_line(lines[-1]) if lines else 'nothing'}.",
            "Use the model's safetensors version from the hub instead.",
        )


def _said_by(process: subprocess.Popen[bytes], waiting: Callable[[int], None]) -> bytes:
    """What a process says on stderr; it does not outlive this call."""
    try:
        for seconds in range(_SECONDS):
            waiting(seconds)
            with suppress(subprocess.TimeoutExpired):
                return process.communicate(timeout=1)[1]
        raise subprocess.TimeoutExpired(process.args, _SECONDS)
    finally:
        process.kill()
