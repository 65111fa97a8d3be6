"""Packages that a recipe needs and that are not there: told at once, without importing anything heavy."""

from __future__ import annotations

import importlib.util

from qlora_tui.config import RunConfig
from qlora_tui.errors import EnvironmentFault


def check_installed(config: RunConfig) -> None:
    """Refuse what needs a package that is not there; asks for the packages only by name.

    Raises:
        EnvironmentFault: naming the setting and the package.
    """
    tracker = config.tracking.report_to
    if tracker != "none" and importlib.util.find_spec(tracker) is None:
        raise EnvironmentFault(
            "The run cannot report its metrics.",
            f"tracking.report_to is {tracker}, and the package {tracker} is not installed.",
            f"Install it with `pip install 'qlora-tui[{tracker}]'`, or set tracking.report_to: none.",
        )
    if config.training.attention == "flash_attention_2" and importlib.util.find_spec("flash_attn") is None:
        raise EnvironmentFault(
            "The run cannot use the attention that it asks for.",
            "training.attention is flash_attention_2, and the package flash_attn is not installed.",
            "Set training.attention: auto, which is as fast on packed rows and needs no package.",
        )
