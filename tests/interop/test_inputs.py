"""What stands beside the weights: a converted folder gives, in their pipelines, the answers that our own prediction gives."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    AutoImageProcessor,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    BartConfig,
    BartModel,
    BertConfig,
    BertModel,
    PreTrainedTokenizerFast,
    T5Config,
    T5EncoderModel,
    ViTConfig,
    ViTImageProcessor,
    ViTModel,
    pipeline,
)

import skillweave as sw
from skillweave.config import ConfigError, RecipeConfig
from skillweave.data.processors import build_answer_processor, build_processors
from skillweave.interop import convert_folder
from skillweave.model import Model
from skillweave.search.predict import predict
from skillweave.tasks.prepare import prepare

TEXT, SIDE = {"vocabulary": 400, "max_length": 24}, {"layers": 1, "heads": 2, "feed_forward": 32, "norm_epsilon": 1e-5}
TABLES = {"embedding": ["word", "position"], "position_offset": 2}
BERT = {"width": 16, "streams": {"text": TEXT}, "encoder": {**SIDE, "norm_epsilon": 1e-12}, "initializer_range": 0.3}
BART = {**BERT, "streams": {"text": TEXT | TABLES}, "encoder": SIDE, "decoder": SIDE}
BART = {**BART, "target_embedding": {"max_length": 24} | TABLES}
NAMES = {"path": "pack:emoji", "limit": 40, "columns": {"text": "name_en", "answer": "name_zh", "second": "name_zh"}}
TEXTS = ["red heart", "keycap: 1", "face with tears of joy and a name that has no room in it"]


def written(tmp_path: Path, model: dict[str, Any], task: str, data: dict[str, Any], **config: Any) -> tuple[RecipeConfig, Model]:
    """A model of random weights as a folder of theirs, `tmp_path / "theirs"`."""
    tasks = {task: {"data": data, **config}}
    recipe, assets = prepare(RecipeConfig.parse({"model": model, "tasks": tasks, "training": {"steps": 1, "threads": 1}}))
    torch.manual_seed(0)
    made = Model(recipe.model, assets).eval()
    made.save_pretrained(tmp_path / "ours")
    convert_folder(tmp_path / "ours", tmp_path / "theirs")
    return recipe, made


def labelled(tmp_path: Path) -> dict[str, Any]:
    file = tmp_path / "rows.jsonl"
    rows = [{"text": text, "second": text[::-1], "label": "abc"[i % 3]} for i, text in enumerate(TEXTS * 3)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {"path": str(file)}


@pytest.mark.parametrize(("model", "decoder"), [(BERT, False), (BART, True)])
def test_classes(model: dict[str, Any], decoder: bool, tmp_path: Path) -> None:
    recipe, ours = written(tmp_path, model, "text_classification", labelled(tmp_path), decoder=decoder)
    classify: Any = pipeline("text-classification", str(tmp_path / "theirs"), top_k=None)
    for answer, found in zip(predict(ours, recipe, "text_classification", TEXTS), classify(TEXTS, truncation=True), strict=True):
        assert {one["label"]: one["score"] for one in found} == pytest.approx(answer["probabilities"], rel=1e-4)


def test_two_texts_are_one_sequence_in_two_segments(tmp_path: Path) -> None:
    _, ours = written(tmp_path, BERT, "text_pair_classification", labelled(tmp_path))
    first, second = build_processors(ours.config, ours.assets)["text"].pair("red heart", "keycap: 1")
    found = AutoTokenizer.from_pretrained(tmp_path / "theirs")("red heart", "keycap: 1")
    assert found["input_ids"] == [*first.data.tolist(), *second.data.tolist()]
    assert found["token_type_ids"] == [0] * first.length + [1] * second.length


@pytest.mark.parametrize("beams", [1, 3])
def test_texts_that_a_decoder_writes(beams: int, tmp_path: Path) -> None:
    target = {"lm": {"bias": True, "beams": beams, "most_pieces": 9}}
    recipe, ours = written(tmp_path, BART | {"targets": target}, "text_to_text", NAMES)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "theirs")
    given = tokenizer(TEXTS[:2], return_tensors="pt", padding=True)
    found = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "theirs").generate(**given)
    expected = [answer["answer"] for answer in predict(ours, recipe, "text_to_text", TEXTS[:2])]
    assert tokenizer.batch_decode(found, skip_special_tokens=True) == expected


def test_pictures(tmp_path: Path) -> None:
    stream = {"image": {"size": 32, "patch": 8, "mean": [0.48, 0.45, 0.4], "std": [0.26, 0.27, 0.28]}}
    model = {**BERT, "streams": stream, "targets": {"classification": {"hidden": False}}}
    model["encoder"] = {**model["encoder"], "norm_position": "pre", "dropout": 0}
    recipe, ours = written(tmp_path, model, "image_classification", {**NAMES, "columns": {"label": "name_en"}})
    waves = np.sin(np.arange(64)[:, None] / 9) + np.cos(np.arange(96)[None] / 7)
    picture = Image.fromarray((np.stack([waves, waves[::-1], waves[:, ::-1]], -1) * 60 + 128).astype(np.uint8))
    own = build_processors(ours.config, ours.assets)["image"](picture).data
    theirs = AutoImageProcessor.from_pretrained(tmp_path / "theirs")(picture, return_tensors="pt")["pixel_values"][0]
    torch.testing.assert_close(own, theirs, rtol=0, atol=0.05)  # both round to whole brightnesses
    classify: Any = pipeline("image-classification", str(tmp_path / "theirs"), top_k=40)
    answer = next(iter(predict(ours, recipe, "image_classification", [picture])))
    assert {one["label"]: one["score"] for one in classify(picture)} == pytest.approx(answer["probabilities"], abs=0.01)


def test_transcripts(tmp_path: Path) -> None:
    sound = {"embedding": ["waveform", "convolution"], "channels": 16, "position_kernel": 8, "position_groups": 4}
    sound |= {"convolution_norm": "layer", "convolution_bias": True, "norm": False}
    model = {**BERT, "streams": {"sound": sound}, "encoder": {**SIDE, "norm_position": "pre", "attention_dropout": 0}}
    recipe, ours = written(tmp_path, model, "speech_recognition", {"path": "pack:speech", "limit": 12})
    waveform = np.random.default_rng(0).standard_normal(8000).astype(np.float32) / 9
    soundfile.write(tmp_path / "noise.wav", waveform, 16_000, subtype="FLOAT")
    hear: Any = pipeline("automatic-speech-recognition", str(tmp_path / "theirs"))
    answer = next(iter(predict(ours, recipe, "speech_recognition", [tmp_path / "noise.wav"])))
    assert hear({"raw": waveform, "sampling_rate": 16_000})["text"] == answer["transcript"] != ""


def test_padding_that_must_be_another_piece(tmp_path: Path) -> None:
    model = {**BERT, "streams": {"text": TEXT | {"position_offset": 2, "segments": 1}}, "encoder": SIDE}
    with pytest.raises(ConfigError, match=r"must be piece 1 of the tokeniser and is piece 0.*`position_offset: 1`"):
        written(tmp_path, model, "text_classification", labelled(tmp_path))
    model = {**BERT, "streams": {"text": TEXT | {"position_offset": 1, "segments": 1}}, "encoder": SIDE}
    recipe, ours = written(tmp_path, model, "text_classification", labelled(tmp_path))
    classify: Any = pipeline("text-classification", str(tmp_path / "theirs"), top_k=None)
    answer = next(iter(predict(ours, recipe, "text_classification", ["☃ heart"])))  # with an unknown piece
    assert {one["label"]: one["score"] for one in classify(["☃ heart"])[0]} == pytest.approx(answer["probabilities"], rel=1e-4)


def tokeniser(folder: Path, template: str, names: dict[str, str]) -> PreTrainedTokenizerFast:
    """One of words, saved as theirs are."""
    pieces = [*dict.fromkeys(names.values()), "[UNK]", "red", "heart", "two"]
    made = Tokenizer(models.WordLevel({piece: i for i, piece in enumerate(pieces)}, "[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    special = [(name, made.token_to_id(name)) for name in names.values() if name in template]
    made.post_processor = processors.TemplateProcessing(single=template, special_tokens=special)
    theirs = PreTrainedTokenizerFast(tokenizer_object=made, **names)
    theirs.save_pretrained(folder)
    return theirs


SIZES = {"vocab_size": 12, "hidden_size": 8, "num_attention_heads": 2, "num_hidden_layers": 1, "intermediate_size": 8}


def test_texts_begin_and_end_as_the_folder_s_tokeniser_has_it(tmp_path: Path) -> None:
    names = {"pad_token": "<pad>", "cls_token": "<s>", "eos_token": "</s>", "sep_token": "</s>"}
    sizes = {"vocab_size": 12, "d_model": 8, "encoder_ffn_dim": 8, "decoder_ffn_dim": 8, "encoder_layers": 1, "decoder_layers": 1}
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2}
    both: list[tuple[Any, str, dict[str, str]]] = [
        (BertModel(BertConfig(**SIZES)), "[CLS] $A [SEP]", {"cls_token": "[CLS]", "sep_token": "[SEP]", "pad_token": "[PAD]"}),
        (BartModel(BartConfig(**sizes, **heads, decoder_start_token_id=2)), "<s> $A </s>", names),
        (
            T5EncoderModel(T5Config(vocab_size=12, d_model=8, d_ff=8, num_layers=1, num_heads=2, decoder_start_token_id=0)),
            "$A </s>",
            {"pad_token": "<pad>", "eos_token": "</s>"},
        ),
    ]
    for number, (model, template, special) in enumerate(both):
        folder = tmp_path / str(number)
        model.save_pretrained(folder)
        theirs = tokeniser(folder, template, special)
        ours = sw.from_hf(folder)
        processor = build_processors(ours.config, ours.assets)["text"]
        assert processor("red heart two").data.tolist() == theirs("red heart two")["input_ids"]
        assert processor("red heart two", max_length=4).data[-1] == processor.separator
        if ours.config.decoder:
            assert build_answer_processor(ours.config, ours.assets).cls == 2
        if number == 2:  # a [CLS] where a task needs one is the token that a decoder begins with
            assert processor.names["cls"] == "<pad>"


def test_colours_are_those_of_the_folder_s_preprocessor(tmp_path: Path) -> None:
    sizes = {**SIZES, "image_size": 16, "patch_size": 8}
    del sizes["vocab_size"]
    ViTModel(ViTConfig(**sizes)).save_pretrained(tmp_path)
    ViTImageProcessor(image_mean=[0.1, 0.2, 0.3], image_std=[0.4, 0.5, 0.6]).save_pretrained(tmp_path)
    stream = sw.from_hf(tmp_path).config.streams.image
    assert (stream.mean, stream.std) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    (tmp_path / "preprocessor_config.json").write_text("{")
    with pytest.raises(ConfigError, match="not valid JSON"):
        sw.from_hf(tmp_path)
