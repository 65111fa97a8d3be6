"""Searching the hub over real HTTP, and what the model step makes of it."""

from __future__ import annotations

from collections.abc import Iterator

import huggingface_hub
import pytest
from hub_server import HubServer, running_hub
from textual.pilot import Pilot
from textual.widgets import Input
from tui_helpers import Machine, application, drive, press, screen_text

from qlora_tui.errors import EnvironmentFault
from qlora_tui.models.search import MOST_FOUND, search_hub

TOKEN = "hf_doNotShowThis0123456789"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    with running_hub() as running:
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", running.address)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
        yield running


def test_names_that_fit_are_found(server: HubServer) -> None:
    server.add("owner/small-writer", {"README.md": b"---\nlicense: mit\n---\n"})
    server.add("owner/closed-writer", {}, gated=True)
    server.add("owner/other", {})
    found = {each.id: each for each in search_hub("writer")}
    assert list(found) == ["owner/small-writer", "owner/closed-writer"]
    assert (found["owner/small-writer"].licence, found["owner/small-writer"].gated) == ("mit", False)
    assert found["owner/closed-writer"].gated


def test_what_is_no_model_is_left_out(server: HubServer) -> None:
    body = b'[1, {"id": "a"}, {"id": "a/b\\u001b[2J"}, {"id": "a/good", "tags": [3], "downloads": "many"}]'
    server.fail("/api/models$", 200, times=1, body=body)
    assert [each.id for each in search_hub("a")] == ["a/good"]
    server.fail("/api/models$", 200, body=b'{"error": "no"}')
    assert search_hub("a") == []


def test_no_more_are_taken_than_can_be_shown(server: HubServer) -> None:
    for number in range(MOST_FOUND + 5):
        server.add(f"owner/model-{number}", {})
    assert len(search_hub("model")) == MOST_FOUND


@pytest.mark.parametrize(("status", "body"), [(500, b"no"), (401, b"bad token " + TOKEN.encode()), (200, b"<html>")])
def test_a_hub_that_fails_is_told_without_the_token(
    server: HubServer, monkeypatch: pytest.MonkeyPatch, status: int, body: bytes
) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    server.fail("/api/models$", status, body=body)
    with pytest.raises(EnvironmentFault) as caught:
        search_hub("a")
    told = f"{caught.value.what} {caught.value.why} {caught.value.hint} {caught.value.__context__!r}"
    assert TOKEN not in told
    assert "The hub cannot be searched." in told


def test_offline_is_said_in_a_sentence(server: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    server.stop()
    with pytest.raises(EnvironmentFault, match="cannot be reached"):
        search_hub("a")


def test_the_model_step_searches_the_hub(server: HubServer) -> None:
    from qlora_tui.tui.services import Services

    server.add("owner/small-writer", {"README.md": b"---\nlicense: mit\n---\n"})
    stand_in = Machine(search=Services().search)
    app = application(stand_in)

    async def steps(pilot: Pilot[str]) -> None:
        await press(pilot, "enter", "2", "slash", *"writer")
        assert "Search the hub for writer" in screen_text(app)
        await press(pilot, "enter")
        assert "owner/small-writer" in screen_text(app)
        server.stop()
        app.screen.query_one("#model-filter", Input).value = "poet"
        await press(pilot, "end", "enter")
        assert "cannot be reached" in screen_text(app)

    drive(app, steps, (120, 36))
