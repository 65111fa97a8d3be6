"""Run directories as the engine leaves them, made in milliseconds: the same events, files and process record."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import psutil

from qlora_tui.config import RunConfig
from qlora_tui.config_file import dump_config
from qlora_tui.runs.directory import RunDirectory
from qlora_tui.runs.events import (
    PHASES,
    Advice,
    Checkpoint,
    Comparison,
    Eval,
    Event,
    Failed,
    Memory,
    Phase,
    PhaseName,
    Record,
    RunFinished,
    RunStarted,
    Sample,
    Step,
    to_line,
)

GIB = 1 << 30
NOW = 1_790_000_000.0
"""When every story is looked at."""
HOSTILE = "[red]\x1b[2J\x1b]52;c;aGk=\x07[/] [link=x]click[/link] \u202eevil\u202c {{ x }} \x00"
COMPARISON = {
    "loss": Comparison(before=2.61, after=0.99, difference=-1.62, low=-1.7, high=-1.54, confidence=0.95, rows=200),
    "exact_match": Comparison(
        before=0.04, after=0.06, difference=0.02, low=-0.01, high=0.05, confidence=0.95, rows=200
    ),
}


@dataclass
class Story:
    """One run. ``end`` None leaves it without a last word; ``alive`` makes this process its owner."""

    name: str = "support-mails"
    steps: int = 400
    total: int = 1200
    gpu: bool = True
    alive: bool = True
    end: Literal["completed", "failed", "stopped"] | None = None
    resumed_from: int | None = None
    broken_at: int | None = None
    """A step whose loss is not a number."""
    text: str = "Your parcel left our **warehouse** on Monday and will arrive tomorrow."
    advice: bool = True
    every: int = 75
    adapter: bool = False
    until: PhaseName = "save"
    """The last phase that begins."""
    place: str = "/runs"
    """Where the log says that things are."""
    _time: float = field(default=0.0, init=False)
    _seq: int = field(default=0, init=False)

    def write(self, folder: Path) -> RunDirectory:
        """Make the run in ``folder``."""
        run = RunDirectory(folder / self.name)
        for path in (run.control, run.checkpoints):
            path.mkdir(parents=True, exist_ok=True)
        prompts = ["Where is my parcel?"]
        values = {"name": self.name, "data": {"source": "mails.jsonl"}, "evaluation": {"prompts": prompts}}
        run.config.write_text(dump_config(RunConfig.model_validate(values)))
        run.log.write_text("what the libraries said\n")
        self._time = NOW - 300 - 1.02 * self.steps
        run.events.write_text("".join(map(self.line, self.events())), encoding="utf-8")
        if self.alive:
            claim(run)
        if self.adapter:
            make_adapter(run)
        return run

    def line(self, event: Event) -> str:
        """The next line of the log."""
        self._seq += 1
        return to_line(Record(self._seq, self._time, event))

    def append(self, run: RunDirectory, *events: Event) -> None:
        """Let more happen, a second later each."""
        with run.events.open("a", encoding="utf-8") as handle:
            for event in events:
                self._time += 1
                handle.write(self.line(event))

    def events(self) -> Iterator[Event]:
        yield RunStarted(name=self.name, pid=4242, phases=PHASES, resumed_from_step=self.resumed_from)
        for phase, seconds, details in (
            ("prepare", 2, {"model": "meta-llama/Llama-3.1-8B", "revision": "0e9e39f"}),
            ("encode", 9, {"rows": 12_000, "kept": 11_873, "truncated": 41}),
            ("load", 30, {"parameters": 8_030_261_248, "trainable_parameters": 41_943_040, "device": "cuda"}),
        ):
            yield Phase(phase=phase, state="started")
            if phase == self.until:
                return
            self._time += seconds
            yield Phase(phase=phase, state="finished", seconds=seconds, details=details)
        if self.resumed_from is None:
            yield Phase(phase="baseline", state="started")
            self._time += 40
            yield evaluation("before", 0, 2.61)
            yield Phase(phase="baseline", state="finished", seconds=40)
        yield Phase(phase="train", state="started")
        yield from self._training()
        yield from self._ending()

    def _training(self) -> Iterator[Event]:
        source, best = random.Random(4), 9.0
        for number in range(1 + (self.resumed_from or 0), self.steps + 1):
            self._time += 1.02
            yield self.step(number, source)
            if number % 10 == 0:
                yield self._sample(number, source)
            if number % self.every == 0:
                self._time += 5
                loss = 0.95 + 1.5 * math.exp(-number / 100)
                yield evaluation("during", number, loss, best=loss < best)
                best = min(best, loss)
                yield Checkpoint(step=number, path=f"{self.place}/{self.name}/adapter", what="adapter", seconds=0.4)
                yield Sample(step=number, prompt="Where is my parcel?", text=self.text)
            if number % 120 == 0:
                path = f"{self.place}/{self.name}/checkpoints/checkpoint-{number}"
                yield Checkpoint(step=number, path=path, what="checkpoint", seconds=0.9)
            if number == 300 and self.advice:
                yield Advice(
                    topic="starving",
                    message="34% of the time passes between the steps (520 ms after steps of 1010 ms), while the "
                    "device waits for its next batch.",
                    change="End what else uses the CPU and the disk, or raise training.micro_batch so that there are "
                    "fewer batches.",
                )

    def step(self, number: int, source: random.Random) -> Step:
        """One step of the curve."""
        rate = 2e-4 * min(1.0, number / 36)
        rate *= 0.5 * (1 + math.cos(math.pi * max(0, number - 36) / (self.total - 36)))
        loss = 0.9 + 1.6 * math.exp(-number / 90) + source.gauss(0, 0.12)
        memory = 15 * GIB if self.gpu else None
        return Step(
            step=number,
            total_steps=self.total,
            epoch=2 * number / self.total,
            loss=None if number == self.broken_at else loss,
            learning_rate=rate,
            grad_norm=0.8 + abs(source.gauss(0, 0.3)),
            tokens=8100,
            tokens_per_second=7900 + source.gauss(0, 150),
            step_seconds=1.01 + source.gauss(0, 0.02),
            memory_allocated=memory,
            memory_reserved=memory,
        )

    def _sample(self, number: int, source: random.Random) -> Memory:
        if not self.gpu:
            return Memory(allocated=None, reserved=None, process=3 * GIB, moment="step")
        return Memory(
            allocated=15 * GIB,
            reserved=15 * GIB,
            process=4 * GIB,
            device_free=int((5.6 + 0.1 * source.random()) * GIB),
            device_total=24 * GIB,
            utilisation=95 + source.randint(0, 4),
            temperature=71 + number % 7,
            power=340 + 20 * source.random(),
            power_limit=420.0,
            throttled=(),
            moment="step",
        )

    def _ending(self) -> Iterator[Event]:
        adapter = f"{self.place}/{self.name}/adapter"
        if self.end == "failed":
            yield Failed(
                error="training",
                message=f"Training stopped at step {self.steps + 1}. The loss or its gradient is not a number any "
                "more; this step was not applied.",
                hint="Lower training.learning_rate (a third is a good try), or look at the rows of this step in "
                "the data; the last good adapter is kept.",
                log=f"{self.place}/{self.name}/worker.log",
                exit_code=1,
            )
            yield RunFinished(status="failed", steps=self.steps, seconds=500)
        elif self.end == "stopped":
            yield RunFinished(status="stopped", steps=self.steps, seconds=500, adapter=adapter)
        elif self.end == "completed":
            yield Phase(phase="train", state="finished", seconds=float(self.steps))
            for phase, seconds in (("evaluate", 30), ("save", 1)):
                yield Phase(phase=phase, state="started")
                self._time += seconds
                yield Phase(phase=phase, state="finished", seconds=seconds)
            yield RunFinished(
                status="completed",
                steps=self.steps,
                seconds=700,
                best_step=375,
                best_loss=0.98,
                adapter=adapter,
                comparison=COMPARISON,
            )


def evaluation(stage: Literal["before", "during", "after"], step: int, loss: float | None, best: bool = False) -> Eval:
    """One evaluation."""
    return Eval(
        stage=stage,
        step=step,
        epoch=0.0,
        loss=loss,
        perplexity=None if loss is None else math.exp(loss),
        rows=200,
        tokens=9000,
        seconds=5.0,
        best=best,
    )


def claim(run: RunDirectory) -> None:
    """Make this process the run's owner."""
    me = psutil.Process()
    run.process.write_text(json.dumps({"pid": me.pid, "created": me.create_time()}))


def abandon(run: RunDirectory) -> None:
    """Let the owner be gone."""
    run.process.write_text(json.dumps({"pid": 2**22 - 3, "created": 1.0}))


def make_adapter(run: RunDirectory) -> None:
    """An adapter's files, as far as their names go."""
    run.adapter.mkdir(exist_ok=True)
    for name, content in {
        "adapter_model.safetensors": b"x" * 5_000_000,
        "adapter_config.json": b"{}",
        "chat_template.jinja": b"{{ messages }}",
        "README.md": b"---\nlicense: mit\n---\n\n# support-mails\n\nA LoRA adapter, trained with qlora-tui.\n",
    }.items():
        (run.adapter / name).write_bytes(content)
