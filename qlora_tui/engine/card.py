"""The model card: the README.md beside an adapter, which says what it is, how good it is and how to load it.

Everything that comes from data, config or file names is foreign text: it stands in code or is escaped, and it never
shows a folder of the machine that trained.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import yaml

from qlora_tui.config import RunConfig
from qlora_tui.engine.lock import Lock
from qlora_tui.models.sources import ModelFiles, bundled_models
from qlora_tui.runs.events import Comparison
from qlora_tui.text import one_line, printable

ANSWER_TOKENS = 200

_BUNDLED = "bundled:"
# Where the weights of a bundled model come from, in the hub's spelling, which a card's base_model has to be in.
_HUB_NAMES = {"bundled:smollm2-135m": "HuggingFaceTB/SmolLM2-135M-Instruct"}
# The hub's spelling of licences; any other one is called "other" there and keeps its own name beside it.
_HUB_LICENCES = frozenset(
    {
        "afl-3.0", "apache-2.0", "artistic-2.0", "bigcode-openrail-m", "bigscience-bloom-rail-1.0",
        "bigscience-openrail-m", "bsd-2-clause", "bsd-3-clause", "cc-by-4.0", "cc-by-nc-4.0", "cc-by-nc-sa-4.0",
        "cc-by-sa-4.0", "cc0-1.0", "creativeml-openrail-m", "gemma", "gpl-3.0", "lgpl-3.0", "llama2", "llama3",
        "llama3.1", "llama3.2", "llama3.3", "llama4", "mit", "mpl-2.0", "openrail", "unlicense",
    }
)  # fmt: skip
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_DATA_SUFFIXES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet", ".arrow", ".txt", ".gz", ".zst", ".gguf")
_MARKUP = re.compile(r"([\\`*_\[\]<>~$#])")
# Name, unit and number format of each measure.
_MEASURES = {
    "loss": ("loss, nats per trained token", ".4f"),
    "accuracy": ("accuracy, share of rows", ".3f"),
    "exact_match": ("exact match, share of rows", ".3f"),
    "rouge": ("ROUGE-L F1, mean of rows", ".3f"),
    "bleu": ("BLEU, mean of rows", ".2f"),
}


@dataclass(frozen=True, slots=True)
class DataFacts:
    """How much was learnt from and measured on; ``tokens`` and ``trained_tokens`` are those of the training rows."""

    training_rows: int
    tokens: int
    trained_tokens: int
    evaluation_rows: int
    selection_is_test: bool = False
    """Whether the rows that chose the best adapter also measured it."""


@dataclass(frozen=True, slots=True)
class CardFacts:
    """What a card is made of."""

    config: RunConfig
    """With every ``auto`` replaced by the choice made."""
    model: ModelFiles
    lock: Lock
    data: DataFacts
    comparison: Mapping[str, Comparison]
    prompt: str
    """A user's message that is fit to be public; the snippet asks it."""
    rendered_prompt: str
    """The same message, and the config's system prompt, through the training template with an answer opened."""
    end_of_turn: str | None
    """The token that ends an answer, as text."""
    steps: int | None = None
    best_step: int | None = None
    adapter: str = "."
    """What the snippet loads: the card's own folder, or the adapter's name on the hub."""


def model_card(facts: CardFacts) -> str:
    """The card as Markdown with YAML front matter."""
    config = facts.config
    parts = [
        _front_matter(facts),
        f"# {_text(config.name)}",
        f"A LoRA adapter for {_base(facts)}, trained with qlora-tui. The folder holds only the adapter; the base model "
        "is loaded beside it.",
        "## Base model",
        _table(("", ""), _base_rows(facts)),
        "## Results",
        _results(facts),
        "## How to load it",
        _loading(facts),
        "## Prompt format",
        _prompt_format(facts),
        "## Data",
        _table(("", ""), _data_rows(facts)),
        "## Recipe",
        _table(("setting", "value"), _recipe_rows(facts)),
        "## Limits",
        "\n".join(f"- {limit}" for limit in _limits(facts)),
        "## Versions",
        _table(("", ""), _version_rows(facts.lock)),
    ]
    return "\n\n".join(parts) + "\n"


def _front_matter(facts: CardFacts) -> str:
    values: dict[str, object] = {
        "base_model": _HUB_NAMES.get(facts.model.source, _public_name(facts.model)),
        "base_model_relation": "adapter",
        "library_name": "peft",
        "pipeline_tag": "text-generation",
    }
    if facts.model.licence:
        licence = one_line(facts.model.licence, 80)
        known = licence.lower() in _HUB_LICENCES
        values["license"] = licence.lower() if known else "other"
        if not known:
            values["license_name"] = licence
    quantised = facts.config.quantization.type != "none"
    values["tags"] = [*(["qlora"] if quantised else []), "lora", "sft", "qlora-tui"]
    return f"---\n{yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=4096)}---"


def _public_name(model: ModelFiles) -> str:
    """The model's name without the folders of this machine."""
    if model.kind == "hub" or model.source.startswith(_BUNDLED):
        return one_line(model.source)
    return _last_part(model.source)


def _data_name(source: str) -> str:
    """The data source's name without the folders of this machine."""
    if source.startswith(_BUNDLED):
        return one_line(source)
    is_file = source.lower().endswith(_DATA_SUFFIXES) or os.path.exists(os.path.expanduser(source))
    return one_line(source) if _HUB_ID.fullmatch(source) and not is_file else _last_part(source)


def _last_part(path: str) -> str:
    parts = [part for part in re.split(r"[/\\]", path) if part not in ("", ".", "..", "~")]
    return one_line(parts[-1]) if parts else "local"


def _base(facts: CardFacts) -> str:
    name = _public_name(facts.model)
    return f"[{_text(name)}](https://huggingface.co/{name})" if facts.model.kind == "hub" else _code(name)


def _base_rows(facts: CardFacts) -> Iterator[tuple[str, str]]:
    model = facts.model
    yield "model", _base(facts)
    if upstream := _HUB_NAMES.get(model.source):
        yield "published as", f"[{_text(upstream)}](https://huggingface.co/{upstream})"
    kinds = {"hub": "Hugging Face hub", "gguf": "a GGUF file, unpacked to 16 bits", "folder": "a local folder"}
    yield "taken from", kinds[model.kind]
    if model.revision:
        yield "SHA-256 of the file" if model.kind == "gguf" else "revision", _code(model.revision)
    if facts.lock.model.fingerprint:
        yield "fingerprint", _code(facts.lock.model.fingerprint)
    unknown = "not stated by the model's files; ask its publisher before you share this adapter"
    yield "licence", f"{_text(model.licence)} (holds for the base; read it before use)" if model.licence else unknown


def _results(facts: CardFacts) -> str:
    if not facts.comparison:
        return "Not measured: this run compared no held-out rows before and after training."
    first = next(iter(facts.comparison.values()))
    rows = []
    for name, found in facts.comparison.items():
        title, form = _MEASURES.get(name, (name, ".4g"))
        interval = f"{found.low:+{form}} to {found.high:+{form}}"
        rows.append(
            (_text(title), f"{found.before:{form}}", f"{found.after:{form}}", f"{found.difference:+{form}}", interval)
        )
    percent = f"{first.confidence:.0%}".replace("%", " %")
    explanation = (
        f"Measured on the same {first.rows} held-out rows before and after training. The interval is a paired "
        "bootstrap over rows; one that holds 0 shows no difference."
    )
    header = ("measure", "base", "with adapter", "difference", f"{percent} interval")
    return f"{explanation}\n\n{_table(header, rows)}"


def _loading(facts: CardFacts) -> str:
    versions = facts.lock.versions
    wanted = ["torch", "transformers", "peft", "accelerate", *_quantiser(facts)]
    packages = " ".join(f"{name}=={_release(versions[name])}" if name in versions else name for name in wanted)
    lines = [f"pip install {packages}"]
    if facts.model.kind == "gguf":
        lines.append("pip install qlora-tui")
    bundled = bundled_models().get(facts.model.source.removeprefix(_BUNDLED))
    if bundled and facts.model.source.startswith(_BUNDLED):
        lines.append(bundled.install_command)
    where = "in this folder" if facts.adapter == "." else "anywhere"
    installation, code = _fenced("\n".join(lines), "sh"), _fenced(snippet(facts), "python")
    return f"{installation}\n\nThen {where}, with or without a GPU:\n\n{code}"


def _quantiser(facts: CardFacts) -> list[str]:
    return ["bitsandbytes"] if facts.config.quantization.type != "none" else []


def _release(version: str) -> str:
    """The version without a build tag such as ``+cpu``, which other machines cannot install."""
    return re.sub(r"[^A-Za-z0-9.]", "", version.partition("+")[0])


def snippet(facts: CardFacts) -> str:
    """Python that loads the base and the adapter and answers :attr:`CardFacts.prompt`; runs as it is."""
    quantization = facts.config.quantization
    names = ["AutoModelForCausalLM", "AutoTokenizer"] + (["BitsAndBytesConfig"] if quantization.type != "none" else [])
    base_import, base_lines = _base_lines(facts)
    messages = [{"role": "user", "content": facts.prompt}]
    if facts.config.data.system_prompt:
        messages.insert(0, {"role": "system", "content": facts.config.data.system_prompt})
    ends = "[tokenizer.eos_token_id]"
    if facts.end_of_turn is not None:
        ends = f"[tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids({facts.end_of_turn!r})]"
    where = "this folder" if facts.adapter == "." else "on the hub"
    lines = [
        "import torch",
        f"from peft import {'PeftConfig, ' if facts.model.kind == 'folder' else ''}PeftModel",
        *base_import,
        f"from transformers import {', '.join(names)}",
        "",
        f"ADAPTER = {facts.adapter!r}  # {where}",
        *base_lines,
        "",
        'device, dtype = "cpu", torch.float32',
        "if torch.cuda.is_available():",
        '    device, dtype = "cuda:0", torch.float16',
        "    if torch.cuda.get_device_capability() >= (8, 0):",
        "        dtype = torch.bfloat16",
        *_model_lines(facts),
        "model = PeftModel.from_pretrained(base, ADAPTER).eval()",
        "tokenizer = AutoTokenizer.from_pretrained(ADAPTER)",
        "",
        "messages = [",
        *(f"    {message!r}," for message in messages),
        "]",
        "inputs = tokenizer.apply_chat_template(",
        '    messages, add_generation_prompt=True, return_tensors="pt", return_dict=True',
        ").to(device)",
        f"ends = {ends}",
        f"output = model.generate(**inputs, max_new_tokens={ANSWER_TOKENS}, do_sample=False, eos_token_id=ends)",
        'print(tokenizer.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True))',
    ]
    return "\n".join(lines)


def _base_lines(facts: CardFacts) -> tuple[list[str], list[str]]:
    """Imports that finding the base needs, and the lines that find it."""
    model, name = facts.model, _public_name(facts.model)
    if model.kind == "hub":
        return [], [f"BASE, REVISION = {name!r}, {model.revision!r}"]
    if model.kind == "folder":
        comment = f"# where {name} was when this was trained; elsewhere: the path of your copy"
        return [], [comment, "BASE = PeftConfig.from_pretrained(ADAPTER).base_model_name_or_path"]
    imports = [
        "from qlora_tui.config import ModelSection",
        "from qlora_tui.engine.convert import convert_gguf",
        "from qlora_tui.models.sources import resolve_model",
    ]
    note = "inside an installed package" if name.startswith(_BUNDLED) else f"the path of the file {name}"
    lines = [
        f"files = resolve_model(ModelSection(source={name!r}))  # {note}",
        "if not files.converted:",
        "    convert_gguf(files, print)  # once: to 16-bit safetensors in the cache",
        "BASE = files.folder",
    ]
    return imports, lines


def _model_lines(facts: CardFacts) -> list[str]:
    section = facts.config.quantization
    quantised = section.type != "none"
    options = [
        "    BASE,",
        *(["    revision=REVISION,"] if facts.model.kind == "hub" else []),
        *(["    trust_remote_code=True,  # runs code that comes with the base"] if facts.model.remote_code else []),
        "    dtype=dtype,",
        *(["    quantization_config=quantization,"] if quantised else []),
        '    device_map={"": device},',
    ]
    quantization = [
        "quantization = BitsAndBytesConfig(",
        "    load_in_4bit=True,",
        f'    bnb_4bit_quant_type="{section.type}",',
        f"    bnb_4bit_use_double_quant={section.double_quant},",
        "    bnb_4bit_compute_dtype=dtype,",
        ")",
    ]
    return [*(quantization if quantised else []), "base = AutoModelForCausalLM.from_pretrained(", *options, ")"]


def _prompt_format(facts: CardFacts) -> str:
    system = facts.config.data.system_prompt
    said = f"Rows without a system turn got this one:\n\n{_fenced(printable(system), 'text')}" if system else None
    parts = [
        "Use the chat template in this folder (`tokenizer.apply_chat_template`), which is the one it was trained with; "
        "another one makes answers worse.",
        said or "No system turn was added to the rows.",
        f"A message as the model reads it, up to where its answer begins:\n\n{_fenced(facts.rendered_prompt, 'text')}",
    ]
    if facts.end_of_turn is not None:
        parts.append(f"An answer ends with {_code(facts.end_of_turn, in_table=False)}.")
    return "\n\n".join(parts)


def _data_rows(facts: CardFacts) -> Iterator[tuple[str, str]]:
    section, data, prints = facts.config.data, facts.data, facts.lock.data
    yield "training data", _code(_data_name(section.source))
    yield "split", _code(section.split)
    yield "training rows", f"{data.training_rows:,}"
    yield "tokens", f"{data.tokens:,}, of which {data.trained_tokens:,} are learnt"
    trained = "the assistant's answers and their end" if section.train_on == "assistant" else "all tokens"
    yield "trained on", trained
    held_out = section.evaluation
    if held_out.source:
        yield "held-out data", _code(_data_name(held_out.source))
    elif data.evaluation_rows:
        yield "held-out data", f"{held_out.fraction:.3g} of the rows, taken out before training"
    yield "held-out rows measured", f"{data.evaluation_rows:,}"
    for part, digest in prints.items():
        yield f"SHA-256, {_text(part)} file", _code(digest)


def _recipe_rows(facts: CardFacts) -> Iterator[tuple[str, str]]:
    config = facts.config
    adapter, training, data = config.adapter, config.training, config.data
    quantization = config.quantization
    yield "base weights", "16 bits" if quantization.type == "none" else _quantised(config)
    yield "compute type", _code(quantization.compute_dtype)
    scale = "alpha / √rank" if adapter.rslora else "alpha / rank"
    yield "adapter", f"LoRA{', DoRA' if adapter.dora else ''}, scale {scale}"
    yield "rank, alpha, dropout", f"{adapter.rank}, {adapter.alpha:g}, {adapter.dropout:g}"
    targets = adapter.target_modules
    yield "target modules", _code(targets if isinstance(targets, str) else ", ".join(targets))
    yield "epochs", f"{training.epochs:g}" + (f", at most {training.max_steps} steps" if training.max_steps else "")
    if facts.steps is not None:
        best = "" if facts.best_step is None else f", best evaluation at step {facts.best_step:,}"
        yield "optimizer steps", f"{facts.steps:,}{best}"
    yield "learning rate", f"{_code(str(training.learning_rate))}, {training.schedule}, warm-up {training.warmup:g}"
    micro = training.micro_batch
    yield "effective batch", f"{training.effective_batch} rows" + (f" ({micro} at once)" if micro != "auto" else "")
    yield "optimizer", f"{_code(training.optimizer)}, weight decay {training.weight_decay:g}"
    yield "gradient norm limit", f"{training.max_grad_norm:g}"
    if training.neftune_alpha is not None:
        yield "NEFTune alpha", f"{training.neftune_alpha:g}"
    yield "longest row", f"{data.max_length:,} tokens, longer ones: {data.long_rows}"
    yield "packing", _yes_no(data.packing)
    yield "gradient checkpointing", _code(training.gradient_checkpointing)
    yield "attention, layer kernels", f"{_code(training.attention)}, {_code(training.layer_kernels)}"
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
    redacted = "were" if facts.config.data.redact else "were not"
    yield (
        "A model can repeat what it was trained on. E-mail addresses, phone numbers and secrets in the training rows "
        f"{redacted} replaced."
    )


def _version_rows(lock: Lock) -> Iterator[tuple[str, str]]:
    for name, version in lock.versions.items():
        yield _text(name), _code(version)
    hardware = lock.hardware
    if hardware.gpu:
        yield "GPU", _text(hardware.gpu)
    elif hardware.cpu:
        yield "CPU", _text(hardware.cpu)
    if lock.template:
        yield "chat template, SHA-256", _code(lock.template)
    if lock.tokenizer:
        yield "tokenizer.json, SHA-256", _code(lock.tokenizer)


def _table(header: Sequence[str], rows: Iterator[tuple[str, ...]] | Sequence[tuple[str, ...]]) -> str:
    """A Markdown table of cells that are escaped already."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _text(value: str) -> str:
    """Foreign text as one line of plain Markdown text."""
    escaped = _MARKUP.sub(r"\\\1", one_line(value).replace("&", "&amp;"))
    return escaped.replace("|", "&#124;")


def _code(value: str, *, in_table: bool = True) -> str:
    """Foreign text as one line in code type."""
    line = one_line(value)
    # Inside a table a pipe ends the cell even in code.
    if not line or (in_table and "|" in line):
        return _text(line)
    fence = "`" * (_longest_run(line) + 1)
    gap = " " if line[0] == "`" or line[-1] == "`" else ""
    return f"{fence}{gap}{line}{gap}{fence}"


def _fenced(text: str, language: str) -> str:
    """A code block that nothing inside can close."""
    fence = "`" * max(3, _longest_run(text) + 1)
    return "\n".join((fence + language, printable(text).rstrip("\n"), fence))


def _longest_run(text: str) -> int:
    return max((len(run) for run in re.findall("`+", text)), default=0)
