"""Everything a user can get wrong, given to the console script case by case: does it end in words and the right code?

    python -m benchmarks.errors [WORD ...]

The words pick the cases whose names contain one of them; without any, all are run and the table is published. A case
that fails on purpose must tell what happened, why and what to do, show no traceback, and leave nothing behind that is
in the way of the next try under the same name.
"""

from __future__ import annotations

import gzip
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy
import yaml
from safetensors.numpy import load, save
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from benchmarks.runs import ROOT, events
from benchmarks.tables import publish, table
from qlora_tui.config import RunConfig
from qlora_tui.errors import ExitCode, QloraError
from qlora_tui.runs.directory import RunDirectory, create_run
from qlora_tui.runs.events import Phase, Step, Warned

NAME = "bad"
"""The name of every run, so that a next try under the same name can be made."""
CLOSED_PORT = "http://127.0.0.1:9"
# Copied once: cases may run in threads while others change the environment, and this machine's own folders and token
# are no part of any.
_INHERITED = {name: value for name, value in os.environ.items() if not name.startswith(("QLORA_TUI_", "HF_"))}
LONG_ROW = 6
"""The row of ``long_rows`` that is longer than ``max_length``, counted from 1."""
_CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_ARCHITECTURE = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 64, "intermediate_size": 128,
    "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16,
    "max_position_embeddings": 512, "rms_norm_eps": 1e-5, "hidden_act": "silu", "tie_word_embeddings": True,
    "torch_dtype": "float32",
}  # fmt: skip


class CannotStage(Exception):
    """This machine does not allow what a case needs, such as mounting a file system."""


@dataclass(frozen=True, slots=True)
class Place:
    """A folder for one case, with a home of its own, and what has to be undone after it."""

    folder: Path
    undo: ExitStack
    variables: dict[str, str] = field(default_factory=dict)
    """Environment variables of the case."""

    @property
    def runs(self) -> Path:
        """The default runs directory."""
        return self.folder / "home" / "runs"

    @property
    def model(self) -> Path:
        """A whole small model, made on first use."""
        path = self.folder / "model"
        if not path.exists():
            write_files(path, model_files())
        return path

    @property
    def environment(self) -> dict[str, str]:
        """What the console script is started with."""
        return {
            **_INHERITED,
            "QLORA_TUI_HOME": str(self.folder / "home"),
            "HF_HOME": str(self.folder / "hub"),
            "HF_HUB_OFFLINE": "1",
            "NO_PROXY": "127.0.0.1",
            **self.variables,
        }

    def values(self, **sections: Any) -> dict[str, Any]:
        """A config that trains two short steps, with some fields of some sections replaced."""
        values: dict[str, Any] = {
            "name": NAME,
            "model": {"source": str(self.model)},
            "data": {"source": "rows.jsonl", "max_length": 128, "evaluation": {"fraction": 0.25}},
            "training": {"effective_batch": 2, "max_steps": 2},
        }
        for section, fields in sections.items():
            values[section] = {**values.get(section, {}), **fields} if isinstance(fields, dict) else fields
        return values

    def config(self, **sections: Any) -> list[str]:
        """Write such a config, and good rows if the case has written none; the arguments that train it."""
        if not (self.folder / "rows.jsonl").exists():
            self.rows(*good_rows())
        return self.text(yaml.safe_dump(self.values(**sections)))

    def text(self, text: str) -> list[str]:
        """Write the text of a config; the arguments that train it."""
        path = self.folder / "run.yaml"
        path.write_text(text, encoding="utf-8")
        return ["--config", str(path), "--json"]

    def rows(self, *lines: object, name: str = "rows.jsonl") -> Path:
        """Write lines of data: bytes as they are, text as a line, anything else as JSON."""
        path = self.folder / name
        path.write_bytes(b"".join(_line(each) + b"\n" for each in lines))
        return path

    def run(self, scenario: str) -> RunDirectory:
        """A run directory in which a player, in a process of its own, plays the part of the engine."""
        from player import start_player

        values = self.values(output={"directory": str(self.runs)})
        run = create_run(RunConfig.model_validate(values))
        process = start_player(run, scenario)
        if scenario == "stubborn":
            self.undo.callback(process.wait)
            self.undo.callback(process.kill)
        else:
            process.wait()
        return run

    def mount(self, options: str) -> Path:
        """A small file system in memory.

        Raises:
            CannotStage: if it cannot be mounted here.
        """
        path = self.folder / "mounted"
        path.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(path)]
        if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode:
            raise CannotStage("a small file system cannot be mounted here (root only)")
        self.undo.callback(subprocess.run, ["umount", "--lazy", str(path)], check=False)
        return path


@dataclass(frozen=True, slots=True)
class Case:
    """One thing to get wrong.

    Attributes:
        prepare: Writes what is needed into a place; the arguments of the console script.
        exit_code: How it must end.
        words: What the error must say, or for a run that ends well, its warnings.
        details: What the phase that encodes the rows must have counted.
        full: Whether the engine loads a model for it, which takes its libraries many seconds.
        again: Whether a corrected config must be able to take the same name at once.
    """

    name: str
    prepare: Callable[[Place], Sequence[str]]
    exit_code: ExitCode
    words: tuple[str, ...]
    details: Mapping[str, int] = field(default_factory=dict)
    full: bool = False
    again: bool = True


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the console script did."""

    exit_code: int
    stdout: str
    stderr: str
    seconds: float
    warnings: tuple[str, ...]
    details: Mapping[str, Any]
    in_the_way: str
    """What keeps a corrected config from using the same name; empty if nothing does."""

    @property
    def sentences(self) -> list[str]:
        """The sentences of the error on stderr, without the line that names the log."""
        _, _, told = self.stderr.partition("error: ")
        lines = [line.strip() for line in told.splitlines() if not line.strip().startswith("Log: ")]
        return [each for line in lines for each in re.split(r"(?<=[.!?])\s+", line) if each]

    def faults(self, case: Case) -> list[str]:
        """Everything in which this differs from what ``case`` asks for."""
        found = [] if self.exit_code == case.exit_code else [f"exit code {self.exit_code}, not {int(case.exit_code)}"]
        found += ["a traceback on the terminal"] if "Traceback" in self.stdout + self.stderr else []
        found += ["control characters"] if re.search(r"[^\t\n -~\u00a0-\U0010ffff]", self.stdout + self.stderr) else []
        told = " ".join(self.sentences if case.exit_code else self.warnings)
        found += [f"{word!r} is not said" for word in case.words if word.lower() not in told.lower()]
        found += [
            f"{name} is {self.details.get(name)}, not {count}"
            for name, count in case.details.items()
            if self.details.get(name) != count
        ]
        if case.exit_code:
            found += [] if len(self.sentences) >= 3 else [f"{len(self.sentences)} sentences, not three"]
            found += self._json_faults() if self.stdout else []
        found += [f"the next try is blocked: {self.in_the_way}"] if self.in_the_way else []
        return found

    def _json_faults(self) -> list[str]:
        """What is wrong with the summary that ``--json`` writes."""
        try:
            summary = json.loads(self.stdout)
        except ValueError:
            return ["stdout is not one JSON object"]
        error = summary.get("error") or {}
        complete = len(re.split(r"(?<=[.!?])\s+", error.get("message", ""))) >= 2 and error.get("hint")
        found = [] if complete else ["the summary's error lacks what, why or what to do"]
        return found if summary.get("exit_code") == self.exit_code else [*found, "the summary has another exit code"]


def run_case(case: Case, folder: Path) -> Outcome:
    """Prepare a case in an empty folder, run it, and undo what it needed.

    Raises:
        CannotStage: if this machine cannot prepare it.
    """
    with ExitStack() as undo:
        place = Place(folder, undo)
        arguments = case.prepare(place)
        started = time.monotonic()
        finished = console(place, *arguments)
        seconds = time.monotonic() - started
        run = place.runs / NAME
        if (named := _summary(finished.stdout).get("run")) is not None:
            run = Path(named)
        seen = [record.event for record in events(run)] if (run / "events.jsonl").is_file() else []
        details = [each.details for each in seen if isinstance(each, Phase) and each.phase == "encode"]
        trained = any(isinstance(each, Step) for each in seen)
        return Outcome(
            finished.returncode,
            finished.stdout,
            finished.stderr,
            seconds,
            tuple(each.message for each in seen if isinstance(each, Warned)) or _notes(finished.stdout),
            details[-1] if details else {},
            _in_the_way(place, run) if case.again and case.exit_code and not trained and run.exists() else "",
        )


def console(place: Place, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The console script in a process of its own."""
    command = [str(Path(sys.executable).with_name("qlora-tui")), *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=300, env=place.environment, cwd=place.folder, check=False
    )


def _in_the_way(place: Place, run: Path) -> str:
    """Why a corrected config could not take the name of ``run``; empty if it can."""
    values = place.values(output={"directory": str(run.parent)})
    try:
        create_run(RunConfig.model_validate(values))
    except QloraError as error:
        return str(error)
    return ""


def _summary(text: str) -> dict[str, Any]:
    with suppress(ValueError):
        value = json.loads(text)
        return value if isinstance(value, dict) else {}
    return {}


def _notes(text: str) -> tuple[str, ...]:
    """What an estimate says besides its figures."""
    return tuple(_summary(text).get("notes", ()))


def _line(value: object) -> bytes:
    if isinstance(value, bytes):
        return value
    return (value if isinstance(value, str) else json.dumps(value)).encode()


def good_rows(count: int = 8) -> list[dict[str, str]]:
    """Rows that differ."""
    return [{"prompt": f"What follows {number}?", "completion": f"It is {number + 1}."} for number in range(count)]


def write_files(folder: Path, files: Mapping[str, bytes]) -> Path:
    """Write files into a new folder."""
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


def model_files() -> dict[str, bytes]:
    """A whole llama of 70,000 random weights that reads bytes: everything but its answers is real."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({character: number for number, character in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<|im_start|>", "<|im_end|>"])
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|im_end|>", "chat_template": _CHATML}
    configuration = {**_ARCHITECTURE, "vocab_size": tokenizer.get_vocab_size(), "eos_token_id": len(alphabet) + 1}
    return {
        "config.json": json.dumps(configuration).encode(),
        "tokenizer.json": tokenizer.to_str().encode(),
        "tokenizer_config.json": json.dumps(settings).encode(),
        "model.safetensors": save(_weights(tokenizer.get_vocab_size()), metadata={"format": "pt"}),
    }


def _weights(vocabulary: int) -> dict[str, Any]:
    random = numpy.random.default_rng(0)
    layer = {
        "self_attn.q_proj": (64, 64), "self_attn.k_proj": (32, 64), "self_attn.v_proj": (32, 64),
        "self_attn.o_proj": (64, 64), "mlp.gate_proj": (128, 64), "mlp.up_proj": (128, 64), "mlp.down_proj": (64, 128),
        "input_layernorm": (64,), "post_attention_layernorm": (64,),
    }  # fmt: skip
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (vocabulary, 64), "model.norm.weight": (64,)}
    for number in range(2):
        shapes |= {f"model.layers.{number}.{name}.weight": shape for name, shape in layer.items()}
    return {name: random.normal(0, 0.05, shape).astype(numpy.float32) for name, shape in shapes.items()}


# Configs


def no_config(place: Place) -> Sequence[str]:
    return ["--config", str(place.folder / "nowhere.yaml"), "--json"]


def config_is_a_folder(place: Place) -> Sequence[str]:
    return ["--config", str(place.folder), "--json"]


def config_is_not_text(place: Place) -> Sequence[str]:
    arguments = place.text("")
    Path(arguments[1]).write_bytes(b"name: bad\n\xff\xfe\n")
    return arguments


def with_text(text: str) -> Callable[[Place], Sequence[str]]:
    """The config is this text; its rows are good."""

    def prepare(place: Place) -> Sequence[str]:
        place.rows(*good_rows())
        return place.text(text)

    return prepare


def with_sections(**sections: Any) -> Callable[[Place], Sequence[str]]:
    """The config differs from a good one in these fields."""
    return lambda place: place.config(**sections)


def without_package(package: str, **sections: Any) -> Callable[[Place], Sequence[str]]:
    """The config asks for what needs a package that is not installed."""

    def prepare(place: Place) -> Sequence[str]:
        if find_spec(package) is not None:
            raise CannotStage(f"{package} is installed here")
        return place.config(**sections)

    return prepare


# Models


def with_model(change: Callable[[dict[str, bytes]], object], **sections: Any) -> Callable[[Place], Sequence[str]]:
    """The model's files are changed before they are written; the config differs in these fields."""

    def prepare(place: Place) -> Sequence[str]:
        files = model_files()
        change(files)
        write_files(place.folder / "model", files)
        return place.config(**sections)

    return prepare


def without(*names: str) -> Callable[[Place], Sequence[str]]:
    """The model's folder lacks these files."""
    return with_model(lambda files: [files.pop(name) for name in names])


def with_file(name: str, content: bytes) -> Callable[[Place], Sequence[str]]:
    """The model's folder holds this file."""
    return with_model(lambda files: files.update({name: content}))


def with_settings(settings: dict[str, Any], **sections: Any) -> Callable[[Place], Sequence[str]]:
    """The model's config.json says something else."""

    def change(files: dict[str, bytes]) -> None:
        files["config.json"] = json.dumps(json.loads(files["config.json"]) | settings).encode()

    return with_model(change, **sections)


def truncated_weights(files: dict[str, bytes]) -> None:
    files["model.safetensors"] = files["model.safetensors"][:-1000]


def pickled_weights(files: dict[str, bytes]) -> None:
    files["pytorch_model.bin"] = files.pop("model.safetensors")


def lacks_tensor(name: str, **sections: Any) -> Callable[[Place], Sequence[str]]:
    """The weights are whole but for one tensor, which the loader would fill with random numbers."""

    def change(files: dict[str, bytes]) -> None:
        weights = load(files["model.safetensors"])
        del weights[name]
        files["model.safetensors"] = save(weights, metadata={"format": "pt"})

    return with_model(change, **sections)


def not_a_gguf(place: Place) -> Sequence[str]:
    (place.folder / "model.gguf").write_bytes(b"<!doctype html><title>Sign in</title>")
    return place.config(model={"source": "model.gguf"})


def cut_gguf(place: Place) -> Sequence[str]:
    (place.folder / "model.gguf").write_bytes(b"GGUF" + (3).to_bytes(4, "little") + bytes(40))
    return place.config(model={"source": "model.gguf"})


def unreachable_hub(place: Place) -> Sequence[str]:
    place.variables.update(HF_HUB_OFFLINE="0", HF_ENDPOINT=CLOSED_PORT)
    return place.config(model={"source": "owner/model"})


def offline(place: Place) -> Sequence[str]:
    return place.config(model={"source": "owner/model"})


def on_a_hub(name: str) -> Callable[[Place], Sequence[str]]:
    """The model is asked from a hub that has a gated model and no other."""

    def prepare(place: Place) -> Sequence[str]:
        from hub_server import running_hub

        hub = place.undo.enter_context(running_hub())
        hub.add("owner/gated", model_files(), gated=True)
        place.variables.update(HF_HUB_OFFLINE="0", HF_ENDPOINT=hub.address)
        return place.config(model={"source": name})

    return prepare


# Data


def with_rows(*lines: object, good: int = 0, **data: Any) -> Callable[[Place], Sequence[str]]:
    """The data holds so many good rows and then these lines."""

    def prepare(place: Place) -> Sequence[str]:
        place.rows(*good_rows(good), *lines)
        return place.config(data=data)

    return prepare


def long_rows(policy: str) -> Callable[[Place], Sequence[str]]:
    """One of eight rows has more tokens than ``max_length``, half of them in its answer."""
    rows: list[Any] = good_rows()
    rows[LONG_ROW - 1] = {"prompt": "Say a.", "completion": "a" * 200}
    return with_rows(*rows, long_rows=policy, evaluation={"fraction": 0})


def empty_folder(place: Place) -> Path:
    folder = place.folder / "nothing"
    folder.mkdir()
    return folder


def gzip_bomb(place: Place) -> Sequence[str]:
    """A gigabyte without a line break in a megabyte."""
    path = place.folder / "rows.jsonl.gz"
    with gzip.open(path, "wb", compresslevel=9) as file:
        for _ in range(1024):
            file.write(bytes(1 << 20))
    return place.config(data={"source": str(path)})


def bad_evaluation_rows(place: Place) -> Sequence[str]:
    place.rows('{"prompt": "a"', name="held-out.jsonl")
    return place.config(data={"evaluation": {"source": "held-out.jsonl"}})


# Runs and folders


def file_in_the_way(place: Place) -> Sequence[str]:
    (place.folder / "taken").write_text("a file", encoding="utf-8")
    return place.config(output={"directory": "taken/runs"})


def read_only_folder(place: Place) -> Sequence[str]:
    return place.config(output={"directory": str(place.mount("size=1m,ro"))})


def read_only_home(place: Place) -> Sequence[str]:
    place.variables.update(QLORA_TUI_HOME=str(place.mount("size=1m,ro")))
    return place.config()


def full_disk(place: Place) -> Sequence[str]:
    """There is room for the first checkpoints, but not for all that are to be kept."""
    return place.config(
        data={"packing": False},
        training={"effective_batch": 1, "max_steps": 6},
        checkpoints={"every": 1, "keep": 6},
        output={"directory": str(place.mount("size=2m"))},
    )


def name_is_taken(place: Place) -> Sequence[str]:
    place.run("completed")
    return place.config()


def folder_is_no_run(place: Place) -> Sequence[str]:
    (place.runs / NAME).mkdir(parents=True)
    (place.runs / NAME / "mine.txt").write_text("mine", encoding="utf-8")
    return [*place.config(), "--overwrite"]


def on_run(scenario: str, *arguments: str) -> Callable[[Place], Sequence[str]]:
    """A command on a run that has got as far as ``scenario`` says."""

    def prepare(place: Place) -> Sequence[str]:
        place.run(scenario)
        return arguments

    return prepare


def command(*arguments: str) -> Callable[[Place], Sequence[str]]:
    """A command where there is nothing yet."""
    return lambda _place: arguments


def chat_with_a_folder(place: Place) -> Sequence[str]:
    return ["chat", str(place.model), "--prompt", "Hello"]


def chat_with_half_an_adapter(place: Place) -> Sequence[str]:
    settings = json.dumps({"base_model_name_or_path": str(place.model), "peft_type": "LORA"})
    folder = write_files(place.folder / "adapter", {"adapter_config.json": settings.encode()})
    return ["chat", str(folder), "--prompt", "Hello"]


NO_ANSWER = {"prompt": "What follows?", "completion": ""}
PACKED = {"packing": True, "evaluation": {"fraction": 0}}
USAGE, ENVIRONMENT, OK = ExitCode.USAGE, ExitCode.ENVIRONMENT, ExitCode.OK

CONFIG_CASES = (
    Case("config: no such file", no_config, USAGE, ("nowhere.yaml", "no such file")),
    Case("config: a folder", config_is_a_folder, USAGE, ("is a folder", "config file")),
    Case("config: not UTF-8", config_is_not_text, USAGE, ("run.yaml:2", "UTF-8")),
    Case("config: empty", with_text(""), USAGE, ("run.yaml", "name", "data")),
    Case("config: YAML syntax", with_text("name: bad\ndata: {source: rows.jsonl\n"), USAGE, ("run.yaml:", "yaml")),
    Case("config: unknown key", with_sections(training={"learning_rat": 1e-4}), USAGE,
         ("run.yaml:", "training.learning_rate")),
    Case("config: wrong type", with_sections(training={"epochs": "three"}), USAGE,
         ("run.yaml:", "training.epochs", "not a number")),
    Case("config: two errors", with_sections(training={"epochs": "three"}, adapter={"rank": 0}), USAGE,
         ("training.epochs", "adapter.rank", "these places")),
    Case("config: batch sizes do not divide", with_sections(training={"effective_batch": 8, "micro_batch": 3}), USAGE,
         ("training.micro_batch", "does not divide", "1, 2, 4, 8")),
    Case("config: everything held out", with_sections(data={"evaluation": {"fraction": 1}}), USAGE,
         ("data.evaluation.fraction", "below 1")),
    Case("config: no such split", with_sections(data={"split": "test"}), USAGE, ("no split", "test", "data.split")),
    Case("config: a slice without rows", with_sections(data={"split": "train[100:200]"}), USAGE,
         ("train[100:200]", "8 rows")),
    Case("config: a name that is a path", lambda place: [*place.config(), "--name", "../up"], USAGE,
         ("../up", "--name")),
)  # fmt: skip
MODEL_CASES = (
    Case("model: no such folder", with_sections(model={"source": "./nowhere"}), USAGE, ("nowhere", "check the path")),
    Case("model: no config.json", without("config.json"), USAGE, ("config.json",)),
    Case("model: config.json is no JSON", with_file("config.json", b"{"), USAGE, ("config.json", "not valid JSON")),
    Case("model: no weights", without("model.safetensors"), USAGE, ("no weights",)),
    Case("model: damaged weights", with_file("model.safetensors", b"\xff" * 4096), USAGE,
         ("model.safetensors", "damaged")),
    Case("model: truncated weights", with_model(truncated_weights), USAGE, ("model.safetensors", "cut off")),
    Case("model: a Git LFS pointer",
         with_file("model.safetensors", b"version https://git-lfs.github.com/spec/v1\n"), USAGE, ("git lfs pull",)),
    Case("model: pickled weights only", with_model(pickled_weights), USAGE, ("pickle", "safetensors")),
    Case("model: no tokenizer", without("tokenizer.json", "tokenizer_config.json"), USAGE, ("no tokenizer",)),
    Case("model: damaged tokenizer", with_file("tokenizer.json", b"{}"), USAGE, ("tokenizer.json", "cannot be read")),
    Case("model: damaged chat template", with_file("chat_template.jinja", b"{% for %}"), USAGE,
         ("chat_template.jinja",)),
    Case("model: code of its own", with_settings({"model_type": "own", "auto_map": {"AutoModel": "own.Model"}}), USAGE,
         ("Python code", "trust_remote_code")),
    Case("model: an adapter",
         with_model(lambda files: files.update({"adapter_config.json": files.pop("config.json")})), USAGE,
         ("this is an adapter",)),
    Case("model: a GGUF that is none", not_a_gguf, USAGE, ("model.gguf", "GGUF")),
    Case("model: a GGUF cut off", cut_gguf, USAGE, ("model.gguf",), full=True),
    Case("model: hub unreachable", unreachable_hub, ENVIRONMENT, ("owner/model", "127.0.0.1:9", "network")),
    Case("model: hub switched off", offline, ENVIRONMENT, ("owner/model", "HF_HUB_OFFLINE")),
    Case("model: gated", on_a_hub("owner/gated"), USAGE, ("owner/gated", "gated", "HF_TOKEN")),
    Case("model: not on the hub", on_a_hub("owner/none"), USAGE, ("owner/none", "no such model", "spelling")),
    Case("model: neither template nor end token", with_file("tokenizer_config.json", b"{}"), USAGE,
         ("chat template", "eos_token")),
    Case("model: unknown architecture", with_settings({"model_type": "own"}), USAGE, ("own",), full=True),
    Case("model: weights of another shape", with_settings({"intermediate_size": 256}), USAGE, ("mlp",), full=True),
    Case("model: weights of another shape, 16 bits",
         with_settings({"intermediate_size": 256}, quantization={"type": "none"}), USAGE, ("mlp",), full=True),
    Case("model: a projection is missing", lacks_tensor("model.layers.1.mlp.up_proj.weight"), USAGE, ("up_proj",),
         full=True),
    Case("model: a projection is missing, 16 bits",
         lacks_tensor("model.layers.1.mlp.up_proj.weight", quantization={"type": "none"}), USAGE, ("up_proj",),
         full=True),
    Case("model: a norm is missing", lacks_tensor("model.norm.weight"), USAGE, ("model.norm",), full=True),
    Case("model: more tokens than embeddings", with_settings({"vocab_size": 200}), USAGE, ("embed_tokens",),
         full=True),
)  # fmt: skip
DATA_CASES = (
    Case("data: no such file", with_sections(data={"source": "nowhere.jsonl"}), USAGE, ("nowhere.jsonl", "path")),
    Case("data: a folder without data", lambda place: place.config(data={"source": str(empty_folder(place))}), USAGE,
         ("no data file", "name a file")),
    Case("data: another kind of file", lambda place: place.config(data={"source": str(place.rows(name="rows.xlsx"))}),
         USAGE, ("rows.xlsx", ".jsonl")),
    Case("data: a table with a short row", lambda place: place.config(
        data={"source": str(place.rows("prompt,completion", "a,b", "c", name="rows.csv"))}), USAGE,
        ("Line 3", "rows.csv", "1 fields")),
    Case("data: a bomb", gzip_bomb, USAGE, ("longer than 16 MiB", "own")),
    Case("data: no such bundled sample", with_sections(data={"source": "bundled:ham"}), USAGE,
         ("'ham'", "bundled:spam")),
    Case("data: a hub data set without a network", with_sections(data={"source": "owner/rows"}), ENVIRONMENT,
         ("owner/rows", "HF_HUB_OFFLINE")),
    Case("data: empty file", with_rows(), USAGE, ("rows.jsonl", "empty")),
    Case("data: invalid JSON on line 4", with_rows('{"prompt": "a", "completion": }', good=3), USAGE,
         ("Line 4", "not valid JSON", "column")),
    Case("data: a line that is no object", with_rows("[1, 2]", good=2), USAGE, ("Line 3", "a list", "object")),
    Case("data: not UTF-8", with_rows(b'{"prompt": "caf\xe9", "completion": "a"}', good=4), USAGE,
         ("Line 5", "UTF-8")),
    Case("data: NUL bytes", with_rows(b'{"prompt": "a\0", "completion": "a"}', good=1), USAGE, ("Line 2", "NUL")),
    Case("data: no row has an answer", with_rows(NO_ANSWER, NO_ANSWER), USAGE, ("no answer", "2")),
    Case("data: some rows have no answer", with_rows(NO_ANSWER, NO_ANSWER, good=6), OK,
         ("2 of 8 rows are not used", "no answer"), {"rows": 8, "kept": 6}, full=True),
    Case("data: unknown columns", with_rows({"frage": "a", "antwort": "b"}), USAGE,
         ("frage", "antwort", "data.columns")),
    Case("data: data.columns names no column", with_sections(data={"columns": {"completion": "compleiton"}}), USAGE,
         ("compleiton", "did you mean 'completion'?")),
    Case("data: the template names no column",
         with_sections(data={"template": "{promt}", "columns": {"completion": "completion"}}), USAGE,
         ("promt", "did you mean 'prompt'?")),
    Case("data: messages of an unknown role", with_rows({"messages": [{"role": "judge", "content": "a"}]}), USAGE,
         ("judge", "assistant")),
    Case("data: a row too long, error", long_rows("error"), USAGE, (f"Row {LONG_ROW}", "tokens", "128")),
    Case("data: a row too long, drop", long_rows("drop"), OK, ("1 of 8 rows are not used",),
         {"rows": 8, "kept": 7, "truncated": 0, "train_rows": 7}, full=True),
    Case("data: a row too long, truncate", long_rows("truncate"), OK, ("1 of 8 rows are cut",),
         {"rows": 8, "kept": 8, "truncated": 1, "train_rows": 8}, full=True),
    Case("data: a row too long, split", long_rows("split"), OK, (),
         {"rows": 8, "kept": 8, "truncated": 0, "train_rows": 9}, full=True),
    Case("data: every prompt fills max_length", with_rows({"prompt": "a" * 200, "completion": "b"}), USAGE,
         ("prompt", "data.max_length")),
    Case("data: no such evaluation file", with_sections(data={"evaluation": {"source": "nowhere.jsonl"}}), USAGE,
         ("nowhere.jsonl", "path")),
    Case("data: damaged evaluation file", bad_evaluation_rows, USAGE, ("Line 1", "held-out.jsonl")),
)  # fmt: skip
RECIPE_CASES = (
    Case("recipe: layers the model lacks", with_sections(adapter={"target_modules": ["query"]}), USAGE,
         ("query", "adapter.target_modules", "all-linear"), full=True),
    Case("recipe: varlen on this machine", with_sections(training={"attention": "varlen"}, data=PACKED), OK, (),
         full=True),
    Case("recipe: varlen without packing",
         with_sections(training={"attention": "varlen"}, data={"packing": False}), USAGE,
         ("training.attention", "packing"), full=True),
    Case("recipe: varlen with adapter dropout",
         with_sections(training={"attention": "varlen"}, data=PACKED, adapter={"dropout": 0.1}), OK, (), full=True),
    Case("recipe: varlen with attention dropout",
         with_settings({"attention_dropout": 0.1}, training={"attention": "varlen"}, data=PACKED), USAGE,
         ("training.attention", "dropout"), full=True),
    Case("recipe: flash_attention_2 without its package",
         without_package("flash_attn", training={"attention": "flash_attention_2"}), ENVIRONMENT,
         ("flash", "training.attention"), full=True),
    Case("recipe: liger without its package", without_package("triton", training={"layer_kernels": "liger"}),
         ENVIRONMENT, ("training.layer_kernels",), full=True),
    Case("recipe: a tracker that is not installed", without_package("wandb", tracking={"report_to": "wandb"}),
         ENVIRONMENT, ("wandb", "install"), full=True),
)  # fmt: skip
RUN_CASES = (
    Case("output: a file in the way", file_in_the_way, ENVIRONMENT, ("taken", "output.directory")),
    Case("output: read-only", read_only_folder, ENVIRONMENT, ("read-only", "output.directory")),
    Case("output: read-only home", read_only_home, ENVIRONMENT, ("read-only",)),
    Case("output: disk full while saving", full_disk, ENVIRONMENT, ("free", "resume"), full=True, again=False),
    Case("output: a run of that name", name_is_taken, USAGE, (NAME, "exists", "overwrite"), again=False),
    Case("output: a folder that is no run", folder_is_no_run, USAGE, ("not a run", "left alone"), again=False),
    Case("resume: a finished run", on_run("completed", "resume", NAME, "--json"), USAGE, ("completed", "chat"),
         again=False),
    Case("resume: a running run", on_run("stubborn", "resume", NAME, "--json"), USAGE,
         ("training right now", "attach"), again=False),
    Case("resume: no such run", command("resume", "nobody", "--json"), USAGE, ("no run nobody",)),
    Case("attach: no such run", command("attach", "nobody"), USAGE, ("no run nobody",)),
    Case("stop: no such run", command("stop", "nobody"), USAGE, ("no run nobody",)),
    Case("stop: a run that is over", on_run("completed", "stop", NAME), USAGE, ("not running", "completed"),
         again=False),
    Case("chat: no such run", command("chat", "nobody", "--prompt", "Hello"), USAGE, ("no run nobody",)),
    Case("chat: a folder without an adapter", chat_with_a_folder, USAGE, ("adapter_config.json",)),
    Case("chat: an adapter without weights", chat_with_half_an_adapter, USAGE, ("adapter_model.safetensors",),
         full=True),
    Case("chat: no prompt", command("chat", "nobody"), USAGE, ("--prompt",)),
)  # fmt: skip


def all_cases() -> tuple[Case, ...]:
    """Every case; those of the estimate are a module of their own that stands on this one."""
    from benchmarks.estimate_errors import ESTIMATE_CASES

    return (*CONFIG_CASES, *MODEL_CASES, *DATA_CASES, *RECIPE_CASES, *RUN_CASES, *ESTIMATE_CASES)


@contextmanager
def importable_test_helpers() -> Iterator[None]:
    """The tests' player and hub, which stand alone, importable."""
    sys.path.append(str(ROOT / "tests"))
    try:
        yield
    finally:
        sys.path.remove(str(ROOT / "tests"))


def main() -> None:
    """Run and, if they are all the cases, publish."""
    words = sys.argv[1:]
    rows: list[list[object]] = []
    wrong = 0
    with importable_test_helpers(), tempfile.TemporaryDirectory(prefix="qlora-tui-errors-") as folder:
        for number, case in enumerate(all_cases()):
            if words and not any(word in case.name for word in words):
                continue
            place = Path(folder) / str(number)
            place.mkdir()
            try:
                outcome = run_case(case, place)
            except CannotStage as reason:
                rows.append([case.name, "not run", str(reason), "", ""])
                continue
            faults = outcome.faults(case)
            wrong += bool(faults)
            print(f"{case.name}: {'; '.join(faults) or 'as it should be'} ({outcome.seconds:.1f} s)", flush=True)
            rows.append(_row(case, outcome, place))
    ran = sum(row[1] != "not run" for row in rows)
    header = ["what is wrong", "exit code", "what is said", "traceback", "seconds"]
    told = f"{ran - wrong} of {ran} cases end as they should: in three sentences, with the right exit code, without a "
    told += "traceback, and with the name of the run free for the next try. What ends well shows its warnings."
    if words:
        print(table(header, rows))
    else:
        publish("errors", told, table(header, rows))
    sys.exit(bool(wrong))


def _row(case: Case, outcome: Outcome, folder: Path) -> list[object]:
    text = " ".join(outcome.sentences if outcome.exit_code else outcome.warnings)
    text = text.replace(f"{folder}/", "").replace(str(folder), "FOLDER")
    text = text.replace("`", "'") if len(text) <= 240 else text[:239].replace("`", "'") + "…"
    traceback = "YES" if "Traceback" in outcome.stdout + outcome.stderr else "no"
    return [case.name, outcome.exit_code, text, traceback, f"{outcome.seconds:.1f}"]


if __name__ == "__main__":
    main()
