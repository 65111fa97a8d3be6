"""Packed rows against the same rows one by one, and adapter gradients before and after an evaluation.

python -m benchmarks.packing
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch

from benchmarks.loaded import Loaded
from benchmarks.runs import short_config
from benchmarks.tables import publish, table
from qlora_tui.engine.attention import PACKED_VARLEN, register
from qlora_tui.engine.evaluate import measure

PAD = 2


def main() -> None:
    """Measure and publish."""
    output = Path(tempfile.mkdtemp(prefix="qlora-tui-packing-"))
    config = short_config("packing")
    config = config.changed(data={"split": "train[:16]"})
    loaded = Loaded(config, output)
    packed, separate, varlen = _losses(loaded)
    guarded = _gradient_agreement(loaded)
    unguarded = _gradient_agreement(Loaded(config, output, guarded=False))
    publish(
        "packing",
        table(
            ["the same 16 rows", "loss per trained token", "difference from separate rows"],
            [
                ["each row alone", f"{separate:.7f}", ""],
                ["packed, sdpa", f"{packed:.7f}", f"{abs(packed - separate):.1e}"],
                ["packed, variable-length attention", f"{varlen:.7f}", f"{abs(varlen - separate):.1e}"],
            ],
        ),
        table(
            ["adapter gradients of one batch, before and after an evaluation", "largest difference", "cosine", "norms"],
            [["as the engine loads the model", *guarded], ["without its guard", *unguarded]],
        ),
        raw={"packed": packed, "separate": separate, "varlen": varlen, "guarded": guarded, "unguarded": unguarded},
    )


def _losses(loaded: Loaded) -> tuple[float, float, float]:
    alone = [measure(loaded.model, [row], PAD).rows[0] for row in loaded.rows.train]
    separate = sum(row.loss for row in alone) / sum(row.tokens for row in alone)
    base = loaded.model.get_base_model()
    loaded.model.eval()
    with torch.no_grad():
        packed = float(loaded.loss(loaded.packed_batch()))
        register()
        base.set_attn_implementation(PACKED_VARLEN)
        varlen = float(loaded.loss(loaded.packed_batch()))
    base.set_attn_implementation("sdpa")
    return packed, separate, varlen


def _gradient_agreement(loaded: Loaded) -> list[str]:
    batch = loaded.packed_batch()
    before = _flat(loaded.gradients(batch))
    measure(loaded.model, loaded.rows.train[:4], PAD)
    after = _flat(loaded.gradients(batch))
    cosine = torch.nn.functional.cosine_similarity(before, after, dim=0)
    return [
        f"{float((before - after).abs().max()):.1e}",
        f"{float(cosine):.4f}",
        f"{float(before.norm()):.4f}, {float(after.norm()):.4f}",
    ]


def _flat(gradients: dict[str, torch.Tensor]) -> torch.Tensor:
    return torch.cat([gradients[name].flatten().double() for name in sorted(gradients)])


if __name__ == "__main__":
    main()
