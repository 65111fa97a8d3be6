"""What a run's events tell about its health: each trouble with its numbers, and silence for healthy noise."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from qlora_tui.advice.health import Finding, Health
from qlora_tui.engine.report import EventLog
from qlora_tui.runs.events import Advice, Checkpoint, Eval, Event, Memory, Phase, Record, Step
from qlora_tui.runs.feed import read_events

GIB = 1 << 30
Curve = Callable[[int], float | None]


@dataclass
class Course:
    """A made-up run, told step by step."""

    total: int = 400
    rate: float = 3e-4
    parameters: int = 7_000_000_000
    loss: Curve = lambda step: 1.5 + math.exp(-step / 40)
    held_out: Curve | None = None
    grad_norm: Curve = lambda step: 1.0
    seconds: float = 1.0
    gap: float = 0.005
    speed: Callable[[int], float] = lambda step: 5000.0
    reserved: Callable[[int], int | None] = lambda step: 10 * GIB
    sample: Callable[[int], dict[str, Any]] = lambda step: {}
    every: int = 50
    constant: bool = False
    warmup: int = 10
    before: float | None = 3.0
    seq: int = field(default=0, init=False)

    def learning_rate(self, step: int) -> float:
        if step <= self.warmup:
            return self.rate * step / self.warmup
        past = (step - self.warmup) / (self.total - self.warmup)
        return self.rate if self.constant else self.rate * 0.5 * (1 + math.cos(math.pi * past))

    def record(self, now: float, event: Event) -> Record:
        self.seq += 1
        return Record(self.seq, now, event)

    def records(self) -> Iterator[Record]:
        now = 1000.0
        yield self.record(
            now, Phase(phase="load", state="finished", seconds=1.0, details={"parameters": self.parameters})
        )
        if self.before is not None:
            yield self.record(now, evaluation("before", 0, self.before))
        for step in range(1, self.total + 1):
            now += self.gap + self.seconds
            yield self.record(now, self.step(step))
            if step % 10 == 0 and (values := self.sample(step)):
                yield self.record(now, Memory(allocated=None, reserved=None, **{"process": 4 * GIB, **values}))
            if self.held_out is not None and step % self.every == 0:
                now += 5
                yield self.record(now, evaluation("during", step, self.held_out(step)))

    def step(self, step: int) -> Step:
        return Step(
            step=step,
            total_steps=self.total,
            epoch=step / self.total,
            loss=self.loss(step),
            learning_rate=self.learning_rate(step),
            grad_norm=self.grad_norm(step),
            tokens=4096,
            tokens_per_second=self.speed(step),
            step_seconds=self.seconds,
            memory_reserved=self.reserved(step),
        )


def warm(step: int) -> dict[str, Any]:
    """A sample in which nothing is wrong."""
    return {"temperature": 70, "throttled": ()}


def evaluation(stage: Any, step: int, loss: float | None) -> Eval:
    return Eval(stage=stage, step=step, epoch=0.0, loss=loss, perplexity=None, rows=10, tokens=100, seconds=1.0)


def findings(records: Iterable[Record], health: Health | None = None) -> list[tuple[int, Finding]]:
    """Every finding with the number of the step it was told at."""
    health = health or Health()
    found, step = [], 0
    for record in records:
        if isinstance(record.event, Step):
            step = record.event.step
        found += [(step, finding) for finding in health.take(record)]
    return found


def only(course: Course, topic: str) -> tuple[int, Finding]:
    """The one finding of ``course``, which is about ``topic``."""
    found = findings(course.records())
    assert [finding.topic for _, finding in found] == [topic], found
    return found[0]


def noisy(seed: int, curve: Callable[[int], float], noise: float) -> Curve:
    """``curve`` with multiplicative noise, as batches of different rows give it."""
    source = random.Random(seed)
    return lambda step: curve(step) * math.exp(source.gauss(0, noise))


# --- troubles


def test_a_loss_that_is_not_a_number_names_the_last_good_step() -> None:
    step, finding = only(Course(total=60, loss=lambda step: 2.0 if step < 60 else None), "nan")
    assert step == 60
    assert "step 60" in finding.message
    assert "2 at step 59" in finding.message
    assert "1e-4" in finding.change


def test_gradients_that_keep_overflowing() -> None:
    course = Course(total=80, grad_norm=lambda step: None if step > 40 and step % 2 else 1.0)
    step, finding = only(course, "nan")
    assert step > 50
    assert "of the last 20 steps" in finding.message


def test_one_lost_gradient_is_nothing() -> None:
    assert not findings(Course(grad_norm=lambda step: None if step % 50 == 0 else 1.0).records())


def test_a_held_out_loss_that_is_not_a_number() -> None:
    _, finding = only(Course(total=50, held_out=lambda step: None), "nan")
    assert "held-out loss of step 50" in finding.message


def test_a_loss_that_runs_away() -> None:
    step, finding = only(
        Course(loss=lambda step: 2.0 if step < 100 else 2.0 + (step - 100) / 10, total=130), "divergence"
    )
    assert 105 < step < 125
    assert "from 2 (mean" in finding.message
    assert "1e-4" in finding.change


def test_held_out_rows_that_fare_worse_than_with_the_base() -> None:
    course = Course(total=100, loss=lambda step: 10.8, held_out=lambda step: 10.8, before=6.3, rate=1e-3)
    assert "divergence" in [finding.topic for _, finding in findings(course.records())]


def test_a_start_that_gets_worse() -> None:
    step, finding = only(Course(total=30, loss=lambda step: 2.0 + 0.02 * step, rate=3e-3), "learning_rate_high")
    assert step <= 30
    assert "2e-4" in finding.change, "the rate of the playbook for this size"


def test_spike_after_spike() -> None:
    course = Course(
        total=120, loss=lambda step: 4.0 if step % 9 == 0 else 1.0, grad_norm=lambda step: 9.0 if step % 9 == 0 else 1.0
    )
    _, finding = only(course, "learning_rate_high")
    assert "5 of the last 50" in finding.message or "6 of the last 50" in finding.message
    assert "up to 4" in finding.message


def test_a_rate_far_below_what_such_models_like() -> None:
    step, finding = only(Course(total=200, rate=1e-5, loss=lambda step: 2.0 - 0.0002 * step), "learning_rate_low")
    assert step < 80
    assert "2e-4" in finding.change


def test_a_low_rate_that_learns_is_left_alone() -> None:
    assert not findings(Course(total=200, rate=1e-5).records())


def test_standing_still_by_the_evaluations() -> None:
    _, finding = only(Course(held_out=lambda step: 1.9, loss=lambda step: 1.9, total=1000), "plateau")
    assert "last 4 evaluations" in finding.message


def test_standing_still_without_evaluations() -> None:
    _, finding = only(Course(loss=noisy(1, lambda step: 1.9, 0.03), total=1000), "plateau")
    assert "over the last 200 steps" in finding.message


def test_the_end_of_a_cosine_is_no_plateau() -> None:
    course = Course(loss=lambda step: 1.9 + math.exp(-step / 60), held_out=lambda step: 1.9 + math.exp(-step / 60))
    assert not findings(course.records())


def test_a_rate_of_zero_is_called_low_and_no_plateau() -> None:
    only(Course(loss=noisy(1, lambda step: 1.9, 0.03), rate=0.0), "learning_rate_low")


def test_overfitting_names_the_step_that_is_kept() -> None:
    course = Course(
        loss=lambda step: 2.0 * math.exp(-step / 300),
        held_out=lambda step: 1.5 + abs(step - 150) / 500,
        total=400,
    )
    step, finding = only(course, "overfitting")
    assert step == 250
    assert "(step 150)" in finding.message
    assert "step 150 is kept" in finding.change


def test_a_device_that_waits_for_its_batches() -> None:
    _, finding = only(Course(gap=0.8, total=100), "starving")
    assert "44%" in finding.message
    assert "800 ms after steps of 1000 ms" in finding.message


def test_evaluations_and_checkpoints_between_steps_are_not_waiting() -> None:
    course = Course(total=100, before=None)
    records: list[Record] = []
    for record in course.records():
        late = record.time + 5 * len(records)
        records += [
            Record(record.seq, late, record.event),
            Record(0, late + 4, Checkpoint(step=1, path="x", what="checkpoint", seconds=4)),
        ]
    assert not findings(records)


def test_a_hot_card_tells_what_it_costs() -> None:
    course = Course(
        total=200,
        speed=lambda step: 5000.0 if step < 100 else 3000.0,
        sample=lambda step: {"throttled": ("temperature",) if step >= 100 else (), "temperature": 91},
    )
    found = findings(course.records())
    assert {finding.topic for _, finding in found} <= {"throttling", "slower"}
    hot = next(finding for _, finding in found if finding.topic == "throttling")
    assert "temperature at 91 °C" in hot.message


def test_a_power_limit_is_a_card_at_work() -> None:
    assert not findings(Course(sample=lambda step: {"throttled": ("power limit",)}).records())


def test_steps_that_become_slower() -> None:
    _, finding = only(Course(total=200, speed=lambda step: 5000.0 if step < 100 else 2000.0), "slower")
    assert "2,000 tokens/s" in finding.message
    assert "5,000" in finding.message


def test_gpu_memory_that_goes_on_growing() -> None:
    _, finding = only(Course(reserved=lambda step: 10 * GIB + step // 50 * GIB // 4, sample=warm), "memory")
    assert "10.2" in finding.message


def test_memory_that_settles_is_nothing() -> None:
    assert not findings(Course(reserved=lambda step: min(step, 60) * GIB // 10, sample=warm).records())


def test_a_process_that_grows() -> None:
    _, finding = only(Course(sample=lambda step: {"process": 4 * GIB + step * GIB // 200}), "memory")
    assert "main memory" in finding.message


def test_a_full_card() -> None:
    _, finding = only(Course(sample=lambda step: {"device_free": GIB // 8, "device_total": 24 * GIB}), "memory_tight")
    assert "128 MiB" in finding.message


# --- silence


@pytest.mark.parametrize("seed", range(60))
def test_healthy_noise_is_not_told(seed: int) -> None:
    """Small batches: losses between a third and three times the curve, now and then slow steps."""
    source = random.Random(seed)
    total = source.choice([30, 120, 400, 900])
    floor, scale = source.uniform(0.05, 2.0), source.uniform(0.3, 6.0)
    noise = source.uniform(0.02, 0.6)

    def curve(step: int) -> float:
        return floor + scale * math.exp(-step / (0.25 * total)) - 0.3 * floor * step / total

    course = Course(
        total=total,
        rate=source.choice([1e-4, 3e-4, 1e-3]),
        loss=noisy(seed, curve, noise),
        held_out=noisy(seed + 1, curve, 0.01),
        every=max(1, total // 8),
        grad_norm=noisy(seed + 2, lambda step: 2.0, 0.5),
        speed=lambda step: 5000.0 * source.uniform(0.8, 1.2),
        before=floor + 1.2 * scale,
        sample=lambda step: {"temperature": 80, "throttled": ()},
    )
    assert not findings(course.records())


def test_nothing_is_told_twice_while_it_lasts_and_again_when_it_returns() -> None:
    waiting = [0.8] * 100 + [0.0] * 250 + [0.8] * 100
    now, records = 0.0, []
    course = Course(total=len(waiting))
    for step, gap in enumerate(waiting, 1):
        now += 1.0 + gap
        records.append(course.record(now, course.step(step)))
    told = [step for step, finding in findings(records) if finding.topic == "starving"]
    assert len(told) == 2
    assert told[1] > 350


def test_what_an_earlier_life_advised_is_not_repeated() -> None:
    records = list(Course(gap=0.8, total=100).records())
    advised = Record(0, 0.0, Advice(topic="starving", message="", change=""))
    assert not findings(records[60:], Health([*records[:60], advised]))


def test_the_window_does_not_grow_with_the_run() -> None:
    health = Health()
    start = time.perf_counter()
    findings(Course(total=3000, constant=True, loss=lambda step: 1.0 + 100 / (step + 100)).records(), health)
    assert len(health._window.points) <= 400
    assert time.perf_counter() - start < 10


# --- the log


def test_the_engine_writes_advice_into_the_log(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "events.jsonl")
    for record in Course(total=60, loss=lambda step: 2.0 if step < 60 else None).records():
        log.write(record.event)
    last = read_events(tmp_path / "events.jsonl")[-1]
    assert isinstance(last.event, Advice)
    assert last.event.topic == "nan"
    assert last.event.change
    log = EventLog(tmp_path / "events.jsonl")
    log.write(Course().step(60).model_copy(update={"loss": None}))
    assert not isinstance(read_events(tmp_path / "events.jsonl")[-1].event, Advice), "told in the life before"


def test_a_fault_in_the_checks_does_not_end_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Health, "take", lambda *_: 1 / 0)
    log = EventLog(tmp_path / "events.jsonl")
    log.write(Course().step(1))
    log.write(Course().step(2))
    assert len(read_events(tmp_path / "events.jsonl")) == 2
    assert capsys.readouterr().err.count("ZeroDivisionError") == 1
