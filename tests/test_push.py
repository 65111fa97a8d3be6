"""Pushing to the hub, against a small hub of our own: what arrives there, and that the token is told to nobody else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hub_server import HubServer, running_hub

TOKEN = "hf_secretsecretsecretsecretsecret"
CARD = "# x\n\nThen in this folder, with or without a GPU:\n\nADAPTER = '.'  # this folder\n"


@pytest.fixture
def server() -> Iterator[HubServer]:
    with running_hub() as running:
        running.token = TOKEN
        yield running


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "adapter"
    folder.mkdir()
    for name, content in {
        "adapter_model.safetensors": b"weights" * 1000,
        "adapter_config.json": b"{}",
        "tokenizer.json": b"{}",
        "chat_template.jinja": b"{{ messages }}",
        "README.md": CARD.encode(),
        "optimizer.pt": b"a pickle",
        "secrets.env": b"PASSWORD=1",
        "training_args.bin": b"a pickle",
    }.items():
        (folder / name).write_bytes(content)
    return folder


def ask(
    server: HubServer, tmp_path: Path, token: str | None = TOKEN, **values: object
) -> tuple[list[dict[str, object]], str]:
    """The events of one push by a process of its own, and everything else it wrote."""
    request = {"id": 1, "do": "push", **values, **({"token": token} if token else {})}
    own = {"HF_ENDPOINT": server.address, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_DISABLE_XET": "1"}
    environment = {key: value for key, value in os.environ.items() if key not in ("HF_TOKEN", "HF_HUB_OFFLINE")}
    with (tmp_path / "stderr").open("wb") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "qlora_tui.engine", "serve"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            env=environment | own,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(request).encode() + b"\n")
        process.stdin.flush()
        events = []
        for line in process.stdout:
            events.append(json.loads(line))
            if events[-1]["event"] in ("done", "error"):
                process.stdin.close()
        process.wait(60)
    return events, json.dumps(events) + (tmp_path / "stderr").read_text()


def test_a_folder_arrives_without_pickles_and_strangers(server: HubServer, folder: Path, tmp_path: Path) -> None:
    events, output = ask(server, tmp_path, folder=str(folder), repository="me/spam")
    assert events[-1] == {"id": 1, "event": "done", "address": f"{server.address}/me/spam"}
    repository = server.repositories["models", "me/spam"]
    files = repository.commits[repository.references["main"]]
    assert set(files) == {
        "adapter_model.safetensors",
        "adapter_config.json",
        "tokenizer.json",
        "chat_template.jinja",
        "README.md",
    }
    assert files["adapter_model.safetensors"] == b"weights" * 1000
    assert "ADAPTER = 'me/spam'  # on the hub" in files["README.md"].decode()
    assert "Then anywhere, with" in files["README.md"].decode()
    assert repository.private
    assert TOKEN not in output


def test_a_second_push_goes_to_the_same_place(server: HubServer, folder: Path, tmp_path: Path) -> None:
    ask(server, tmp_path, folder=str(folder), repository="me/spam", private=False)
    (folder / "adapter_config.json").write_text('{"r": 4}')
    events, _ = ask(server, tmp_path, folder=str(folder), repository="me/spam")
    assert events[-1]["event"] == "done"
    repository = server.repositories["models", "me/spam"]
    assert repository.commits[repository.references["main"]]["adapter_config.json"] == b'{"r": 4}'
    assert not repository.private


@pytest.mark.parametrize("token", ["hf_wrongwrongwrongwrongwrong", None])
def test_a_token_that_may_not_write(server: HubServer, folder: Path, tmp_path: Path, token: str | None) -> None:
    events, output = ask(server, tmp_path, token, folder=str(folder), repository="me/spam")
    assert events[-1]["event"] == "error"
    assert "token" in str(events[-1]["message"])
    assert "hf auth login" in str(events[-1]["hint"])
    assert "hf_wrong" not in output, "the server's answer repeats the token that it was sent"
    assert "Traceback" not in output


@pytest.mark.parametrize("status", [403, 500])
def test_a_hub_that_refuses(server: HubServer, folder: Path, tmp_path: Path, status: int) -> None:
    server.fail("repos/create", status, method="POST", body=f"no, {TOKEN}".encode())
    events, output = ask(server, tmp_path, folder=str(folder), repository="me/spam")
    assert events[-1]["event"] == "error"
    assert TOKEN not in output


def test_what_cannot_be_pushed(server: HubServer, folder: Path, tmp_path: Path) -> None:
    for values in (
        {"folder": str(folder), "repository": "spam"},
        {"folder": str(folder), "repository": "me/../you"},
        {"folder": str(tmp_path), "repository": "me/spam"},
        {"folder": str(tmp_path / "missing"), "repository": "me/spam"},
    ):
        events, _ = ask(server, tmp_path, **values)
        assert (events[-1]["event"], events[-1]["exit_code"]) == ("error", 2)
    assert not server.seen
