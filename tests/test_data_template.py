"""Chat templates: found where transformers finds them, rendered to the same text, bounded."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from chat_templates import ALTERNATES, CHATML, EVERY, MARKED
from model_folders import change_json

from qlora_tui.data import sandbox
from qlora_tui.data.model_files import named_special_tokens
from qlora_tui.data.template import MAX_SOURCE_CHARS, PLAIN_SOURCE, ChatTemplate, TemplateRefusal
from qlora_tui.errors import DataError, ModelError

TOKENS = {"bos_token": "<s>", "eos_token": "</s>"}
USER = {"role": "user", "content": "  Grüße 🎉 {{ 7*7 }}\n"}
ASSISTANT = {"role": "assistant", "content": "שלום <b>\n\n"}
CONVERSATIONS: dict[str, list[dict[str, str]]] = {
    "one": [USER],
    "two": [USER, ASSISTANT],
    "four": [USER, ASSISTANT, {"role": "user", "content": ""}, {"role": "assistant", "content": ""}],
    "system": [{"role": "system", "content": "Be brief."}, USER, ASSISTANT, USER, ASSISTANT],
    "tool": [USER, ASSISTANT, {"role": "tool", "content": "{}"}, ASSISTANT],
}


@pytest.fixture(scope="module")
def reference() -> Any:
    """transformers' own renderer."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    from transformers.utils.chat_template_utils import render_jinja_template

    return render_jinja_template


@pytest.mark.parametrize("generation_prompt", [False, True])
@pytest.mark.parametrize("conversation", CONVERSATIONS)
@pytest.mark.parametrize("name", [*EVERY, "plain"])
def test_rendering_equals_that_of_transformers(
    reference: Any, name: str, conversation: str, generation_prompt: bool
) -> None:
    source, messages = {**EVERY, "plain": PLAIN_SOURCE}[name], CONVERSATIONS[conversation]
    template = ChatTemplate(source, TOKENS, "test")
    expected = outcome(
        lambda: reference([messages], chat_template=source, add_generation_prompt=generation_prompt, **TOKENS)[0][0]
    )
    assert outcome(lambda: template.render(messages, generation_prompt)) == expected


def outcome(render: Callable[[], str]) -> str:
    """The text, or what the template says instead."""
    try:
        return render()
    except TemplateRefusal as refusal:
        return refusal.why
    except Exception as error:
        return f"It says: {error}."


@pytest.mark.parametrize("conversation", CONVERSATIONS)
def test_marks_equal_those_of_transformers(reference: Any, conversation: str) -> None:
    messages = CONVERSATIONS[conversation]
    rendered, spans = reference([messages], chat_template=MARKED, return_assistant_tokens_mask=True, **TOKENS)
    assert ChatTemplate(MARKED, TOKENS, "test").render_marked(messages) == (rendered[0], spans[0])


def test_the_real_folder_renders_as_its_tokenizer_does(tokenizer_folder: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(tokenizer_folder))
    template = ChatTemplate.from_folder(tokenizer_folder)
    assert template.special_tokens == tokenizer.special_tokens_map
    for messages in CONVERSATIONS.values():
        for generation_prompt in (False, True):
            expected = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=generation_prompt)
            assert template.render(messages, generation_prompt) == expected
    assert "SmolLM, trained by Hugging Face" in template.render([USER])


def test_the_plain_template_reads_like_this() -> None:
    system = {"role": "system", "content": "Be brief."}
    template = ChatTemplate(PLAIN_SOURCE, TOKENS, "plain")
    messages = [system, {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
    assert template.render(messages) == "### System:\nBe brief.\n\n### User:\nHi\n\n### Assistant:\nHello</s>"
    assert template.render(messages[1:2], True) == "### User:\nHi\n\n### Assistant:\n"


def test_the_jinja_file_comes_before_the_config(model_folder: Path) -> None:
    change_json(model_folder / "tokenizer_config.json", chat_template=CHATML)
    assert ChatTemplate.from_folder(model_folder).origin == "chat_template.jinja"
    (model_folder / "chat_template.jinja").unlink()
    template = ChatTemplate.from_folder(model_folder)
    assert (template.origin, template.source) == ("tokenizer_config.json", CHATML)


@pytest.mark.parametrize("named", [[{"name": "tool_use", "template": "no"}, {"name": "default", "template": CHATML}]])
def test_of_several_named_templates_the_default_counts(model_folder: Path, named: Any) -> None:
    (model_folder / "chat_template.jinja").unlink()
    change_json(model_folder / "tokenizer_config.json", chat_template=named)
    assert ChatTemplate.from_folder(model_folder).source == CHATML
    change_json(model_folder / "tokenizer_config.json", chat_template=named[:1])
    with pytest.raises(ModelError, match="none named default"):
        ChatTemplate.from_folder(model_folder)


def test_chat_template_json_comes_last(model_folder: Path) -> None:
    (model_folder / "chat_template.jinja").unlink()
    (model_folder / "chat_template.json").write_text(json.dumps({"chat_template": CHATML}), encoding="utf-8")
    assert ChatTemplate.from_folder(model_folder).origin == "chat_template.json"


def test_a_base_model_gets_the_plain_template(model_folder: Path) -> None:
    (model_folder / "chat_template.jinja").unlink()
    assert ChatTemplate.from_folder(model_folder).source == PLAIN_SOURCE
    assert ChatTemplate.from_folder(model_folder, adds_bos=True).render([USER]).startswith("<|im_start|>### User:")
    change_json(model_folder / "tokenizer_config.json", eos_token=None)
    with pytest.raises(ModelError, match="no end-of-text token"):
        ChatTemplate.from_folder(model_folder)


def test_special_tokens_may_be_objects_and_stand_in_the_map(tmp_path: Path) -> None:
    config = {"eos_token": {"__type": "AddedToken", "content": "<eos>"}, "bos_token": None, "image_token": "<img>"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    assert named_special_tokens(tmp_path) == {"eos_token": "<eos>"}
    (tmp_path / "special_tokens_map.json").write_text('{"bos_token": {"content": "<bos>"}, "eos_token": "<end>"}')
    assert named_special_tokens(tmp_path) == {"eos_token": "<end>", "bos_token": "<bos>"}
    change_json(tmp_path / "tokenizer_config.json", added_tokens_decoder={})
    assert named_special_tokens(tmp_path) == {"eos_token": "<eos>"}


def test_the_fingerprint_follows_the_source() -> None:
    first, again, other = (ChatTemplate(source, TOKENS, "test") for source in (CHATML, CHATML, CHATML + " "))
    assert first.fingerprint == again.fingerprint != other.fingerprint


@pytest.mark.parametrize(
    "source", ["{% for %}", "{{ '", "{% generation %}", "{% nope %}", "x" * (MAX_SOURCE_CHARS + 1)]
)
def test_a_broken_template_is_a_model_error(source: str) -> None:
    with pytest.raises(ModelError, match="cannot be used"):
        ChatTemplate(source, TOKENS, "test")


@pytest.mark.parametrize(("content", "why"), [(b"{oops", "not valid JSON"), (b"[]", "JSON object"), (b"\xff", "UTF-8")])
def test_a_broken_config_is_a_model_error(model_folder: Path, content: bytes, why: str) -> None:
    (model_folder / "tokenizer_config.json").write_bytes(content)
    with pytest.raises(ModelError, match=why):
        ChatTemplate.from_folder(model_folder)


def test_a_refusal_says_what_the_template_says() -> None:
    with pytest.raises(TemplateRefusal) as caught:
        ChatTemplate(ALTERNATES, TOKENS, "test").render([USER, USER])
    assert "Conversation roles must alternate" in caught.value.why


@pytest.mark.parametrize(
    "source",
    [
        "{{ ''.__class__.__mro__ }}",
        "{{ messages.append(1) }}",
        "{{ namespace(_x=1) }}",
        "{{ dict.__init__.__globals__ }}",
        "{{ messages[0]['content'] + 1 }}",
        "{{ missing.attribute }}",
        "{{ 'a' * 10**9 }}",
        "{{ 10**9 * [1] }}",
        "{{ 9 ** 999999999 }}",
    ],
)
def test_foreign_code_gets_nowhere(source: str) -> None:
    with pytest.raises(TemplateRefusal):
        ChatTemplate(source, TOKENS, "test").render([USER])


def test_output_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qlora_tui.data.template.MAX_OUTPUT_CHARS", 1000)
    with pytest.raises(DataError, match="grows too long"):
        ChatTemplate("{% for n in range(99999) %}{{ n }}{% endfor %}", TOKENS, "test").render([USER])
    assert sandbox.MAX_OUTPUT_CHARS > 1000


def test_a_date_in_the_template_is_noticed() -> None:
    template = ChatTemplate("{{ strftime_now('%Y') }}", TOKENS, "test")
    assert template.uses_date
    assert len(template.render([USER])) == 4
