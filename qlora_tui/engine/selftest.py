"""Does 4-bit training work on this machine? One small product, forward and backward, against plain arithmetic.

``python -m qlora_tui.engine selftest`` prints one JSON object on one line of stdout, whatever happens:

- ``ok``, and if not ``stage`` (``torch``, ``bitsandbytes`` or ``product``) and ``error``, what it failed with;
- ``torch``, ``cuda_build`` (null for a build without CUDA), ``cuda_available``, ``cuda_error``, ``bitsandbytes``;
- ``device``, ``device_name``, ``capability``, ``bf16``, ``dtype`` that the product was computed in;
- ``errors``: relative errors of the quantised ``weight`` and of the ``forward`` and ``backward`` products;
- ``seconds`` that all of it took, imports included.
"""

from __future__ import annotations

import json
import sys
import time
from contextlib import redirect_stdout, suppress
from typing import Any

from qlora_tui.errors import ExitCode

INPUTS, OUTPUTS = 512, 256
# bitsandbytes multiplies few rows and many rows by different kernels; both are trained with.
ROWS = (4, 2048)
# Relative, by norm. NF4 costs about 0.09 on normal weights; a product may lose what its number format rounds away.
WEIGHT_TOLERANCE = 0.15
TOLERANCES = {"bfloat16": 2e-2, "float16": 1e-2, "float32": 1e-4}


def main() -> int:
    """Run the test, print its report; 0 if all is well, else the exit code of a broken environment."""
    started = time.perf_counter()
    report: dict[str, Any] = {"ok": False, "stage": "torch", "error": None}
    with redirect_stdout(sys.stderr):  # libraries greet on stdout, which carries the report alone
        try:
            _look_at_torch(report)
            report["stage"] = "bitsandbytes"
            import bitsandbytes

            report["bitsandbytes"] = bitsandbytes.__version__
            report["stage"] = "product"
            _multiply(report)
            report["ok"], report["stage"] = True, None
        except Exception as error:  # whatever breaks is what the report is about
            report["error"] = f"{type(error).__name__}: {error}"[:2000]
    report["seconds"] = round(time.perf_counter() - started, 3)
    sys.stdout.write(json.dumps(report) + "\n")
    sys.stdout.flush()
    return int(ExitCode.OK if report["ok"] else ExitCode.ENVIRONMENT)


def _look_at_torch(report: dict[str, Any]) -> None:
    """Fill in what torch says about itself and its device."""
    import torch

    available = torch.cuda.is_available()
    report.update(torch=torch.__version__, cuda_build=torch.version.cuda, cuda_available=available, cuda_error=None)
    report.update(device="cpu", device_name=None, capability=None, bf16=False, dtype="float32")
    if available:
        capability = torch.cuda.get_device_capability(0)
        bf16 = capability >= (8, 0)
        report.update(device="cuda", device_name=torch.cuda.get_device_name(0), capability=list(capability))
        report.update(bf16=bf16, dtype="bfloat16" if bf16 else "float16")
    elif torch.version.cuda is not None:
        try:
            torch.cuda.init()
        except (RuntimeError, AssertionError) as error:
            report["cuda_error"] = str(error)[:500]


def _multiply(report: dict[str, Any]) -> None:
    """A 4-bit layer's output and gradient against those of its dequantised weight in fp32.

    Raises:
        ArithmeticError: if one of them is off by more than rounding explains.
    """
    import torch
    from bitsandbytes.functional import dequantize_4bit
    from bitsandbytes.nn import Linear4bit, Params4bit

    dtype, device = getattr(torch, report["dtype"]), report["device"]
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(OUTPUTS, INPUTS, generator=generator) / INPUTS**0.5
    layer = Linear4bit(INPUTS, OUTPUTS, bias=False, compute_dtype=dtype, compress_statistics=True, quant_type="nf4")
    layer.weight = Params4bit(weight.to(dtype), requires_grad=False, quant_type="nf4", compress_statistics=True)
    layer = layer.to(device).train()
    with suppress(AttributeError):
        layer.support_avx512bf16_for_cpu = False  # the inference kernel of such CPUs has no backward
    dequantised = dequantize_4bit(layer.weight.data, layer.weight.quant_state).float()
    errors = report["errors"] = {"weight": _distance(dequantised, weight.to(device)), "forward": 0.0, "backward": 0.0}
    for rows in ROWS:
        inputs = torch.randn(rows, INPUTS, generator=generator).to(device, dtype).requires_grad_()
        output = layer(inputs)
        slope = torch.randn(rows, OUTPUTS, generator=generator).to(device, dtype)
        output.backward(slope)
        if inputs.grad is None:
            raise ArithmeticError("The 4-bit product passes no gradient on.")
        forward = _distance(output, inputs.detach().float() @ dequantised.T)
        backward = _distance(inputs.grad, slope.float() @ dequantised)
        errors["forward"], errors["backward"] = max(errors["forward"], forward), max(errors["backward"], backward)
    limits = {
        "weight": WEIGHT_TOLERANCE,
        "forward": TOLERANCES[report["dtype"]],
        "backward": TOLERANCES[report["dtype"]],
    }
    for name, limit in limits.items():
        if not errors[name] <= limit:  # not ">": a NaN must fail as well
            raise ArithmeticError(f"The 4-bit {name} is off by {errors[name]:.2g}; at most {limit:.2g} is rounding.")


def _distance(value: Any, reference: Any) -> float:
    """Norm of the difference relative to the reference's."""
    difference = value.detach().float() - reference.float()
    return float(difference.norm() / reference.float().norm())


if __name__ == "__main__":
    sys.exit(main())
