"""A whole model of a few kilobytes for cases to damage."""

from __future__ import annotations

import json
from typing import Any

import numpy
from safetensors.numpy import save
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

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
