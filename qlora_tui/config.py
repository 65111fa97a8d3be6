"""RunConfig: everything that decides a run, as one validated value.

The field names are the contract between the wizard, the command line, the engine and a replay. ``auto`` is allowed
wherever the tool can choose better than a person would; the run directory keeps the file with every choice made.
Reading and writing files is :mod:`qlora_tui.config_file`'s part. The docstring below a field is its description, which
:mod:`qlora_tui.config_schema` reads; pydantic would read them in every command, for a tenth of the time it takes.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

CONFIG_VERSION: Final = 1

Auto = Literal["auto"]
PositiveInt = Annotated[int, Field(ge=1)]
RowFormat = Literal[
    "auto", "messages", "sharegpt", "prompt-completion", "alpaca", "preference", "text", "segments", "pre-tokenised"
]
_RUN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_SPLIT = re.compile(r"[A-Za-z0-9_.-]+(\[(-?\d+%?)?:(-?\d+%?)?\])?")


class Section(BaseModel):
    """A part of the config: immutable, and strict about its keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class ModelSection(Section):
    """The base model."""

    source: Annotated[str, Field(min_length=1)] = "bundled:smollm2-135m"
    """Hub id, local folder, .gguf file, or bundled:NAME. The bundled model trains anywhere, so it is the default."""
    revision: str | None = None
    """Branch, tag or commit on the hub; null means the default branch. A commit makes a replay exact."""
    trust_remote_code: bool = False
    """Run Python code that comes with the model. Off: a model's files should be data, not a program."""


class QuantizationSection(Section):
    """How the frozen base weights are held in memory."""

    type: Literal["nf4", "fp4", "none"] = "nf4"
    """4-bit type. nf4 fits normally distributed weights and loses least; none keeps 16 bits (plain LoRA)."""
    double_quant: bool = True
    """Also quantise the scales: saves about 0.05 bytes per parameter at no measurable loss."""
    compute_dtype: Literal["auto", "bfloat16", "float16", "float32"] = "auto"
    """Arithmetic type. auto: bfloat16 where the GPU has it (capability 8.0 and up), else float16; float32 on CPU."""


class AdapterSection(Section):
    """The trained low-rank matrices."""

    rank: Annotated[int, Field(ge=1, le=1024)] = 16
    """Columns of each low-rank pair. 16 suffices for most tasks; more for knowledge-heavy data."""
    alpha: Annotated[float, Field(gt=0, le=4096)] = 32
    """Scale numerator: the update is multiplied by alpha / rank. 32 keeps one learning rate good for every rank."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of adapter inputs dropped in training. 0 is fastest and rarely worse; 0.05 for under 500 rows."""
    target_modules: Literal["all-linear"] | Annotated[list[str], Field(min_length=1)] = "all-linear"
    """Which layers get an adapter. all-linear (attention and MLP) learns best at equal size."""
    rslora: bool = False
    """Scale by alpha / sqrt(rank) instead. Only of use above rank 64."""
    dora: bool = False
    """Train direction and magnitude apart. About a quarter slower, no consistent gain, so off."""

    @model_validator(mode="after")
    def _one_scale(self) -> AdapterSection:
        if self.dora and self.rslora:
            raise ValueError("adapter.dora and adapter.rslora change the same scale; choose one of them")
        return self


def _checked_split(value: str) -> str:
    if not _SPLIT.fullmatch(value):
        raise ValueError("a split is a name, or a name with a slice such as train[:2%]")
    return value


class EvaluationSource(Section):
    """Where held-out rows come from."""

    source: str | None = None
    """A separate file or data set of held-out rows; null takes a share of the training rows instead."""
    split: str | None = None
    """Split of that source, or of data.source where there is none; null takes its test split, else its validation."""
    fraction: Annotated[float, Field(ge=0, lt=1)] = 0.05
    """Share of rows held out when there is no separate source. 0 switches evaluation off."""

    @field_validator("split")
    @classmethod
    def _split_is_a_name_or_slice(cls, value: str | None) -> str | None:
        return None if value is None else _checked_split(value)


class DataSection(Section):
    """What the model learns from."""

    source: Annotated[str, Field(min_length=1)]
    """Hub id, file, folder, or bundled:NAME."""
    split: str = "train"
    """Split to train on; a slice such as train[:2%] or train[100:600] takes part of it."""
    subset: str | None = None
    """Configuration name of a hub data set that has several."""
    revision: str | None = None
    """Branch, tag or commit of a hub data set; null means the default branch. A commit makes a replay exact."""
    format: RowFormat = "auto"
    """Row format; auto looks at the first rows, says what it found, and asks where they can mean several things."""
    columns: dict[str, str] = Field(default_factory=dict)
    """Role -> column name, overrules detection: {prompt: question, completion: answer}."""
    template: str | None = None
    """Prompt made from columns, "{question}\\n{context}", for rows that fit no format."""
    system_prompt: str | None = None
    """System turn put before rows that have none. Use the same one when the adapter is used."""
    train_on: Literal["assistant", "all"] = "assistant"
    """Which tokens are learnt: the assistant's answers and their end of turn, or everything."""
    max_length: Annotated[int, Field(ge=8, le=1_048_576)] = 512
    """Longest row in tokens. Memory and time grow with it; see the length histogram before raising it."""
    long_rows: Literal["drop", "truncate", "split", "error"] = "truncate"
    """What happens to rows longer than max_length. The number of rows and tokens lost is always shown."""
    packing: bool | Auto = "auto"
    """Several short rows in one sequence, kept apart. Faster and never worse; auto packs when rows vary in length."""
    redact: bool = False
    """Put placeholders such as <EMAIL_1> for e-mail addresses, phone, card and account numbers, IPs and keys."""
    evaluation: EvaluationSource = EvaluationSource()
    """Held-out rows."""

    @field_validator("split")
    @classmethod
    def _split_is_a_name_or_slice(cls, value: str) -> str:
        return _checked_split(value)


class TrainingSection(Section):
    """The optimisation."""

    epochs: Annotated[float, Field(gt=0, le=1000)] = 1
    """Passes over the training rows. 1 to 3; small sets need more."""
    max_steps: PositiveInt | None = None
    """Ends the run after so many optimizer steps, if that comes earlier."""
    learning_rate: Annotated[float, Field(gt=0, le=1)] | Auto = "auto"
    """Peak step size. The setting that matters most: adapters want about ten times full fine-tuning's."""
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    """How the learning rate falls after warm-up; cosine and linear end at zero."""
    warmup: Annotated[float, Field(ge=0)] = 0.03
    """Below 1: share of the steps; 1 or more: number of steps. Keeps the first updates small."""
    effective_batch: Annotated[int, Field(ge=1, le=65_536)] = 8
    """Rows (packed: packed sequences) per update. Adapters like small batches: stay below 32."""
    micro_batch: PositiveInt | Auto = "auto"
    """Rows on the device at once: speed and memory depend on it, never the result. auto: the fastest that fits."""
    gradient_checkpointing: Literal["auto", "full", "every-2", "none"] = "auto"
    """Recompute activations: far less memory for about a fifth more time. auto: only as far as free memory demands."""
    attention: Literal["auto", "varlen", "sdpa", "eager", "flash_attention_2"] = "auto"
    """Attention kernel. varlen keeps packed rows apart without a mask (CUDA); sdpa is right everywhere."""
    layer_kernels: Literal["auto", "liger", "none"] = "auto"
    """Fused norm, rotary and MLP kernels, and adapters fused with their matrices unless adapter.dropout or adapter.dora
    forbids it: about a third faster on CUDA for the families that have them."""
    optimizer: Literal["auto", "adamw", "adamw_8bit", "paged_adamw_8bit"] = "auto"
    """auto: paged 8-bit AdamW on CUDA (survives memory peaks), plain AdamW elsewhere."""
    weight_decay: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Pull of adapter weights towards zero per step; adapters rarely need it."""
    max_grad_norm: Annotated[float, Field(gt=0)] = 1.0
    """Gradients longer than this are scaled down to it; tames single odd batches."""
    neftune_alpha: Annotated[float, Field(gt=0)] | None = None
    """Noise on the embeddings while training; a chat-style option, off by default."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 42
    """Seeds the adapter's start, the order of rows and the held-out share. The same seed repeats a run."""

    @model_validator(mode="after")
    def _batches_divide(self) -> TrainingSection:
        micro, effective = self.micro_batch, self.effective_batch
        if micro != "auto" and effective % micro:
            raise ValueError(
                f"training.micro_batch {micro} does not divide training.effective_batch {effective}; "
                f"choose one of {', '.join(str(n) for n in range(1, effective + 1) if effective % n == 0)}"
            )
        return self


class EvaluationSection(Section):
    """How learning is measured."""

    every: PositiveInt | Auto = "auto"
    """Optimizer steps between evaluations; auto makes about eight of them in a run, whatever its length."""
    patience: Annotated[int, Field(ge=1)] | None = 3
    """Stop after so many evaluations without a better loss; null never stops early."""
    metrics: list[Literal["accuracy", "exact_match", "rouge", "bleu"]] = Field(default_factory=list)
    """Measured before and after on the same held-out rows, besides loss and perplexity."""
    rows: PositiveInt = 200
    """Held-out rows used for the measurement before and after."""
    prompts: list[str] = Field(default_factory=list)
    """Prompts answered at every evaluation, to watch the model change."""


class CheckpointSection(Section):
    """What a crash can cost."""

    every: PositiveInt | Auto = "auto"
    """Optimizer steps between checkpoints; auto keeps the loss of a crash to about a tenth of the run."""
    keep: PositiveInt = 2
    """Newest checkpoints kept; the adapter with the best evaluation is kept besides."""


class TrackingSection(Section):
    """Experiment trackers."""

    report_to: Literal["none", "tensorboard", "wandb", "trackio"] = "none"
    """Where the trainer also sends its metrics. none: nothing leaves this machine."""


class OutputSection(Section):
    """Where the run goes."""

    directory: str | None = None
    """Folder that holds the run's folder; null is the default runs directory (see `qlora-tui paths`)."""
    overwrite: bool = False
    """Replace a finished run of the same name. A live run is never replaced."""


class RunConfig(Section):
    """One run, completely described."""

    version: Literal[1] = CONFIG_VERSION
    """Schema version of this file."""
    name: str
    """Name of the run and of its folder: letters, digits, '.', '_' and '-', at most 64."""
    model: ModelSection = ModelSection()
    quantization: QuantizationSection = QuantizationSection()
    adapter: AdapterSection = AdapterSection()
    data: DataSection
    training: TrainingSection = TrainingSection()
    evaluation: EvaluationSection = EvaluationSection()
    checkpoints: CheckpointSection = CheckpointSection()
    tracking: TrackingSection = TrackingSection()
    output: OutputSection = OutputSection()

    @field_validator("name")
    @classmethod
    def _name_is_a_safe_folder(cls, value: str) -> str:
        if not _RUN_NAME.fullmatch(value) or value.endswith("."):
            raise ValueError(
                "a name starts with a letter or digit, holds only letters, digits, '.', '_' and '-' (at most 64), "
                "and does not end with '.'"
            )
        return value

    @property
    def gradient_accumulation(self) -> int:
        """Micro-batches per update; needs ``training.micro_batch`` to be chosen."""
        micro = self.training.micro_batch
        return self.training.effective_batch // (1 if micro == "auto" else micro)

    def changed(self, **sections: dict[str, Any]) -> RunConfig:
        """A validated copy with some fields of some sections replaced: ``changed(training={"seed": 1})``.

        Raises:
            pydantic.ValidationError: if the new values are not allowed.
        """
        values = self.model_dump()
        for section, fields in sections.items():
            values[section] = {**values[section], **fields} if isinstance(fields, dict) else fields
        return RunConfig.model_validate(values)
