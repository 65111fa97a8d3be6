"""``models``: the catalog and what lies on this machine, each with what it needs and whether it fits."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from qlora_tui.cli import main
from qlora_tui.models.catalog import catalog, find_model

COMMIT = "0e9e39f249a16976918f6564b8830bc894c89659"

Ask = Callable[..., tuple[int, str, str]]


@pytest.fixture
def ask(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Ask:
    """Runs ``models`` in this process, with a hub cache of the test's own: exit code, stdout, stderr."""
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["qlora-tui", "models", *arguments])
        code = main()
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        return code, out, err

    return run


def listed(ask: Ask, *arguments: str) -> dict[str, dict[str, Any]]:
    code, out, err = ask(*arguments, "--json")
    assert (code, err) == (0, "")
    return {model["id"]: model for model in json.loads(out)["models"]}


def cache(home: Path, repository: str, config: object) -> None:
    root = home / "hf" / "hub" / ("models--" + repository.replace("/", "--"))
    folder = root / "snapshots" / COMMIT
    folder.mkdir(parents=True)
    (root / "refs").mkdir()
    (root / "refs" / "main").write_text(COMMIT)
    (folder / "config.json").write_text(config if isinstance(config, str) else json.dumps(config))


def test_everything_in_the_catalog_has_a_verdict(ask: Ask) -> None:
    found = listed(ask, "--gpu", "RTX 4090")
    assert found.keys() - {"bundled:smollm2-135m"} == {entry.id for entry in catalog()}
    assert {model["fits"] for model in found.values()} <= {"yes", "tight", "no"}
    for model in found.values():
        assert model["size"] < model["least"] <= model["process"]["high"]
        assert model["parameters"] > 0
        assert model["licence"]
    sizes = [model["parameters"] for model in found.values()]
    assert sizes == sorted(sizes)


def test_the_verdict_follows_the_card_and_the_recipe(ask: Ask, tmp_path: Path) -> None:
    name = "Qwen/Qwen3-8B"
    assert listed(ask, "qwen3-8b", "--gpu", "RTX 3060")[name]["fits"] == "yes"
    assert listed(ask, "qwen3-8b", "--gpu", "6GiB")[name]["fits"] == "no"
    config = tmp_path / "run.yaml"
    config.write_text("name: x\ndata: {source: rows.jsonl, max_length: 32768}\n")
    assert listed(ask, "qwen3-8b", "--gpu", "RTX 3060", "--config", str(config))[name]["fits"] == "no"


def test_the_table_states_its_recipe(ask: Ask) -> None:
    code, out, err = ask("qwen3", "8b", "--gpu", "RTX 3060")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0].split() == ["model", "licence", "size", "loaded", "context", "template", "needs", "fits"]
    assert [line.split()[0] for line in lines[1:3]] == ["Qwen/Qwen3-8B", "Qwen/Qwen3-8B-Base"]
    assert lines[1].split()[-1] == "yes"
    assert "Rank 16, rows of 512 tokens, 8 an update, on RTX 3060" in out


def test_a_narrow_terminal_loses_columns_and_not_the_verdict(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "70")
    _, out, _ = ask("meta-llama", "--gpu", "RTX 3060")
    rows = out.split("\n\n")[0].splitlines()
    assert max(map(len, rows)) <= 70
    assert rows[0].split()[0] == "model"
    assert rows[0].split()[-1] == "fits"


def test_what_lies_in_the_cache_is_marked_and_added(ask: Ask, tmp_path: Path) -> None:
    known = find_model("Qwen3-4B")
    cache(tmp_path, known.id, known.config)
    cache(tmp_path, "someone/own-qwen3-tune", known.config)
    cache(tmp_path, "someone/qwen3-encoder", {"model_type": "bert"})
    cache(tmp_path, "someone/qwen3-broken", "{")
    found = listed(ask, "qwen3", "--gpu", "RTX 3060")
    assert found[known.id]["place"] == "cached"
    assert found["Qwen/Qwen3-8B"]["place"] == "hub"
    own = found["someone/own-qwen3-tune"]
    assert (own["place"], own["licence"], own["parameters"]) == ("cached", None, known.parameters)
    assert not any("encoder" in name or "broken" in name for name in found)


def test_the_bundled_model_is_listed_where_it_is_installed(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    assert listed(ask, "smollm2", "--gpu", "RTX 3060")["bundled:smollm2-135m"]["place"] == "bundled"
    monkeypatch.setattr("qlora_tui.models.sources._packaged_file", lambda *_names: None)
    assert "bundled:smollm2-135m" not in listed(ask, "smollm2", "--gpu", "RTX 3060")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nonsense-7b"], "'nonsense-7b'"),
        (["--gpu", "RTX 9999"], "not known"),
        (["--config", "missing.yaml"], "no such file"),
    ],
)
def test_what_cannot_be_listed_is_told(arguments: list[str], said: str, ask: Ask) -> None:
    code, out, err = ask(*arguments)
    assert (code, out) == (2, "")
    assert said in err
    assert len(err.strip().splitlines()) >= 3
