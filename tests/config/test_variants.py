"""Unions of configuration classes: which class settings are for, faults, merging, saving."""

from typing import Any

import pytest

from skillweave.config import ConfigError
from skillweave.config.encoder import GRUConfig, LSTMConfig, RNNConfig, TransformerConfig
from skillweave.config.layering import merge
from skillweave.config.position import RotaryConfig, YarnScalingConfig
from skillweave.config.streams import (
    FilterbankStream,
    LoadedTokenizerConfig,
    Streams,
    TrainedTokenizerConfig,
    WaveformStream,
)
from skillweave.model.config import ModelConfig

TARGET = {"vocabulary": 9}


def model(**parts: Any) -> ModelConfig:
    return ModelConfig.parse({"streams": {"text": {}}, **parts})


def faults(**parts: Any) -> list[str]:
    with pytest.raises(ConfigError) as error:
        model(**parts)
    return [line.removeprefix("  - ") for line in str(error.value).splitlines()[1:]]


def test_settings_that_name_no_class_are_those_of_the_first() -> None:
    streams = Streams.parse({"text": {"tokenizer": {}}, "sound": {}})
    assert isinstance(model(encoder={"layers": 3}).encoder, TransformerConfig)
    assert model().encoder.position.kind == "none"
    assert isinstance(streams.text.tokenizer, TrainedTokenizerConfig)
    assert isinstance(streams.sound, WaveformStream)


@pytest.mark.parametrize(
    ("name", "kind"), [("rnn", RNNConfig), ("lstm", LSTMConfig), ("gru", GRUConfig)]
)
def test_encoders_and_decoders_by_name(name: str, kind: type) -> None:
    part = {"name": name, "layers": 1}
    made = model(encoder=part, decoder=part, target_embedding=TARGET)
    assert type(made.encoder) is kind and type(made.decoder) is kind


@pytest.mark.parametrize(
    ("tokenizer", "kind"),
    [
        ({"kind": "bpe"}, TrainedTokenizerConfig),
        ({"path": "folder"}, LoadedTokenizerConfig),
        ({"special": {"cls": "<s>"}}, LoadedTokenizerConfig),
        ({"path": None, "special": {}}, LoadedTokenizerConfig),
    ],
)
def test_tokenizers_by_their_options(tokenizer: dict[str, Any], kind: type) -> None:
    assert type(Streams.parse({"text": {"tokenizer": tokenizer}}).text.tokenizer) is kind


@pytest.mark.parametrize(
    ("parts", "path", "fault"),
    [
        (
            {"encoder": {"kernel_size": 3}},
            "encoder.kernel_size",
            "'transformer' has no kernel_size",
        ),
        (
            {"encoder": {"name": "gru", "cell_size": 3}},
            "encoder.cell_size",
            "'gru' has no cell_size, which is an option of 'lstm'; its options are biases,"
            " direction, dropout, input_size, layers, name, norm, norm_epsilon",
        ),
        (
            {"encoder": {"position": {"kind": "alibi", "base": 10_000.0}}},
            "encoder.position.base",
            "'alibi' has no base, which is an option of 'rope', 'rope_2d'; its options are kind",
        ),
        (
            {"encoder": {"position": {"kind": "rope", "scaling": {"fast_rotations": 9}}}},
            "encoder.position.scaling.fast_rotations",
            "'linear' has no fast_rotations, which is an option of 'yarn'; its options are factor,"
            " kind",
        ),
        (
            {"streams": {"sound": {"mel_bins": 80}}},
            "streams.sound.mel_bins",
            "'waveform' has no mel_bins, which is an option of 'filterbank'; its options are"
            " channels, convolution_bias",
        ),
        (
            {"streams": {"sound": {"embedding": ["filterbank"], "convolution_norm": "group"}}},
            "streams.sound.convolution_norm",
            "'filterbank' has no convolution_norm, which is an option of 'waveform'",
        ),
        (
            {"streams": {"text": {"tokenizer": {"path": "a", "lowercase": True}}}},
            "streams.text.tokenizer.lowercase",
            "'loaded' has no lowercase, which is an option of 'wordpiece' or 'bpe'; its options are"
            " kind, parse_special, path, special",
        ),
        (
            {"streams": {"text": {"tokenizer": {"kind": "bpe", "path": "a"}}}},
            "streams.text.tokenizer.path",
            "'wordpiece' or 'bpe' has no path, which is an option of 'loaded'; its options are kind,"
            " lowercase, min_frequency",
        ),
        (
            {"streams": {"text": {"tokenizer": {"pth": "a"}}}},
            "streams.text.tokenizer.pth",
            "unknown key; did you mean 'path'?",
        ),
        (
            {"encoder": {"name": "lstm", "layer": 3}},
            "encoder.layer",
            "unknown key; did you mean 'layers'?",
        ),
        ({"encoder": {"name": "lsm"}}, "encoder.name", "unknown value 'lsm'; did you mean 'lstm'?"),
        (
            {"encoder": {"position": {"kind": ["rope"]}}},
            "encoder.position.kind",
            "unknown value \"['rope']\"; did you mean 'rope'?",
        ),
        (
            {"decoder": {"name": "gated_cnn"}, "target_embedding": TARGET},
            "decoder.name",
            "unknown value 'gated_cnn'; valid names: transformer, rnn, lstm, gru",
        ),
        (
            {"decoder": {"name": "gru", "direction": "separate"}, "target_embedding": TARGET},
            "decoder",
            "a decoder writes word by word",
        ),
        (
            {"streams": {"sound": {"embedding": 3}}},
            "streams.sound.embedding",
            "Input should be a valid list (got 3)",
        ),
        (
            {"streams": {"sound": {"embedding": ["waveform", "filterbank"]}}},
            "streams.sound.embedding.1",
            "unknown value 'filterbank'; valid names: waveform, position",
        ),
        (
            {"encoder": "lstm"},
            "encoder",
            "expected a mapping of settings by name (got 'lstm')",
        ),
    ],
)
def test_faults_name_the_class_that_has_the_option(
    parts: dict[str, Any], path: str, fault: str
) -> None:
    (found,) = faults(**parts)
    assert found.startswith(f"{path}: {fault}")


def test_all_faults_of_a_variant_at_once() -> None:
    found = faults(encoder={"name": "lstm", "heads": 2, "position": {}, "layers": 0, "cell": 3})
    assert [fault.partition(": ")[0] for fault in found] == [
        "encoder.layers",
        "encoder.heads",
        "encoder.position",
        "encoder.cell",
    ]


@pytest.mark.parametrize(
    "parts",
    [
        {"encoder": {"name": "lstm", "direction": "separate", "cell_size": 999}},
        {"encoder": {"name": "gated_cnn", "block_layers": 3}},
        {"encoder": {"position": {"kind": "rope", "scaling": {"kind": "yarn", "factor": 2}}}},
        {"encoder": {"position": {"kind": "t5_bias", "per_layer": True}}},
        {"streams": {"sound": {"embedding": ["filterbank", "timing"], "features": "whisper"}}},
        {"streams": {"text": {"tokenizer": {"special": {"cls": "<s>"}}}, "code": {}}},
        {"decoder": {"name": "gru"}, "target_embedding": {"tokenizer": {"path": "folder"}}},
    ],
)
def test_saved_configurations_are_read_as_they_were(parts: dict[str, Any]) -> None:
    made = model(**parts)
    again = ModelConfig.model_validate_json(made.model_dump_json())
    assert again == made and type(again.encoder) is type(made.encoder)


@pytest.mark.parametrize(
    ("below", "above", "merged"),
    [
        (
            {"position": {"kind": "rope", "base": 5}},
            {"position": {"kind": "alibi"}},
            {"position": {"kind": "alibi"}},
        ),
        (
            {"name": "lstm", "cell_size": 900, "layers": 3},
            {"name": "gru", "layers": 2},
            {"name": "gru", "layers": 2},
        ),
        ({"layers": 3, "heads": 2}, {"name": "lstm"}, {"name": "lstm", "layers": 3}),
        ({"name": "lstm"}, {"layers": 2}, {"name": "lstm", "layers": 2}),
        ({"heads": 2}, {"name": "transformer"}, {"name": "transformer", "heads": 2}),
        (
            {"position": {"kind": "rope", "base": 5}},
            {"position": {"scaling": {}}},
            {"position": {"kind": "rope", "base": 5, "scaling": {}}},
        ),
    ],
)
def test_merging_removes_what_another_class_does_not_have(
    below: dict[str, Any], above: dict[str, Any], merged: dict[str, Any]
) -> None:
    found = merge({"encoder": below}, {"encoder": above}, ModelConfig)["encoder"]
    assert found == merged
    model(encoder=found)


def test_merging_keeps_what_is_misspelt() -> None:
    below = {"encoder": {"name": "lstm", "layrs": 3}}
    assert faults(**merge(below, {"encoder": {"name": "gru"}}, ModelConfig)) == [
        "encoder.layrs: unknown key; did you mean 'layers'?"
    ]


def test_streams_merge_by_what_they_are() -> None:
    below = model(streams={"text": {}, "sound": {"convolution_bias": True}}).model_dump(mode="json")
    above = {
        "text": {"tokenizer": {"path": "folder"}},
        "sound": {"embedding": ["filterbank", "timing"], "kernels": [5, 5], "strides": [2, 2]},
    }
    streams = ModelConfig.parse(merge(below, {"streams": above}, ModelConfig)).streams
    assert streams.text.tokenizer == LoadedTokenizerConfig(path="folder")
    loaded = {"text": {"tokenizer": LoadedTokenizerConfig(path="folder").model_dump()}}
    again = merge(loaded, {"text": {"tokenizer": {"lowercase": False}}}, Streams)
    assert Streams.parse(again).text.tokenizer == TrainedTokenizerConfig(lowercase=False)
    assert streams.sound == FilterbankStream(embedding=["filterbank", "timing"])


def test_a_preset_changes_its_architecture() -> None:
    made = model(preset="mixtral-8x7b", encoder={"position": {"kind": "alibi"}})
    assert made.encoder.position.kind == "alibi" and made.encoder.norm == "rms"
    rotary = model(preset="llama-7b", encoder={"position": {"scaling": {"kind": "yarn"}}})
    assert rotary.encoder.position == RotaryConfig(scaling=YarnScalingConfig())
    assert model(preset="bert-base", encoder={"name": "lstm"}).encoder == LSTMConfig(layers=12)


def test_special_tokens_are_those_of_a_tokenizer_that_exists() -> None:
    trained, named = TrainedTokenizerConfig(kind="bpe"), {"cls": "<s>"}
    assert trained.with_special_tokens({}) is trained
    assert trained.with_special_tokens(named) == LoadedTokenizerConfig(special=named)
    loaded = LoadedTokenizerConfig(path="folder", special=named)
    assert loaded.with_special_tokens({}) == LoadedTokenizerConfig(path="folder")
