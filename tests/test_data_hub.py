"""Data sets from a hub over real HTTP: which files are read, what is refused, and what happens without a network."""

from __future__ import annotations

import gzip
import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import huggingface_hub
import pyarrow
import pyarrow.parquet
import pytest
from hub_server import HubServer, running_hub

from qlora_tui.config import DataSection
from qlora_tui.data.source import find_source
from qlora_tui.engine import hub_data
from qlora_tui.engine.data_source import Data, open_evaluation, open_source, open_training
from qlora_tui.errors import DataError, EnvironmentFault
from qlora_tui.models import hub

NAME = "owner/rows"


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
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 1)
    monkeypatch.setattr(constants, "HF_HUB_ETAG_TIMEOUT", 1)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
    monkeypatch.setattr(hub, "_RETRY_WAITS", (0.01, 0.01))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.chdir(tmp_path)


def jsonl(*numbers: int) -> bytes:
    return b"".join(b'{"n": %d}\n' % number for number in numbers)


def parquet(*numbers: int) -> bytes:
    out = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table({"n": list(numbers)}), out)
    return out.getvalue()


def opened(
    split: str | None = "train", subset: str | None = None, revision: str | None = None, progress: Any = None
) -> Data:
    return open_source(find_source(NAME, split, subset, revision), progress)


def numbers(data: Data) -> list[int]:
    return [row.values["n"] for row in data.rows()]


def card(**facts: Any) -> bytes:
    return f"---\n{json.dumps({'license': 'mit', **facts})}\n---\n# Rows\n".encode()


def fetched(server: HubServer) -> list[str]:
    """The names of the files that were asked for, without the card."""
    names = [seen.path.rpartition("/")[2] for seen in server.requests("/resolve/", "GET")]
    return [name for name in names if name != "README.md"]


def add(server: HubServer, files: dict[str, bytes], **options: Any) -> str:
    return server.add(NAME, files, kind="datasets", **options)


def test_files_tell_their_split(server: HubServer) -> None:
    files = {
        "README.md": card(),
        ".gitattributes": b"",
        "data/train-00000-of-00002.parquet": parquet(0, 1),
        "data/train-00001-of-00002.parquet": parquet(2),
        "data/test-00000-of-00001.parquet": parquet(3),
    }
    commit = add(server, files)
    data = opened()
    assert numbers(data) == [0, 1, 2]
    assert data.source.revision == commit
    assert data.card is not None
    assert data.card.read_bytes() == files["README.md"]
    assert data.notes == ()
    assert numbers(opened("test")) == numbers(opened(None)) == [3]
    assert numbers(opened("train[1:]")) == [1, 2]
    assert numbers(opened("train[-34%:]")) == [2]


def test_only_the_files_of_a_slice_are_fetched(server: HubServer) -> None:
    files = {"README.md": card(), "train-0.jsonl": jsonl(0, 1), "train-1.jsonl": jsonl(2), "test.jsonl": jsonl(3)}
    add(server, files)
    assert numbers(opened("train[:2]")) == [0, 1]
    assert fetched(server) == ["train-0.jsonl"]


def test_fetching_is_told(server: HubServer) -> None:
    add(server, {"README.md": card(), "train.jsonl": jsonl(*range(1000))})
    calls: list[tuple[int, int | None]] = []
    data = opened(progress=lambda done, total: calls.append((done, total)))
    assert len(numbers(data)) == 1000
    assert calls[-1] == (len(jsonl(*range(1000))),) * 2


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("rows.json", json.dumps([{"n": 0}, {"n": 1}]).encode()),
        ("rows.jsonl.gz", gzip.compress(jsonl(0, 1))),
        ("rows.jsonl.zst", bytes(pyarrow.compress(jsonl(0, 1), codec="zstd", asbytes=True))),
    ],
    ids=["json", "gz", "zst"],  # gzip's bytes hold the time, and all test processes must have the same names
)
def test_files_of_all_kinds_are_read(server: HubServer, name: str, content: bytes) -> None:
    add(server, {name: content})
    assert numbers(opened()) == [0, 1]


CONFIGS: list[dict[str, Any]] = [
    {
        "config_name": "plain",
        "data_files": [{"split": "train", "path": "plain/a-*"}, {"split": "dev", "path": ["x/*"]}],
    },
    {"config_name": "fancy", "data_dir": "fancy"},
]
FILES = {
    "plain/a-0.jsonl": jsonl(0),
    "plain/a-1.jsonl": jsonl(1),
    "x/y.jsonl": jsonl(2),
    "fancy/train.jsonl": jsonl(3),
    "fancy/validation.jsonl": jsonl(4),
}


def test_the_card_tells_subsets_and_splits(server: HubServer) -> None:
    add(server, {"README.md": card(configs=CONFIGS), **FILES})
    assert numbers(opened(subset="plain")) == [0, 1]
    assert numbers(opened("dev", "plain")) == [2]
    assert numbers(opened("validation", "fancy")) == [4]
    with pytest.raises(DataError, match="has no split 'test'") as caught:
        opened("test", "plain")
    assert "train, dev" in caught.value.why


def test_of_several_subsets_one_must_be_chosen(server: HubServer) -> None:
    add(server, {"README.md": card(configs=CONFIGS), **FILES})
    with pytest.raises(DataError, match="has several subsets") as caught:
        opened()
    assert "plain, fancy" in caught.value.why
    assert "data.subset" in caught.value.hint
    with pytest.raises(DataError, match="no subset 'plan'"):
        opened(subset="plan")


@pytest.mark.parametrize("chosen", [{"default": True}, {"config_name": "default"}])
def test_a_default_subset_is_taken(server: HubServer, chosen: dict[str, Any]) -> None:
    add(server, {"README.md": card(configs=[CONFIGS[1], {**CONFIGS[0], **chosen}]), **FILES})
    assert numbers(opened()) == [0, 1]


def test_a_subset_may_be_a_folder(server: HubServer) -> None:
    add(server, {"de/train.jsonl": jsonl(0), "en/train.jsonl": jsonl(1)})
    assert numbers(opened(subset="en")) == [1]
    with pytest.raises(DataError, match="no files of rows in a folder 'fr'"):
        opened(subset="fr")


@pytest.mark.parametrize("content", [b"no front matter", b"---\n: [\n---\n", b"---\n- a\n---\n", b"\xff\xfe"])
def test_a_card_that_tells_nothing_is_no_obstacle(server: HubServer, content: bytes) -> None:
    add(server, {"README.md": content, "train.jsonl": jsonl(0)})
    assert numbers(opened()) == [0]


def test_a_revision_is_pinned(server: HubServer) -> None:
    first = add(server, {"train.jsonl": jsonl(0)})
    second = server.repositories["datasets", NAME].commit({"train.jsonl": jsonl(1)})
    assert opened().source.revision == second
    old = opened(revision=first)
    assert numbers(old) == [0]
    assert old.fingerprint() != opened().fingerprint()
    assert opened().fingerprint() == opened(revision=second).fingerprint()


def test_other_kinds_of_files_are_refused(server: HubServer) -> None:
    add(server, {"README.md": b"x", "train.tar": b"x", "images/1.png": b"x"})
    with pytest.raises(DataError, match="holds no files of rows") as caught:
        opened()
    assert ".png, .tar" in caught.value.why


def test_a_broken_file_names_file_and_line(server: HubServer) -> None:
    add(server, {"a/train.jsonl": b'{"n": 0}\noops\n'})
    with pytest.raises(DataError, match=r"Line 2 of 'owner/rows/a/train.jsonl'"):
        numbers(opened())


def test_what_is_not_there_is_told(server: HubServer) -> None:
    with pytest.raises(DataError, match="data set owner/rows cannot be fetched") as caught:
        opened()
    assert "no such data set" in caught.value.why
    add(server, {"train.jsonl": jsonl(0)})
    with pytest.raises(DataError, match="cannot be fetched") as caught:
        opened(revision="v9")
    assert "data.revision" in caught.value.hint
    with pytest.raises(DataError, match="cannot be used"):
        opened(revision="../x")


def test_a_gated_data_set_names_its_page(server: HubServer) -> None:
    add(server, {"train.jsonl": jsonl(0)}, gated=True)
    with pytest.raises(DataError, match="cannot be fetched") as caught:
        numbers(opened())
    assert "/datasets/owner/rows" in caught.value.hint


def test_a_hub_that_is_gone_is_told(server: HubServer) -> None:
    server.stop()
    with pytest.raises(EnvironmentFault, match="cannot be fetched") as caught:
        opened()
    assert "cannot be reached" in caught.value.why


def test_what_was_fetched_needs_no_network(server: HubServer) -> None:
    commit = add(server, {"README.md": card(configs=CONFIGS), **FILES})
    assert numbers(opened(subset="plain")) == [0, 1]
    server.stop()
    data = opened(subset="plain")
    assert numbers(data) == [0, 1]
    assert data.source.revision == commit
    assert "lies in the cache" in data.notes[0]
    assert numbers(opened(subset="plain", revision=commit)) == [0, 1]
    with pytest.raises((DataError, EnvironmentFault), match=r"not whole in the cache|cannot be fetched"):
        numbers(opened("dev", "plain"))


def test_a_download_that_breaks_off_is_told(server: HubServer) -> None:
    add(server, {"train.jsonl": jsonl(*range(50_000))})
    server.stall("train.jsonl", 0.2, after=1000)
    with pytest.raises((DataError, EnvironmentFault), match="cannot be fetched"):
        numbers(opened())


def test_large_splits_are_read_over_the_network(server: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_data, "STREAMED_BYTES", 100)
    add(server, {"train-0.jsonl": jsonl(*range(2000)), "train-1.parquet": b"", "test.jsonl": jsonl(1)})
    server.repositories["datasets", NAME].commit({"train-0.jsonl": jsonl(*range(2000)), "test.jsonl": jsonl(1)})
    data = opened("train[:3]")
    assert numbers(data) == [0, 1, 2]
    assert "read over the network" in data.notes[0]
    assert not list(Path(huggingface_hub.constants.HF_HUB_CACHE).rglob("train-0.jsonl"))
    server.repositories["datasets", NAME].commit({"train.parquet": parquet(*range(500))})
    assert numbers(opened("train[498:]")) == [498, 499]


def test_evaluation_takes_the_other_split(server: HubServer) -> None:
    add(server, {"train.jsonl": jsonl(0), "test.jsonl": jsonl(1), "validation.jsonl": jsonl(2)})

    def found(**evaluation: Any) -> list[int] | None:
        section = DataSection.model_validate({"source": NAME, "evaluation": evaluation})
        data = open_evaluation(section, open_training(section))
        return None if data is None else numbers(data)

    assert found() is None
    assert found(source=NAME) == [1]
    assert found(split="validation") == [2]
    with pytest.raises(DataError, match="evaluation rows are the training rows"):
        found(split="train")


def test_the_endpoint_comes_from_the_environment(server: HubServer, tmp_path: Path) -> None:
    add(server, {"train.csv": b"n\n1\n2\n"})
    code = (
        "from qlora_tui.data.source import find_source\n"
        "from qlora_tui.engine.data_source import open_source\n"
        f"print([row.values['n'] for row in open_source(find_source({NAME!r})).rows()])"
    )
    variables = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    variables |= {"HF_ENDPOINT": server.address, "HF_HOME": str(tmp_path / "hub"), "NO_PROXY": "127.0.0.1"}
    variables["PYTHONPATH"] = str(Path(hub_data.__file__).parents[2])
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=variables)
    assert finished.stdout == "['1', '2']\n", finished.stderr
