"""Quantised models of real shapes with random weights, with a tokenizer and rows to go with them.

Weight values change neither memory nor speed, so a machine without a network can measure any architecture. Everything
but the weights is real: transformers' classes, bitsandbytes' layers, the engine's own reading and encoding of the rows.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import bitsandbytes
import torch
from accelerate import init_empty_weights
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM, BitsAndBytesConfig, PreTrainedTokenizerFast
from transformers.quantizers import AutoHfQuantizer

from qlora_tui import hardware
from qlora_tui.config import RunConfig
from qlora_tui.engine.control import Control
from qlora_tui.engine.gauge import release_memory
from qlora_tui.engine.load import LoadedModel, device, keep_gradients
from qlora_tui.engine.prepare import Inputs
from qlora_tui.engine.report import EventLog
from qlora_tui.engine.rows import load_rows
from qlora_tui.engine.train import Training
from qlora_tui.engine.trainer import RunTrainer
from qlora_tui.models.sources import ModelFiles
from qlora_tui.runs.directory import create_run

WORDS: Final = 2000

SHAPES: Final[dict[str, dict[str, Any]]] = {
    "llama 1B": {
        "model_type": "llama", "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16,
        "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 64, "vocab_size": 128_256,
        "tie_word_embeddings": True,
    },
    "llama 3B": {
        "model_type": "llama", "hidden_size": 3072, "intermediate_size": 8192, "num_hidden_layers": 28,
        "num_attention_heads": 24, "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 128_256,
        "tie_word_embeddings": True,
    },
    "llama 8B": {
        "model_type": "llama", "hidden_size": 4096, "intermediate_size": 14_336, "num_hidden_layers": 32,
        "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 128_256, "tie_word_embeddings": False,
    },
    "qwen3 4B": {
        "model_type": "qwen3", "hidden_size": 2560, "intermediate_size": 9728, "num_hidden_layers": 36,
        "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 151_936,
        "tie_word_embeddings": True,
    },
    "qwen2.5 7B": {
        "model_type": "qwen2", "hidden_size": 3584, "intermediate_size": 18_944, "num_hidden_layers": 28,
        "num_attention_heads": 28, "num_key_value_heads": 4, "vocab_size": 152_064, "tie_word_embeddings": False,
    },
    "qwen2.5 32B": {
        "model_type": "qwen2", "hidden_size": 5120, "intermediate_size": 27_648, "num_hidden_layers": 64,
        "num_attention_heads": 40, "num_key_value_heads": 8, "vocab_size": 152_064, "tie_word_embeddings": False,
    },
    "gemma3 1B": {
        "model_type": "gemma3_text", "hidden_size": 1152, "intermediate_size": 6912, "num_hidden_layers": 26,
        "num_attention_heads": 4, "num_key_value_heads": 1, "head_dim": 256, "vocab_size": 262_144,
        "tie_word_embeddings": True, "sliding_window": 512,
    },
    "gemma3 4B": {
        "model_type": "gemma3_text", "hidden_size": 2560, "intermediate_size": 10_240, "num_hidden_layers": 34,
        "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256, "vocab_size": 262_208,
        "tie_word_embeddings": True, "sliding_window": 1024,
    },
    "phi3 mini": {
        "model_type": "phi3", "hidden_size": 3072, "intermediate_size": 8192, "num_hidden_layers": 32,
        "num_attention_heads": 32, "num_key_value_heads": 32, "vocab_size": 32_064, "tie_word_embeddings": False,
        "sliding_window": None,
    },
    "phi4 14B": {
        "model_type": "phi3", "hidden_size": 5120, "intermediate_size": 17_920, "num_hidden_layers": 40,
        "num_attention_heads": 40, "num_key_value_heads": 10, "vocab_size": 100_352, "tie_word_embeddings": False,
        "sliding_window": None,
    },
    "mistral 7B": {
        "model_type": "mistral", "hidden_size": 4096, "intermediate_size": 14_336, "num_hidden_layers": 32,
        "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 32_768, "tie_word_embeddings": False,
        "sliding_window": None,
    },
}  # fmt: skip
"""Published sizes of each model, as in its ``config.json``."""

_TINY: Final = {
    "hidden_size": 64, "intermediate_size": 160, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 16, "vocab_size": 4003,
}  # fmt: skip


def shape_of(name: str, *, tiny: bool) -> dict[str, Any]:
    """The values of ``config.json``; for a rehearsal the same architecture in miniature."""
    small = {**_TINY, "num_key_value_heads": 4} if SHAPES[name].get("num_key_value_heads") == 32 else _TINY
    values = {**SHAPES[name], **small} if tiny else SHAPES[name]
    return {**values, "max_position_embeddings": 32_768, "pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 1}


def model_files(name: str, folder: Path, *, tiny: bool) -> ModelFiles:
    """A folder with config and tokenizer, without weights."""
    folder.mkdir(parents=True, exist_ok=True)
    config = AutoConfig.for_model(**shape_of(name, tiny=tiny))
    config.save_pretrained(folder)
    vocabulary = {"<pad>": 0, "<eos>": 1, "<unk>": 2} | {f"w{number}": number + 3 for number in range(WORDS)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    names = {"pad_token": "<pad>", "eos_token": "<eos>", "unk_token": "<unk>"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names).save_pretrained(folder)
    return ModelFiles(
        source=f"random {name}",
        kind="folder",
        folder=folder,
        revision=None,
        gguf=None,
        converted=True,
        licence=None,
        remote_code=False,
    )


def random_base(files: ModelFiles) -> LoadedModel:
    """The model in memory as the engine would have loaded it: NF4 with double quantisation, the rest in bf16."""
    target = device()
    dtype = torch.bfloat16 if target.type == "cuda" else torch.float32
    config = AutoConfig.from_pretrained(files.folder)
    with init_empty_weights(include_buffers=False):
        model = AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation="sdpa")
    _quantise_linears(model, target, dtype)
    _fill_the_rest(model, target, dtype)
    quantization = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=dtype
    )
    model.config.quantization_config = quantization
    model.hf_quantizer = AutoHfQuantizer.from_config(quantization, pre_quantized=False)
    model.is_quantized = model.is_loaded_in_4bit = True
    model.quantization_method = quantization.quant_method
    model.config.use_cache = False
    keep_gradients(model)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(files.folder)
    return LoadedModel(model.eval(), tokenizer, target, dtype)


def _quantise_linears(model: Any, target: torch.device, dtype: torch.dtype) -> None:
    head = model.get_output_embeddings()
    for name, module in list(model.named_modules()):
        if type(module) is torch.nn.Linear and module is not head:
            parent, _, leaf = name.rpartition(".")
            setattr(model.get_submodule(parent), leaf, _quantised(module, target, dtype))


def _quantised(module: torch.nn.Linear, target: torch.device, dtype: torch.dtype) -> Any:
    weight = torch.randn(module.out_features, module.in_features, device=target, dtype=dtype) * 0.02
    packed, state = bitsandbytes.functional.quantize_4bit(
        weight, blocksize=64, compress_statistics=True, quant_type="nf4"
    )
    layer = bitsandbytes.nn.Linear4bit(
        module.in_features,
        module.out_features,
        bias=module.bias is not None,
        compute_dtype=dtype,
        compress_statistics=True,
        quant_type="nf4",
        device="meta",
    )
    layer.weight = bitsandbytes.nn.Params4bit(
        packed,
        requires_grad=False,
        quant_state=state,
        blocksize=64,
        compress_statistics=True,
        quant_type="nf4",
        bnb_quantized=True,
        module=layer,
    )
    layer.quant_state = state
    if module.bias is not None:
        layer.bias = torch.nn.Parameter(torch.zeros(module.out_features, device=target, dtype=dtype), False)
    return layer


def _fill_the_rest(model: Any, target: torch.device, dtype: torch.dtype) -> None:
    """Norms and embeddings; a tied head stays tied."""
    filled: dict[int, torch.nn.Parameter] = {}
    for module in model.modules():
        for name, parameter in list(module._parameters.items()):
            if parameter is None or parameter.device.type != "meta":
                continue
            if id(parameter) not in filled:
                values = torch.randn(parameter.shape, device=target, dtype=dtype) * 0.02
                values = values if parameter.dim() > 1 else torch.ones_like(values)
                filled[id(parameter)] = torch.nn.Parameter(values, requires_grad=False)
            module._parameters[name] = filled[id(parameter)]
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = buffer.to(target)
    model.tie_weights()


class RandomTraining(Training):
    """The engine's phases on a base that is in memory already."""

    def __init__(self, config: RunConfig, files: ModelFiles, base: LoadedModel) -> None:
        run = create_run(config)
        rows = load_rows(config, files.folder, lambda _done: None)
        super().__init__(
            run, config, Inputs(files, rows, hardware.snapshot()), EventLog(run.events), Control(run.control)
        )
        self._random_base = base

    def load_base(self) -> LoadedModel:
        """The base given; the adapter that an earlier run left on it is taken off."""
        return self._random_base


def bare_again(base: LoadedModel, trainer: RunTrainer | None) -> None:
    """Take a run's adapter off the base, and give back what the run held."""
    if trainer is not None:
        trainer.model.unload()
        trainer.optimizer = trainer.lr_scheduler = None
    for parameter in base.model.parameters():
        parameter.requires_grad_(False)
        parameter.grad = None
    for name in ("peft_config", "_hf_peft_config_loaded"):
        if name in vars(base.model):
            delattr(base.model, name)
    base.model.gradient_checkpointing_disable()
    base.model.disable_input_require_grads()
    # A trainer that asks for them twice leaves a hook that nothing takes off.
    base.model.get_input_embeddings()._forward_hooks.clear()
    base.model.set_attn_implementation("sdpa")
    release_memory()


def write_rows(path: Path, lengths: Sequence[int]) -> Path:
    """Rows of so many tokens each, the end token included."""
    draw = random.Random(0)
    with path.open("w", encoding="utf-8") as file:
        for length in lengths:
            text = " ".join(f"w{draw.randrange(WORDS)}" for _ in range(length - 1))
            file.write(json.dumps({"text": text}) + "\n")
    return path


def mixed_lengths(count: int, longest: int) -> list[int]:
    """Lengths as in instruction data: log-normal, about 245 tokens in the middle."""
    draw = random.Random(0)
    return [max(16, min(longest, int(draw.lognormvariate(5.5, 0.8)))) for _ in range(count)]


@contextmanager
def kernels_undone(model: Any) -> Iterator[None]:
    """Take back afterwards what fused layer kernels replace in a model and in the module of its class."""
    import importlib

    source = importlib.import_module(type(model).__module__)
    functions = dict(vars(source))
    inner = [module for name, module in model.get_decoder().named_modules() if name]
    own = [set(vars(module)) for module in inner]
    try:
        yield
    finally:
        vars(source).update(functions)
        for module, names in zip(inner, own, strict=True):
            for name in ("forward", "extra_repr", "_get_name"):
                if name in vars(module) and name not in names:
                    delattr(module, name)
