"""The bundled model in memory under TRL's trainer, with rows of the demo: what the measurements of arithmetic need."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from peft import get_peft_model
from transformers import set_seed
from trl import SFTConfig, SFTTrainer

from qlora_tui.config import RunConfig
from qlora_tui.engine.convert import convert_gguf
from qlora_tui.engine.load import load_base, lora_config
from qlora_tui.engine.rows import as_dataset, load_rows
from qlora_tui.models.sources import ModelFiles, resolve_model


def converted_model(config: RunConfig) -> ModelFiles:
    """The config's model as a folder, converted on first use."""
    files = resolve_model(config.model)
    if files.gguf and not files.converted:
        convert_gguf(files, lambda *_progress: None)
    return files


class Loaded:
    """A trainer on a quantised base with an adapter that is not zero, so that every gradient says something.

    Args:
        guarded: Whether the 4-bit layers are kept from the inference repack, as the engine keeps them.
    """

    def __init__(self, config: RunConfig, output: Path, *, guarded: bool = True) -> None:
        self.config = config
        self.files = converted_model(config)
        set_seed(0)
        self.base = load_base(self.files, config, training=guarded)
        self.rows = load_rows(config, self.files.folder, lambda _done: None)
        self.packed = as_dataset(self.rows.train, config.data, packing=True)
        self.separate = as_dataset(self.rows.train, config.data, packing=False)
        self.trainer = SFTTrainer(
            model=get_peft_model(self.base.model, lora_config(config.adapter)),
            args=self._arguments(output),
            train_dataset=self.packed,
            processing_class=self.base.tokenizer,
        )
        self.model: Any = self.trainer.model
        self._fill_adapter()

    def _arguments(self, output: Path) -> SFTConfig:
        return SFTConfig(
            output_dir=str(output),
            packing=True,
            max_length=self.config.data.max_length,
            use_cpu=True,
            bf16=False,
            report_to="none",
            gradient_checkpointing=False,
            dataset_kwargs={"skip_prepare_dataset": True},
        )

    def _fill_adapter(self) -> None:
        torch.manual_seed(1)
        for name, parameter in self.model.named_parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.float()
                if "lora_B" in name:
                    torch.nn.init.normal_(parameter, std=0.02)

    def packed_batch(self) -> dict[str, Any]:
        """All packed sequences as one batch, as the trainer's collator makes it."""
        batch: dict[str, Any] = self.trainer.data_collator(list(self.packed))
        return batch

    def loss(self, batch: dict[str, Any]) -> torch.Tensor:
        """Mean loss over the trained tokens of a batch, through the trainer's fused head."""
        outputs = self.model(**batch, use_cache=False, fused_lm_head=True)
        loss: torch.Tensor = (-outputs.log_probs).sum() / outputs.label_mask.sum()
        return loss

    def gradients(self, batch: dict[str, Any]) -> dict[str, torch.Tensor]:
        """Gradient of every adapter matrix; zeros where none arrived."""
        self.model.train()
        self.model.zero_grad()
        self.loss(batch).backward()
        return {
            name: torch.zeros_like(parameter) if parameter.grad is None else parameter.grad.clone()
            for name, parameter in self.model.named_parameters()
            if parameter.requires_grad
        }
