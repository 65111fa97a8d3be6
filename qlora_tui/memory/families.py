"""How each family builds its layer, read from ``transformers/models/*/modeling_*.py`` of version 5.23.

The dry run holds every one of them to what the libraries really allocate (``benchmarks/dryrun.py``). A family that is
not listed is taken for a Llama, and the estimate says that it is rough.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from qlora_tui.memory.build import LLAMA, Build, Names
from qlora_tui.models.architecture import ModelShape

_LAYER_NORM: Final = Build(norm="layer", rotation="part")

BUILDS: Final[Mapping[str, Build]] = {
    "llama": LLAMA,
    "mistral": LLAMA,
    "qwen2": LLAMA,
    "qwen3": replace(LLAMA, query_key_norm="head"),
    "smollm3": LLAMA,
    "gemma": replace(LLAMA, norm="gemma"),
    "gemma2": replace(LLAMA, norm="gemma", order="norms around", softcapped=True, kernel_norm_in_place=False),
    "gemma3_text": replace(
        LLAMA,
        norm="gemma",
        order="norms around",
        query_key_norm="head",
        kernel_norm_in_place=False,
    ),
    "granite": replace(LLAMA, scaled_residual=True, scaled_embedding=True),
    "olmo2": replace(
        LLAMA,
        norm="rms then cast",
        order="norms behind",
        query_key_norm="whole",
        kernel_norm_in_place=False,
        kernel_query_key_norm=False,
    ),
    "phi3": replace(LLAMA, split="slices", fused_gate_up=True, rotation="part"),
    "phi": replace(_LAYER_NORM, order="parallel", gated=False, rotation="part, named"),
    "stablelm": replace(_LAYER_NORM, rotation="part, named"),
    "starcoder2": replace(_LAYER_NORM, rotation="whole", gated=False),
    "gpt_neox": replace(_LAYER_NORM, split="thirds", gated=False),
    "falcon": replace(
        _LAYER_NORM,
        rotation="whole",
        split="gathered",
        gated=False,
        plain_linear=True,
        always_masked=True,
        scores_in_place=True,
    ),
    "cohere": replace(LLAMA, norm="cohere", order="parallel", rotation="pairs"),
    "cohere2": replace(LLAMA, norm="cohere", order="parallel", rotation="pairs"),
}


def build_of(shape: ModelShape) -> Build | None:
    """How this model builds its layers; None if its family is not known."""
    build = BUILDS.get(shape.family)
    if build is None or not shape.exact or shape.experts is not None:
        return None
    changes: dict[str, object] = {
        "residual_dropout": shape.residual_dropout > 0,
        "embedding_dropout": shape.embedding_dropout > 0,
        "attention_dropout": shape.attention_dropout > 0,
        "activation": "gelu by hand" if shape.hidden_act == "gelu_new" else "kernel",
    }
    if shape.family in ("stablelm", "gpt_neox", "falcon"):
        changes["order"] = _order(shape)
    if shape.family in ("phi", "stablelm", "cohere"):
        norms = {"none": "none", "head": "head", "per-head": "head by head", "projection": "whole"}
        changes["query_key_norm"] = (
            norms[shape.qk_norm] if shape.family != "cohere" or shape.qk_norm == "none" else "head"
        )
    if shape.family == "falcon" and shape.alibi:
        changes["rotation"] = "none"
    return replace(build, **changes)  # type: ignore[arg-type]


def _order(shape: ModelShape) -> str:
    if not shape.parallel_residual:
        return "one after the other, named" if shape.family == "stablelm" else "one after the other"
    if shape.family == "falcon":
        return "parallel, in place" if shape.norms_per_layer == 1 else "parallel, two norms first"
    return "parallel" if shape.norms_per_layer == 1 else "parallel, two norms"


def names_of(shape: ModelShape) -> Names:
    """What the matrices of its layers are called."""
    names = [matrix.name.rpartition(".")[2] for matrix in shape.groups[0].matrices] if shape.groups else []
    inside = ["attn" in m.name or "attention" in m.name for m in shape.groups[0].matrices] if shape.groups else []
    attention = [name for name, within in zip(names, inside, strict=True) if within]
    mlp = [name for name, within in zip(names, inside, strict=True) if not within]
    found = Names()
    if len(attention) == 2:
        found = replace(found, fused_qkv=attention[0], output=attention[1])
    elif len(attention) == 4:
        found = replace(found, query=attention[0], key=attention[1], value=attention[2], output=attention[3])
    if len(mlp) == 2:
        found = replace(found, up=mlp[0], fused_gate_up=mlp[0], down=mlp[1])
    elif len(mlp) == 3:
        found = replace(found, gate=mlp[0], up=mlp[1], down=mlp[2])
    return found
