"""What can be done with a run from the list of runs; all of it may block."""

from __future__ import annotations

import shutil

from qlora_tui.errors import EnvironmentFault, RunError
from qlora_tui.runs import launch
from qlora_tui.runs.directory import RunDirectory
from qlora_tui.tui.answers import Answers, with_values


def stop(run: RunDirectory) -> str:
    """Ask it to finish its step, save and stop; what to tell.

    Raises:
        RunError: if it is not alive.
    """
    launch.request_stop(run)
    return f"{run.name} finishes its step, saves and stops."


def resume(run: RunDirectory) -> str:
    """Start another life of it; what to tell.

    Raises:
        QloraError: if it cannot be started.
    """
    launch.start(run, resume=run.status() != "created")
    return f"{run.name} goes on."


def delete(run: RunDirectory) -> str:
    """Delete its folder; what to tell.

    Raises:
        RunError: if it is alive.
        EnvironmentFault: if the folder cannot be deleted.
    """
    if (owner := run.owner()) is not None:
        raise RunError(
            f"Cannot delete the run {run.name}.",
            f"It is training right now (process {owner}).",
            "Stop it first.",
        )
    try:
        shutil.rmtree(run.path)
    except OSError as error:
        raise EnvironmentFault(
            f"Cannot delete the run {run.name}.",
            f"The system says: {error.strerror or error}.",
            f"Check the permissions of {run.path}.",
        ) from error
    return f"{run.name} is deleted."


def kill(run: RunDirectory) -> str:
    """End it at once; what to tell."""
    launch.kill(run)
    return f"{run.name} was ended."


def ask(run: RunDirectory, what: str) -> str:
    """Leave a request (``checkpoint``, ``sample``) for it; what to tell.

    Raises:
        EnvironmentFault: if it cannot be written.
    """
    try:
        launch.request(run, what)
    except OSError as error:
        raise EnvironmentFault(
            f"Cannot ask {run.name} for a {what}.",
            f"The system says: {error.strerror or error}.",
            f"Check the free space and the permissions of {run.control}.",
        ) from error
    return "It is done after this step."


def perform(run: RunDirectory, what: str) -> str:
    """Do what a key of the train screen says; what to tell.

    Raises:
        QloraError: if it cannot be done.
    """
    match what:
        case "stop":
            return stop(run)
        case "kill":
            return kill(run)
        case "resume":
            return resume(run)
        case "delete":
            return delete(run)
        case _:
            return ask(run, what)


def answers_of(run: RunDirectory) -> Answers:
    """Its recipe as answers, for a repetition with changes.

    Raises:
        ConfigError: if its config cannot be read.
    """
    config = run.read_config()
    name = f"{config.name[:60]}-2" if not config.name.endswith("-2") else config.name
    fresh = with_values(config, {"name": name, "output.overwrite": False, "training.micro_batch": "auto"})
    return Answers(config=fresh, model_chosen=True, licence_accepted=config.model.source, step=4)
