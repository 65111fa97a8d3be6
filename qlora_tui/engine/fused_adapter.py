"""A quantised matrix and its adapter as one operation, without the passes over memory between them.

peft copies the base's result, scales the adapter's, adds the two, and leaves autograd to add the two gradients of the
input: six trips of a layer's widest tensors through memory that a matrix product does on its way, if it is told to add
to what is there (``addmm``). The numbers are peft's, rounded fewer times.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import bitsandbytes
import torch
from bitsandbytes.functional import QuantState, dequantize_4bit
from peft.tuners.lora.bnb import Linear4bit


def fuse_adapters(model: torch.nn.Module) -> int:
    """Give every layer that allows it the fused operation for its training steps; how many did.

    Without gradients, with the adapter off or merged, and for inputs of another dtype a layer does as before. Dropout,
    DoRA and trained biases need what lies between the products, so such layers are left alone.
    """
    layers = [module for module in model.modules() if isinstance(module, Linear4bit) and _fusable(module)]
    for layer in layers:
        layer.forward = _forward_of(layer)
    return len(layers)


def _fusable(layer: Any) -> bool:
    name = layer.active_adapters[0] if len(layer.active_adapters) == 1 else None
    return (
        name in layer.lora_A
        and not layer.lora_variant
        and not layer.lora_bias[name]
        and isinstance(layer.lora_dropout[name], torch.nn.Identity)
    )


def _forward_of(layer: Any) -> Callable[..., torch.Tensor]:
    name = layer.active_adapters[0]
    base, as_before = layer.get_base_layer(), layer.forward
    down, up, scaling = layer.lora_A[name], layer.lora_B[name], layer.scaling[name]

    def forward(x: torch.Tensor, *arguments: Any, **keywords: Any) -> torch.Tensor:
        state: QuantState = base.quant_state
        dtypes = {x.dtype, state.dtype, base.compute_dtype, down.weight.dtype, up.weight.dtype}
        if base.bias is not None:
            dtypes.add(base.bias.dtype)
        if len(dtypes) > 1 or layer.disable_adapters or layer.merged or not torch.is_grad_enabled():
            return as_before(x, *arguments, **keywords)
        product: torch.Tensor = _AdaptedProduct.apply(x, base.weight, state, base.bias, down.weight, up.weight, scaling)
        return product

    return forward


class _AdaptedProduct(torch.autograd.Function):
    """``x W' + scaling (x A') B'``, and its gradients of x, A and B."""

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        weight: torch.Tensor,
        state: QuantState,
        bias: torch.Tensor | None,
        down: torch.Tensor,
        up: torch.Tensor,
        scaling: float,
    ) -> torch.Tensor:
        """Shapes: x [..., inputs], down [rank, inputs], up [outputs, rank]; the result is [..., outputs]."""
        low = (x.reshape(-1, x.shape[-1]) @ down.t()).mul_(scaling)
        output: torch.Tensor = bitsandbytes.matmul_4bit(x, weight, quant_state=state, bias=bias)
        output.view(-1, output.shape[-1]).addmm_(low, up.t())
        ctx.save_for_backward(x, low, down, up)
        ctx.base, ctx.scaling = (weight, state), scaling
        return output

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """The gradient of the frozen matrix is nobody's."""
        x, low, down, up = ctx.saved_tensors
        gradient = gradients[0].reshape(-1, gradients[0].shape[-1])
        up_gradient = gradient.t() @ low
        low_gradient = (gradient @ up).mul_(ctx.scaling)
        down_gradient = low_gradient.t() @ x.reshape(-1, x.shape[-1])
        x_gradient = None
        if ctx.needs_input_grad[0]:
            weight, state = ctx.base
            x_gradient = gradient @ dequantize_4bit(weight, state)
            x_gradient = x_gradient.addmm_(low_gradient, down).view(x.shape)
        return x_gradient, None, None, None, down_gradient, up_gradient, None
