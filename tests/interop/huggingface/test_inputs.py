"""Files beside the weights: the pipelines of Transformers give the same answers with a converted
folder as our own prediction."""

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
    BartForConditionalGeneration,
    BartModel,
    BertConfig,
    BertModel,
    CLIPConfig,
    CLIPModel,
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedTokenizerFast,
    T5Config,
    T5EncoderModel,
    ViTConfig,
    ViTImageProcessor,
    ViTModel,
    Wav2Vec2Config,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2ForCTC,
    pipeline,
)

import skillweave as sw
from skillweave.config import ConfigError
from skillweave.data.processors import build_answer_processor, build_processors
from skillweave.inference.predictor import Predictor
from skillweave.interop.huggingface import convert_folder
from skillweave.model.model import Model
from skillweave.recipe import RecipeConfig
from skillweave.tasks.resolve import resolve

TEXT, SIDE = (
    {"vocabulary": 400, "max_length": 24},
    {"layers": 1, "heads": 2, "feed_forward": 32, "norm_epsilon": 1e-5},
)
TABLES = {"embedding": ["word", "position"], "position_offset": 2}
BERT = {
    "width": 16,
    "streams": {"text": TEXT},
    "encoder": {**SIDE, "norm_epsilon": 1e-12},
    "initializer_range": 0.3,
}
BART = {**BERT, "streams": {"text": TEXT | TABLES}, "encoder": SIDE, "decoder": SIDE}
BART = {**BART, "target_embedding": {"max_length": 24} | TABLES}
NAMES = {
    "path": "pack:emoji",
    "limit": 40,
    "columns": {"text": "name_en", "answer": "name_zh", "second": "name_zh"},
}
TEXTS = ["red heart", "keycap: 1", "face with tears of joy and a name that has no room in it"]


def exported(
    tmp_path: Path, model: dict[str, Any], task: str, data: dict[str, Any], **config: Any
) -> Model:
    """A random model, which is also exported to `tmp_path / "theirs"`."""
    tasks = {task: {"data": data, **config}}
    settings = {"model": model, "tasks": tasks, "training": {"steps": 1, "threads": 1}}
    found = resolve(RecipeConfig.parse(settings))
    torch.manual_seed(0)
    made = Model(found.model, found.assets).eval()
    made.save_pretrained(tmp_path / "ours")
    convert_folder(tmp_path / "ours", tmp_path / "theirs")
    return made


def labelled(tmp_path: Path) -> dict[str, Any]:
    file = tmp_path / "rows.jsonl"
    rows = [
        {"text": text, "second": text[::-1], "label": "abc"[i % 3]}
        for i, text in enumerate(TEXTS * 3)
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {"path": str(file)}


@pytest.mark.parametrize(("model", "decoder"), [(BERT, False), (BART, True)])
def test_classes(model: dict[str, Any], decoder: bool, tmp_path: Path) -> None:
    ours = exported(tmp_path, model, "text_classification", labelled(tmp_path), decoder=decoder)
    classify: Any = pipeline("text-classification", str(tmp_path / "theirs"), top_k=None)
    for answer, found in zip(
        Predictor(ours).predict("text_classification", TEXTS),
        classify(TEXTS, truncation=True),
        strict=True,
    ):
        assert {one["label"]: one["score"] for one in found} == pytest.approx(
            answer["probabilities"], rel=1e-4
        )


def test_two_texts_are_one_sequence_in_two_segments(tmp_path: Path) -> None:
    ours = exported(tmp_path, BERT, "text_pair_classification", labelled(tmp_path))
    first, second = build_processors(ours.config, ours.assets)["text"].pair(
        "red heart", "keycap: 1"
    )
    found = AutoTokenizer.from_pretrained(tmp_path / "theirs")("red heart", "keycap: 1")
    assert found["input_ids"] == [*first.data.tolist(), *second.data.tolist()]
    assert found["token_type_ids"] == [0] * first.length + [1] * second.length


@pytest.mark.parametrize("beams", [1, 3])
def test_texts_that_a_decoder_writes(beams: int, tmp_path: Path) -> None:
    target = {"lm": {"bias": True, "beams": beams, "max_answer_tokens": 9}}
    ours = exported(tmp_path, BART | {"targets": target}, "text_to_text", NAMES)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "theirs")
    given = tokenizer(TEXTS[:2], return_tensors="pt", padding=True)
    found = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "theirs").generate(**given)
    expected = [answer["answer"] for answer in Predictor(ours).predict("text_to_text", TEXTS[:2])]
    assert tokenizer.batch_decode(found, skip_special_tokens=True) == expected


def test_pictures(tmp_path: Path) -> None:
    stream = {
        "image": {"size": 32, "patch": 8, "mean": [0.48, 0.45, 0.4], "std": [0.26, 0.27, 0.28]}
    }
    model = {**BERT, "streams": stream, "targets": {"classification": {"hidden": False}}}
    model["encoder"] = {**model["encoder"], "norm_position": "pre", "dropout": 0}
    ours = exported(
        tmp_path, model, "image_classification", {**NAMES, "columns": {"label": "name_en"}}
    )
    waves = np.sin(np.arange(64)[:, None] / 9) + np.cos(np.arange(96)[None] / 7)
    picture = Image.fromarray(
        (np.stack([waves, waves[::-1], waves[:, ::-1]], -1) * 60 + 128).astype(np.uint8)
    )
    own = build_processors(ours.config, ours.assets)["image"](picture).data
    theirs = AutoImageProcessor.from_pretrained(tmp_path / "theirs")(picture, return_tensors="pt")[
        "pixel_values"
    ][0]
    torch.testing.assert_close(own, theirs, rtol=0, atol=0.05)  # Both round to integers.
    classify: Any = pipeline("image-classification", str(tmp_path / "theirs"), top_k=40)
    answer = next(iter(Predictor(ours).predict("image_classification", [picture])))
    assert {one["label"]: one["score"] for one in classify(picture)} == pytest.approx(
        answer["probabilities"], abs=0.01
    )


def test_transcripts(tmp_path: Path) -> None:
    sound = {
        "embedding": ["waveform", "convolution"],
        "channels": 16,
        "position_kernel": 8,
        "position_groups": 4,
    }
    sound |= {"convolution_norm": "layer", "convolution_bias": True, "norm": False}
    model = {
        **BERT,
        "streams": {"sound": sound},
        "encoder": {**SIDE, "norm_position": "pre", "attention_dropout": 0},
    }
    ours = exported(tmp_path, model, "speech_recognition", {"path": "pack:speech", "limit": 12})
    waveform = np.random.default_rng(0).standard_normal(8000).astype(np.float32) / 9
    soundfile.write(tmp_path / "noise.wav", waveform, 16_000, subtype="FLOAT")
    hear: Any = pipeline("automatic-speech-recognition", str(tmp_path / "theirs"))
    answer = next(iter(Predictor(ours).predict("speech_recognition", [tmp_path / "noise.wav"])))
    assert hear({"raw": waveform, "sampling_rate": 16_000})["text"] == answer["transcript"] != ""


def test_texts_that_moonshine_hears(tmp_path: Path) -> None:
    side = {**SIDE, "norm_position": "pre", "biases": ["feed_forward"], "dropout": 0}
    side |= {"attention_dropout": 0, "position": {"kind": "rope", "interleaved": True}}
    sound = {"embedding": ["stem"], "channels": 16, "mask_vector": False, "normalised": False}
    target = {"max_length": 24, "embedding": ["word"], "norm": False, "tied": False}
    model = {**BERT, "streams": {"sound": sound}, "encoder": side, "target_embedding": target}
    model |= {"decoder": {**side, "gated": True, "activation": "silu"}}
    model |= {"targets": {"lm": {"max_answer_tokens": 9}}}
    ours = exported(tmp_path, model, "speech_to_text", {"path": "pack:speech", "limit": 12})
    waveform = np.random.default_rng(0).standard_normal(16_000).astype(np.float32) / 9
    soundfile.write(tmp_path / "noise.wav", waveform, 16_000, subtype="FLOAT")
    hear: Any = pipeline("automatic-speech-recognition", str(tmp_path / "theirs"))
    answer = next(iter(Predictor(ours).predict("speech_to_text", [tmp_path / "noise.wav"])))
    assert hear({"raw": waveform, "sampling_rate": 16_000})["text"] == answer["transcript"] != ""


def test_padding_that_must_be_another_token(tmp_path: Path) -> None:
    model = {
        **BERT,
        "streams": {"text": TEXT | {"position_offset": 2, "segments": 1}},
        "encoder": SIDE,
    }
    with pytest.raises(
        ConfigError, match=r"must be token 1 of the tokenizer and is token 0.*`position_offset: 1`"
    ):
        exported(tmp_path, model, "text_classification", labelled(tmp_path))
    model = {
        **BERT,
        "streams": {"text": TEXT | {"position_offset": 1, "segments": 1}},
        "encoder": SIDE,
    }
    ours = exported(tmp_path, model, "text_classification", labelled(tmp_path))
    classify: Any = pipeline("text-classification", str(tmp_path / "theirs"), top_k=None)
    # The text has an unknown token.
    answer = next(iter(Predictor(ours).predict("text_classification", ["☃ heart"])))
    assert {one["label"]: one["score"] for one in classify(["☃ heart"])[0]} == pytest.approx(
        answer["probabilities"], rel=1e-4
    )


def tokenizer_of_words(
    folder: Path, template: str, names: dict[str, str], pair: str | None = None
) -> PreTrainedTokenizerFast:
    """A tokenizer of whole words, saved by Transformers."""
    tokens = [*dict.fromkeys(names.values()), "[UNK]", "red", "heart", "two"]
    made = Tokenizer(models.WordLevel({token: i for i, token in enumerate(tokens)}, "[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    special = [(name, made.token_to_id(name)) for name in names.values() if name in template]
    made.post_processor = processors.TemplateProcessing(
        single=template, pair=pair, special_tokens=special
    )
    theirs = PreTrainedTokenizerFast(tokenizer_object=made, **names)
    theirs.save_pretrained(folder)
    return theirs


BART_SIZES = {
    "vocab_size": 12,
    "d_model": 8,
    "encoder_ffn_dim": 8,
    "decoder_ffn_dim": 8,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "max_position_embeddings": 20,
}
SIZES = {
    "vocab_size": 12,
    "hidden_size": 8,
    "num_attention_heads": 2,
    "num_hidden_layers": 1,
    "intermediate_size": 8,
}


def test_texts_have_the_special_tokens_of_the_tokenizer(tmp_path: Path) -> None:
    names = {"pad_token": "<pad>", "cls_token": "<s>", "eos_token": "</s>", "sep_token": "</s>"}
    both: list[tuple[Any, str, dict[str, str]]] = [
        (
            BertModel(BertConfig(**SIZES)),
            "[CLS] $A [SEP]",
            {"cls_token": "[CLS]", "sep_token": "[SEP]", "pad_token": "[PAD]"},
        ),
        (BartModel(BartConfig(**BART_SIZES, decoder_start_token_id=2)), "<s> $A </s>", names),
        (
            T5EncoderModel(
                T5Config(
                    vocab_size=12,
                    d_model=8,
                    d_ff=8,
                    num_layers=1,
                    num_heads=2,
                    decoder_start_token_id=0,
                )
            ),
            "$A </s>",
            {"pad_token": "<pad>", "eos_token": "</s>"},
        ),
    ]
    for number, (model, template, special) in enumerate(both):
        folder = tmp_path / str(number)
        model.save_pretrained(folder)
        theirs = tokenizer_of_words(folder, template, special)
        ours = sw.from_hf(folder)
        processor = build_processors(ours.config, ours.assets)["text"]
        assert processor("red heart two").data.tolist() == theirs("red heart two")["input_ids"]
        assert processor("red heart two", max_length=4).data[-1] == processor.separator
        if ours.config.decoder:
            assert build_answer_processor(ours.config, ours.assets).cls == 2
        if number == 2:  # The first token of the decoder replaces the missing [CLS].
            assert processor.names["cls"] == "<pad>"


def test_pixels_are_normalised_as_by_the_preprocessor(tmp_path: Path) -> None:
    sizes = {**SIZES, "image_size": 16, "patch_size": 8}
    del sizes["vocab_size"]
    ViTModel(ViTConfig(**sizes)).save_pretrained(tmp_path)
    colours = {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6]}
    ViTImageProcessor(**colours, size={"height": 16, "width": 16}).save_pretrained(tmp_path)
    stream = sw.from_hf(tmp_path).config.streams.image
    assert stream.mean == pytest.approx((0.1, 0.2, 0.3))
    assert stream.std == pytest.approx((0.4, 0.5, 0.6))
    (tmp_path / "preprocessor_config.json").write_text("{")
    with pytest.raises(ConfigError, match="not valid JSON"):
        sw.from_hf(tmp_path)


def test_the_sampling_rate_is_converted_both_ways(tmp_path: Path) -> None:
    sizes = {"conv_dim": (8,), "conv_kernel": (4,), "conv_stride": (2,)}
    positions = {"num_conv_pos_embeddings": 4, "num_conv_pos_embedding_groups": 2}
    config = Wav2Vec2Config(**{**SIZES, "vocab_size": 5}, **sizes, **positions, pad_token_id=0)
    Wav2Vec2ForCTC(config).save_pretrained(tmp_path / "theirs")
    Wav2Vec2FeatureExtractor(sampling_rate=8000).save_pretrained(tmp_path / "theirs")
    convert_folder(tmp_path / "theirs", tmp_path / "ours")
    assert sw.load(tmp_path / "ours").config.streams.sound.sample_rate == 8000
    convert_folder(tmp_path / "ours", tmp_path / "back")
    back = Wav2Vec2FeatureExtractor.from_pretrained(tmp_path / "back")
    assert back.sampling_rate == 8000


def started(tmp_path: Path, folder: Path, task: str, **config: Any) -> tuple[RecipeConfig, Model]:
    """The model that a recipe fine-tunes, which starts from a Hugging Face folder."""
    convert_folder(folder, tmp_path / "base")
    tasks = {task: {"data": labelled(tmp_path), **config}}
    recipe = RecipeConfig.parse(
        {
            "start_from": str(tmp_path / "base"),
            "tasks": tasks,
            "training": {"steps": 1, "threads": 1},
        }
    )
    base = sw.load(tmp_path / "base")
    found = resolve(recipe, base.assets, base.config)
    torch.manual_seed(0)
    return found.recipe, Model(found.model, found.assets).eval()


def gpt2(folder: Path) -> None:
    """A random model with a byte-level tokenizer that adds no special tokens."""
    pieces = sorted(pre_tokenizers.ByteLevel.alphabet())
    made = Tokenizer(
        models.BPE({piece: i for i, piece in enumerate(["<|endoftext|>", *pieces])}, [])
    )
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.post_processor = processors.ByteLevel(trim_offsets=False)
    ends = dict.fromkeys(("bos_token", "eos_token", "pad_token"), "<|endoftext|>")
    PreTrainedTokenizerFast(tokenizer_object=made, **ends).save_pretrained(folder)
    torch.manual_seed(0)
    GPT2LMHeadModel(
        GPT2Config(vocab_size=257, n_embd=16, n_layer=1, n_head=2, n_positions=64)
    ).save_pretrained(folder)


def test_a_causal_model_is_fine_tuned_and_written_as_one(tmp_path: Path) -> None:
    gpt2(tmp_path / "gpt2")
    recipe, ours = started(tmp_path, tmp_path / "gpt2", "text_classification")
    assert [span.attention for span in ours.config.tasks["text_classification"].spans] == ["causal"]
    ours.save_pretrained(tmp_path / "ours")
    with pytest.raises(
        ConfigError, match=r"cannot express targets\.classification\.(hidden True|bias True)"
    ):
        convert_folder(tmp_path / "ours", tmp_path / "theirs")
    plain = {"classification": {"pooling": "last", "hidden": False, "bias": False}}
    options = recipe.model.model_dump(mode="json") | {"targets": plain, "tasks": {}}
    tasks = {"text_classification": recipe.tasks["text_classification"].model_dump(mode="json")}
    whole = {"model": options, "tasks": tasks, "training": {"steps": 1, "threads": 1}}
    found = resolve(RecipeConfig.parse(whole), ours.assets)
    Model(found.model, found.assets).save_pretrained(tmp_path / "ours")
    convert_folder(tmp_path / "ours", tmp_path / "theirs")
    classify: Any = pipeline("text-classification", str(tmp_path / "theirs"), top_k=None)
    for text in TEXTS[:2]:
        answer = next(
            iter(Predictor(sw.load(tmp_path / "ours")).predict("text_classification", [text]))
        )
        assert {one["label"]: one["score"] for one in classify([text])[0]} == pytest.approx(
            answer["probabilities"], rel=1e-4
        )
    options["streams"]["text"]["causal"] = False
    found = resolve(RecipeConfig.parse(whole), ours.assets)
    Model(found.model, found.assets).save_pretrained(tmp_path / "ours")
    with pytest.raises(
        ConfigError, match=r"cannot express streams\.text\.causal False \(it has True\)"
    ):
        convert_folder(tmp_path / "ours", tmp_path / "back")


def test_two_texts_have_the_special_tokens_of_the_tokenizer(tmp_path: Path) -> None:
    gpt2(tmp_path / "gpt2")
    names = {"cls_token": "<s>", "sep_token": "</s>", "pad_token": "<pad>", "eos_token": "</s>"}
    BertModel(BertConfig(**SIZES, type_vocab_size=1)).save_pretrained(tmp_path / "bert")
    tokenizer_of_words(tmp_path / "bert", "<s> $A </s>", names, "<s> $A </s> </s> $B </s>")
    for folder in (tmp_path / "gpt2", tmp_path / "bert"):
        theirs, ours = AutoTokenizer.from_pretrained(folder), sw.from_hf(folder)
        processor = build_processors(ours.config, ours.assets)["text"]
        assert processor("red heart").data.tolist() == theirs("red heart")["input_ids"]
        both = torch.cat([span.data for span in processor.pair("red heart", "two")]).tolist()
        assert both == theirs("red heart", "two")["input_ids"]
        convert_folder(folder, tmp_path / "ours")
        convert_folder(tmp_path / "ours", tmp_path / "back")
        back = AutoTokenizer.from_pretrained(tmp_path / "back")
        assert (
            back("red heart", "two")["input_ids"] == both
            and back("red heart")["input_ids"] == theirs("red heart")["input_ids"]
        )


def test_fine_tuning_keeps_the_first_token_of_the_decoder(tmp_path: Path) -> None:
    names = {"pad_token": "<pad>", "cls_token": "<s>", "eos_token": "</s>", "sep_token": "</s>"}
    theirs = BartForConditionalGeneration(BartConfig(**BART_SIZES, decoder_start_token_id=2))
    theirs.generation_config.update(num_beams=3, length_penalty=2.0, max_new_tokens=9)
    theirs.save_pretrained(tmp_path / "bart")
    tokenizer_of_words(tmp_path / "bart", "<s> $A </s>", names)
    target = sw.from_hf(tmp_path / "bart").config.targets["lm"]
    assert (target.beams, target.length_penalty, target.max_answer_tokens) == (3, 2.0, 9)
    _, ours = started(tmp_path, tmp_path / "bart", "text_classification", decoder=True)
    assert ours.config.streams.text.tokenizer.special["cls"] == "<s>"
    assert build_answer_processor(ours.config, ours.assets).cls == 2
    assert ours.config.targets["classification"].pooling == "last"


def test_an_answer_fits_the_decoder(tmp_path: Path) -> None:
    exported(tmp_path, BART | {"targets": {"lm": {"bias": True}}}, "text_to_text", NAMES)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "theirs")
    theirs = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "theirs")
    assert theirs.generate(**tokenizer(TEXTS[:2], return_tensors="pt", padding=True)).shape[1] <= 24


def test_clip_finds_the_end_of_a_text_by_its_id(tmp_path: Path) -> None:
    names = {"bos_token": "<b>", "eos_token": "<e>", "pad_token": "<e>"}
    sizes = {
        "hidden_size": 8,
        "num_attention_heads": 2,
        "num_hidden_layers": 1,
        "intermediate_size": 8,
    }
    text = {**sizes, "vocab_size": 12, "eos_token_id": 1, "bos_token_id": 0}
    CLIPModel(
        CLIPConfig(text_config=text, vision_config={**sizes, "image_size": 8, "patch_size": 4})
    ).save_pretrained(tmp_path / "clip")
    tokenizer_of_words(tmp_path / "clip", "<b> $A <e>", names)
    convert_folder(tmp_path / "clip", tmp_path / "ours")
    convert_folder(tmp_path / "ours", tmp_path / "back")
    given = AutoTokenizer.from_pretrained(tmp_path / "back")(
        ["red heart", "two"], return_tensors="pt", padding=True
    )
    found = [
        CLIPModel.from_pretrained(tmp_path / name).get_text_features(**given).pooler_output
        for name in ("clip", "back")
    ]
    assert torch.equal(*found) and not torch.equal(found[0][0], found[0][1])
