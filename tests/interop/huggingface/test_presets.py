"""Presets have the published sizes and equal Hugging Face's configurations of the same names."""

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
import yaml

import skillweave
from skillweave.interop.huggingface.export_checks import find_family, flatten
from skillweave.interop.huggingface.families import FAMILIES
from skillweave.model.config import ModelConfig
from skillweave.model.model import Model

FOLDER = Path(skillweave.__file__).parent / "presets"
PUBLISHED = {
    # Parameters of the published checkpoint; a tied output layer counts once.
    "bert-base": 109_514_298,
    "roberta-base": 124_697_433,
    "distilbert-base": 66_985_530,
    "albert-base": 11_221_680,
    "electra-small": 13_549_057,
    "gpt2": 124_439_808,
    "bloom-560m": 559_214_592,
    "llama-7b": 6_738_415_616,
    "mixtral-8x7b": 46_702_792_704,
    "vit-base": 86_567_656,
    "deit-base": 87_338_192,
    "beit-base": 86_530_984,
    "mae-base": 111_907_840,
    "videomae-base": 86_534_800,
    "vilt-base": 112_217_658,
    "clip-vit-base-32": 151_277_313,
    "chinese-clip-vit-base-16": 188_262_913,
    "t5-small": 60_506_624,
    "bart-base": 139_420_416 + 50_265,
    "wav2vec2-base": 94_371_712 + 769,
    "hubert-base": 94_371_712 + 769,
    "pegasus-large": 568_699_904 + 2 * 1024 * 1024 + 96_103,
    "s2t-small": 29_536_256,
    "whisper-base": 72_593_920,
    "dinov2-base": 86_580_480 + 1000 * 1537,
    "dinov3-small": 21_596_544,
    "siglip-base-16": 203_155_970,
    "wavlm-base": 94_381_936 + 769,
    "data2vec-audio-base": 93_164_288 + 769,
    "moonshine-tiny": 27_092_736,
    "codebert-base": 124_645_632,
    "sbert-base": 108_891_648,  # BERT without its pooler
}
LSTM = {
    # Preset → (directions, [(input size, cell size, output size) of each layer]), from the papers.
    "elmo": (2, [(512, 4096, 512)] * 2),
    "infersent": (2, [(300, 2048, 2048)]),
    "cove": (2, [(300, 300, 300), (600, 300, 300)]),
}
BUFFERS = {"bart-base": 50_265, "pegasus-large": 96_103}
"""The bias of the output layer, which is a buffer in Transformers."""

CLASSES = {
    "vit-base": 1000,
    "deit-base": 1000,
    "beit-base": 1000,
    "dinov2-base": 1000,
    "videomae-base": 400,
}
"""Number of classes of the published checkpoint; presets leave it to the data."""

PREPROCESSED = {"dinov2-base": ["streams.image.size"]}
"""Options that only the preprocessor has."""


def preset(name: str) -> ModelConfig:
    """A preset with the published number of classes."""
    data = yaml.safe_load((FOLDER / f"{name}.yaml").read_text("utf-8"))
    if name in CLASSES:
        data["targets"]["classification"]["classes"] = [str(i) for i in range(CLASSES[name])]
    return ModelConfig.parse(data)


def test_all_are_measured() -> None:
    assert {file.stem for file in FOLDER.glob("*.yaml")} == {*PUBLISHED, *LSTM, "gated-cnn-9"}


@pytest.mark.parametrize("name", LSTM)
def test_recurrent_layers_have_the_published_sizes(name: str) -> None:
    """A cell has four gates, each with an input matrix, a recurrent matrix and PyTorch's two biases.
    ELMo projects its cells."""
    ways, layers = LSTM[name]
    expected = sum(
        4 * cells * (given + made) + 8 * cells + (cells * made if cells != made else 0)
        for given, cells, made in layers
    )
    with torch.device("meta"):
        model = Model(ModelConfig.from_file(FOLDER / f"{name}.yaml"))
    assert sum(p.numel() for p in model.encoder.parameters()) == ways * expected


def test_gated_convolutions_have_the_published_sizes() -> None:
    with torch.device("meta"):
        model = Model(ModelConfig.from_file(FOLDER / "gated-cnn-9.yaml"))
    kernels = [(4, 128, 807), *[(4, 807, 807)] * 8]
    expected = sum(2 * (width * given * made + made) for width, given, made in kernels)
    assert sum(p.numel() for p in model.encoder.parameters()) == expected


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_sizes(name: str) -> None:
    with torch.device("meta"):
        model = Model(preset(name))
    assert model.count_parameters() == PUBLISHED[name]


def test_a_token_uses_two_experts_of_mixtral() -> None:
    with torch.device("meta"):
        model = Model(preset("mixtral-8x7b"))
    assert model.count_parameters("lm") == 12_879_925_248


def test_vilts_layers_and_patches_are_those_of_its_paper() -> None:
    """87.4 million without the word embedding (arXiv 2102.03334, table 6)."""
    with torch.device("meta"):
        model = Model(preset("vilt-base"))
    counted = ("encoder.blocks.", "embeddings.image.content.patch.projection.")
    assert (
        round(
            sum(p.numel() for name, p in model.named_parameters() if name.startswith(counted))
            / 1e6,
            1,
        )
        == 87.4
    )


@pytest.mark.parametrize("name", [name for name in PUBLISHED if name != "sbert-base"])
def test_hugging_face_has_the_same(name: str) -> None:
    config: Any = preset(name)
    match = find_family(config)
    theirs = getattr(transformers, match.architecture).config_class(**match.options)
    family = FAMILIES[theirs.model_type]
    expected, found = flatten(config), flatten(family.read_config(theirs, match.head))
    for option in PREPROCESSED.get(name, ()):
        del expected[option], found[option]
    assert found == expected
    with torch.device("meta"):
        reference = getattr(transformers, match.architecture)(theirs)
    count = sum(p.numel() for p in reference.parameters())
    assert count == PUBLISHED[name] - BUFFERS.get(name, 0)
