"""Chat templates, against Transformers."""

import json
from pathlib import Path

import pytest
from served import save_writer
from transformers import AutoTokenizer

import skillweave as sw
from skillweave.data.processors import build_answer_processor
from skillweave.interop.huggingface import convert_folder
from skillweave.serving.errors import RequestError
from skillweave.serving.templates import ChatTemplate

MARKED = (
    "{{ bos_token }}{% for message in messages %}{% if message.role == 'system' %}{% continue %}"
    "{% endif %}\n<pad>{{ message.role }} {{ message.content | tojson }}{{ eos_token }}\n"
    "{% endfor %}{% if add_generation_prompt %}<pad>assistant {{ strftime_now('%Y') }}{% endif %}"
)
REFUSING = (
    "{{ raise_exception('no system') if messages[0].role == 'system' }}{{ messages[0].role }}"
)
MESSAGES = [
    {"role": "system", "content": "be kind"},
    {"role": "user", "content": 'say <b> & "hi"'},
]


def writer_of(folder: Path, template: object) -> Path:
    """A GPT-2 with a chat template that Transformers wrote."""
    save_writer(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)
    return folder


def test_a_chat_has_the_tokens_of_transformers(tmp_path: Path) -> None:
    folder = writer_of(tmp_path / "writer", MARKED)
    theirs = AutoTokenizer.from_pretrained(folder)
    expected = theirs.apply_chat_template(MESSAGES, add_generation_prompt=True, tokenize=False)
    model = sw.from_hf(folder)
    text = ChatTemplate.of(model).render(MESSAGES)
    assert text == expected
    processor = build_answer_processor(model.config, model.assets)
    ids = theirs(expected, add_special_tokens=False)["input_ids"]
    assert processor.encode(text).ids == ids and ids[0] == theirs.bos_token_id


def test_a_template_stays_with_a_model_in_both_directions(tmp_path: Path) -> None:
    model = sw.from_hf(writer_of(tmp_path / "writer", MARKED))
    model.save_pretrained(tmp_path / "own")
    own = sw.Model.from_pretrained(tmp_path / "own")
    assert ChatTemplate.of(own) == ChatTemplate.of(model)
    convert_folder(tmp_path / "own", tmp_path / "back")
    assert AutoTokenizer.from_pretrained(tmp_path / "back").chat_template == MARKED


def test_of_several_templates_it_is_the_default(tmp_path: Path) -> None:
    folder = save_writer(tmp_path)
    file = folder / "tokenizer_config.json"
    several = [{"name": "tools", "template": "t"}, {"name": "default", "template": "d"}]
    settings = json.loads(file.read_text()) | {"chat_template": several}
    file.write_text(json.dumps(settings))
    assert ChatTemplate.of(sw.from_hf(folder)).render(MESSAGES) == "d"


def test_what_a_template_refuses_is_told(tmp_path: Path) -> None:
    template = ChatTemplate.of(sw.from_hf(writer_of(tmp_path, REFUSING)))
    assert template.render(MESSAGES[1:]) == "user"
    with pytest.raises(RequestError, match="messages: no system"):
        template.render(MESSAGES)


def test_a_token_that_the_model_writes_itself_is_not_written_twice() -> None:
    template = ChatTemplate("{{ bos_token }}{{ messages[0].content }}", {"bos_token": "<s>"}, "<s>")
    assert template.render([{"role": "user", "content": "<s>"}]) == "<s>"
