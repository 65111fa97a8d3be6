"""Fetching models over real HTTP: what is taken, what is refused, and what happens when the hub misbehaves."""

from __future__ import annotations

import errno
import json
import logging
import os
import shutil
import subprocess
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import numpy
import pytest
from hub_server import HubServer, running_hub
from safetensors.numpy import save
from test_models_sources import INDEX, model_files, section, sharded_files

from qlora_tui.errors import EnvironmentFault, ModelError, QloraError
from qlora_tui.models import hub
from qlora_tui.models.hub_faults import explain
from qlora_tui.models.sources import ModelFiles, resolve_model

NAME = "owner/model"
TOKEN = "hf_doNotShowThis0123456789"
MIB = 2**20


@pytest.fixture
def server() -> Iterator[HubServer]:
    with running_hub() as running:
        yield running


@pytest.fixture(autouse=True)
def client(server: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hub's client, pointed at the test server and a cache of its own, with waits that a test can afford."""
    constants = huggingface_hub.constants
    monkeypatch.setattr(constants, "ENDPOINT", server.address)
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", server.address + "/{repo_id}/resolve/{revision}/{filename}"
    )
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 1)
    monkeypatch.setattr(constants, "HF_HUB_ETAG_TIMEOUT", 1)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
    monkeypatch.setattr(hub, "_RETRY_WAITS", (0.01, 0.01))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setenv("QLORA_TUI_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)


def fetch(name: str = NAME, *, weights: bool = True, progress: Any = None, **fields: object) -> ModelFiles:
    return resolve_model(section(name, **fields), progress, weights=weights)


def names(files: ModelFiles) -> set[str]:
    return {path.name for path in files.folder.iterdir()}


# What is taken


def test_model_is_fetched_without_what_it_does_not_need(server: HubServer) -> None:
    extra = {
        "pytorch_model.bin": b"pickle",
        "tokenizer.model": b"x",
        "onnx/model.onnx": b"x",
        "modeling.py": b"x",
        "LICENSE": b"text",
        "chat_template.jinja": b"{{ messages }}",
    }
    commit = server.add(NAME, model_files() | extra)
    calls: list[tuple[int, int | None]] = []
    found = fetch(progress=lambda done, total: calls.append((done, total)))
    assert (found.kind, found.revision, found.licence, found.remote_code) == ("hub", commit, "mit", False)
    assert names(found) == {*model_files(), "LICENSE", "chat_template.jinja"}
    weights = model_files()["model.safetensors"]
    assert (found.folder / "model.safetensors").read_bytes() == weights
    assert calls[-1] == (len(weights), len(weights))
    assert [done for done, _ in calls] == sorted(done for done, _ in calls)


def test_small_files_suffice_without_weights(server: HubServer) -> None:
    server.add(NAME, sharded_files())
    assert names(fetch(weights=False)) == {"config.json", "tokenizer.json", "tokenizer_config.json", "README.md"}


def test_shards_are_those_of_the_index(server: HubServer) -> None:
    server.add(NAME, sharded_files() | {"consolidated.safetensors": b"the same weights once more"})
    assert names(fetch()) == set(sharded_files())


def test_sentencepiece_file_stands_in_for_a_missing_tokenizer(server: HubServer) -> None:
    files = model_files()
    del files["tokenizer.json"]
    server.add(NAME, files | {"tokenizer.model": b"x"})
    assert "tokenizer.model" in names(fetch())


def test_name_without_an_owner(server: HubServer) -> None:
    commit = server.add("gpt2", model_files())
    assert fetch("gpt2").revision == commit


def test_revision_is_pinned(server: HubServer) -> None:
    first = server.add(NAME, model_files())
    changed = model_files() | {"model.safetensors": save({"a": numpy.ones(4, dtype=numpy.float32)})}
    second = server.repositories["models", NAME].commit(changed)
    assert fetch().revision == second
    old = fetch(revision=first)
    assert old.revision == first
    assert (old.folder / "model.safetensors").read_bytes() == model_files()["model.safetensors"]


def test_branch_with_a_slash(server: HubServer) -> None:
    server.add(NAME, model_files())
    commit = server.repositories["models", NAME].commit(model_files() | {"vocab.txt": b"x"}, branch="refs/pr/1")
    assert fetch(revision="refs/pr/1").revision == commit


def test_progress_can_end_a_download(server: HubServer) -> None:
    server.add(NAME, model_files())

    def stop(done: int, total: int | None) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch(progress=stop)


# What is refused


def refused(kind: type[QloraError] = ModelError, **fields: Any) -> QloraError:
    with pytest.raises(kind) as caught:
        fetch(**fields)
    assert caught.value.__context__ is None
    return caught.value


def test_gated_model_says_how_to_get_in(server: HubServer) -> None:
    server.add(NAME, model_files(), gated=True)
    error = refused()
    assert "gated" in error.why
    assert f"{server.address}/{NAME}" in error.hint
    assert "hf auth login" in error.hint
    assert "HF_TOKEN" in error.hint


def test_gated_model_opens_with_a_token(server: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    server.add(NAME, model_files(), gated=True)
    assert fetch().folder.is_dir()


def test_gated_with_status_403(server: HubServer) -> None:
    server.add(NAME, model_files())
    server.fail("/resolve/", 403, method="HEAD", headers={"X-Error-Code": "GatedRepo"})
    assert "gated" in refused().why


def test_unknown_model_and_unknown_revision(server: HubServer) -> None:
    assert "no such model" in refused(name="owner/nothing").why
    server.add(NAME, model_files())
    assert "no revision 'v9'" in refused(revision="v9").why
    assert "no revision" in refused(revision="0" * 40).why


@pytest.mark.parametrize("revision", ["../../x", "-x", "a b", "a\x1b[2J"])
def test_impossible_revision_is_not_even_asked_for(server: HubServer, revision: str) -> None:
    assert "model.revision" in refused(revision=revision).hint
    assert server.seen == []


@pytest.mark.parametrize(
    ("status", "kind", "words"),
    [
        (401, ModelError, "does not accept the token"),
        (403, ModelError, "refuses access"),
        (404, ModelError, "no such model"),
        (418, EnvironmentFault, "status 418"),
        (429, EnvironmentFault, "status 429"),
        (503, EnvironmentFault, "status 503"),
    ],
)
def test_answers_that_are_errors(server: HubServer, status: int, kind: type[QloraError], words: str) -> None:
    server.add(NAME, model_files())
    server.fail("/api/models/", status)
    assert words in refused(kind).why
    assert len(server.requests("/api/models/")) == (3 if status in {429, 503} else 1)


def test_busy_hub_is_asked_again(server: HubServer) -> None:
    server.add(NAME, model_files())
    server.fail("/api/models/", 503, times=2)
    assert fetch().folder.is_dir()


def test_failing_file_server(server: HubServer) -> None:
    server.add(NAME, model_files())
    server.fail("/model.safetensors", 500)
    assert "status 500" in refused(EnvironmentFault).why


def test_login_page_of_a_network_is_not_a_hub(server: HubServer) -> None:
    server.fail("/api/", 200, body=b"<html>Welcome to the station</html>")
    assert "login page" in refused(EnvironmentFault).why


def test_pickled_model_is_refused_before_any_download(server: HubServer) -> None:
    files = model_files()
    files["pytorch_model.bin"] = files.pop("model.safetensors")
    server.add(NAME, files)
    assert "pickle" in refused().why
    assert server.requests("/resolve/") == []


def test_repository_of_gguf_files_says_so(server: HubServer) -> None:
    server.add(NAME, {"model-q4.gguf": b"GGUF", "README.md": b""})
    assert ".gguf" in refused().hint


def test_remote_code_is_refused_before_the_weights(server: HubServer) -> None:
    config = json.dumps({"auto_map": {"AutoModelForCausalLM": "modeling.Own"}}).encode()
    server.add(NAME, model_files() | {"config.json": config, "modeling.py": b"class Own: ..."})
    assert "modeling.Own" in refused().why
    assert server.requests("model.safetensors|modeling.py") == []
    allowed = fetch(trust_remote_code=True)
    assert allowed.remote_code
    assert "modeling.py" in names(allowed)


def test_index_cannot_make_it_fetch_from_elsewhere(server: HubServer, tmp_path: Path) -> None:
    index = json.dumps({"weight_map": {"a": "../../../../owned.safetensors"}}).encode()
    server.add(NAME, sharded_files() | {INDEX: index, "../../../../owned.safetensors": b"x"})
    assert "beside it" in refused().why
    assert not list(tmp_path.rglob("owned*"))


def test_listing_cannot_make_it_write_elsewhere(server: HubServer, tmp_path: Path) -> None:
    server.add(NAME, model_files() | {"../../../../owned.py": b"x", "..\\owned.py": b"x"})
    fetch(trust_remote_code=True)
    assert not list(tmp_path.rglob("*owned*"))


def test_damaged_weights_on_the_hub(server: HubServer) -> None:
    server.add(NAME, model_files() | {"model.safetensors": b"\x08\0\0\0\0\0\0\0{}"})
    with pytest.raises(ModelError, match="damaged"):
        fetch()


# When the network fails


def large_model() -> dict[str, bytes]:
    """More than one of the chunks in which the client writes to the disk."""
    data = numpy.arange(12 * MIB // 4, dtype=numpy.int32).view(numpy.float32)
    return model_files() | {"model.safetensors": save({"a": data})}


def test_cut_download_goes_on_where_it_stopped(server: HubServer) -> None:
    files = large_model()
    server.add(NAME, files)
    server.cut("/model.safetensors", after=11 * MIB)
    found = fetch()
    assert (found.folder / "model.safetensors").read_bytes() == files["model.safetensors"]
    ranges = [seen.headers.get("range") for seen in server.requests("/model.safetensors", "GET")]
    assert ranges == [None, f"bytes={10 * MIB}-"]


def test_stalled_download_goes_on_where_it_stopped(server: HubServer) -> None:
    files = large_model()
    server.add(NAME, files)
    server.stall("/model.safetensors", seconds=30, after=11 * MIB, times=1)
    assert (fetch().folder / "model.safetensors").read_bytes() == files["model.safetensors"]
    assert server.requests("/model.safetensors", "GET")[-1].headers["range"] == f"bytes={10 * MIB}-"


def test_download_that_stalls_for_good_ends(server: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    # The client waits a second between its attempts.
    monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda _: None)
    server.add(NAME, model_files())
    server.stall("/model.safetensors", seconds=60)
    error = refused(EnvironmentFault)
    assert "for 1 seconds" in error.why
    assert not list(Path(huggingface_hub.constants.HF_HUB_CACHE).rglob("*.incomplete"))


def test_silent_hub_ends_too(server: HubServer) -> None:
    server.stall("/api/models/", seconds=60)
    server.add(NAME, model_files())
    assert "did not answer" in refused(EnvironmentFault).why


def test_unreachable_hub(server: HubServer) -> None:
    server.stop()
    error = refused(EnvironmentFault)
    assert "cannot be reached" in error.why
    assert "127.0.0.1" in error.why


def test_cache_serves_without_the_hub_and_says_so(server: HubServer, caplog: pytest.LogCaptureFixture) -> None:
    commit = server.add(NAME, sharded_files())
    online = fetch()
    server.stop()
    offline = fetch()
    assert (offline.folder, offline.revision) == (online.folder, commit)
    assert "cache" in offline.notes[0]
    assert commit[:12] in offline.notes[0]
    assert offline.notes[0] in caplog.text
    assert online.notes == ()


def test_pinned_commit_in_the_cache_asks_nobody(server: HubServer) -> None:
    commit = server.add(NAME, model_files())
    fetch(revision=commit)
    asked = len(server.seen)
    assert fetch(revision=commit).notes == ()
    assert len(server.seen) == asked


def test_second_time_nothing_is_downloaded_again(server: HubServer) -> None:
    server.add(NAME, model_files())
    fetch()
    downloads = len(server.requests("/resolve/"))
    fetch()
    assert len(server.requests("/resolve/")) == downloads


def test_half_a_model_in_the_cache_does_not_count(server: HubServer) -> None:
    server.add(NAME, sharded_files())
    fetch(weights=False)
    server.stop()
    assert fetch(weights=False).notes
    assert "cannot be reached" in refused(EnvironmentFault).why


@pytest.mark.parametrize("missing", [None, "tokenizer.json", "model-00002-of-00002.safetensors", "config.json"])
def test_cache_that_another_program_filled(server: HubServer, missing: str | None) -> None:
    server.add(NAME, sharded_files())
    folder = fetch().folder
    # Such a program leaves files, but not the hub client's listing of what there should be.
    shutil.rmtree(folder.parents[1] / "trees")
    huggingface_hub._tree_cache._IN_MEMORY_TREE_CACHE.clear()
    server.stop()
    if missing is None:
        assert fetch().folder == folder
        return
    (folder / missing).unlink()
    assert "cannot be reached" in refused(EnvironmentFault).why


def test_full_disk_is_told_before_the_download(server: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    server.add(NAME, model_files())
    monkeypatch.setattr(
        "qlora_tui.models.hub.shutil.disk_usage",
        lambda _: SimpleNamespace(free=len(model_files()["model.safetensors"]) - 1),
    )
    assert "left on the disk" in refused(EnvironmentFault).why
    assert server.requests("/model.safetensors") == []


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EACCES])
def test_disk_that_fails_during_the_download(number: int) -> None:
    error = explain(OSError(number, os.strerror(number), "/cache/blob"), NAME, None)
    assert isinstance(error, EnvironmentFault)
    assert "HF_HOME" in error.hint
    assert ("full" in error.why) == (number != errno.EACCES)


# The token, and the environment as a user sets it


def test_token_is_sent_and_never_shown(
    server: HubServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, capfd: Any
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    server.add(NAME, model_files())
    for status in (401, 403, 404, 500):
        echo = json.dumps({"error": f"Bearer {TOKEN} is not allowed"}).encode()
        headers = {"X-Error-Message": f"Bearer {TOKEN} is not allowed"}
        server.fail("/api/models/|/resolve/", status, times=3 if status == 500 else 1, headers=headers, body=echo)
        with pytest.raises(QloraError) as caught:
            fetch()
        shown = "".join(traceback.format_exception(caught.value))
        assert TOKEN not in shown + caplog.text + "".join(capfd.readouterr())
    caplog.set_level(logging.DEBUG)
    fetch()
    assert {seen.headers.get("authorization") for seen in server.seen} == {f"Bearer {TOKEN}"}
    assert TOKEN not in caplog.text + "".join(capfd.readouterr())


@pytest.mark.parametrize("token", [TOKEN + "\x0cx", TOKEN + "é"])
def test_token_that_cannot_be_sent_is_not_shown_either(
    server: HubServer, monkeypatch: pytest.MonkeyPatch, token: str
) -> None:
    monkeypatch.setenv("HF_TOKEN", token)
    server.add(NAME, model_files())
    error = refused(EnvironmentFault)
    assert "HF_TOKEN" in error.why
    assert TOKEN not in "".join(traceback.format_exception(error))


def _as_a_user(server: HubServer, tmp_path: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    code = (
        "from qlora_tui.config import ModelSection; from qlora_tui.models.sources import resolve_model\n"
        "from qlora_tui.errors import QloraError\n"
        "try: files = resolve_model(ModelSection(source='owner/model'))\n"
        "except QloraError as error: print(error.exit_code, error)\n"
        "else: print(files.revision, *files.notes)"
    )
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    own = {"HF_ENDPOINT": server.address, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_DISABLE_XET": "1"}
    return subprocess.run(
        [sys.executable, "-c", code], env=kept | own | environment, capture_output=True, text=True, timeout=60
    )


def test_environment_is_honoured(server: HubServer, tmp_path: Path) -> None:
    commit = server.add(NAME, model_files())
    first = _as_a_user(server, tmp_path, HF_TOKEN=TOKEN)
    assert first.stdout.split() == [commit]
    assert first.stderr == ""
    assert server.requests("/api/models/")[0].headers["authorization"] == f"Bearer {TOKEN}"
    assert (tmp_path / "hf" / "hub").is_dir()
    server.stop()
    again = _as_a_user(server, tmp_path, HF_TOKEN=TOKEN)
    assert again.stdout.startswith(f"{commit} The hub was not used")
    assert TOKEN not in first.stdout + again.stdout + again.stderr


def test_offline_mode_without_a_copy(server: HubServer, tmp_path: Path) -> None:
    server.add(NAME, model_files())
    told = _as_a_user(server, tmp_path, HF_HUB_OFFLINE="1")
    assert told.stdout.startswith("3 ")
    assert "HF_HUB_OFFLINE" in told.stdout
    assert server.seen == []


def test_name_that_does_not_resolve(server: HubServer, tmp_path: Path) -> None:
    told = _as_a_user(server, tmp_path, HF_ENDPOINT="http://hub.invalid")
    assert told.stdout.startswith("3 ")
    assert "hub.invalid" in told.stdout
