"""The model card: the README.md beside an adapter, which says what it is, how good it is and how to load it.

Everything that comes from data, config or file names is foreign text: it stands in code or is escaped, and it never
shows a folder of the machine that trained.
"""

from __future__ import annotations

from collections.abc import Iterator

from qlora_tui.config import RunConfig
from qlora_tui.engine.card_facts import CardFacts
from qlora_tui.engine.card_snippet import HUB_NAMES, data_name, front_matter, loading, prompt_format, public_name
from qlora_tui.engine.lock import Lock
from qlora_tui.engine.markdown import code, table, text

# Name, unit and number format of each measure.
_MEASURES = {
    "loss": ("loss, nats per trained token", ".4f"),
    "accuracy": ("accuracy, share of rows", ".3f"),
    "exact_match": ("exact match, share of rows", ".3f"),
    "rouge": ("ROUGE-L F1, mean of rows", ".3f"),
    "bleu": ("BLEU, mean of rows", ".2f"),
}


def model_card(facts: CardFacts) -> str:
    """The card as Markdown with YAML front matter."""
    config = facts.config
    parts = [
        front_matter(facts),
        f"# {text(config.name)}",
        f"A LoRA adapter for {_base(facts)}, trained with qlora-tui. The folder holds only the adapter; the base model "
        "is loaded beside it.",
        "## Base model",
        table(("", ""), _base_rows(facts)),
        "## Results",
        _results(facts),
        "## How to load it",
        loading(facts),
        "## Prompt format",
        prompt_format(facts),
        "## Data",
        table(("", ""), _data_rows(facts)),
        "## Recipe",
        table(("setting", "value"), _recipe_rows(facts)),
        "## Limits",
        "\n".join(f"- {limit}" for limit in _limits(facts)),
        "## Versions",
        table(("", ""), _version_rows(facts.lock)),
    ]
    return "\n\n".join(parts) + "\n"


def _base(facts: CardFacts) -> str:
    name = public_name(facts.model)
    return f"[{text(name)}](https://huggingface.co/{name})" if facts.model.kind == "hub" else code(name)


def _base_rows(facts: CardFacts) -> Iterator[tuple[str, str]]:
    model = facts.model
    yield "model", _base(facts)
    if upstream := HUB_NAMES.get(model.source):
        yield "published as", f"[{text(upstream)}](https://huggingface.co/{upstream})"
    kinds = {"hub": "Hugging Face hub", "gguf": "a GGUF file, unpacked to 16 bits", "folder": "a local folder"}
    yield "taken from", kinds[model.kind]
    if model.revision:
        yield "SHA-256 of the file" if model.kind == "gguf" else "revision", code(model.revision)
    if facts.lock.model.fingerprint:
        yield "fingerprint", code(facts.lock.model.fingerprint)
    unknown = "not stated by the model's files; ask its publisher before you share this adapter"
    yield "licence", f"{text(model.licence)} (holds for the base; read it before use)" if model.licence else unknown


def _results(facts: CardFacts) -> str:
    if not facts.comparison:
        return "Not measured: this run compared no held-out rows before and after training."
    first = next(iter(facts.comparison.values()))
    rows = []
    for name, found in facts.comparison.items():
        title, form = _MEASURES.get(name, (name, ".4g"))
        interval = f"{found.low:+{form}} to {found.high:+{form}}"
        rows.append(
            (text(title), f"{found.before:{form}}", f"{found.after:{form}}", f"{found.difference:+{form}}", interval)
        )
    percent = f"{first.confidence:.0%}".replace("%", " %")
    explanation = (
        f"Measured on the same {first.rows} held-out rows before and after training. The interval is a paired "
        "bootstrap over rows; one that holds 0 shows no difference."
    )
    header = ("measure", "base", "with adapter", "difference", f"{percent} interval")
    return f"{explanation}\n\n{table(header, rows)}"


def _data_rows(facts: CardFacts) -> Iterator[tuple[str, str]]:
    section, data, prints = facts.config.data, facts.data, facts.lock.data
    yield "training data", code(data_name(section.source))
    yield "split", code(section.split)
    yield "training rows", f"{data.training_rows:,}"
    yield "tokens", f"{data.tokens:,}, of which {data.trained_tokens:,} are learnt"
    trained = "the assistant's answers and their end" if section.train_on == "assistant" else "all tokens"
    yield "trained on", trained
    held_out = section.evaluation
    if held_out.source:
        yield "held-out data", code(data_name(held_out.source))
    elif data.evaluation_rows:
        yield "held-out data", f"{held_out.fraction:.3g} of the rows, taken out before training"
    yield "held-out rows measured", f"{data.evaluation_rows:,}"
    if section.redact:
        counts = ", ".join(f"{count:,} {text(kind)}" for kind, count in data.redacted.items())
        yield "replaced by placeholders", counts or "nothing was found"
    for part, digest in prints.items():
        yield f"SHA-256, {text(part)} file", code(digest)


def _recipe_rows(facts: CardFacts) -> Iterator[tuple[str, str]]:
    config = facts.config
    adapter, training, data = config.adapter, config.training, config.data
    quantization = config.quantization
    yield "base weights", "16 bits" if quantization.type == "none" else _quantised(config)
    yield "compute type", code(quantization.compute_dtype)
    scale = "alpha / √rank" if adapter.rslora else "alpha / rank"
    yield "adapter", f"LoRA{', DoRA' if adapter.dora else ''}, scale {scale}"
    yield "rank, alpha, dropout", f"{adapter.rank}, {adapter.alpha:g}, {adapter.dropout:g}"
    targets = adapter.target_modules
    yield "target modules", code(targets if isinstance(targets, str) else ", ".join(targets))
    yield "epochs", f"{training.epochs:g}" + (f", at most {training.max_steps} steps" if training.max_steps else "")
    if facts.steps is not None:
        best = "" if facts.best_step is None else f", best evaluation at step {facts.best_step:,}"
        yield "optimizer steps", f"{facts.steps:,}{best}"
    yield "learning rate", f"{code(str(training.learning_rate))}, {training.schedule}, warm-up {training.warmup:g}"
    micro = training.micro_batch
    yield "effective batch", f"{training.effective_batch} rows" + (f" ({micro} at once)" if micro != "auto" else "")
    yield "optimizer", f"{code(training.optimizer)}, weight decay {training.weight_decay:g}"
    yield "gradient norm limit", f"{training.max_grad_norm:g}"
    if training.neftune_alpha is not None:
        yield "NEFTune alpha", f"{training.neftune_alpha:g}"
    yield "longest row", f"{data.max_length:,} tokens, longer ones: {data.long_rows}"
    yield "packing", _yes_no(data.packing)
    yield "gradient checkpointing", code(training.gradient_checkpointing)
    yield "attention, layer kernels", f"{code(training.attention)}, {code(training.layer_kernels)}"
    yield "seed", str(training.seed)


def _quantised(config: RunConfig) -> str:
    section = config.quantization
    return f"4 bits, {section.type.upper()}" + (", double quantisation" if section.double_quant else "")


def _yes_no(value: bool | str) -> str:
    return value if isinstance(value, str) else ("yes" if value else "no")


def _limits(facts: CardFacts) -> Iterator[str]:
    yield "It works on the base model named above and inherits that model's licence, knowledge and faults."
    if facts.config.quantization.type != "none":
        yield (
            "It was trained on 4-bit weights. Do not call `merge_and_unload()` on a 4-bit base: rounding the merged "
            "weights to 4 bits again undoes most of the training. Merge into 16-bit weights instead."
        )
    if facts.model.kind == "gguf":
        yield "The base was unpacked from a quantised file, so it is not exactly the published model."
    if facts.comparison:
        yield (
            "The results hold for data like the held-out rows and for one seed; the interval knows the luck of the "
            "rows, not that of the seed."
        )
        if facts.data.selection_is_test:
            yield "The held-out rows also chose the best step, so the results may be slightly flattering."
    yield "It was not tested for safety, bias or facts beyond the results above."
    repeats = "A model can repeat what it was trained on."
    if facts.config.data.redact:
        yield (
            f"{repeats} Private data that could be recognised in the training rows was replaced by placeholders such "
            "as `<EMAIL_1>`; names and street addresses are not recognised."
        )
    else:
        yield f"{repeats} Private data in the training rows was not replaced."


def _version_rows(lock: Lock) -> Iterator[tuple[str, str]]:
    for name, version in lock.versions.items():
        yield text(name), code(version)
    hardware = lock.hardware
    if hardware.gpu:
        yield "GPU", text(hardware.gpu)
    elif hardware.cpu:
        yield "CPU", text(hardware.cpu)
    if lock.template:
        yield "chat template, SHA-256", code(lock.template)
    if lock.tokenizer:
        yield "tokenizer.json, SHA-256", code(lock.tokenizer)
