"""qlora-tui: from "would this even fit?" to a trained, tested and exported QLoRA adapter, in the terminal."""

from __future__ import annotations

__version__ = "0.1.0"
