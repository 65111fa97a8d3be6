"""An adapter merged into 16-bit weights, with its checks before and after.

Two ways. *Standard*: the base is loaded anew in 16 bits, as it was published, and the adapter is added. *Exact*: the
base is quantised as in training and unpacked again, so that what the adapter was trained on is what it is added to.
There is no third: adding it to 4-bit weights and rounding those again erases most of an adapter.
"""

from __future__ import annotations

import gc
import json
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, GenerationConfig

from qlora_tui.data.encode import Encoder
from qlora_tui.engine import fidelity
from qlora_tui.engine.chat_session import ChatTarget
from qlora_tui.engine.convert import convert_gguf
from qlora_tui.engine.held_out_rows import conversations, read_rows
from qlora_tui.engine.load import (
    DTYPES,
    LoadedModel,
    attach_saved_adapter,
    compute_dtype_name,
    device,
    load_base,
)
from qlora_tui.engine.merge_checks import check_disk, check_memory, check_output, parameters_of
from qlora_tui.engine.merged_card import merged_card
from qlora_tui.engine.stream import find_end_ids
from qlora_tui.errors import EnvironmentFault, QloraError, RunError, UsageError
from qlora_tui.models.sources import ModelFiles, resolve_model
from qlora_tui.runs.files import replace_folder, write_atomic
from qlora_tui.runs.merges import MERGE_FILE, Fidelity, MergeReport
from qlora_tui.runs.serving import modelfile
from qlora_tui.text import one_line

Progress = Callable[[str], None]
SHARD = "5GB"
# What of a tokenizer's folder belongs to the model that is made; weights and settings of the adapter do not.
_TOKENIZER_FILES = ("token*", "special_tokens_map.json", "added_tokens.json", "vocab.*", "merges.txt", "chat_template*")


def merge(
    target: ChatTarget,
    output: Path,
    *,
    exact: bool = False,
    overwrite: bool = False,
    progress: Progress = lambda _message: None,
    stopped: Callable[[], bool] = lambda: False,
) -> MergeReport:
    """Merge ``target`` into the folder ``output``, which is complete or not there.

    Args:
        progress: Called with what is being done.
        stopped: Asked between the stages; if it says so, nothing is left behind.

    Raises:
        QloraError: if there is too little memory or disk, the folder is taken, or the model cannot be used.
    """
    return _Merge(target, output.expanduser().absolute(), exact, progress, stopped).run(overwrite)


@dataclass(frozen=True, slots=True)
class _Probes:
    """What is compared: the adapter's own predictions, taken before its weights are merged."""

    probes: Sequence[fidelity.Probe]
    adapter: Sequence[torch.Tensor]
    held_out: bool
    note: str


class _Merge:
    def __init__(
        self, target: ChatTarget, output: Path, exact: bool, progress: Progress, stopped: Callable[[], bool]
    ) -> None:
        self._target = target
        self._config = target.config
        self._output = output
        self._exact = exact
        self._tell = progress
        self._stopped = stopped

    def run(self, overwrite: bool) -> MergeReport:
        start = time.monotonic()
        if self._exact and self._config.quantization.type == "none":
            raise UsageError(
                "There is nothing to be exact about.",
                "The base was not quantised in training, so the standard merge is the exact one.",
                "Leave --exact out.",
            )
        check_output(self._output, overwrite=overwrite)
        files = self._files()
        count = parameters_of(files.folder)
        check_disk(self._output, count)
        check_memory(count)
        encoder = Encoder.from_folder(self._template_folder(files), self._config.data)
        probes = self._measure_adapter(files, encoder)
        self._go_on()
        staging = self._output.with_name(f".{self._output.name}.partial")
        shutil.rmtree(staging, ignore_errors=True)
        try:
            staging.mkdir(parents=True)
            dtype = self._write(files, encoder, staging)
            self._go_on()
            found, note = self._measure_merged(staging, probes)
            self._go_on()
            report = MergeReport(
                output=str(self._output),
                method="exact" if self._exact else "standard",
                base=self._config.model.source,
                dtype=dtype,
                size=sum(path.stat().st_size for path in staging.glob("*.safetensors")),
                seconds=round(time.monotonic() - start, 1),
                fidelity=found,
                note=note or probes.note,
            )
            self._describe(report, files, staging)
            replace_folder(staging, self._output)
        except OSError as error:
            raise EnvironmentFault(
                "The merged model cannot be written.",
                f"The system says: {error.strerror or one_line(str(error))}.",
                f"Free some space around {self._output.parent}, or choose another --output.",
            ) from error
        finally:
            shutil.rmtree(staging, ignore_errors=True)
        return report

    def _go_on(self) -> None:
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        if self._stopped():
            raise RunError("The merge was stopped.", "Nothing was written.", "Start it again when you like.")

    def _files(self) -> ModelFiles:
        self._tell(f"finding {self._config.model.source}")
        files = resolve_model(self._config.model)
        if files.gguf is not None and not files.converted:
            convert_gguf(files, lambda _done, _total, what: self._tell(f"converting {files.source}: {what}"))
        return files

    def _template_folder(self, files: ModelFiles) -> Path:
        """Where the tokenizer and the chat template of training are."""
        own = self._target.adapter
        return own if (own / "tokenizer.json").is_file() else files.folder

    # What the adapter answers

    def _measure_adapter(self, files: ModelFiles, encoder: Encoder) -> _Probes:
        probes, held_out, note = self._choose_probes(files, encoder)
        self._tell(f"measuring base and adapter on {len(probes)} rows")
        # As in training: what is repacked for inference on some CPUs is not quite what the adapter was trained on.
        model = attach_saved_adapter(load_base(files, self._config, training=True), self._target.adapter)
        probes = fidelity.within_memory(probes, model.config.get_text_config().vocab_size)
        return _Probes(probes, fidelity.predictions(model, probes), held_out, note)

    def _choose_probes(self, files: ModelFiles, encoder: Encoder) -> tuple[list[fidelity.Probe], bool, str]:
        note = ""
        try:
            rows = conversations(read_rows(self._config, files).test) if self._config.data.source != "none" else []
            if probes := fidelity.probes_of(rows):
                return probes, True, ""
        except QloraError as error:
            note = f"The run's rows cannot be read any more ({one_line(error.what)}), so general prompts were used."
        return fidelity.general_probes(encoder), False, note or "There are no held-out rows; general prompts were used."

    # Merging

    def _write(self, files: ModelFiles, encoder: Encoder, staging: Path) -> str:
        """Merge and write; the type of the weights written."""
        dtype = _stored_type(files)
        self._tell("quantising and unpacking the base" if self._exact else f"loading the base in {_short(dtype)}")
        base = self._unpacked_base(files, dtype) if self._exact else self._plain_base(files, dtype)
        model = attach_saved_adapter(base, self._target.adapter)
        self._go_on()
        self._tell("adding the adapter")
        merged = model.merge_and_unload(safe_merge=True)
        ends = find_end_ids(merged, encoder)
        merged.generation_config = GenerationConfig.from_model_config(merged.config)
        merged.generation_config.eos_token_id = ends if len(ends) > 1 else ends[0]
        merged.config._name_or_path = ""
        self._go_on()
        self._tell("writing the weights")
        merged.save_pretrained(staging, max_shard_size=SHARD, safe_serialization=True)
        self._copy_tokenizer(files, staging)
        return _short(dtype)

    def _plain_base(self, files: ModelFiles, dtype: torch.dtype) -> LoadedModel:
        config = self._config.changed(
            quantization={"type": "none", "compute_dtype": _short(dtype)}, training={"attention": "sdpa"}
        )
        return load_base(files, config, training=False, on=torch.device("cpu"))

    def _unpacked_base(self, files: ModelFiles, dtype: torch.dtype) -> LoadedModel:
        loaded = load_base(files, self._config, training=True, on=torch.device("cpu"))
        model = loaded.model.dequantize(dtype=dtype).to(dtype)
        return LoadedModel(model, loaded.tokenizer, loaded.device, dtype)

    def _copy_tokenizer(self, files: ModelFiles, staging: Path) -> None:
        folder = self._template_folder(files)
        for pattern in _TOKENIZER_FILES:
            for path in folder.glob(pattern):
                if path.is_file() and not path.name.startswith("."):
                    shutil.copyfile(path, staging / path.name)

    # What the merged model answers

    def _measure_merged(self, folder: Path, probes: _Probes) -> tuple[Fidelity | None, str]:
        """The comparison with what was written, read back from the disk."""
        self._tell(f"measuring the merged model on {len(probes.probes)} rows")
        name = compute_dtype_name(self._config.quantization.compute_dtype)
        dtype, where = DTYPES[name], device()
        try:
            model = AutoModelForCausalLM.from_pretrained(
                folder,
                dtype=dtype,
                device_map={"": where},
                attn_implementation="sdpa",
                trust_remote_code=self._config.model.trust_remote_code,
                local_files_only=True,
            )
            answers = fidelity.predictions(model, probes.probes)
        except (torch.OutOfMemoryError, MemoryError):
            return None, "There was too little memory to measure the merged model."
        return fidelity.compare(probes.probes, probes.adapter, answers, held_out=probes.held_out, dtype=name), ""

    def _describe(self, report: MergeReport, files: ModelFiles, staging: Path) -> None:
        write_atomic(staging / MERGE_FILE, json.dumps(report.model_dump(mode="json"), indent=1) + "\n")
        try:
            write_atomic(staging / "Modelfile", modelfile(self._template_folder(files), self._config.data))
        except QloraError as error:
            self._tell(f"no Modelfile: {error.why}")
        has_modelfile = (staging / "Modelfile").is_file()
        write_atomic(staging / "README.md", merged_card(self._target, files, report, has_modelfile=has_modelfile))


def _stored_type(files: ModelFiles) -> torch.dtype:
    """fp16 for a base that is published so, bf16 for every other."""
    try:
        config: Any = json.loads((files.folder / "config.json").read_text(encoding="utf-8"))
        name = config.get("dtype") or config.get("torch_dtype")
    except (OSError, ValueError, AttributeError):
        name = None
    return torch.float16 if name == "float16" else torch.bfloat16


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
