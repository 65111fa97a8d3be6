"""What a screen shows of a run: curves of bounded length, the log's last lines, and whether the run is well."""

from __future__ import annotations

import math
import os
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from run_stories import HOSTILE, NOW, Story, abandon, evaluation

from qlora_tui.runs.directory import RunDirectory
from qlora_tui.runs.events import Record, RunStarted, from_line, to_line
from qlora_tui.runs.feed import EventFeed
from qlora_tui.runs.series import Series, thinned
from qlora_tui.runs.view import LOG_LINES, RunView
from qlora_tui.tui import follower as module
from qlora_tui.tui.follower import Follower


def view_of(run: RunDirectory) -> RunView:
    view = RunView()
    for record in EventFeed(run.events).drain():
        view.add(record)
    return view


# --- curves


def test_a_long_curve_stays_bounded_and_keeps_its_spikes() -> None:
    series = Series(_limit=1000)
    source = random.Random(1)
    for place in range(100_000):
        series.add(place, 99.0 if place == 54_321 else -99.0 if place == 12_345 else source.random())
    assert len(series.x) <= 1000
    assert (max(series.y), min(series.y)) == (99.0, -99.0)
    assert list(series.x) == sorted(series.x)
    curve = series.curve(200)
    assert len(curve.x) <= 201
    assert (max(curve.y), min(curve.y)) == (99.0, -99.0)
    assert curve.x[-1] == 99_999


@pytest.mark.parametrize("points", [2, 3, 10, 99, 100, 101])
def test_thinning_gives_what_was_asked_for(points: int) -> None:
    series = Series()
    for place in range(100):
        series.add(place, math.sin(place))
    x, y = thinned(series.x, series.y, points)
    assert len(x) == len(y) <= max(3, points + 1)
    assert x[-1] == 99


def test_numbers_that_are_none_are_marked_and_counted() -> None:
    series = Series()
    for place, value in enumerate([1.0, None, math.nan, math.inf, 2.0]):
        series.add(place, value)
    curve = series.curve(10)
    assert list(curve.y) == [1.0, 2.0]
    assert list(curve.broken) == [1, 2, 3]


def test_steps_that_are_repeated_after_a_crash_take_the_new_word() -> None:
    series = Series()
    for place, value in [(1, 1.0), (2, 2.0), (3, 3.0), (2, 20.0), (3, None)]:
        series.add(place, value)
    assert list(series.x) == [1, 2]
    assert list(series.y) == [1.0, 20.0]
    assert series.broken == [3]


def test_a_close_look_begins_where_it_is_told() -> None:
    series = Series()
    for place in range(100):
        series.add(place, 1.0)
    assert series.curve(1000, start=80).x[0] == 80


# --- the view


def test_a_story_adds_up(tmp_path: Path) -> None:
    view = view_of(Story().write(tmp_path))
    assert view.step == 400
    assert len(view.curves["loss"].x) == 400
    assert [int(x) for x in view.curves["held_out"].x] == [0, 75, 150, 225, 300, 375]
    assert len(view.samples) == 5
    assert view.advice[0].step == 300
    assert view.checkpoint is not None
    assert view.checkpoint.step == 375
    assert view.memory is not None
    assert view.recent["temperature"]
    assert view.progress.phases["train"].fraction == pytest.approx(1 / 3)
    assert any("eval at step 75" in line.text for line in view.lines)


def test_an_event_that_comes_twice_counts_once(tmp_path: Path) -> None:
    run = Story(steps=10).write(tmp_path)
    view, records = RunView(), EventFeed(run.events).drain()
    for record in records * 2:
        view.add(record)
    assert view.changes == len(records)


def test_a_resume_is_marked_and_the_curve_goes_on(tmp_path: Path) -> None:
    run = Story(steps=100, alive=False).write(tmp_path)
    story = Story(steps=150, resumed_from=90)
    story._seq, story._time = 1000, NOW
    with run.events.open("a") as handle:
        handle.writelines(map(story.line, story.events()))
    view = view_of(run)
    assert view.resumes == [90]
    assert list(view.curves["loss"].x) == list(range(1, 151))


def test_the_log_forgets_its_beginning_and_numbers_its_lines() -> None:
    view = RunView()
    for number in range(1, LOG_LINES + 101):
        view.add(Record(number, NOW, evaluation("during", number, 1.0)))
    assert len(view.lines) == LOG_LINES
    assert view.lines[-1].number == LOG_LINES + 100
    assert [line.number for line in view.lines_after(LOG_LINES + 98)] == [LOG_LINES + 99, LOG_LINES + 100]
    assert len(view.lines_after(0)) == LOG_LINES
    assert view.lines_after(LOG_LINES + 100) == []


def test_a_step_is_counted_and_not_put_into_words(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nearly all of a long log are steps: no time goes into asking what a step has to say."""
    described: list[Record] = []
    monkeypatch.setattr("qlora_tui.runs.view.describe", described.append)
    story, source, view = Story(), random.Random(0), RunView()
    for number in range(1, 101):
        view.add(Record(number, NOW + number, story.step(number, source)))
    assert view.step == 100
    assert described == []


def test_foreign_text_comes_out_printable(tmp_path: Path) -> None:
    view = view_of(Story(text=HOSTILE, steps=80).write(tmp_path))
    assert not any("\x1b" in line.text or "\u202e" in line.text or "\x00" in line.text for line in view.lines)


def test_a_day_of_events_takes_no_more_memory_than_an_hour() -> None:
    """86,400 steps with their evaluations: everything that grows is bounded."""
    story, source, view = Story(total=90_000), random.Random(0), RunView()
    for number in range(1, 86_401):
        view.add(Record(number, NOW + number, story.step(number, source)))
        if number % 600 == 0:
            view.add(Record(number, NOW + number, evaluation("during", number, 1.0)))
    assert all(len(curve.x) <= 20_000 for curve in view.curves.values())
    assert len(view.lines) <= LOG_LINES
    assert all(len(values) <= 120 for values in view.recent.values())


def test_lines_are_read_as_events_whatever_stands_in_them() -> None:
    line = to_line(Record(7, 1.5, RunStarted(name="x", pid=1, phases=())))
    assert from_line(line) == from_line(line.encode())
    for bad in (
        b"",
        b"\xff\xfe",
        b"{",
        b"[]",
        b"null",
        b"[" * 100_000,
        b'{"v": 1, "event": "step"}',
        line.encode()[:-9],
    ):
        assert from_line(bad) is None


# --- following


@pytest.fixture
def follow(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[RunDirectory], Follower]]:
    """Follows runs with short waits, and ends their threads."""
    monkeypatch.setattr(module, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(module, "LOOK_SECONDS", 0.02)
    started: list[Follower] = []

    def start(run: RunDirectory) -> Follower:
        follower = Follower(run, lambda: None, lambda: NOW)
        started.append(follower)
        follower.start()
        return follower

    yield start
    for follower in started:
        follower.close()
        assert not follower._thread.is_alive()


def until(condition: Callable[[], bool], message: str, seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, message
        time.sleep(0.005)


def test_what_is_written_is_seen(tmp_path: Path, follow: Callable[[RunDirectory], Follower]) -> None:
    story = Story(steps=20)
    run = story.write(tmp_path)
    follower = follow(run)
    until(lambda: follower.view.step == 20, "it reads what is there")
    until(lambda: follower.condition.status == "running", "it sees the process")
    story.append(run, story.step(21, random.Random(0)))
    until(lambda: follower.view.step == 21, "it reads what is new")
    assert follower.condition.trouble == ""


def test_the_end_of_a_long_log_is_told_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not with the next look at the process and the disk, which may be a second away."""
    monkeypatch.setattr(module, "LOOK_SECONDS", 3600.0)
    monkeypatch.setattr("qlora_tui.runs.feed.CHUNK_BYTES", 4096)
    told: list[int] = []
    follower = Follower(Story(steps=400).write(tmp_path), lambda: told.append(follower.condition.behind), lambda: NOW)
    follower.start()
    try:
        until(lambda: len(told) > 1 and told[-1] == 0, "the end is told")
    finally:
        follower.close()
    assert max(told) > 0
    assert follower.view.step == 400


def test_a_dead_engine_is_told(tmp_path: Path, follow: Callable[[RunDirectory], Follower]) -> None:
    run = Story(steps=20).write(tmp_path)
    follower = follow(run)
    until(lambda: follower.condition.status == "running", "it lives")
    abandon(run)
    until(lambda: follower.condition.trouble == "dead", "its death is seen")
    assert follower.condition.status == "interrupted"
    assert "without a last word" in follower.condition.detail


def test_a_run_that_ended_well_is_no_trouble(tmp_path: Path, follow: Callable[[RunDirectory], Follower]) -> None:
    follower = follow(Story(steps=20, end="completed", alive=False).write(tmp_path))
    until(lambda: follower.condition.status == "completed", "its end is seen")
    assert follower.condition.trouble == ""


def test_a_directory_that_vanishes_is_told(tmp_path: Path, follow: Callable[[RunDirectory], Follower]) -> None:
    run = Story(steps=20).write(tmp_path)
    follower = follow(run)
    until(lambda: follower.view.step == 20, "it is read")
    run.path.rename(tmp_path / "elsewhere")
    until(lambda: follower.condition.trouble == "vanished", "it is missed")
    assert follower.view.step == 20, "what was seen stays on the screen"


def test_a_log_that_is_cut_is_told_and_read_anew(tmp_path: Path, follow: Callable[[RunDirectory], Follower]) -> None:
    run = Story(steps=200).write(tmp_path)
    follower = follow(run)
    until(lambda: follower.view.step == 200, "it is read")
    os.truncate(run.events, run.events.stat().st_size // 2)
    until(lambda: follower.condition.trouble == "cut", "the cut is seen")
    assert 0 < follower.view.step < 200
    assert "now ends at" in follower.condition.detail


def test_a_torn_last_line_is_no_loss(tmp_path: Path, follow: Callable[[RunDirectory], Follower]) -> None:
    run = Story(steps=20).write(tmp_path)
    size = run.events.stat().st_size
    with run.events.open("a") as handle:
        handle.write('{"v": 1, "seq": 99999, "ti')
    follower = follow(run)
    until(lambda: follower.view.step == 20 and not follower._feed.behind, "it is read")
    os.truncate(run.events, size)
    until(lambda: follower._feed.restarts == 1 and follower.view.step == 20, "it is read again")
    time.sleep(0.1)
    assert follower.condition.trouble == ""


def test_a_full_disk_is_told(
    tmp_path: Path, follow: Callable[[RunDirectory], Follower], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _path: SimpleNamespace(free=1_000_000))
    follower = follow(Story(steps=20).write(tmp_path))
    until(lambda: follower.condition.trouble == "disk", "it is seen")
    assert "1 MB" in follower.condition.detail


def test_a_silent_engine_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "POLL_SECONDS", 0.01)
    follower = Follower(Story(steps=20).write(tmp_path), lambda: None, lambda: NOW + 7200)
    follower.start()
    try:
        until(lambda: follower.condition.trouble == "silent", "the silence is heard")
    finally:
        follower.close()


def test_a_log_that_may_not_be_read_is_told(
    tmp_path: Path, follow: Callable[[RunDirectory], Follower], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Story(steps=20).write(tmp_path)
    opened = Path.open

    def refuse(path: Path, *arguments: object, **keywords: object) -> object:
        if path == run.events:
            raise PermissionError(13, "Permission denied")
        return opened(path, *arguments, **keywords)  # type: ignore[call-overload]

    monkeypatch.setattr(Path, "open", refuse)
    follower = follow(run)
    until(lambda: follower.condition.trouble == "unreadable", "it is told")
    assert "Permission denied" in follower.condition.detail


def test_a_fault_of_ours_is_told_too(
    tmp_path: Path, follow: Callable[[RunDirectory], Follower], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RunView, "add", lambda *_: 1 / 0)
    follower = follow(Story(steps=20).write(tmp_path))
    until(lambda: "ZeroDivisionError" in follower.condition.detail, "it is told")


def test_lines_of_ten_megabytes_are_passed_over(tmp_path: Path, follow: Callable[[RunDirectory], Follower]) -> None:
    story = Story(steps=20)
    run = story.write(tmp_path)
    with run.events.open("a") as handle:
        handle.write('{"v": 1, "event": "sample", "text": "' + "x" * (10 << 20) + '"}\n')
    story.append(run, story.step(21, random.Random(0)))
    follower = follow(run)
    until(lambda: follower.view.step == 21, "what follows is read")
