"""Following a run: what a pipe, a script and a terminal see of it, and what their signals do."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import select
import shutil
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from player import Player, completed, start_player

from qlora_tui.config import RunConfig
from qlora_tui.errors import ExitCode
from qlora_tui.runs.directory import RunDirectory, create_run
from qlora_tui.runs.events import Checkpoint, Phase, Progress, Record, RunStarted, Step
from qlora_tui.runs.feed import read_events
from qlora_tui.runs.launch import kill
from qlora_tui.runs.progress import RunProgress
from qlora_tui.runs.telling import describe, duration

CONSOLE = Path(sys.executable).with_name("qlora-tui")
PLAYER = Path(__file__).with_name("player.py")


@pytest.fixture
def run() -> Iterator[RunDirectory]:
    """A run that nobody trains yet; whoever does is ended after the test."""
    created = create_run(RunConfig.model_validate({"name": "spam", "data": {"source": "rows.jsonl"}}))
    yield created
    kill(created)


def followed(run: RunDirectory, scenario: str, style: str) -> subprocess.CompletedProcess[str]:
    """Follow a player from its start, as the command line follows the engine."""
    command = [sys.executable, str(PLAYER), "follow", str(run.path), scenario, style]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def attached(run: RunDirectory) -> subprocess.Popen[str]:
    """A process that watches ``run`` and has begun to tell of it."""
    command = [str(CONSOLE), "attach", run.name]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    assert process.stderr.readline().startswith("train: ")
    return process


def wait_for_steps(run: RunDirectory, count: int = 3) -> None:
    end = time.monotonic() + 30
    while sum(isinstance(record.event, Step) for record in read_events(run.events)) < count:
        assert time.monotonic() < end
        time.sleep(0.05)


def test_plain_lines(run: RunDirectory) -> None:
    result = followed(run, "completed", "plain")
    assert result.returncode == 0
    assert result.stdout == f"{run.path}\n"
    assert not set(result.stderr) & set(map(chr, [*range(10), *range(11, 32), 127]))
    lines = result.stderr.splitlines()
    for name in ("prepare", "load", "encode", "baseline", "train", "evaluate", "save"):
        assert lines.count(f"{name}: started") == 1
        assert sum(line.startswith(f"{name}: done") for line in lines) == 1
        assert sum(line.startswith(f"{name}: ") for line in lines) <= 12
    assert any(line.startswith("eval before training: loss 2.5000") for line in lines)
    assert any(line.startswith("sample at step 20: Win a prize now! → spam") for line in lines)
    assert any(line.startswith("warning (drift): torch was") for line in lines)
    assert any("loss 0.3162 (smoothed 0.3756), lr 2.00e-04, 512 tokens/s" in line for line in lines)
    assert "loss: 2.5000 before, 0.7500 after, difference -1.7500 (-1.9000 to -1.6000, 95%), 200 rows" in lines
    assert lines[-2:] == [
        f"adapter: {run.adapter}",
        'try it with: qlora-tui chat spam --prompt "…" --compare',
    ]


def test_json_is_one_object_and_nothing_else(run: RunDirectory) -> None:
    result = followed(run, "completed", "json")
    assert (result.returncode, result.stderr) == (0, "")
    summary = json.loads(result.stdout)
    assert result.stdout.count("\n") == 1
    loss = summary["comparison"].pop("loss")
    assert loss == {
        "before": 2.5, "after": 0.75, "difference": -1.75, "low": -1.9, "high": -1.6, "confidence": 0.95, "rows": 200,
    }  # fmt: skip
    assert summary.pop("comparison").keys() == {"accuracy"}
    assert summary == {
        "run": str(run.path),
        "status": "completed",
        "exit_code": 0,
        "steps": 40,
        "seconds": 80.5,
        "best_step": 20,
        "best_loss": 0.75,
        "adapter": str(run.adapter),
        "error": None,
        "drift": ["torch was 2.13.0 and is now 2.14.0."],
    }


def test_quiet_is_quiet(run: RunDirectory) -> None:
    result = followed(run, "completed", "quiet")
    assert (result.returncode, result.stderr, result.stdout) == (0, "", f"{run.path}\n")


@pytest.mark.parametrize(
    ("scenario", "code", "status", "kind"),
    [
        ("killed", 1, "interrupted", "training"),
        ("out_of_memory", 4, "failed", "out_of_memory"),
        ("out_of_memory_abruptly", 4, "failed", "out_of_memory"),
    ],
)
def test_failures(run: RunDirectory, scenario: str, code: int, status: str, kind: str) -> None:
    start = time.monotonic()
    result = followed(run, scenario, "json")
    assert time.monotonic() - start < 10
    assert result.returncode == code
    summary = json.loads(result.stdout)
    assert (summary["exit_code"], summary["status"], summary["error"]["kind"]) == (code, status, kind)
    assert summary["error"]["log"] == str(run.log)
    assert result.stderr.startswith("error: ")
    assert str(run.log) in result.stderr


def test_a_death_is_seen_soon_and_told_with_its_log(run: RunDirectory) -> None:
    process = start_player(run, "stubborn")
    watcher = attached(run)
    process.kill()
    start = time.monotonic()
    _, errors = watcher.communicate(timeout=20)
    assert time.monotonic() - start < 3
    assert watcher.returncode == ExitCode.RUN_FAILED
    assert "ended without finishing" in errors
    assert str(run.log) in errors
    assert "qlora-tui resume spam" in errors


def test_a_run_directory_that_vanishes(run: RunDirectory) -> None:
    process = start_player(run, "stubborn")
    watcher = attached(run)
    run.path.rename(run.path.with_name("moved"))
    out, errors = watcher.communicate(timeout=20)
    process.kill()
    assert watcher.returncode == ExitCode.RUN_FAILED
    assert "is gone" in errors
    assert "Traceback" not in out + errors
    process.wait()


def test_lines_that_are_no_events_are_passed_over(run: RunDirectory) -> None:
    result = followed(run, "torn", "json")
    assert (result.returncode, result.stderr) == (0, "")
    assert json.loads(result.stdout)["steps"] == 1


def test_the_first_ctrl_c_saves(run: RunDirectory) -> None:
    process = start_player(run, "until_stopped")
    watcher = attached(run)
    watcher.send_signal(signal.SIGINT)
    out, errors = watcher.communicate(timeout=20)
    assert watcher.returncode == ExitCode.INTERRUPTED
    assert "Finishing the step and saving; Ctrl-C once more ends it now." in errors
    assert f"adapter: {run.adapter}" in errors
    assert "qlora-tui resume spam" in errors
    assert out == f"{run.path}\n"
    assert process.wait(20) == 0
    assert run.status() == "stopped"


def test_a_termination_is_a_first_ctrl_c(run: RunDirectory) -> None:
    start_player(run, "until_stopped")
    watcher = attached(run)
    watcher.terminate()
    watcher.communicate(timeout=20)
    assert watcher.returncode == ExitCode.INTERRUPTED
    assert run.status() == "stopped"


def test_the_second_ctrl_c_ends_the_run(run: RunDirectory) -> None:
    process = start_player(run, "stubborn")
    watcher = attached(run)
    watcher.send_signal(signal.SIGINT)
    time.sleep(0.6)
    assert process.poll() is None
    watcher.send_signal(signal.SIGINT)
    _, errors = watcher.communicate(timeout=20)
    assert watcher.returncode == ExitCode.INTERRUPTED
    assert "Ending the run now." in errors
    assert process.wait(20) == -signal.SIGKILL
    assert run.status() == "interrupted"


def test_one_key_press_that_comes_twice_does_not_end_the_run(run: RunDirectory) -> None:
    process = start_player(run, "until_stopped")
    watcher = attached(run)
    watcher.send_signal(signal.SIGINT)
    time.sleep(0.05)
    watcher.send_signal(signal.SIGINT)
    watcher.communicate(timeout=20)
    assert process.wait(20) == 0


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGQUIT])
def test_leaving_lets_the_run_go_on(run: RunDirectory, number: signal.Signals) -> None:
    process = start_player(run, "stubborn")
    watcher = attached(run)
    watcher.send_signal(number)
    out, errors = watcher.communicate(timeout=20)
    assert watcher.returncode == 0
    assert ("goes on" in errors) == (number == signal.SIGQUIT)
    assert (out == "") == (number == signal.SIGHUP)
    time.sleep(0.3)
    assert process.poll() is None
    assert not any(run.control.iterdir())


def test_a_reader_that_leaves_does_not_take_the_run_along(run: RunDirectory) -> None:
    process = start_player(run, "stubborn")
    command = f"{CONSOLE} attach spam 2>&1 >/dev/null | head -n 1"
    result = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=40)
    assert result.stdout.startswith("train: ")
    assert result.stderr == ""
    assert process.poll() is None


def test_attaching_to_a_run_that_has_ended_tells_its_end(run: RunDirectory) -> None:
    start_player(run, "completed").wait(20)
    result = subprocess.run([str(CONSOLE), "attach", "spam"], capture_output=True, text=True, timeout=30)
    assert (result.returncode, result.stdout) == (0, f"{run.path}\n")
    assert "completed: 40 steps" in result.stderr
    assert "encode: started" not in result.stderr


def test_another_life_is_told_alone(run: RunDirectory) -> None:
    """The end of the life before is history, and its events are not told again."""
    start_player(run, "completed").wait(20)
    result = followed(run, "killed", "plain")
    assert result.returncode == ExitCode.RUN_FAILED
    assert "ended without finishing" in result.stderr
    assert "encode" not in result.stderr
    assert f"process {read_pid(run)}" in result.stderr


def read_pid(run: RunDirectory) -> int:
    return int(json.loads(run.process.read_text())["pid"])


# A terminal ------------------------------------------------------------------------------------------------------


class Terminal:
    """A command on a pseudo-terminal that it controls, so that keys become signals as on a real one."""

    def __init__(self, *command: str, rows: int = 30, columns: int = 80, **environment: str) -> None:
        self.pid, self._descriptor = pty.fork()
        if self.pid == 0:
            os.environ.update({"TERM": "xterm-256color", **environment})
            os.execv(command[0], list(command))
        fcntl.ioctl(self._descriptor, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self.output = ""

    def read(self, seconds: float = 0.1) -> bool:
        """Take in what was written; False once the other side is closed."""
        if select.select([self._descriptor], [], [], seconds)[0]:
            try:
                self.output += os.read(self._descriptor, 65536).decode("utf-8", "replace")
            except OSError:
                return False
        return True

    def until(self, text: str) -> None:
        """Read until ``text`` was shown."""
        end = time.monotonic() + 30
        while text not in self.output:
            assert self.read(), self.output
            assert time.monotonic() < end, self.output

    def press(self, key: bytes) -> None:
        os.write(self._descriptor, key)

    def close(self) -> None:
        os.close(self._descriptor)

    def end(self) -> int:
        """Read to the end; the exit code."""
        end = time.monotonic() + 30
        while self.read():
            assert time.monotonic() < end, self.output
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def follow_on_terminal(run: RunDirectory, scenario: str, **options: object) -> Terminal:
    command = (sys.executable, str(PLAYER), "follow", str(run.path), scenario, "rich")
    return Terminal(*command, **options)  # type: ignore[arg-type]


def test_a_terminal_shows_bars_news_and_the_comparison(run: RunDirectory) -> None:
    terminal = follow_on_terminal(run, "completed")
    assert terminal.end() == 0
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", terminal.output)
    for text in ("━━━", "40/40 steps", "900/900 rows", "loss 0.3162 (smoothed 0.3756)", "512 tokens/s"):
        assert text in shown
    for text in ("eval at step 20: loss 0.7500", "before and after", "│ accuracy │ 0.5000 │ 0.9700 │", "all phases"):
        assert text in shown
    assert shown.rstrip().endswith(str(run.path))
    assert terminal.output.rstrip().count("\x1b[?25l") == terminal.output.count("\x1b[?25h")
    assert terminal.output.rfind("\x1b[?25h") > terminal.output.rfind("\x1b[?25l")


@pytest.mark.parametrize(("rows", "columns"), [(10, 40), (50, 200)])
def test_terminals_of_other_sizes(run: RunDirectory, rows: int, columns: int) -> None:
    terminal = follow_on_terminal(run, "completed", rows=rows, columns=columns)
    assert terminal.end() == 0
    assert "Traceback" not in terminal.output


def test_no_colour_if_not_wanted(run: RunDirectory) -> None:
    terminal = follow_on_terminal(run, "out_of_memory", NO_COLOR="1")
    assert terminal.end() == ExitCode.OUT_OF_MEMORY
    assert "error: The run stopped because memory ran out." in terminal.output
    assert not re.search(r"\x1b\[[0-9;]*3[0-9]", terminal.output)


def test_an_error_is_red_on_a_terminal(run: RunDirectory) -> None:
    terminal = follow_on_terminal(run, "out_of_memory", NO_COLOR="")
    assert terminal.end() == ExitCode.OUT_OF_MEMORY
    assert "\x1b[1;31merror\x1b[0m: The run stopped" in terminal.output


def test_first_ctrl_c_on_a_terminal(run: RunDirectory) -> None:
    process = start_player(run, "until_stopped")
    terminal = Terminal(str(CONSOLE), "attach", "spam", "--plain")
    terminal.until("steps")
    terminal.press(b"\x03")
    terminal.until("Finishing the step and saving")
    assert terminal.end() == ExitCode.INTERRUPTED
    assert f"adapter: {run.adapter}" in terminal.output
    assert "Traceback" not in terminal.output
    assert process.wait(20) == 0


def test_second_ctrl_c_on_a_terminal(run: RunDirectory) -> None:
    process = start_player(run, "stubborn")
    terminal = Terminal(str(CONSOLE), "attach", "spam", "--plain")
    terminal.until("steps")
    terminal.press(b"\x03")
    terminal.until("Finishing the step and saving")
    time.sleep(0.5)
    terminal.press(b"\x03")
    terminal.until("Ending the run now.")
    assert terminal.end() == ExitCode.INTERRUPTED
    assert process.wait(20) == -signal.SIGKILL


def test_detaching_says_how_to_come_back(run: RunDirectory) -> None:
    process = start_player(run, "stubborn")
    terminal = Terminal(str(CONSOLE), "attach", "spam")
    terminal.until("step ")
    terminal.press(b"q")
    terminal.until("Detach")
    terminal.press(b"\r")
    assert terminal.end() == 0
    assert terminal.output.rstrip().endswith("spam goes on training. Come back with `qlora-tui attach spam`.")
    assert process.poll() is None


@pytest.mark.parametrize("before", ["", "trap '' HUP; "], ids=["usual", "hang-ups ignored"])
def test_a_closed_terminal_leaves_the_run_alone(run: RunDirectory, before: str) -> None:
    process = start_player(run, "stubborn")
    terminal = Terminal("/bin/sh", "-c", f'{before}exec "$0" attach spam', str(CONSOLE))
    terminal.until("step ")
    terminal.close()
    end = time.monotonic() + 20
    while os.waitpid(terminal.pid, os.WNOHANG) == (0, 0):
        assert time.monotonic() < end
        time.sleep(0.05)
    assert process.poll() is None
    assert not any(run.control.iterdir())


@pytest.mark.parametrize("style", ["plain", "rich", "json", "quiet"])
def test_hostile_text_does_not_act_on_the_terminal(run: RunDirectory, style: str) -> None:
    if style == "rich":
        terminal = follow_on_terminal(run, "hostile", columns=200)
        assert terminal.end() == ExitCode.RUN_FAILED
        shown = terminal.output
        # What is left are the sequences of the display itself: colours, cursor, line erasure.
        assert not re.sub(r"\x1b\[(\?25[lh]|[0-9;]*[mAK])", "", shown).count("\x1b")
        assert "[bold red]not markup[/bold red] :smile:" in shown
    else:
        result = followed(run, "hostile", style)
        assert result.returncode == ExitCode.RUN_FAILED
        shown = result.stdout + result.stderr
        assert "\x1b" not in shown
        assert "\r" not in shown
    for text in ("\x1b]", "\x1b[2J", "\x1b[31m", "\x07", "\x08", "\x9b", "\u202e"):
        assert text not in shown


# What the events add up to ---------------------------------------------------------------------------------------


def progress_of(*events: tuple[float, object]) -> RunProgress:
    progress = RunProgress()
    for sequence, (at, event) in enumerate(events, 1):
        progress.add(Record(sequence, at, event))  # type: ignore[arg-type]
    return progress


def started(**fields: object) -> RunStarted:
    phases = ("prepare", "encode", "load", "baseline", "train", "evaluate", "save")
    return RunStarted.model_validate({"name": "spam", "pid": 1, "phases": phases, **fields})


def step(number: int, total: int = 1000, loss: float | None = 1.0) -> Step:
    return Step(
        step=number, total_steps=total, epoch=0.0, loss=loss, learning_rate=1e-4, grad_norm=1.0, tokens=1,
        tokens_per_second=1.0, step_seconds=1.0,
    )  # fmt: skip


def phase(name: str, state: str) -> Phase:
    return Phase.model_validate({"phase": name, "state": state})


def test_the_time_left_after_a_resume_counts_this_life_only() -> None:
    first = [(0.0, started()), (0.0, phase("train", "started")), *((float(n), step(n)) for n in range(1, 500))]
    gap = 100_000.0
    second = [
        (gap, started(resumed_from_step=490)),
        (gap + 50, phase("train", "started")),
        *((gap + 60 + 2 * n, step(490 + n)) for n in range(1, 11)),
    ]
    progress = progress_of(*first, *second)
    train = progress.phase("train")
    assert train.remaining(train.latest_time) == pytest.approx(2 * 500)
    assert train.remaining(train.latest_time + 30) == pytest.approx(2 * 500 - 30)
    assert train.elapsed(train.latest_time) == pytest.approx(30)


def test_one_measurement_is_no_speed() -> None:
    progress = progress_of((0.0, started()), (0.0, phase("train", "started")), (1.0, step(1)))
    assert progress.phase("train").remaining(1.0) is None
    assert progress.remaining(1.0).unknown == ("prepare", "encode", "load", "baseline", "train", "save")[4:]


def test_the_whole_names_what_is_not_known() -> None:
    progress = progress_of(
        (0.0, started()),
        (0.0, phase("prepare", "started")),
        (5.0, phase("prepare", "finished")),
        (5.0, phase("encode", "started")),
        (5.0, Progress(phase="encode", done=0, total=100, unit="rows")),
        (6.0, Progress(phase="encode", done=10, total=100, unit="rows")),
    )
    left = progress.remaining(6.0)
    assert left.seconds == pytest.approx(9.0)
    assert left.unknown == ("load", "baseline", "train", "evaluate", "save")


def test_the_last_evaluation_is_expected_to_take_as_long_as_the_first() -> None:
    events: list[tuple[float, object]] = [(0.0, started())]
    for name in ("prepare", "encode", "load"):
        events += [(0.0, phase(name, "started")), (1.0, phase(name, "finished"))]
    events += [(1.0, phase("baseline", "started")), (31.0, phase("baseline", "finished"))]
    events += [(31.0, phase("train", "started")), (32.0, step(1, 11)), (33.0, step(2, 11))]
    events += [(33.0, Checkpoint(step=2, path="adapter", what="adapter", seconds=2.0))]
    left = progress_of(*events).remaining(33.0)
    assert left.seconds == pytest.approx(9 + 30 + 2)
    assert left.unknown == ()


def test_a_loss_that_is_no_number_does_not_spoil_the_smoothed_one() -> None:
    progress = progress_of((0.0, started()), (1.0, step(1, loss=2.0)), (2.0, step(2, loss=None)))
    assert progress.smoothed_loss == pytest.approx(2.0)
    assert progress.step is not None
    assert progress.step.loss is None


def test_evaluation_rows_do_not_move_the_bar_of_training() -> None:
    events = [(0.0, started()), (1.0, step(7)), (2.0, Progress(phase="train", done=3, total=9, unit="rows"))]
    train = progress_of(*events).phase("train")
    assert (train.done, train.total, train.unit) == (7, 1000, "steps")


def test_a_long_run_leaves_a_short_log(run: RunDirectory) -> None:
    """Ten hours of a step a second: a line a minute, and more only in the first minutes."""
    player = Player(run)
    run.claim()
    player.begin()
    player.write(Phase(phase="train", state="started"))
    lines = [json.loads(line) for line in run.events.read_text().splitlines()]
    sequence, now = len(lines), lines[-1]["time"]
    with run.events.open("a") as log:
        for number in range(1, 36_001, 4):
            sequence += 1
            values = {"v": 1, "seq": sequence, "time": now + number, "event": "step"}
            log.write(json.dumps(values | step(number, 36_000).model_dump()) + "\n")
    player._sequence = sequence
    player.finish("completed", 36_000)
    run.process.unlink()
    code = (
        "import sys; from pathlib import Path; from qlora_tui.headless import follow;"
        "from qlora_tui.runs.directory import RunDirectory;"
        "follow(RunDirectory(Path(sys.argv[1])), style='plain', process=None, from_start=True)"
    )
    command = [sys.executable, "-c", code, str(run.path)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert 500 < sum(line.startswith("train: ") for line in result.stderr.splitlines()) < 700


def test_durations() -> None:
    assert [duration(seconds) for seconds in (0, 9.94, 59.6, 125, 3723)] == [
        "0.0 s",
        "9.9 s",
        "1:00",
        "2:05",
        "1:02:03",
    ]


def test_every_told_event_is_one_line(run: RunDirectory) -> None:
    completed(Player(run))
    told = [describe(record) for record in read_events(run.events)]
    assert not any("\n" in line for line in told if line)


def test_no_process_is_left_behind(run: RunDirectory) -> None:
    followed(run, "completed", "json")
    with suppress(psutil.NoSuchProcess):
        assert psutil.Process(read_pid(run)).status() == psutil.STATUS_ZOMBIE
    shutil.rmtree(run.path)
    assert not run.path.exists()
