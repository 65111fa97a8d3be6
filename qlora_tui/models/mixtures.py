"""Mixtures of experts: what they hold, as transformers 5 builds them."""

from __future__ import annotations

from qlora_tui.models.config_fields import LAYER_LIMIT, Fields, refused
from qlora_tui.models.layers import Experts, Matrix, Stack
from qlora_tui.models.traits import Traits


def read_experts(traits: Traits, fields: Fields) -> Experts | None:
    mixture = traits.mixture
    if mixture is None:
        return None
    # The two names stand for the same field; which one a family writes has changed over time.
    name = next((n for n in ("num_local_experts", "num_experts") if fields.has(n)), None)
    name = name or ("num_local_experts" if fields.value("num_local_experts") is not None else "num_experts")
    count = fields.size(name, minimum=0 if mixture.sparse_steps else 1, limit=2**16)
    if count == 0:
        return None
    per_token = fields.size("num_experts_per_tok", limit=2**16)
    if per_token > count:
        raise refused(f"It chooses {per_token} experts for each token, but has only {count}.")
    shared = fields.size(mixture.shared) if mixture.shared else 0
    return Experts(count, per_token, fields.size(mixture.width), shared)


def expert_matrices(traits: Traits, hidden: int, experts: Experts) -> tuple[Matrix, ...]:
    """The linear layers that a mixture has beside its stacked experts."""
    if experts.shared_intermediate_size:
        width = experts.shared_intermediate_size
        names = ("gate_proj", "up_proj", "down_proj")
        gate, up, down = (f"mlp.shared_expert.{name}" for name in names)
        shared = (Matrix(gate, hidden, width), Matrix(up, hidden, width), Matrix(down, width, hidden))
        return (*shared, Matrix("mlp.shared_expert_gate", hidden, 1))
    if traits.mixture is not None and traits.mixture.linear_router:
        # A subclass of nn.Linear: peft adapts it, bitsandbytes does not replace it.
        return (Matrix("mlp.router", hidden, experts.count, quantised=False),)
    return ()


def stacked_elements(traits: Traits, hidden: int, experts: Experts) -> tuple[int, int]:
    """Elements of the stacked experts of one layer, and of its router where that is a bare parameter."""
    mixture, width = traits.mixture, experts.intermediate_size
    if mixture is None:
        return 0, 0
    biases = 2 * width + hidden if mixture.biases else 0
    router = 0 if mixture.linear_router else experts.count * (hidden + (1 if mixture.biases else 0))
    return experts.count * (3 * hidden * width + biases), router


def adapted_stacks(traits: Traits, hidden: int, experts: Experts) -> tuple[Stack, ...]:
    """The stacked parameters of one layer that peft adapts."""
    if traits.mixture is None or traits.mixture.targets is None:
        return ()
    gate, up, down = traits.mixture.targets
    width, count = experts.intermediate_size, experts.count
    return (
        Stack("mlp.experts.gate_up_proj", (gate, up), hidden, 2 * width, count),
        Stack("mlp.experts.down_proj", (down,), width, hidden, count),
        Stack("mlp.gate", ("gate",), hidden, count),
    )


def sparse_layers(traits: Traits, fields: Fields, layers: int) -> set[int]:
    if traits.mixture is None or not traits.mixture.sparse_steps:
        return set(range(layers))
    step = fields.size("decoder_sparse_step", limit=LAYER_LIMIT)
    ordinary = fields.value("mlp_only_layers") or []
    if not isinstance(ordinary, list):
        raise refused("mlp_only_layers is no list of layers.")
    return {layer for layer in range(layers) if layer not in ordinary and (layer + 1) % step == 0}
