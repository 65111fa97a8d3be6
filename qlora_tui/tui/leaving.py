"""Leaving the application while something trains: it is asked what should become of the run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qlora_tui.errors import QloraError
from qlora_tui.runs import launch
from qlora_tui.runs.directory import RunDirectory
from qlora_tui.runs.telling import run_reference
from qlora_tui.tui.screens.question import Answer, QuestionScreen

if TYPE_CHECKING:
    from qlora_tui.tui.app import QloraApp


def parting_words(run: RunDirectory | None, *, stopping: bool = False) -> str | None:
    """What is printed once the terminal is itself again; None if nothing trains."""
    if run is None or run.owner() is None:
        return None
    reference = run_reference(run)
    if stopping:
        return f"{run.name} finishes its step, saves and stops. Go on with `qlora-tui resume {reference}`."
    return f"{run.name} goes on training. Come back with `qlora-tui attach {reference}`."


async def leave(app: QloraApp) -> None:
    """Leave at once if nothing trains, else as the person says."""
    run = app.run_shown
    if run is None or run.owner() is None:
        app.exit()
        return
    question = QuestionScreen(
        f"{run.name} is training",
        "It trains in a process of its own and goes on when you leave.",
        [Answer("detach", "Detach"), Answer("stop", "Stop and save"), Answer("cancel", "Cancel")],
    )
    answer = await app.push_screen_wait(question)
    if answer == "detach":
        app.exit(parting_words(run))
    elif answer == "stop":
        try:
            launch.request_stop(run)
        except (QloraError, OSError) as error:
            app.notify(f"The run cannot be asked to stop: {error}", severity="error")
            return
        app.exit(parting_words(run, stopping=True))
