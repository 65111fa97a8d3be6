"""Plays the part of a training process: claims a run directory and writes events, as a process of its own.

``python player.py RUN_DIR SCENARIO`` plays; ``python player.py follow RUN_DIR SCENARIO STYLE`` starts a player as a
child and follows it with :func:`qlora_tui.headless.follow`, as the command line does with the engine.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from qlora_tui.runs.directory import RunDirectory
from qlora_tui.runs.events import (
    PHASES,
    Advice,
    Checkpoint,
    Comparison,
    Eval,
    Event,
    Failed,
    FinishStatus,
    Phase,
    PhaseName,
    Progress,
    Record,
    Replanned,
    RunFinished,
    RunStarted,
    Sample,
    Step,
    Warned,
    to_line,
)
from qlora_tui.runs.feed import last_event

HOSTILE = "\x1b]0;owned\x07\x1b[2J\x1b[31m\x9b5m[bold red]not markup[/bold red] :smile: \u202egnp.exe\r\x08[/nothing]"


class Player:
    """Writes events into the log of one run."""

    def __init__(self, run: RunDirectory) -> None:
        self.run = run
        last = last_event(run.events)
        self._sequence = last.seq if last else 0
        self._clock = 0.0

    def write(self, event: Event, *, after: float = 0.0) -> None:
        """Append an event that seems to happen ``after`` seconds later than the one before."""
        self._sequence += 1
        self._clock += after
        with self.run.events.open("a", encoding="utf-8") as log:
            log.write(to_line(Record(self._sequence, time.time() + self._clock, event)))

    def begin(self, resumed_from_step: int | None = None) -> None:
        name = self.run.name
        self.write(RunStarted(name=name, pid=os.getpid(), phases=PHASES, resumed_from_step=resumed_from_step))

    def phase(self, name: PhaseName, total: int = 0, seconds: float = 1.0) -> None:
        """A whole phase, with its progress if it has a total."""
        self.write(Phase(phase=name, state="started"))
        for done in range(0, total + 1, max(1, total // 20)) if total else ():
            self.write(Progress(phase=name, done=done, total=total, unit="rows"), after=seconds / 20)
        self.write(Phase(phase=name, state="finished", seconds=seconds, details={"rows": total}))

    def step(self, step: int, total: int = 40, *, seconds: float = 0.0) -> None:
        self.write(
            Step(
                step=step, total_steps=total, epoch=step / total, loss=2.0 / step**0.5, learning_rate=2e-4,
                grad_norm=0.5, tokens=1024, tokens_per_second=512.0, step_seconds=2.0,
            ),
            after=seconds,
        )  # fmt: skip

    def save(self, step: int) -> None:
        self.run.adapter.mkdir(exist_ok=True)
        (self.run.adapter / "adapter_config.json").write_text("{}")
        self.write(Checkpoint(step=step, path=str(self.run.adapter), what="adapter", seconds=0.3))

    def finish(self, status: FinishStatus, steps: int, comparison: dict[str, Comparison] | None = None) -> None:
        adapter = str(self.run.adapter) if self.run.adapter.is_dir() else None
        self.write(
            RunFinished(
                status=status, steps=steps, seconds=80.5, best_step=min(steps, 20), best_loss=0.75, adapter=adapter,
                comparison=comparison or {},
            )
        )  # fmt: skip


def completed(player: Player) -> None:
    player.begin()
    for name in ("prepare", "load"):
        player.phase(name)
    player.phase("encode", total=900)
    player.phase("baseline", total=200)
    _evaluate(player, "before", 0, 2.5)
    player.write(Phase(phase="train", state="started"))
    for step in range(1, 41):
        player.step(step, seconds=2.0)
        if step == 20:
            _evaluate(player, "during", step, 0.75, best=True)
            player.write(Sample(step=step, prompt="Win a prize now!", text="spam"))
            player.save(step)
    player.write(Warned(topic="drift", message="torch was 2.13.0 and is now 2.14.0."))
    player.write(Advice(topic="plateau", message="The loss has not moved for 10 steps.", change="Stop, or train less."))
    player.write(Replanned(step=30, micro_batch=2, gradient_accumulation=4, reason="Memory ran out."))
    player.write(Phase(phase="train", state="finished", seconds=80.0))
    player.phase("evaluate", total=200)
    _evaluate(player, "after", 20, 0.75)
    player.phase("save")
    loss = Comparison(before=2.5, after=0.75, difference=-1.75, low=-1.9, high=-1.6, confidence=0.95, rows=200)
    accuracy = Comparison(before=0.5, after=0.97, difference=0.47, low=0.4, high=0.54, confidence=0.95, rows=200)
    player.finish("completed", 40, {"loss": loss, "accuracy": accuracy})


def _evaluate(player: Player, stage: str, step: int, loss: float, *, best: bool = False) -> None:
    values = {"stage": stage, "step": step, "epoch": step / 40, "loss": loss, "perplexity": 2.0, "rows": 200}
    player.write(
        Eval.model_validate(values | {"tokens": 5000, "seconds": 1.0, "metrics": {"accuracy": 0.9}, "best": best})
    )


def until_stopped(player: Player) -> None:
    """Trains until the stop request, then saves, as the engine does."""
    _train_until(player, lambda: (player.run.control / "stop").exists())
    player.save(3)
    player.finish("stopped", 3)


def stubborn(player: Player) -> None:
    """Never stops by itself."""
    _train_until(player, lambda: False)


def _train_until(player: Player, stop: Callable[[], bool]) -> None:
    player.begin()
    player.write(Phase(phase="train", state="started"))
    step = 0
    end = time.monotonic() + 60
    while not stop() and time.monotonic() < end:
        step += 1
        player.step(step, total=100_000)
        if step % 20 == 0:
            player.write(Warned(topic="test", message="A line to tell."))
        time.sleep(0.05)


def killed(player: Player) -> None:
    player.begin()
    player.write(Phase(phase="train", state="started"))
    player.step(1)
    time.sleep(0.3)
    os.kill(os.getpid(), signal.SIGKILL)


def out_of_memory(player: Player) -> None:
    player.begin()
    message = "The run stopped because memory ran out. 12 GiB were asked for."
    log = str(player.run.log)
    player.write(Failed(error="out_of_memory", message=message, hint="Lower data.max_length.", log=log, exit_code=4))
    player.finish("failed", 0)


def out_of_memory_abruptly(player: Player) -> None:
    """The error event is the last thing that could be written."""
    player.begin()
    log = str(player.run.log)
    player.write(Failed(error="out_of_memory", message="No memory.", hint="Use less.", log=log, exit_code=4))


def hostile(player: Player) -> None:
    """Every text of every event tries to act on the terminal."""
    player.begin()
    text = HOSTILE
    player.write(Phase(phase="load", state="started"))
    player.write(Progress(phase="load", done=1, total=9, unit=text, message=text))
    player.write(Phase(phase="load", state="finished", seconds=1.0, details={text: text, f"a.{text}": text}))
    player.write(Sample(step=1, prompt=text, text=text))
    player.write(Checkpoint(step=1, path=text, what="checkpoint", seconds=0.1))
    player.write(Advice(topic=text, message=text, change=text))
    player.write(Replanned(step=1, micro_batch=1, gradient_accumulation=8, reason=text))
    player.write(Warned(topic=text, message=text))
    player.write(Failed(error=text, message=text, hint=text, log=text, exit_code=1))
    loss = Comparison(before=1.0, after=1.0, difference=0.0, low=0.0, high=0.0, confidence=0.95, rows=1)
    player.finish("failed", 1, {text: loss})


def torn(player: Player) -> None:
    """Lines that are no events stand between and after those that are."""
    player.begin()
    with player.run.events.open("ab") as log:
        log.write(b'not json\n{"v": 1}\n\xff\xfe\n{"v": 99, "seq": 3, "time": 1, "event": "step"}\n')
    player.step(1)
    player.finish("completed", 1)
    with player.run.events.open("ab") as log:
        log.write(b'{"v": 1, "seq": 9, "ti')


SCENARIOS: dict[str, Callable[[Player], None]] = {
    each.__name__: each
    for each in (
        completed, until_stopped, stubborn, killed, out_of_memory, out_of_memory_abruptly, hostile, torn,
    )
}  # fmt: skip


def start_player(run: RunDirectory, scenario: str) -> subprocess.Popen[bytes]:
    """A player in a process and session of its own; it owns the run when this returns."""
    run.process.unlink(missing_ok=True)
    command = [sys.executable, __file__, str(run.path), scenario]
    process = subprocess.Popen(command, start_new_session=True, stdin=subprocess.DEVNULL)
    end = time.monotonic() + 30
    while not run.process.exists():
        assert process.poll() is None, "the player died"
        assert time.monotonic() < end, "the player did not come up"
        time.sleep(0.02)
    return process


def _main(arguments: list[str]) -> int:
    if arguments[0] == "follow":
        from qlora_tui.headless import follow

        run = RunDirectory(Path(arguments[1]))
        last = last_event(run.events)
        process = start_player(run, arguments[2])
        style = arguments[3]
        assert style in ("rich", "plain", "json", "quiet")
        summary = follow(run, style=style, process=process, from_start=last is None, after=last.seq if last else None)  # type: ignore[arg-type]
        return summary.exit_code
    run = RunDirectory(Path(arguments[0]))
    run.claim()
    SCENARIOS[arguments[1]](Player(run))
    return 0


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1:]))
