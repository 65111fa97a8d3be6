"""How to serve what was trained: commands and files for transformers, vLLM and Ollama, with the training template.

Names and folders in them are quoted for the language they stand in; nothing here is run.
"""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from qlora_tui.config import DataSection, RunConfig
from qlora_tui.data.encode import Encoder
from qlora_tui.data.go_template import turn_pieces
from qlora_tui.text import one_line, printable

# The ranks that vLLM keeps adapters at.
_VLLM_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
_PROMPT = "Hello! What can you do for me?"


@dataclass(frozen=True, slots=True)
class Snippet:
    """One way to serve: a title, a text to copy, and what to know about it."""

    title: str
    language: str
    text: str
    note: str = ""


def adapter_snippets(adapter: Path, config: RunConfig, base: str) -> list[Snippet]:
    """Ways to use the adapter beside its base.

    Args:
        base: Name or folder of the base in 16 bits, as another program can load it.
    """
    rank = config.adapter.rank
    room = next((each for each in _VLLM_RANKS if each >= rank), rank)
    quoted, name = shlex.quote(str(adapter)), shlex.quote(config.name)
    vllm = (
        f"vllm serve {shlex.quote(base)} --enable-lora --max-lora-rank {room} \\\n"
        f"  --lora-modules {name}={quoted} \\\n"
        f"  --chat-template {shlex.quote(str(adapter / 'chat_template.jinja'))}"
    )
    note = "vLLM holds the base in 16 bits; the adapter was trained on it in 4 bits, so answers can differ a little."
    return [
        Snippet(
            "transformers", "python", _with_adapter(adapter, config, base), "The README beside the adapter has more."
        ),
        Snippet("vLLM", "sh", f"{vllm}\n\n{_request(config)}", note if config.quantization.type != "none" else ""),
    ]


def merged_snippets(folder: Path, config: RunConfig, has_modelfile: bool | None = None) -> list[Snippet]:
    """Ways to serve a merged model.

    Args:
        has_modelfile: Whether a Modelfile lies beside the weights; None looks.
    """
    name, quoted = shlex.quote(config.name), shlex.quote(str(folder))
    ollama = f"cd {quoted}\nollama create {name} -f Modelfile\nollama run {name}"
    if has_modelfile is None:
        has_modelfile = (folder / "Modelfile").is_file()
    refused = "This chat template cannot be written for Ollama; serve the model with transformers or vLLM."
    return [
        Snippet("transformers", "python", _merged(folder, config)),
        Snippet("vLLM", "sh", f"vllm serve {quoted} --served-model-name {name}\n\n{_request(config)}"),
        Snippet(
            "Ollama",
            "sh",
            ollama if has_modelfile else f"# {refused}",
            "The Modelfile holds the training template. Ollama reads Llama, Mistral, Gemma and Phi 3 weights itself; "
            "others go through llama.cpp's convert_hf_to_gguf.py first."
            if has_modelfile
            else "",
        ),
    ]


def modelfile(template_folder: Path, section: DataSection) -> str:
    """An Ollama Modelfile for a merged model, to lie beside its weights.

    Raises:
        QloraError: if the training template cannot be written in Ollama's language, or the folder has none.
    """
    encoder = Encoder.from_folder(template_folder, section)
    bos = encoder.template.special_tokens.get("bos_token") if encoder.adds_bos else None
    ends = [
        encoder.tokenizer.id_to_token(token) for token in (encoder.end_of_turn_id, encoder.eos_id) if token is not None
    ]
    pieces = turn_pieces(encoder.template, next(iter(ends), None), bos)
    lines = ["# ollama create NAME -f Modelfile", "FROM .", f'TEMPLATE """{pieces.go_template()}"""']
    system = section.system_prompt or pieces.default_system
    if system and '"""' not in system:
        lines.append(f'SYSTEM """{system}"""')
    lines += [f"PARAMETER stop {json.dumps(stop, ensure_ascii=False)}" for stop in dict.fromkeys(ends) if stop]
    return "\n".join(lines) + "\n"


def _with_adapter(adapter: Path, config: RunConfig, base: str) -> str:
    lines = [
        "from peft import PeftModel",
        "from transformers import AutoModelForCausalLM, AutoTokenizer"
        + (", BitsAndBytesConfig" if config.quantization.type != "none" else ""),
        "",
        f"ADAPTER = {str(adapter)!r}",
        *_base_lines(config, base),
        "model = PeftModel.from_pretrained(base, ADAPTER).eval()",
        "tokenizer = AutoTokenizer.from_pretrained(ADAPTER)",
    ]
    return "\n".join([*lines, *_ask(config)])


def _base_lines(config: RunConfig, base: str) -> list[str]:
    section = config.quantization
    dtype = "bfloat16" if section.compute_dtype == "auto" else section.compute_dtype
    if section.type == "none":
        return [f'base = AutoModelForCausalLM.from_pretrained({base!r}, dtype="auto", device_map="auto")']
    return [
        "quantization = BitsAndBytesConfig(",
        "    load_in_4bit=True,",
        f"    bnb_4bit_quant_type={section.type!r},",
        f"    bnb_4bit_use_double_quant={section.double_quant},",
        f"    bnb_4bit_compute_dtype={dtype!r},",
        ")",
        "base = AutoModelForCausalLM.from_pretrained(",
        f"    {base!r},",
        f'    quantization_config=quantization, dtype={dtype!r}, device_map="auto",',
        ")",
    ]


def _merged(folder: Path, config: RunConfig) -> str:
    lines = [
        "from transformers import AutoModelForCausalLM, AutoTokenizer",
        "",
        f"FOLDER = {str(folder)!r}",
        'model = AutoModelForCausalLM.from_pretrained(FOLDER, dtype="auto", device_map="auto")',
        "tokenizer = AutoTokenizer.from_pretrained(FOLDER)",
    ]
    return "\n".join([*lines, *_ask(config)])


def _ask(config: RunConfig) -> list[str]:
    messages = _messages(config)
    return [
        "",
        "messages = [",
        *(f"    {message!r}," for message in messages),
        "]",
        "inputs = tokenizer.apply_chat_template(",
        '    messages, add_generation_prompt=True, return_tensors="pt", return_dict=True',
        ").to(model.device)",
        "output = model.generate(**inputs, max_new_tokens=200, do_sample=False)",
        'print(tokenizer.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True))',
    ]


def _messages(config: RunConfig) -> list[dict[str, str]]:
    system = config.data.system_prompt
    head = [{"role": "system", "content": printable(system)}] if system else []
    return [*head, {"role": "user", "content": _PROMPT}]


def _request(config: RunConfig) -> str:
    body = json.dumps({"model": config.name, "messages": _messages(config), "temperature": 0}, ensure_ascii=False)
    return (
        "curl http://localhost:8000/v1/chat/completions -H 'Content-Type: application/json' \\\n"
        f"  -d {shlex.quote(body)}"
    )


def served_name(text: str) -> str:
    """A name that servers and the hub take: letters, digits, ``.``, ``_`` and ``-``."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", one_line(text, 96)).strip("-.") or "model"
