"""The life of a training process: it takes over a run directory, trains, and says how it ended."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import sys
import traceback
import warnings
from pathlib import Path

from qlora_tui.engine.checkpoints import complete_checkpoints, step_of
from qlora_tui.engine.control import Control, StopRequested
from qlora_tui.engine.prepare import prepare_inputs
from qlora_tui.engine.report import EventLog
from qlora_tui.errors import EnvironmentFault, ExitCode, InternalFault, OutOfMemory, QloraError
from qlora_tui.runs.directory import RunDirectory
from qlora_tui.runs.events import PHASES, Failed, RunFinished, RunStarted
from qlora_tui.runs.feed import last_step


def run_training(path: str, *, resume: bool) -> int:
    """Train the run in ``path``; the process's exit status. Everything worth knowing goes into its event log."""
    run = RunDirectory(Path(path).absolute())
    guard = (run.path / ".owner").open("w")
    try:
        fcntl.flock(guard, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        sys.stderr.write(f"{run.path} is being trained by another process\n")
        return ExitCode.USAGE
    control = Control(run.control)
    try:
        log = EventLog(run.events)
        run.claim()
    except OSError as error:
        sys.stderr.write(f"cannot write to {run.path}: {error}\n")
        return ExitCode.ENVIRONMENT
    _quiet_libraries()
    try:
        _train(run, log, control, resume=resume)
        return ExitCode.OK
    except StopRequested:
        log.write(
            RunFinished(status="stopped", steps=last_step(run.events), seconds=log.seconds, adapter=_adapter(run))
        )
        return ExitCode.OK
    except Exception as error:
        traceback.print_exc()
        return _report_failure(run, log, _as_qlora_error(error, run))


def _train(run: RunDirectory, log: EventLog, control: Control, *, resume: bool) -> None:
    checkpoint = _checkpoint_to_resume(run) if resume else None
    step = step_of(checkpoint) if checkpoint else None
    log.write(RunStarted(name=run.name, pid=os.getpid(), phases=PHASES, resumed_from_step=step))
    config = run.read_config()
    inputs = prepare_inputs(config, log, control)
    with log.phase("load") as details:
        # Here and not above: importing the heavy libraries takes seconds, which belong to this phase.
        from qlora_tui.engine.train import Training

        training = Training(run, config, inputs, log, control)
        training.load(details)
    training.go(checkpoint)


def _checkpoint_to_resume(run: RunDirectory) -> Path | None:
    """The newest checkpoint; None (start over) if the run was broken off before its first."""
    found = complete_checkpoints(run.checkpoints) if run.lock.exists() else []
    return found[-1] if found else None


def _quiet_libraries() -> None:
    """Known noise that says nothing to a user; the log keeps everything else."""
    warnings.filterwarnings("ignore", category=FutureWarning)
    # peft looks for the base's config under the name that ships in the adapter, which need not be a folder here.
    warnings.filterwarnings("ignore", message="Could not find a config file")
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)


def _as_qlora_error(error: Exception, run: RunDirectory) -> QloraError:
    if isinstance(error, QloraError):
        return error
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return EnvironmentFault(
            "The run stopped because the disk is full.",
            f"There is no space left to write to {run.path}.",
            f"Free some space and go on with `qlora-tui resume {run.name}`; complete checkpoints are kept.",
        )
    if _is_disk_full_in_disguise(error):
        return EnvironmentFault(
            "The run stopped because a file could not be written.",
            f"The library says: {str(error).splitlines()[0]}.",
            f"Check the free space of {run.path} and go on with `qlora-tui resume {run.name}`.",
        )
    if type(error).__name__ == "OutOfMemoryError" or isinstance(error, MemoryError):
        return OutOfMemory(
            "The run stopped because memory ran out.",
            f"{str(error).splitlines()[0] if str(error) else 'The system had no memory left'}.",
            "Lower training.micro_batch or data.max_length, or set training.gradient_checkpointing: full, "
            f"then go on with `qlora-tui resume {run.name}`.",
        )
    if isinstance(error, OSError):
        return EnvironmentFault(
            "The run stopped because of the system.",
            f"It says: {error.strerror or error}.",
            f"See {run.log}; go on with `qlora-tui resume {run.name}`.",
        )
    return InternalFault(
        "The run stopped because of an unexpected fault.",
        f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no message'}.",
        f"The traceback is in {run.log}; `qlora-tui doctor` checks the installation.",
    )


def _is_disk_full_in_disguise(error: Exception) -> bool:
    """safetensors and torch report a full disk as errors of their own."""
    signs = ("No space left on device", "PytorchStreamWriter failed writing", "os error 28", "iostream error")
    cause: BaseException | None = error
    while cause is not None:
        text = str(cause)
        if any(sign in text for sign in signs) or ("inline_container" in text and "unexpected pos" in text):
            return True
        cause = cause.__cause__ or cause.__context__
    return False


def _report_failure(run: RunDirectory, log: EventLog, error: QloraError) -> int:
    failed = Failed(
        error=error.kind,
        message=f"{error.what} {error.why}",
        hint=error.hint,
        log=str(run.log),
        exit_code=int(error.exit_code),
    )
    try:
        log.write(failed)
        log.write(RunFinished(status="failed", steps=last_step(run.events), seconds=log.seconds, adapter=_adapter(run)))
    except OSError as full:
        sys.stderr.write(f"cannot write the last events: {full}\n{error}\n")
    return int(error.exit_code)


def _adapter(run: RunDirectory) -> str | None:
    """The adapter that an earlier evaluation left, if there is one."""
    return str(run.adapter) if (run.adapter / "adapter_model.safetensors").is_file() else None
