"""Starting the training process, telling it to stop, and taking it up again."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import psutil

from qlora_tui.errors import EnvironmentFault, RunError
from qlora_tui.hardware import snapshot
from qlora_tui.runs.directory import RunDirectory
from qlora_tui.runs.files import write_atomic

READY_SECONDS = 60.0
VISIBLE = "CUDA_VISIBLE_DEVICES"
# glibc hands large blocks back to the system after each use and fetches them again page by page. On a CPU every
# activation is such a block, and keeping them makes training up to 1.6 times as fast.
_KEEP_BLOCKS_BELOW = str(4 << 30)


def engine_environment(gpu: str | None = None, *, torch: bool = True) -> dict[str, str]:
    """The environment of engine processes: no progress bars on a log, no telemetry, a steadier GPU allocator.

    Args:
        gpu: The uuid of the only GPU to be seen; else the environment of this process decides.
        torch: Manage memory as torch wants it: in one arena, from which little goes back to the system. Threads that
            make tokens would wait for each other there, so that an inspection took twice as long.
    """
    environment = dict(os.environ)
    if gpu is not None:
        environment[VISIBLE] = gpu
    environment.update(
        {
            "TQDM_DISABLE": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "TOKENIZERS_PARALLELISM": environment.get("TOKENIZERS_PARALLELISM", "true"),
            "PYTHONUNBUFFERED": "1",
        }
    )
    if not torch:
        return environment
    for name in ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_"):
        environment.setdefault(name, _KEEP_BLOCKS_BELOW)
    environment.setdefault("MALLOC_ARENA_MAX", "1")
    for name in ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF"):
        environment.setdefault(name, "expandable_segments:True")
    return environment


def start(run: RunDirectory, *, resume: bool = False, gpu: str | None = None) -> subprocess.Popen[bytes]:
    """Start the detached training process of ``run`` and wait until it owns the directory.

    It has a session of its own, no standard input, and writes to ``worker.log``: no terminal can take it down.

    Args:
        gpu: The uuid of the GPU to train on. It is kept for later lives of the run, as long as the machine has that GPU
            and ``CUDA_VISIBLE_DEVICES`` does not say otherwise.

    Raises:
        RunError: if the run is alive already.
        EnvironmentFault: if the process dies before it takes over, or the log cannot be written.
    """
    if (owner := run.owner()) is not None:
        raise RunError(
            f"Cannot start the run {run.name}.",
            f"It is training already (process {owner}).",
            f"Watch it with `qlora-tui attach {run.name}`.",
        )
    for request in run.control.iterdir():
        request.unlink(missing_ok=True)
    run.process.unlink(missing_ok=True)
    gpu = _kept_gpu(run) if gpu is None else gpu
    command = [sys.executable, "-m", "qlora_tui.engine", "train", str(run.path)] + (["--resume"] if resume else [])
    try:
        if gpu is not None:
            write_atomic(run.gpu, gpu + "\n")
        with run.log.open("ab") as log:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env=engine_environment(gpu),
                cwd=run.path,
            )
    except OSError as error:
        raise EnvironmentFault(
            f"Cannot start the training process of {run.name}.",
            f"The system says: {error.strerror or error}.",
            "Check the permissions and free space of the run directory.",
        ) from error
    _wait_until_owned(run, process)
    return process


def _kept_gpu(run: RunDirectory) -> str | None:
    """The GPU that was chosen when the run began, if it is still there and nobody chose another one."""
    if VISIBLE in os.environ or not run.gpu.exists():
        return None
    try:
        uuid = run.gpu.read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        return None
    gpus = snapshot().gpus
    known = {gpu.uuid for gpu in gpus} | {part.uuid for gpu in gpus for part in gpu.instances}
    return uuid if uuid in known else None


def _wait_until_owned(run: RunDirectory, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + READY_SECONDS
    while not run.process.exists():
        if process.poll() is not None or time.monotonic() > end:
            raise EnvironmentFault(
                f"The training process of {run.name} did not come up.",
                f"It ended with status {process.poll()} before it took over the run directory.",
                f"Read the end of {run.log}; `qlora-tui doctor` checks the installation.",
            )
        time.sleep(0.02)


def request_stop(run: RunDirectory) -> int:
    """Ask the training process to finish its step, save and exit; its process id.

    Raises:
        RunError: if the run is not alive.
    """
    owner = run.owner()
    if owner is None:
        raise RunError(
            f"Cannot stop the run {run.name}.",
            f"It is not running ({run.status()}).",
            "See all runs with `qlora-tui runs`.",
        )
    request(run, "stop")
    return owner


def request(run: RunDirectory, what: str) -> None:
    """Leave a request (``stop``, ``checkpoint``, ``sample``) for the training process."""
    (run.control / what).touch()


def kill(run: RunDirectory) -> None:
    """End the training process and its children at once; nothing is saved."""
    owner = run.owner()
    if owner is None:
        return
    try:
        process = psutil.Process(owner)
        for each in [*process.children(recursive=True), process]:
            each.kill()
    except psutil.NoSuchProcess:
        return
