"""The one error hierarchy: what happened, why, and what to do, with the exit code it leads to.

Everything a user can cause is raised as a :class:`QloraError`; the command line prints its three sentences and
returns its exit code, the training process writes them as an ``error`` event. Anything else is a bug of ours: it
becomes an :class:`InternalFault` at the process boundary and its traceback goes to the log.
"""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """Exit codes of every command."""

    OK = 0
    RUN_FAILED = 1
    USAGE = 2
    ENVIRONMENT = 3
    OUT_OF_MEMORY = 4
    INTERRUPTED = 130


class QloraError(Exception):
    """An error with its three sentences.

    Args:
        what: What could not be done.
        why: The reason, with the file, line or value concerned.
        hint: What to do about it.
    """

    exit_code: ExitCode = ExitCode.RUN_FAILED
    kind: str = "failed"

    def __init__(self, what: str, why: str, hint: str) -> None:
        super().__init__(f"{what} {why} {hint}")
        self.what = what
        self.why = why
        self.hint = hint


class UsageError(QloraError):
    """A command that does not make sense as typed."""

    exit_code = ExitCode.USAGE
    kind = "usage"


class ConfigError(QloraError):
    """A config file that cannot be read or does not hold a valid recipe."""

    exit_code = ExitCode.USAGE
    kind = "config"


class ModelError(QloraError):
    """A base model that cannot be used."""

    exit_code = ExitCode.USAGE
    kind = "model"


class DataError(QloraError):
    """Rows that cannot be read or do not teach anything."""

    exit_code = ExitCode.USAGE
    kind = "data"


class RunError(QloraError):
    """A run that does not exist, cannot be created, or cannot be continued."""

    exit_code = ExitCode.USAGE
    kind = "run"


class EnvironmentFault(QloraError):
    """The machine: network, disk, permissions, missing libraries."""

    exit_code = ExitCode.ENVIRONMENT
    kind = "environment"


class TrainingError(QloraError):
    """Training itself failed: a loss that is not a number, a process that died."""

    exit_code = ExitCode.RUN_FAILED
    kind = "training"


class OutOfMemory(QloraError):
    """The device has too little memory for the recipe."""

    exit_code = ExitCode.OUT_OF_MEMORY
    kind = "out_of_memory"


class InternalFault(QloraError):
    """A fault of this program; its traceback is in the log."""

    exit_code = ExitCode.RUN_FAILED
    kind = "internal"
