"""The playground's engine: requests, targets, streaming; the full tier talks to the real model."""

from __future__ import annotations

import io
import json
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import StoppingCriteria
from transformers.generation.streamers import BaseStreamer

from qlora_tui.config import AdapterSection, DataSection, ModelSection, RunConfig
from qlora_tui.config_file import dump_config
from qlora_tui.data.encode import load_tokenizer
from qlora_tui.data.formats import Turn
from qlora_tui.engine import chat
from qlora_tui.engine.chat import ChatArguments, parse_request, run_chat
from qlora_tui.engine.chat_session import ADAPTER_FILE, ChatSession, ChatTarget, find_target
from qlora_tui.engine.convert import convert_gguf
from qlora_tui.engine.decode_graph import GraphDecoder
from qlora_tui.engine.load import attach_new_adapter, load_base
from qlora_tui.engine.requests import Side
from qlora_tui.engine.stream import Reply, Sampling, TextPieces
from qlora_tui.errors import ModelError, RunError, UsageError
from qlora_tui.models.sources import resolve_model

EMOJI = "Grüße 👩‍🚀🎉 世界, naïve 😀"


def request_json(**values: Any) -> bytes:
    return json.dumps({"prompt": "Hello", **values}).encode() + b"\n"


# --- requests


def test_a_request_has_defaults() -> None:
    request = parse_request(b'{"prompt": "Hello \\ud83d\\ude00"}')
    assert request.prompt == "Hello 😀"
    assert (request.system, request.seed, request.asked_sides) == (None, None, ("adapter",))
    assert (request.max_tokens, request.temperature, request.top_p) == (256, 0.0, 1.0)


@pytest.mark.parametrize(
    ("values", "sides"),
    [
        ({"compare": True}, ("adapter", "base")),
        ({"compare": True, "sides": ["base"]}, ("base", "adapter")),
        ({"sides": ["base"]}, ("base",)),
        ({"sides": ["base", "base", "adapter"]}, ("base", "adapter")),
    ],
)
def test_sides_are_asked_once_each(values: dict[str, Any], sides: tuple[str, ...]) -> None:
    assert parse_request(request_json(**values)).asked_sides == sides


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (b"", "the request"),
        (b"hello", "the request"),
        (b"[]", "the request"),
        (b"{}", "prompt"),
        (b'{"prompt": "\\ud800"}', "the request"),
        (request_json(prompt=""), "prompt"),
        (request_json(max_tokens=0), "max_tokens"),
        (request_json(max_tokens=2.5), "max_tokens"),
        (request_json(temperature=-1), "temperature"),
        (b'{"prompt": "x", "temperature": NaN}', "temperature"),
        (request_json(top_p=0), "top_p"),
        (request_json(seed=-1), "seed"),
        (request_json(sides=["both"]), "sides"),
        (request_json(sides=[]), "sides"),
        (request_json(temprature=1), "temprature"),
    ],
)
def test_a_bad_request_names_the_field(content: bytes, named: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_request(content)
    assert caught.value.why.startswith(named)


# --- targets


def make_adapter(folder: Path, **config: Any) -> Path:
    folder.mkdir(parents=True)
    (folder / ADAPTER_FILE).write_bytes(b"")
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "owner/base", **config}))
    return folder


@pytest.fixture
def run(tmp_path: Path) -> Path:
    config = RunConfig(
        name="run",
        model=ModelSection(source="owner/trained-on", revision="abc", trust_remote_code=True),
        data=DataSection(source="rows.jsonl", system_prompt="Be brief."),
    )
    folder = tmp_path / "run"
    (folder / "control").mkdir(parents=True)
    (folder / "config.yaml").write_text(dump_config(config))
    return folder


def make_checkpoint(run: Path, step: int) -> Path:
    folder = make_adapter(run / "checkpoints" / f"checkpoint-{step}")
    (folder / "manifest.json").write_text(json.dumps({ADAPTER_FILE: 0}))
    return folder


def test_a_run_means_its_adapter_and_else_its_newest_checkpoint(run: Path) -> None:
    with pytest.raises(RunError, match="no adapter and no checkpoint"):
        find_target(run)
    make_checkpoint(run, 9)
    newest = make_checkpoint(run, 10)
    (make_checkpoint(run, 11) / "manifest.json").unlink()
    assert find_target(run).adapter == newest
    adapter = make_adapter(run / "adapter")
    assert find_target(run).adapter == adapter


@pytest.mark.parametrize("inside", ["", "adapter", "checkpoints/checkpoint-9"])
def test_whatever_lies_in_a_run_knows_its_config(run: Path, inside: str) -> None:
    make_checkpoint(run, 9)
    make_adapter(run / "adapter")
    config = find_target(run / inside).config
    assert (config.model.source, config.model.revision) == ("owner/trained-on", "abc")
    assert config.data.system_prompt == "Be brief."


def test_an_adapter_from_elsewhere_names_its_base_itself(tmp_path: Path) -> None:
    folder = make_adapter(tmp_path / "plain", revision="v2")
    (folder / "config.yaml").write_text("another: trainer")
    target = find_target(folder)
    assert target.adapter == folder
    assert target.config.model == ModelSection(source="owner/base", revision="v2")
    assert target.config.data.system_prompt is None


def test_another_base_does_not_inherit_revision_and_trust(run: Path) -> None:
    make_adapter(run / "adapter")
    assert find_target(run, "owner/other").config.model == ModelSection(source="owner/other")
    assert find_target(run, "owner/trained-on").config.model.trust_remote_code


def test_a_named_base_replaces_an_unreadable_record(tmp_path: Path) -> None:
    folder = make_adapter(tmp_path / "plain")
    for content in ("{", "[]", "{}", '{"base_model_name_or_path": null}', '{"base_model_name_or_path": ""}'):
        (folder / "adapter_config.json").write_text(content)
        with pytest.raises(ModelError, match="--base"):
            find_target(folder)
    assert find_target(folder, "owner/base").config.model.source == "owner/base"


def test_a_folder_without_an_adapter_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=ADAPTER_FILE):
        find_target(tmp_path)
    with pytest.raises(RunError, match="no such folder"):
        find_target(tmp_path / "missing")


# --- text pieces


def test_pieces_never_end_inside_a_character(tokenizer_folder: Path) -> None:
    tokenizer = load_tokenizer(tokenizer_folder)
    ids = tokenizer.encode(EMOJI, add_special_tokens=False).ids
    assert len(ids) > len(EMOJI.split()), "some characters take several tokens"
    pieces = TextPieces(lambda ids: str(tokenizer.decode(list(ids), skip_special_tokens=True)))
    given = [pieces.add(token) for token in ids]
    assert "".join(given) == EMOJI
    assert "\N{REPLACEMENT CHARACTER}" not in "".join(given)
    assert "" in given


def test_special_tokens_make_no_text(tokenizer_folder: Path) -> None:
    tokenizer = load_tokenizer(tokenizer_folder)
    pieces = TextPieces(lambda ids: str(tokenizer.decode(list(ids), skip_special_tokens=True)))
    ids = tokenizer.encode("<|im_start|>Hi<|im_end|> you", add_special_tokens=False).ids
    assert "".join(map(pieces.add, ids)) == "Hi you"


def test_bytes_that_never_become_a_character_are_held_back() -> None:
    pieces = TextPieces(lambda ids: bytes(ids).decode("utf-8", "replace"))
    assert [pieces.add(byte) for byte in "aé".encode()] == ["a", "", "é"]
    assert [pieces.add(byte) for byte in (0xF0, 0x9F)] == ["", ""]
    assert pieces.add(ord("b")) == "\N{REPLACEMENT CHARACTER}b", "bytes in the middle that are no character are shown"


def test_text_that_a_later_byte_undoes_is_not_given_twice() -> None:
    texts = iter(["ab", "ab\N{REPLACEMENT CHARACTER}", "a\N{REPLACEMENT CHARACTER}", "abcd"])
    pieces = TextPieces(lambda _ids: next(texts))
    assert [pieces.add(0) for _ in range(4)] == ["ab", "", "", "cd"]


# --- replies

Generate = Callable[[BaseStreamer, StoppingCriteria], None]


def scripted(tokens: Sequence[int], pause: float = 0.0) -> Generate:
    """A generation of ``tokens`` that obeys its stopping criterion as transformers does."""

    def generate(streamer: BaseStreamer, stopping: StoppingCriteria) -> None:
        streamer.put(torch.tensor([[1, 2, 3]]))
        for token in tokens:
            time.sleep(pause)
            streamer.put(torch.tensor([token]))
            if bool(stopping(torch.zeros(1, 1, dtype=torch.long), None).all()):
                break
        streamer.end()

    return generate


def reply_of(generate: Generate) -> Reply:
    return Reply(generate, TextPieces(lambda ids: bytes(ids).decode()), frozenset({0}))


def test_a_reply_ends_with_the_turn() -> None:
    reply = reply_of(scripted([72, 105, 0]))
    assert list(reply) == ["H", "i"]
    assert (reply.tokens, reply.stopped_by) == (2, "end_of_turn")
    assert reply.seconds >= 0


def test_a_reply_without_an_end_used_all_its_tokens() -> None:
    reply = reply_of(scripted([72, 105]))
    assert "".join(reply) == "Hi"
    assert (reply.tokens, reply.stopped_by) == (2, "max_tokens")


def test_a_reply_can_be_cancelled_and_leaves_no_thread() -> None:
    before = threading.active_count()
    reply = reply_of(scripted([72] * 10_000, pause=0.001))
    for number, _piece in enumerate(reply):
        if number == 3:
            reply.cancel()
    assert reply.stopped_by == "cancelled"
    assert reply.tokens < 1000
    assert threading.active_count() == before


def test_breaking_off_ends_the_generation() -> None:
    before = threading.active_count()
    reply = reply_of(scripted([72] * 10_000, pause=0.001))
    pieces = iter(reply)
    assert next(pieces) == "H"
    del pieces
    assert reply.stopped_by == "cancelled"
    assert threading.active_count() == before


def test_a_failing_generation_raises_where_it_is_read() -> None:
    def generate(_streamer: BaseStreamer, _stopping: StoppingCriteria) -> None:
        raise RuntimeError("no such kernel")

    with pytest.raises(RuntimeError, match="no such kernel"):
        list(reply_of(generate))


# --- the process


def events_of(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def ask(monkeypatch: pytest.MonkeyPatch, arguments: ChatArguments, request: bytes) -> int:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(request)))
    return run_chat(arguments)


def test_a_missing_target_is_an_error_event(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert ask(monkeypatch, ChatArguments(tmp_path / "missing"), request_json()) == 2
    (event,) = events_of(capfd.readouterr().out)
    assert (event["event"], event["exit_code"]) == ("error", 2)
    assert "no such folder" in event["message"]
    assert event["hint"]


def test_a_bad_request_is_an_error_event(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert ask(monkeypatch, ChatArguments(tmp_path), b"nonsense\n") == 2
    (event,) = events_of(capfd.readouterr().out)
    assert (event["event"], event["exit_code"]) == ("error", 2)
    monkeypatch.setattr(chat, "MAX_REQUEST_BYTES", 100)
    assert ask(monkeypatch, ChatArguments(tmp_path), b"x" * 200) == 2
    assert "longer than" in events_of(capfd.readouterr().out)[0]["message"]


@pytest.mark.parametrize(
    ("error", "exit_code"),
    [
        (torch.OutOfMemoryError("CUDA out of memory."), 4),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), 4),
        (ZeroDivisionError(), 1),
    ],
)
def test_faults_become_error_events_and_stdout_stays_clean(
    error: Exception,
    exit_code: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    def fail(*_arguments: object) -> ChatTarget:
        print("a library prints this")
        raise error

    monkeypatch.setattr(chat, "find_target", fail)
    assert ask(monkeypatch, ChatArguments(tmp_path), request_json()) == exit_code
    print("stdout is back")
    output = capfd.readouterr()
    event, rest = output.out.splitlines()
    assert json.loads(event)["exit_code"] == exit_code
    assert rest == "stdout is back"
    assert "a library prints this" in output.err
    assert "Traceback" in output.err


def test_the_command_line_of_the_process(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    seen: list[ChatArguments] = []

    def remember(arguments: ChatArguments) -> int:
        seen.append(arguments)
        return 0

    monkeypatch.setattr(chat, "run_chat", remember)
    assert chat.main(["--target", "run", "--base", "owner/base", "--prompt-file", "-"]) == 0
    assert chat.main(["--target", "run"]) == 0
    assert seen == [ChatArguments(Path("run"), "owner/base"), ChatArguments(Path("run"), None)]
    with pytest.raises(SystemExit):
        chat.main([])
    assert "--target" in capsys.readouterr().err


# --- the real model


@pytest.fixture(scope="module")
def base_folder(request: pytest.FixtureRequest) -> Path:
    """The bundled model as 16-bit safetensors; converted once, then kept in pytest's cache."""
    files = resolve_model(ModelSection())
    folder = Path(request.config.cache.mkdir("bundled-model")) / (files.revision or "")[:16]
    if not folder.is_dir():
        convert_gguf(replace(files, folder=folder), lambda *_: None)
    return folder


@pytest.fixture(scope="module")
def adapter_folder(base_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new adapter, whose B is zero, saved with the tokenizer."""
    torch.manual_seed(0)
    config = RunConfig(name="x", model=ModelSection(source=str(base_folder)), data=DataSection(source="none"))
    loaded = load_base(resolve_model(config.model), config, training=False)
    folder = tmp_path_factory.mktemp("trained") / "adapter"
    attach_new_adapter(loaded, AdapterSection(rank=4)).save_pretrained(folder)
    loaded.tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def session(adapter_folder: Path) -> Iterator[ChatSession]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield ChatSession.load(find_target(adapter_folder), lambda _message: None)
    torch.set_num_threads(threads)


QUESTION = (Turn("user", "What is the capital of France? Answer with one word."),)


@pytest.mark.full
def test_an_untrained_adapter_answers_like_its_base(session: ChatSession) -> None:
    sampling = Sampling(max_tokens=40)
    replies = {side: session.reply(QUESTION, side, sampling) for side in get_args(Side)}
    texts = {side: "".join(reply) for side, reply in replies.items()}
    assert texts["adapter"] == texts["base"]
    assert "Paris" in texts["adapter"]
    assert "<|" not in texts["adapter"]
    assert replies["adapter"].stopped_by == "end_of_turn"


@pytest.mark.full
def test_a_trained_adapter_changes_only_its_own_side(session: ChatSession) -> None:
    weights = [parameter for name, parameter in session._model.named_parameters() if "lora_B" in name]
    assert weights
    base = "".join(session.reply(QUESTION, "base", Sampling(max_tokens=8)))
    torch.manual_seed(1)
    try:
        with torch.no_grad():
            for weight in weights:
                weight.normal_(std=0.3)
        assert "".join(session.reply(QUESTION, "base", Sampling(max_tokens=8))) == base
        assert "".join(session.reply(QUESTION, "adapter", Sampling(max_tokens=8))) != base
    finally:
        with torch.no_grad():
            for weight in weights:
                weight.zero_()


@pytest.mark.full
def test_max_tokens_is_respected(session: ChatSession) -> None:
    reply = session.reply((Turn("user", "Tell me a long story."),), "adapter", Sampling(max_tokens=5))
    assert "".join(reply)
    assert (reply.tokens, reply.stopped_by) == (5, "max_tokens")


@pytest.mark.full
def test_sampling_repeats_by_seed(session: ChatSession) -> None:
    def text(seed: int) -> str:
        sampling = Sampling(max_tokens=12, temperature=1.5, top_p=0.95, seed=seed)
        return "".join(session.reply((Turn("user", "Tell me a story."),), "adapter", sampling))

    assert text(1) == text(1)
    assert text(1) != text(2)


@pytest.mark.full
@pytest.mark.parametrize("sampling", [Sampling(40), Sampling(12, temperature=1.5, top_p=0.9, seed=3)])
def test_steps_on_a_static_cache_answer_like_generate(
    session: ChatSession, sampling: Sampling, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a GPU records, run as usual: the first answers make the cache, the last ones find it used."""
    usual = {side: "".join(session.reply(QUESTION, side, sampling)) for side in get_args(Side)}
    monkeypatch.setattr(session, "_decoder", GraphDecoder(session._model, record=False))
    for turns in (QUESTION, (Turn("user", "word " * 600),), QUESTION):
        for side in get_args(Side):
            reply = session.reply(turns, side, sampling)
            text = "".join(reply)
            assert turns != QUESTION or text == usual[side]
            assert reply.tokens <= sampling.max_tokens


@pytest.mark.full
def test_a_model_that_cannot_be_recorded_is_answered_for_by_generate(
    session: ChatSession, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # Recording asks for CUDA, which is not there: as good a reason as any.
    monkeypatch.setattr(session, "_decoder", GraphDecoder(session._model, record=True))
    assert "Paris" in "".join(session.reply(QUESTION, "adapter", Sampling(max_tokens=10)))
    assert session._decoder is None
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.full
def test_a_conversation_beyond_the_context_is_refused(session: ChatSession) -> None:
    with pytest.raises(UsageError, match="too long"):
        session.reply((Turn("user", "word " * 9000),), "adapter", Sampling())


@pytest.mark.full
def test_a_running_answer_can_be_cancelled(session: ChatSession) -> None:
    reply = session.reply((Turn("user", "Tell me a long story."),), "adapter", Sampling(max_tokens=2000))
    next(iter(reply))
    assert reply.stopped_by == "cancelled"
    assert "Paris" in "".join(session.reply(QUESTION, "adapter", Sampling(max_tokens=40))), "the session goes on"


@pytest.mark.full
def test_the_process_answers_both_sides_in_json_lines(
    adapter_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    request = request_json(prompt="Say 🎉🎉🎉", compare=True, max_tokens=24)
    assert ask(monkeypatch, ChatArguments(adapter_folder), request) == 0
    events = events_of(capfd.readouterr().out)
    assert {event["event"] for event in events} == {"progress", "token", "done"}
    texts = {
        side: "".join(event["text"] for event in events if event["event"] == "token" and event["side"] == side)
        for side in ("adapter", "base")
    }
    assert texts["adapter"] == texts["base"]
    assert any(ord(character) > 0xFFFF for character in texts["adapter"]), "the answer has emoji of several tokens"
    assert "\N{REPLACEMENT CHARACTER}" not in texts["adapter"]
    done = [event for event in events if event["event"] == "done"]
    assert [event["side"] for event in done] == ["adapter", "base"]
    assert all(0 < event["tokens"] <= 24 and event["seconds"] > 0 for event in done)


@pytest.mark.full
def test_an_adapter_of_another_shape_is_an_error_event(
    adapter_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "other"
    folder.mkdir()
    weights = load_file(adapter_folder / ADAPTER_FILE)
    save_file({name: torch.zeros(3, 3) for name in weights}, folder / ADAPTER_FILE)
    (folder / "adapter_config.json").write_bytes((adapter_folder / "adapter_config.json").read_bytes())
    assert ask(monkeypatch, ChatArguments(folder), request_json()) == 2
    last = events_of(capfd.readouterr().out)[-1]
    assert (last["event"], last["exit_code"]) == ("error", 2)
