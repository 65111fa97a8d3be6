"""The parts of a model card that are taken as they stand: front matter for the hub, shell and Python that load the
adapter, the form of a prompt; and the names that these may show.
"""

from __future__ import annotations

import os
import re

import yaml

from qlora_tui.engine.card_facts import CardFacts
from qlora_tui.engine.markdown import code, fenced
from qlora_tui.models.sources import ModelFiles, bundled_models
from qlora_tui.text import one_line, printable

ANSWER_TOKENS = 200

_BUNDLED = "bundled:"
# Where the weights of a bundled model come from, in the hub's spelling, which a card's base_model has to be in.
HUB_NAMES = {"bundled:smollm2-135m": "HuggingFaceTB/SmolLM2-135M-Instruct"}
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


def front_matter(facts: CardFacts) -> str:
    """What the hub reads of an adapter's card, as YAML between its fences."""
    return hub_header(facts.model, "adapter", "peft", quantised=facts.config.quantization.type != "none")


def hub_header(model: ModelFiles, relation: str, library: str, *, quantised: bool) -> str:
    """The front matter of a card.

    Args:
        relation: What the folder is to the base model, in the hub's words.
        library: What loads it.
    """
    values: dict[str, object] = {
        "base_model": HUB_NAMES.get(model.source, public_name(model)),
        "base_model_relation": relation,
        "library_name": library,
        "pipeline_tag": "text-generation",
    }
    if model.licence:
        licence = one_line(model.licence, 80)
        known = licence.lower() in _HUB_LICENCES
        values["license"] = licence.lower() if known else "other"
        if not known:
            values["license_name"] = licence
    values["tags"] = [*(["qlora"] if quantised else []), "lora", "sft", "qlora-tui"]
    return f"---\n{yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=4096)}---"


def loading(facts: CardFacts) -> str:
    """What to install and what to run, each in a block."""
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
    installation, python = fenced("\n".join(lines), "sh"), fenced(snippet(facts), "python")
    return f"{installation}\n\nThen {where}, with or without a GPU:\n\n{python}"


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
    model, name = facts.model, public_name(facts.model)
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


def prompt_format(facts: CardFacts) -> str:
    """How the model was spoken to in training."""
    system = facts.config.data.system_prompt
    said = f"Rows without a system turn got this one:\n\n{fenced(printable(system), 'text')}" if system else None
    parts = [
        "Use the chat template in this folder (`tokenizer.apply_chat_template`), which is the one it was trained with; "
        "another one makes answers worse.",
        said or "No system turn was added to the rows.",
        f"A message as the model reads it, up to where its answer begins:\n\n{fenced(facts.rendered_prompt, 'text')}",
    ]
    if facts.end_of_turn is not None:
        parts.append(f"An answer ends with {code(facts.end_of_turn, in_table=False)}.")
    return "\n\n".join(parts)


def public_name(model: ModelFiles) -> str:
    """The model's name without the folders of this machine."""
    if model.kind == "hub" or model.source.startswith(_BUNDLED):
        return one_line(model.source)
    return _last_part(model.source)


def data_name(source: str) -> str:
    """The data source's name without the folders of this machine."""
    if source.startswith(_BUNDLED):
        return one_line(source)
    is_file = source.lower().endswith(_DATA_SUFFIXES) or os.path.exists(os.path.expanduser(source))
    return one_line(source) if _HUB_ID.fullmatch(source) and not is_file else _last_part(source)


def _last_part(path: str) -> str:
    parts = [part for part in re.split(r"[/\\]", path) if part not in ("", ".", "..", "~")]
    return one_line(parts[-1]) if parts else "local"
