"""From a family's traits and a configuration to a counted model."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from qlora_tui.models.architecture import ModelShape
from qlora_tui.models.config_fields import LAYER_LIMIT, Fields, refused
from qlora_tui.models.layers import Experts, LayerGroup, Matrix
from qlora_tui.models.mixtures import adapted_stacks, expert_matrices, read_experts, sparse_layers, stacked_elements
from qlora_tui.models.traits import Flag, Traits
from qlora_tui.models.windows import read_unrotated, read_window
from qlora_tui.text import one_line


@dataclass(frozen=True, slots=True)
class _Sizes:
    hidden: int
    layers: int
    heads: int
    key_value_heads: int
    head_dim: int

    @property
    def queries(self) -> int:
        return self.heads * self.head_dim

    @property
    def keys(self) -> int:
        return self.key_value_heads * self.head_dim


def read_decoder(family: str, traits: Traits, fields: Fields, model_type: str) -> ModelShape:
    """Count a decoder-only model.

    Raises:
        ModelError: if the configuration lacks a size or contradicts itself.
    """
    if traits.adjust is not None:
        traits = traits.adjust(traits, fields)
    sizes = _sizes(family, traits, fields)
    vocabulary = fields.size("vocab_size", limit=2**27)
    window = read_window(traits, fields, sizes.layers)
    experts = read_experts(traits, fields)
    return ModelShape(
        model_type=model_type,
        family=family,
        hidden_size=sizes.hidden,
        intermediate_size=_width(traits, fields, sizes),
        num_hidden_layers=sizes.layers,
        num_attention_heads=sizes.heads,
        num_key_value_heads=sizes.key_value_heads,
        head_dim=sizes.head_dim,
        vocab_size=vocabulary,
        tie_word_embeddings=fields.flag("tie_word_embeddings"),
        max_position_embeddings=fields.positions(),
        groups=tuple(_groups(traits, fields, sizes, experts)),
        final_norm=sizes.hidden * (2 if traits.norm_bias else 1),
        head_bias=vocabulary if _says(traits.head_bias, fields) else 0,
        hidden_act=fields.text(traits.activation),
        gated=traits.fused_gate_up or len(traits.mlp) == 3,
        norm=traits.norm,
        norms_per_layer=traits.norms_per_layer,
        qk_norm=traits.qk_norm,
        parallel_residual=traits.parallel_residual,
        fused_qkv=len(traits.attention) == 2,
        fused_gate_up=traits.fused_gate_up,
        alibi=fields.flag("alibi"),
        rotary_fraction=_rotary_fraction(traits, fields),
        unrotated_layers=read_unrotated(traits, fields, sizes.layers, window),
        sliding_window=window,
        attention_softcap=fields.number("attn_logit_softcapping"),
        logit_softcap=fields.number("final_logit_softcapping"),
        attention_dropout=fields.share("attention_dropout"),
        residual_dropout=fields.share(traits.residual_dropout) if traits.residual_dropout else 0.0,
        embedding_dropout=fields.share(traits.embedding_dropout) if traits.embedding_dropout else 0.0,
        experts=experts,
        quantization=_quantization(fields),
        notes=traits.notes,
    )


def _says(flag: Flag, fields: Fields) -> bool:
    return fields.flag(flag) if isinstance(flag, str) else flag


def _sizes(family: str, traits: Traits, fields: Fields) -> _Sizes:
    # The oldest falcon configurations call it n_embed.
    hidden = fields.size("n_embed" if family == "falcon" and fields.has("n_embed") else "hidden_size")
    heads = fields.size("num_attention_heads")
    head_dim = fields.optional_size("head_dim") if traits.head_dim_field else None
    if hidden % heads and (head_dim is None or traits.heads_divide):
        raise refused(f"hidden_size is {hidden}, which {heads} attention heads do not divide.")
    key_value_heads = _key_value_heads(family, fields, heads)
    if key_value_heads > heads:
        raise refused(f"It has {key_value_heads} key and value heads, more than its {heads} attention heads.")
    if heads % key_value_heads:
        raise refused(f"Its {heads} attention heads cannot share {key_value_heads} key and value heads evenly.")
    layers = fields.size("num_hidden_layers", limit=LAYER_LIMIT)
    return _Sizes(hidden, layers, heads, key_value_heads, head_dim or hidden // heads)


def _key_value_heads(family: str, fields: Fields, heads: int) -> int:
    if family == "gpt_neox":
        return heads
    if family == "falcon":
        if not fields.flag("new_decoder_architecture"):
            return 1 if fields.flag("multi_query") else heads
        return fields.optional_size("num_kv_heads") or heads
    return fields.optional_size("num_key_value_heads") or heads


def _width(traits: Traits, fields: Fields, sizes: _Sizes) -> int:
    if traits.width == "ffn_hidden_size" and not fields.has(traits.width):
        return 4 * sizes.hidden
    return fields.size(traits.width)


def _groups(traits: Traits, fields: Fields, sizes: _Sizes, experts: Experts | None) -> Iterable[LayerGroup]:
    attention = _attention(traits, fields, sizes)
    norms = _norms(traits, sizes)
    others = sizes.heads if traits.sinks else 0
    sparse = sparse_layers(traits, fields, sizes.layers) if experts else set()
    dense = tuple(layer for layer in range(sizes.layers) if layer not in sparse)
    if dense:
        mlp = _mlp(traits, sizes.hidden, _width(traits, fields, sizes), _says(traits.mlp_bias, fields))
        if experts and traits.mixture and traits.mixture.targets:
            # peft takes the names of these for the experts in the other layers and passes them over.
            mlp = tuple(replace(matrix, adapted=False) for matrix in mlp)
        yield LayerGroup(dense, (*attention, *mlp), norms, others=others)
    if experts and sparse:
        matrices = (*attention, *expert_matrices(traits, sizes.hidden, experts))
        stacked, router = stacked_elements(traits, sizes.hidden, experts)
        stacks = adapted_stacks(traits, sizes.hidden, experts)
        yield LayerGroup(tuple(sorted(sparse)), matrices, norms, stacked, router, others, stacks)


def _attention(traits: Traits, fields: Fields, sizes: _Sizes) -> tuple[Matrix, ...]:
    *inputs, output = traits.attention
    bias, plain = _says(traits.qkv_bias, fields), traits.quantised
    widths = [sizes.queries, sizes.keys, sizes.keys]
    if len(inputs) == 1:
        widths = [sum(widths)]
    projections = (Matrix(n, sizes.hidden, width, bias, plain) for n, width in zip(inputs, widths, strict=True))
    return (*projections, Matrix(output, sizes.queries, sizes.hidden, _says(traits.output_bias, fields), plain))


def _mlp(traits: Traits, hidden: int, width: int, bias: bool) -> tuple[Matrix, ...]:
    *inputs, output = traits.mlp
    out = 2 * width if traits.fused_gate_up else width
    first = (Matrix(name, hidden, out, bias, traits.quantised) for name in inputs)
    return (*first, Matrix(output, width, hidden, bias, traits.quantised))


def _norms(traits: Traits, sizes: _Sizes) -> int:
    per_norm = sizes.hidden * (2 if traits.norm_bias else 1)
    heads = {
        "none": 0,
        "head": 2 * sizes.head_dim,
        "per-head": sizes.queries + sizes.keys,
        "projection": sizes.queries + sizes.keys,
    }[traits.qk_norm]
    return traits.norms_per_layer * per_norm + heads * (2 if traits.qk_norm_bias else 1)


def _rotary_fraction(traits: Traits, fields: Fields) -> float:
    if traits.rotary_fraction is None:
        return 1.0
    rope: Any = fields.value("rope_parameters")
    nested = Fields(rope if isinstance(rope, dict) else {}, {})
    for source, name in ((nested, "partial_rotary_factor"), (fields, "partial_rotary_factor"), (fields, "rotary_pct")):
        if source.has(name):
            return source.share(name)
    return traits.rotary_fraction


def _quantization(fields: Fields) -> str | None:
    section = fields.value("quantization_config")
    if not isinstance(section, dict):
        return None
    return one_line(str(section.get("quant_method") or section.get("quant_type") or "unknown"), 40)
