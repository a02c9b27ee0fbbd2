"""Folders of Transformers write here what they write there; runs write too."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from tokenizers.pre_tokenizers import ByteLevel
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    BartConfig,
    BartForConditionalGeneration,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
)

import skillweave as sw
from skillweave import cli, generation
from skillweave.config import ConfigError
from skillweave.data.processors import BadInput
from skillweave.generation import Next
from skillweave.inference import Predictor, TextWriter

SPECIAL = {"bos_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
PROMPTS = ["hello there", "a", "笑脸 and more words"]


def byte_tokenizer(begin: str = "", end: str = "") -> PreTrainedTokenizerFast:
    """A token per byte, so that a Chinese character has three."""
    alphabet = sorted(ByteLevel.alphabet())
    vocabulary = {c: i for i, c in enumerate([*SPECIAL.values(), *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocabulary, [], unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    single = " ".join(filter(None, [begin, "$A", end]))
    tokenizer.post_processor = processors.TemplateProcessing(
        single=single, special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **SPECIAL)


IDS = {"bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2}


def gpt2() -> tuple[Any, Any]:
    sizes = {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 64, "initializer_range": 1.0}
    return GPT2LMHeadModel(GPT2Config(vocab_size=260, **sizes, **IDS)), byte_tokenizer()


def llama() -> tuple[Any, Any]:
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64}
    config = LlamaConfig(vocab_size=260, **sizes, **heads, initializer_range=0.5, **IDS)
    return LlamaForCausalLM(config), byte_tokenizer(begin="<s>")


def bart() -> tuple[Any, Any]:
    sizes = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 2, "init_std": 0.5}
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2}
    feed = {"encoder_ffn_dim": 24, "decoder_ffn_dim": 24, "max_position_embeddings": 64}
    config = BartConfig(vocab_size=260, **sizes, **heads, **feed, **IDS, decoder_start_token_id=2)
    config.forced_eos_token_id = None
    return BartForConditionalGeneration(config), byte_tokenizer("<s>", "</s>")


def t5() -> tuple[Any, Any]:
    sizes = {"d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 1, "num_heads": 2}
    config = T5Config(
        vocab_size=260, **sizes, **IDS, decoder_start_token_id=1, initializer_factor=4.0
    )
    return T5ForConditionalGeneration(config), byte_tokenizer(end="</s>")


@pytest.fixture(scope="module", params=[gpt2, llama, bart, t5])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder of Transformers with its tokenizer."""
    torch.manual_seed(0)
    model, tokenizer = request.param()
    place = tmp_path_factory.mktemp(request.param.__name__)
    model.eval().save_pretrained(place)
    tokenizer.save_pretrained(place)
    return place


def theirs(folder: Path, prompt: str, **options: Any) -> str:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    seq2seq = config.get("is_encoder_decoder", False)
    kind = AutoModelForSeq2SeqLM if seq2seq else AutoModelForCausalLM
    given = tokenizer(prompt, return_tensors="pt", return_token_type_ids=False)
    rows = kind.from_pretrained(folder).generate(**given, do_sample=False, **options)
    before = 0 if seq2seq else given["input_ids"].shape[1]
    return tokenizer.decode(rows[0, before:], skip_special_tokens=True)


SETTINGS: list[dict[str, Any]] = [
    {},
    {"num_beams": 3, "no_repeat_ngram_size": 2},
    {"repetition_penalty": 1.4},
]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_a_folder_of_transformers_writes_the_same(folder: Path, settings: dict[str, Any]) -> None:
    found = sw.generate(folder, PROMPTS, max_new_tokens=9, **settings)
    assert found == [theirs(folder, p, max_new_tokens=9, **settings) for p in PROMPTS]


def test_a_stream_is_the_text_in_whole_characters(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "笑脸 ok 🙂!"
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = [*tokenizer(text, add_special_tokens=False)["input_ids"], 2]
    assert len(ids) > len(text) + 1  # a character has several tokens
    monkeypatch.setattr(
        generation, "write", lambda *_: (Next([token], [0.0], [token != 2]) for token in ids)
    )
    pieces = list(sw.generate(folder, "a", stream=True))
    assert pieces == list(text)


def test_a_stream_is_what_is_written(folder: Path) -> None:
    writer = TextWriter(Predictor(folder), settings={"max_new_tokens": 5})
    steps: list[Next] = []
    real = generation.write
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(generation, "write", lambda *a: (steps.append(s) or s for s in real(*a)))
        list(writer.stream("hello"))
    (answers,) = writer.write(["hello"])
    ids = [step.tokens[0] for step in steps if step.tokens[0] != 2]
    assert writer.text(ids) == answers[0]["text"]


def test_one_command_writes(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (expected,) = sw.generate(folder, ["hello"], max_new_tokens=5)
    command = ["generate", str(folder), "hello", "--max-new-tokens", "5"]
    assert cli.main(command) == 0
    line = json.loads(capsys.readouterr().out)
    assert line["input"] == "hello" and line["text"] == expected and line["score"] < 0
    assert cli.main([*command, "--num-beams", "3", "--num-return-sequences", "2"]) == 0
    scores = [json.loads(line)["score"] for line in capsys.readouterr().out.splitlines()]
    assert len(scores) == 2 and scores[0] >= scores[1]
    sampled = [*command, "--do-sample", "--top-k", "5", "--seed", "3"]
    assert cli.main(sampled) == 0
    first = capsys.readouterr().out
    assert cli.main(sampled) == 0
    assert capsys.readouterr().out == first
    settings = {"penalty_alpha": 0.6, "suppress_tokens": [5, 6], "cache_implementation": "static"}
    (expected,) = sw.generate(folder, ["hello"], max_new_tokens=5, top_k=4, **settings)
    given = [word for name, value in settings.items() for word in ("--set", f"{name}={value}")]
    assert cli.main([*command, "--top-k", "4", *given]) == 0
    assert json.loads(capsys.readouterr().out)["text"] == expected


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (["--set", "penalty_alfa=0.6"], "penalty_alpha"),
        (["--set", "top_h"], "top_h"),
        (["--set", "top_h=2"], "top_h"),
        (["--seed", "1", "--set", "seed=2"], "seed is given twice"),
    ],
)
def test_a_wrong_setting_is_told(
    given: list[str], told: str, folder: Path, capsys: pytest.CaptureFixture
) -> None:
    assert cli.main(["generate", str(folder), "hello", *given]) == 2
    assert told in capsys.readouterr().err


def test_words_and_strings(folder: Path) -> None:
    texts = [f"hello {i}" for i in range(8)]
    free = sw.generate(folder, texts, max_new_tokens=9)
    # random models also write parts of characters
    number, text = next((i, t) for i, t in enumerate(free) if any(c.isascii() for c in t))
    character = next(c for c in text if c.isascii())
    (cut,) = sw.generate(folder, [texts[number]], max_new_tokens=9, stop_strings=[character])
    assert cut == text[: text.index(character) + 1]
    (without,) = sw.generate(folder, [texts[number]], max_new_tokens=9, bad_words=[character])
    assert character not in without


def test_looking_words_up_changes_no_text(folder: Path) -> None:
    for settings in ({}, {"do_sample": True, "seed": 1, "temperature": 0.4}):
        own = {"max_new_tokens": 20, "bad_words": ["a"], **settings}
        # of sampled texts, each has its own draws
        expected = [sw.generate(folder, [prompt], **own)[0] for prompt in PROMPTS]
        assert sw.generate(folder, PROMPTS, prompt_lookup_num_tokens=4, **own) == expected


def test_an_assistant_changes_no_text(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    for settings in ({}, {"do_sample": True, "seed": 1, "temperature": 0.4}):
        own = {"max_new_tokens": 20, **settings}
        expected = [sw.generate(folder, [prompt], **own)[0] for prompt in PROMPTS]
        # the best guess is the model's own
        assert sw.generate(folder, PROMPTS, assistant=folder, **own) == expected
        pieces = list(sw.generate(folder, PROMPTS[0], assistant=folder, stream=True, **own))
        assert pieces == list(sw.generate(folder, PROMPTS[0], stream=True, **own))
    command = ["generate", str(folder), "hello", "--max-new-tokens", "9"]
    assert cli.main(command) == 0
    first = json.loads(capsys.readouterr().out)["text"]
    assert cli.main([*command, "--assistant", str(folder)]) == 0
    assert json.loads(capsys.readouterr().out)["text"] == first


def test_options_of_the_model(tmp_path: Path) -> None:
    model, tokenizer = gpt2()
    options = {"do_sample": True, "temperature": 0.3, "top_k": 4, "guidance_scale": 2.0}
    for name, value in {**options, "epsilon_cutoff": 0.0}.items():
        setattr(model.generation_config, name, value)
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    with pytest.warns(match="do_sample=True, guidance_scale=2.0.*; set do_sample"):
        greedy = TextWriter(Predictor(tmp_path))
    assert not greedy.settings.do_sample
    with pytest.warns(match="guidance_scale=2.0, which is not followed") as told:
        writer = TextWriter(Predictor(tmp_path), settings={"do_sample": True, "top_k": 9})
    assert "do_sample" not in str(told[0].message)
    assert (writer.settings.temperature, writer.settings.top_k) == (0.3, 9)


def test_assistants_that_cannot_help(folder: Path, tmp_path: Path) -> None:
    model, tokenizer = gpt2()
    tokenizer.add_tokens(["hello"])
    model.resize_token_embeddings(261)
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match="has other tokens than the model"):
        sw.generate(folder, ["a"], assistant=tmp_path)
    with pytest.raises(ConfigError, match="leave num_beams and num_return_sequences at 1"):
        sw.generate(folder, ["a"], assistant=folder, num_beams=2)
    with pytest.raises(ConfigError, match="both guess; give one"):
        sw.generate(folder, ["a"], assistant=folder, prompt_lookup_num_tokens=2)
    with pytest.raises(ConfigError, match="num_assistant_tokens is for an assistant"):
        sw.generate(folder, ["a"], num_assistant_tokens=2)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"num_beams": 4, "num_beam_groups": 3}, "raise num_beams to a multiple"),
        ({"diversity_penalty": 1.0}, "raise num_beam_groups"),
        ({"max_new_tokens": 5000}, "lower max_new_tokens"),
        ({"num_beams": 0}, "num_beams"),
        ({"max_tokens": 4}, "did you mean 'max_new_tokens'"),
        ({"num_beams": 500}, "num_beams 500, but the model knows 260 tokens"),
    ],
)
def test_bad_settings(folder: Path, options: dict[str, Any], told: str) -> None:
    if "max_new_tokens" in options and "t5" in folder.name:
        pytest.skip("T5 has no longest text")
    with pytest.raises((ConfigError, BadInput), match=told):
        sw.generate(folder, ["hello"], **options)


def test_a_broken_input_is_told_and_the_others_are_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, tokenizer = gpt2()
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    writer = TextWriter(Predictor(tmp_path), settings={"max_new_tokens": 3})
    long, fine = list(writer.write(["x" * 80, "hello"]))
    assert "shorten the input" in long[0]["error"] and fine[0]["text"]
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps({"text": text}) + "\n" for text in ("x" * 80, "hello")))
    command = ["generate", str(tmp_path), "--input", str(rows), "--max-new-tokens", "3"]
    capsys.readouterr()
    assert cli.main(command) == 2
    told = capsys.readouterr()
    assert "1 of 2 inputs have no answer" in told.err
    answers = [json.loads(line) for line in told.out.splitlines()]
    assert [sorted(answer) for answer in answers] == [
        ["error", "text"],
        ["predicted_text", "score", "text"],
    ]


def test_a_model_that_writes_nothing(tmp_path: Path) -> None:
    encoder = {"heads": 2, "layers": 1, "feed_forward": 8}
    settings = {"width": 8, "streams": {"text": {"vocabulary": 60}}, "encoder": encoder}
    config = sw.ModelConfig.parse(settings)
    with pytest.raises(ConfigError, match="no task of this model writes text"):
        sw.generate(sw.Model(config), ["a"])
