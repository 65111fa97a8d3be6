"""The command line as a user meets it: the console entry in a process of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from player import start_player

from qlora_tui.config import RunConfig
from qlora_tui.config_file import config_schema, load_config
from qlora_tui.errors import ConfigError, DataError, ExitCode, RunError, UsageError
from qlora_tui.paths import runs_directory
from qlora_tui.runs.directory import RunDirectory, create_run
from qlora_tui.runs.launch import kill
from qlora_tui.terminal.chatting import ChatFailed, Replies
from qlora_tui.terminal.replay import run_from_config

CONSOLE = Path(sys.executable).with_name("qlora-tui")


def console(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run the console entry without a terminal; a traceback or a control code fails the test at once."""
    result = subprocess.run([str(CONSOLE), *arguments], capture_output=True, text=True, timeout=60, cwd=cwd)
    assert "Traceback" not in result.stdout + result.stderr
    assert "\x1b" not in result.stdout + result.stderr
    assert "\r" not in result.stdout + result.stderr
    return result


def a_run(name: str = "spam", **sections: object) -> RunDirectory:
    return create_run(RunConfig.model_validate({"name": name, "data": {"source": "rows.jsonl"}, **sections}))


def played(run: RunDirectory, scenario: str) -> RunDirectory:
    """``run`` after a player has played ``scenario`` to its end in it."""
    start_player(run, scenario).wait(30)
    return run


def write_config(folder: Path, text: str = "name: spam\ndata: {source: rows.jsonl}\n") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "rows.jsonl").write_text('{"prompt": "a", "completion": "b"}\n')
    path = folder / "run.yaml"
    path.write_text(text)
    return path


def assert_error(result: subprocess.CompletedProcess[str], code: int, *parts: str) -> None:
    """An error is its exit code, nothing on stdout, and what, why and what to do on stderr."""
    assert result.returncode == code, result.stderr
    assert result.stdout == ""
    assert result.stderr.startswith("error: ")
    assert len(result.stderr.strip().splitlines()) >= 3
    for part in parts:
        assert part in result.stderr


def test_version_and_help() -> None:
    assert console("--version").stdout.startswith("qlora-tui 0.")
    shown = console("--help")
    assert shown.returncode == 0
    assert "qlora-tui --config run.yaml" in shown.stdout
    for command in ("runs", "attach", "stop", "resume", "chat", "merge", "export", "inspect", "schema", "paths"):
        assert f"\n  {command} " in shown.stdout
        assert console(command, "--help").returncode == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ["--nonsense"],
        ["nonsense"],
        ["attach", "a", "b"],
        ["chat", "spam"],
        ["chat", "spam", "--prompt", "x", "--temperature", "hot"],
        ["chat", "spam", "--prompt", "x", "--max-tokens", "0"],
        ["chat", "spam", "--prompt", " "],
        ["--config"],
        ["--detach"],
        ["--config", "run.yaml", "runs"],
    ],
)
def test_bad_usage_is_refused_in_plain_sentences(arguments: list[str]) -> None:
    assert_error(console(*arguments), ExitCode.USAGE)


def test_control_characters_of_the_command_line_do_not_come_back() -> None:
    assert_error(console("attach", "\x1b[31mred\x07"), ExitCode.USAGE, "There is no run")
    assert_error(console("\x1b[31mred"), ExitCode.USAGE)


def test_without_arguments_it_says_what_there_is() -> None:
    assert "--config run.yaml" in console().stdout
    played(a_run("first"), "completed")
    result = console()
    assert result.returncode == 0
    assert "first" in result.stdout


def test_missing_config(tmp_path: Path) -> None:
    assert_error(console("--config", str(tmp_path / "none.yaml")), ExitCode.USAGE, "none.yaml", "no such file")


def test_unknown_key_is_shown_with_its_line(tmp_path: Path) -> None:
    path = write_config(tmp_path, "name: spam\ndata: {source: rows.jsonl}\ntraining:\n  learning_rat: 1e-4\n")
    assert_error(console("--config", str(path)), ExitCode.USAGE, "run.yaml:4", "training.learning_rate")


def test_json_errors_are_one_object_on_stdout(tmp_path: Path) -> None:
    result = console("--config", str(tmp_path / "none.yaml"), "--json")
    assert result.returncode == ExitCode.USAGE
    summary = json.loads(result.stdout)
    assert summary["exit_code"] == ExitCode.USAGE
    assert summary["status"] == "failed"
    assert summary["error"]["kind"] == "config"
    assert "no such file" in summary["error"]["message"]
    assert result.stderr.startswith("error: ")


def test_missing_data_file_leaves_no_run_behind(tmp_path: Path) -> None:
    path = write_config(tmp_path, "name: spam\ndata: {source: elsewhere.jsonl}\n")
    assert_error(console("--config", str(path)), ExitCode.USAGE, "elsewhere.jsonl", str(tmp_path))
    assert not (runs_directory() / "spam").exists()


def test_a_run_of_that_name_is_not_replaced(tmp_path: Path) -> None:
    path = write_config(tmp_path)
    run = played(a_run(), "completed")
    before = run.events.read_bytes()
    assert_error(console("--config", str(path)), ExitCode.USAGE, "spam", "completed", "output.overwrite")
    assert run.events.read_bytes() == before


def test_a_live_run_is_neither_replaced_nor_resumed(tmp_path: Path) -> None:
    path = write_config(tmp_path)
    run = a_run()
    process = start_player(run, "stubborn")
    try:
        for arguments in (["--config", str(path)], ["--config", str(path), "--overwrite"], ["resume", "spam"]):
            assert_error(console(*arguments), ExitCode.USAGE, "training right now", str(process.pid), "attach spam")
        assert process.poll() is None
    finally:
        kill(run)
        process.wait()


def test_a_folder_that_is_no_run_is_left_alone(tmp_path: Path) -> None:
    path = write_config(tmp_path)
    keep = runs_directory() / "spam" / "keep.txt"
    keep.parent.mkdir(parents=True)
    keep.write_text("mine")
    assert_error(console("--config", str(path), "--overwrite"), ExitCode.USAGE, "not a run")
    assert keep.read_text() == "mine"


def test_output_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "in-the-way").write_text("a file")
    path = write_config(tmp_path, "name: spam\ndata: {source: rows.jsonl}\noutput: {directory: in-the-way/runs}\n")
    assert_error(console("--config", str(path), cwd=tmp_path), ExitCode.ENVIRONMENT, "output.directory")


def test_a_name_that_is_no_folder_name(tmp_path: Path) -> None:
    assert_error(console("--config", str(write_config(tmp_path)), "--name", "../up"), ExitCode.USAGE, "--name")


@pytest.mark.parametrize("command", ["attach", "stop", "resume"])
def test_unknown_run(command: str) -> None:
    a_run("known")
    assert_error(console(command, "unknown"), ExitCode.USAGE, "no run unknown", "known")


def test_a_completed_run_is_not_resumed() -> None:
    run = played(a_run(), "completed")
    assert_error(console("resume", "spam"), ExitCode.USAGE, "completed", str(run.config))
    result = console("resume", "spam", "--json")
    assert result.returncode == ExitCode.USAGE
    assert json.loads(result.stdout)["run"] == str(run.path)


def test_stop_needs_a_live_run() -> None:
    played(a_run(), "killed")
    assert_error(console("stop", "spam"), ExitCode.USAGE, "not running", "interrupted")


def test_stop_lets_the_run_save() -> None:
    run = a_run()
    process = start_player(run, "until_stopped")
    result = console("stop", "spam")
    assert (result.returncode, result.stdout) == (0, "")
    assert "saves and stops" in result.stderr
    process.wait(30)
    assert run.status() == "stopped"


def test_stop_now_ends_the_run() -> None:
    run = a_run()
    process = start_player(run, "stubborn")
    assert console("stop", "spam", "--now").returncode == 0
    assert process.wait(30) < 0
    assert run.status() == "interrupted"


def test_runs_are_listed() -> None:
    assert "no runs" in console("runs").stderr
    assert json.loads(console("runs", "--json").stdout) == []
    played(a_run("done"), "completed")
    played(a_run("dead"), "killed")
    a_run("new")
    result = console("runs")
    assert result.stdout.splitlines()[0].split() == ["name", "status", "step", "best", "loss", "age"]
    lines = {line.split()[0]: line for line in result.stdout.splitlines()[1:]}
    assert "completed" in lines["done"]
    assert "40/40" in lines["done"]
    assert "0.7500" in lines["done"]
    assert "interrupted" in lines["dead"]
    assert "created" in lines["new"]
    listed = {each["name"]: each for each in json.loads(console("runs", "--json").stdout)}
    assert listed["done"]["best_step"] == 20
    assert listed["new"]["step"] is None


def test_attach_needs_a_run_that_was_started() -> None:
    a_run()
    assert_error(console("attach", "spam"), ExitCode.USAGE, "never started")


def test_attach_without_a_name_takes_the_run_that_trains() -> None:
    assert_error(console("attach"), ExitCode.USAGE, "No run trains now")
    played(a_run("over"), "completed")
    first, second = a_run("first"), a_run("second")
    processes = [start_player(first, "until_stopped"), start_player(second, "until_stopped")]
    try:
        assert_error(console("attach"), ExitCode.USAGE, "More than one", "first", "second")
        assert console("stop", "second").returncode == 0
        processes[1].wait(30)
        pipe = subprocess.PIPE
        with subprocess.Popen([str(CONSOLE), "attach"], stdout=pipe, stderr=pipe, text=True) as watcher:
            assert watcher.stderr is not None
            assert "train:" in watcher.stderr.readline()
            assert console("stop", "first").returncode == 0
            watcher.communicate(timeout=30)
    finally:
        for process in processes:
            process.kill()
            process.wait()


def test_chat_needs_an_adapter() -> None:
    played(a_run(), "killed")
    assert_error(console("chat", "spam", "--prompt", "Hello"), ExitCode.USAGE, "no adapter and no checkpoint yet")
    assert_error(console("chat", "nobody", "--prompt", "Hello"), ExitCode.USAGE, "no run nobody")


def test_replies_are_shown_one_side_after_the_other(capsys: pytest.CaptureFixture[str]) -> None:
    replies = Replies(show=True, compare=True)
    for side, text in (("adapter", "sp"), ("base", "I am"), ("adapter", "am\x1b"), ("base", " sorry\x1b[31m")):
        replies.take({"event": "token", "side": side, "text": text})
    assert capsys.readouterr().out == "--- adapter ---\nspam�"
    assert not replies.finished
    replies.take({"event": "done", "side": "adapter", "tokens": 2, "seconds": 0.5})
    replies.take({"event": "done", "side": "base", "tokens": 4, "seconds": 0.5})
    shown = capsys.readouterr()
    assert shown.out == "\n--- base ---\nI am sorry\n"
    assert shown.err == "adapter: 2 tokens in 0.5 s\nbase: 4 tokens in 0.5 s\n"
    assert replies.finished
    assert replies.as_values()["replies"]["base"] == "I am sorry\x1b[31m"


def test_an_error_of_the_chat_process_keeps_its_exit_code() -> None:
    with pytest.raises(ChatFailed) as caught:
        Replies(show=True, compare=False).take({"event": "error", "message": "m", "hint": "h", "exit_code": 4})
    assert caught.value.exit_code is ExitCode.OUT_OF_MEMORY


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Makes the engine's child process run ``code`` at the moment it would load torch."""

    def install(code: str) -> None:
        (tmp_path / "torch").mkdir()
        (tmp_path / "torch" / "__init__.py").write_text("import json, os, sys, time\n" + code)
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    return install


TOKEN = """print(json.dumps({"event": "token", "side": "adapter", "text": "Hello\\x1b[2J"}), flush=True)\n"""
DONE = """print(json.dumps({"event": "done", "side": "adapter", "tokens": 1, "seconds": 0.1}), flush=True)\n"""
CHAT = ("chat", "spam", "--prompt", "Hi")


def test_a_reply_goes_to_stdout_and_the_talk_to_stderr(stand_in: Callable[[str], None]) -> None:
    run = played(a_run(), "completed")
    stand_in("print('noise'); json.dumps(sys.stdin.readline())\n" + TOKEN + DONE + "os._exit(0)")
    result = console(*CHAT)
    assert (result.returncode, result.stdout) == (0, "Hello\n")
    assert result.stderr == "adapter: 1 tokens in 0.1 s\n"
    answer = json.loads(console(*CHAT, "--json").stdout)
    assert answer["replies"] == {"adapter": "Hello\x1b[2J"}
    assert answer["target"] == str(run.path)


def test_a_chat_process_that_dies_is_told(stand_in: Callable[[str], None], isolated_home: Path) -> None:
    played(a_run(), "completed")
    stand_in("sys.exit(7)")
    result = console(*CHAT)
    assert result.returncode == ExitCode.RUN_FAILED
    assert "status 7" in result.stderr
    assert str(isolated_home / "state" / "chat.log") in result.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_ends_the_answer_and_its_process(stand_in: Callable[[str], None], tmp_path: Path, number: int) -> None:
    played(a_run(), "completed")
    stand_in(f"open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid()))\n" + TOKEN + "time.sleep(60)")
    command = [str(CONSOLE), *CHAT]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.read(5) == "Hello"
    process.send_signal(number)
    rest, errors = process.communicate(timeout=20)
    assert (process.returncode, rest) == (ExitCode.INTERRUPTED, "\n")
    assert errors == ""
    assert not psutil.pid_exists(int((tmp_path / "pid").read_text()))


def test_schema_and_paths() -> None:
    assert json.loads(console("schema").stdout) == config_schema()
    folders = json.loads(console("paths", "--json").stdout)
    assert folders["runs"] == str(runs_directory())
    assert str(runs_directory()) in console("paths").stdout


def test_an_unexpected_fault_becomes_one_sentence_and_a_log(isolated_home: Path) -> None:
    (runs_directory() / "odd").mkdir(parents=True)
    (runs_directory() / "odd" / "config.yaml").mkdir()
    code = (
        "import sys; from qlora_tui import cli, commands; "
        "commands.app.command('fault')(lambda: 1 / 0); sys.exit(cli.main())"
    )
    result = subprocess.run([sys.executable, "-c", code, "fault"], capture_output=True, text=True, timeout=60)
    log = isolated_home / "state" / "crash.log"
    assert_error(result, ExitCode.RUN_FAILED, "ZeroDivisionError", str(log))
    assert "Traceback" not in result.stderr
    assert "Traceback" in log.read_text()


def test_a_closed_pipe_is_no_fault() -> None:
    command = f"{CONSOLE} schema | head -n 1"
    result = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60)
    assert (result.stdout, result.stderr) == ("{\n", "")


def test_nothing_heavy_is_loaded() -> None:
    played(a_run(), "completed")
    code = """
import sys
import qlora_tui.commands, qlora_tui.cli, qlora_tui.headless, qlora_tui.terminal.live_display, qlora_tui.train_command
import qlora_tui.terminal.chatting
import qlora_tui.runs.overview, qlora_tui.terminal.replay, qlora_tui.terminal.faults
from qlora_tui.runs import directory, events, feed, files, launch
sys.argv = ["qlora-tui", "runs"]
assert qlora_tui.cli.main() == 0
heavy = {"torch", "transformers", "datasets", "peft", "trl", "numpy", "qlora_tui.engine", "huggingface_hub"}
print(sorted(heavy & set(sys.modules)))
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert result.stdout.splitlines()[-1] == "[]"


def test_help_loads_only_what_it_needs() -> None:
    code = """
import sys
import qlora_tui.cli
sys.argv = ["qlora-tui", "--help"]
assert qlora_tui.cli.main() == 0
print(sorted({"pydantic", "yaml", "rich", "psutil", "tokenizers", "jinja2"} & set(sys.modules)))
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert result.stdout.splitlines()[-1] == "[]"


def test_paths_of_a_config_become_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (
        "name: spam\nmodel: {source: models/tiny}\ndata: {source: rows.jsonl, evaluation: {source: held/out.jsonl}}\n"
    )
    path = write_config(tmp_path / "project", text)
    (tmp_path / "here" / "held").mkdir(parents=True)
    (tmp_path / "here" / "held" / "out.jsonl").write_text("{}\n")
    (tmp_path / "project" / "models" / "tiny").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here")
    config = run_from_config(path, name=None, overwrite=False).read_config()
    assert config.data.source == str(tmp_path / "project" / "rows.jsonl")
    assert config.data.evaluation.source == str(tmp_path / "here" / "held" / "out.jsonl")
    assert config.model.source == str(tmp_path / "project" / "models" / "tiny")


def test_the_working_directory_comes_before_the_folder_of_the_config(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_config(tmp_path / "project")
    write_config(tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    assert run_from_config(path, name=None, overwrite=False).read_config().data.source == str(
        tmp_path / "here" / "rows.jsonl"
    )


def test_what_is_no_path_stays_as_it_is(tmp_path: Path) -> None:
    path = write_config(tmp_path, "name: spam\nmodel: {source: org/model}\ndata: {source: org/rows}\n")
    config = run_from_config(path, name=None, overwrite=False).read_config()
    assert (config.model.source, config.data.source) == ("org/model", "org/rows")


def test_output_directory_is_kept_for_a_replay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_config(tmp_path, "name: spam\ndata: {source: rows.jsonl}\noutput: {directory: out}\n")
    monkeypatch.chdir(tmp_path)
    run = run_from_config(path, name="other", overwrite=False)
    assert run.path == tmp_path / "out" / "other"
    assert run.read_config().output.directory == str(tmp_path / "out")


def test_a_replay_gets_a_free_name_and_the_lock_of_the_original(tmp_path: Path) -> None:
    original = run_from_config(write_config(tmp_path), name=None, overwrite=True)
    original.lock.write_text('{"seed": 42}')
    names = [run_from_config(original.config, name=None, overwrite=False) for _ in range(2)]
    assert [run.name for run in names] == ["spam-2", "spam-3"]
    for run in names:
        assert (run.path / "expected-lock.json").read_text() == '{"seed": 42}'
        assert not run.lock.exists()
        config = load_config(run.config)
        assert config.output.overwrite is False
        assert config == load_config(original.config).changed(name=run.name, output={"overwrite": False})  # type: ignore[arg-type]
    named = run_from_config(original.config, name="again", overwrite=False)
    assert (named.name, (named.path / "expected-lock.json").exists()) == ("again", True)


def test_a_replay_of_a_long_name_stays_within_the_limit(tmp_path: Path) -> None:
    original = run_from_config(write_config(tmp_path), name="a" * 64, overwrite=False)
    original.lock.write_text("{}")
    assert run_from_config(original.config, name=None, overwrite=False).name == "a" * 62 + "-2"


def test_a_replay_may_take_the_place_of_its_original_if_told_so(tmp_path: Path) -> None:
    original = run_from_config(write_config(tmp_path), name=None, overwrite=False)
    original.lock.write_text('{"seed": 7}')
    run = run_from_config(original.config, name="spam", overwrite=True)
    assert run.path == original.path
    assert (run.path / "expected-lock.json").read_text() == '{"seed": 7}'


def test_an_ordinary_config_gets_no_suffix(tmp_path: Path) -> None:
    path = write_config(tmp_path)
    assert not (run_from_config(path, name=None, overwrite=False).path / "expected-lock.json").exists()
    with pytest.raises(RunError):
        run_from_config(path, name=None, overwrite=False)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("name: spam\ndata: {source: ./none}\n", DataError),
        ("name: spam\ndata: {source: none.jsonl}\n", DataError),
        ("name: spam\ndata: {source: rows.jsonl, evaluation: {source: none.csv}}\n", DataError),
        ("name: spam\nmodel: {source: ~/none}\ndata: {source: rows.jsonl}\n", Exception),
        ("name: spam\n", ConfigError),
    ],
)
def test_a_config_that_names_nothing_creates_nothing(tmp_path: Path, text: str, error: type[Exception]) -> None:
    path = write_config(tmp_path, text)
    with pytest.raises(error):
        run_from_config(path, name=None, overwrite=False)
    assert not runs_directory().exists()


def test_a_bad_name_creates_nothing(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--name"):
        run_from_config(write_config(tmp_path), name="a/b", overwrite=False)
    assert not runs_directory().exists()


def test_text_of_a_plain_ascii_terminal() -> None:
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "LC_ALL": "C"}
    result = subprocess.run([str(CONSOLE)], capture_output=True, timeout=60, env=environment)
    assert result.returncode == 0
    assert b"qlora-tui chat RUN" in result.stdout
