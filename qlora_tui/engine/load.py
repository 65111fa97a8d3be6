"""From model files to a model in memory: the 4-bit base, the tokenizer, and a new or a saved adapter on top."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bitsandbytes
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

from qlora_tui.config import AdapterSection, RunConfig
from qlora_tui.engine.attention import keep_fused
from qlora_tui.errors import ConfigError, ModelError, QloraError
from qlora_tui.models.sources import ModelFiles
from qlora_tui.text import one_line

DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}
# Variable-length attention is switched on after loading, once the rows are known to be packed.
_ATTENTION = {"eager": "eager", "flash_attention_2": "flash_attention_2"}


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A base model in memory with its tokenizer; ``model`` becomes a PeftModel once an adapter is attached."""

    model: Any
    tokenizer: Any
    device: torch.device
    dtype: torch.dtype


def device() -> torch.device:
    """The one device of this process."""
    return torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")


def compute_dtype_name(setting: str) -> str:
    """``auto`` resolved for this machine: bf16 needs capability 8.0; a CPU is fastest and safest in fp32."""
    if setting != "auto":
        return setting
    if not torch.cuda.is_available():
        return "float32"
    return "bfloat16" if torch.cuda.get_device_capability() >= (8, 0) else "float16"


def load_base(files: ModelFiles, config: RunConfig, *, training: bool, on: torch.device | None = None) -> LoadedModel:
    """Load the base model as the config says: quantised on the fly, with an explicit dtype.

    Args:
        files: A folder that is complete (GGUF already converted).
        training: Whether gradients will flow. If not, bitsandbytes may repack the weights for fast inference on CPUs
            with AVX512_BF16; a model repacked that way silently loses gradients.
        on: Where to; None means the one device of this process.

    Raises:
        ModelError: if the files do not make a causal language model.
    """
    dtype = DTYPES[compute_dtype_name(config.quantization.compute_dtype)]
    target = on or device()
    keep_fused()
    try:
        model, loading = AutoModelForCausalLM.from_pretrained(
            files.folder,
            output_loading_info=True,
            # Not ignored: collected, so that they can be named.
            ignore_mismatched_sizes=True,
            dtype=dtype,
            quantization_config=_quantization(config, dtype),
            attn_implementation=_ATTENTION.get(config.training.attention, "sdpa"),
            trust_remote_code=config.model.trust_remote_code,
            use_safetensors=True,
            local_files_only=True,
            device_map={"": target},
        )
        tokenizer = AutoTokenizer.from_pretrained(
            files.folder, trust_remote_code=config.model.trust_remote_code, local_files_only=True
        )
    except torch.OutOfMemoryError:
        raise
    except (ValueError, OSError, KeyError, RuntimeError, ImportError) as error:
        raise _unloadable(files, error) from error
    _check_complete(files, model, loading)
    if training:
        keep_gradients(model)
    model.config.use_cache = False
    return LoadedModel(model, tokenizer, target, dtype)


def _unloadable(files: ModelFiles, error: Exception) -> QloraError:
    first_line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return ModelError(
        f"Cannot load the model {files.source}.",
        f"transformers says: {first_line}",
        "Check that the folder holds a complete causal language model, or choose another one.",
    )


def _check_complete(files: ModelFiles, model: torch.nn.Module, loading: dict[str, Any]) -> None:
    """Refuse weights that do not fill the model: transformers fills the rest with random numbers and goes on."""
    missing = sorted(loading.get("missing_keys", ()))
    mismatched = sorted(
        str(each[0] if isinstance(each, tuple) else each) for each in loading.get("mismatched_keys", ())
    )
    for name, module in model.named_modules():
        state = getattr(getattr(module, "weight", None), "quant_state", None)
        if isinstance(module, bitsandbytes.nn.Linear4bit):
            if state is None:
                missing.append(f"{name}.weight")
            elif tuple(state.shape) != (module.out_features, module.in_features):
                mismatched.append(f"{name}.weight")
    for wrong, problem in (
        (missing, "missing from the weights"),
        (mismatched, "of another shape than config.json says"),
    ):
        if wrong:
            more = f" and {len(wrong) - 1} more" if len(wrong) > 1 else ""
            raise ModelError(
                f"Cannot load the model {files.source}.",
                f"{one_line(wrong[0], 120)}{more}: {problem}.",
                "Get the complete model again; its config.json and its weights must belong together.",
            )


def _quantization(config: RunConfig, dtype: torch.dtype) -> BitsAndBytesConfig | None:
    if config.quantization.type == "none":
        return None
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=config.quantization.type,
        bnb_4bit_use_double_quant=config.quantization.double_quant,
        bnb_4bit_compute_dtype=dtype,
    )


def keep_gradients(model: torch.nn.Module) -> None:
    """Forbid the inference repack of 4-bit layers on AVX512_BF16 CPUs.

    bitsandbytes 0.50.2 repacks in the first forward in eval mode; ``train()`` does not undo it, and the repacked
    product has no backward, so gradients through the base layers vanish without an error.
    """
    for module in model.modules():
        if isinstance(module, bitsandbytes.nn.Linear4bit):
            module.support_avx512bf16_for_cpu = False


def lora_config(section: AdapterSection) -> LoraConfig:
    """The adapter's shape in peft's terms."""
    return LoraConfig(
        r=section.rank,
        lora_alpha=section.alpha,
        lora_dropout=section.dropout,
        target_modules=section.target_modules,
        use_rslora=section.rslora,
        use_dora=section.dora,
        bias="none",
        task_type="CAUSAL_LM",
    )


def attach_new_adapter(loaded: LoadedModel, section: AdapterSection) -> PeftModel:
    """Put a fresh adapter on the base: B is zero, so the model still answers like the base.

    Raises:
        ConfigError: if ``adapter.target_modules`` names layers that the model does not have.
    """
    try:
        return get_peft_model(loaded.model, lora_config(section))
    except ValueError as error:
        raise ConfigError(
            "Cannot attach the adapter.",
            f"peft says: {str(error).splitlines()[0]}",
            "Set adapter.target_modules to all-linear, or name linear layers of this model.",
        ) from error


def attach_saved_adapter(loaded: LoadedModel, folder: Path) -> PeftModel:
    """Put a saved adapter on the base, frozen.

    Raises:
        ModelError: if the folder holds no safetensors adapter, or one of another model.
    """
    if not (folder / "adapter_model.safetensors").is_file():
        raise ModelError(
            f"There is no adapter in {folder}.",
            "The folder has no adapter_model.safetensors.",
            "Give a run, its adapter folder or a checkpoint; pickle adapters (.bin) are not read.",
        )
    try:
        return PeftModel.from_pretrained(loaded.model, folder, is_trainable=False)
    except (RuntimeError, ValueError, KeyError) as error:
        raise ModelError(
            f"Cannot use the adapter in {folder} on this base model.",
            f"peft says: {str(error).strip().splitlines()[0]}",
            "Use the base model that the adapter was trained on; its name is in adapter_config.json.",
        ) from error


def trainable_parameters(model: torch.nn.Module) -> tuple[int, int]:
    """Number of (trained, all) parameters; a 4-bit weight counts as the parameters it stands for."""
    trained = total = 0
    for parameter in model.parameters():
        count = parameter.numel()
        if isinstance(parameter, bitsandbytes.nn.Params4bit) and parameter.quant_state is not None:
            count = parameter.quant_state.shape.numel()
        total += count
        trained += count if parameter.requires_grad else 0
    return trained, total
