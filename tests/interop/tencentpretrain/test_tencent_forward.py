"""Converted checkpoints compute what TencentPretrain computes, of which `tencent_forward` has a
plain version."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from hf_references import KeepDouble
from tencent_forward import Theirs, causal, visible
from tiny import relative_error
from torch import Tensor

from skillweave.batch import Batch
from skillweave.config import ConfigError
from skillweave.interop.huggingface import to_hf
from skillweave.interop.tencentpretrain.weights import from_tencent
from skillweave.model.config import ModelConfig
from skillweave.model.model import Model
from skillweave.weights.files import WeightsError

IDS, MORE = [7, 3, 11, 5, 2, 9, 4], [6, 1, 8, 2, 10]
LAYERS = {
    "words": 13, "emb_size": 12, "hidden_size": 12, "feedforward_size": 17, "heads_num": 3, "layers_num": 3,
    "max_seq_length": 20, "dropout": 0.1, "hidden_act": "gelu", "encoder": "transformer",
}  # fmt: skip
BERT = {**LAYERS, "embedding": ["word", "pos", "seg"]}
PRE = {"layernorm_positioning": "pre", "remove_embedding_layernorm": True}
WRITES = {
    "decoder": "transformer",
    "decoder_layers_num": 2,
    "target": ["lm"],
    "data_processor": "lm",
}
T5 = {
    **LAYERS, **PRE, **WRITES, "hidden_act": "relu", "relative_position_embedding": True, "remove_attention_scale": True,
    "remove_transformer_bias": True, "layernorm": "t5", "embedding": ["word"], "tgt_embedding": ["word"],
    "share_embedding": True, "tie_weights": True,
}  # fmt: skip
PICTURE = {"image_height": 8, "image_width": 8, "patch_size": 4}
PATCHES = 5


def convert(theirs: Theirs, folder: Path, **changes: Any) -> Model:
    """Our model of the weights that a forward pass used."""
    config = {key: x for key, x in {**theirs.config, **changes}.items() if key != "words"}
    for name in ("stream_0", "stream_1"):
        if name in config:
            config[name] = {key: x for key, x in config[name].items() if key != "words"}
    (folder / "config.json").write_text(json.dumps(config))
    return from_tencent(theirs.state, ModelConfig.from_file(folder / "config.json"))


def batch_of(model: Model, *inputs: Any, masked: Any = ()) -> Batch:
    """One sample: ids, pixels or frames for each span."""
    (name,) = model.config.tasks
    tensors, lengths = [], []
    for span, x in zip(model.config.tasks[name].spans, inputs, strict=True):
        x = x if isinstance(x, Tensor) else torch.tensor(x)
        tensors.append(x[None])
        length = len(x)
        if span.modality == "image":
            length = PATCHES
        elif span.modality == "sound":
            length = model.config.streams.sound.output_length(length)
        lengths.append(length)
    layout = model.config.tasks[name].layout(name).with_lengths(tuple(lengths))
    return Batch(layout, tuple(tensors), torch.tensor([lengths]), masked=masked)


def logits(model: Model, *inputs: Any, masked: Any = ()) -> dict[str, Tensor]:
    return dict(model(batch_of(model, *inputs, masked=masked)).logits)


def written(theirs: Theirs, data: Any, length: int, answer: list[int]) -> Tensor:
    """Logits of a model with a decoder."""
    config = theirs.config
    x = theirs.embed("embedding", config, data, length, [1] * length)
    memory = theirs.transformer("encoder", x, visible(length), config)
    options = {**config, "embedding": config["tgt_embedding"]}
    if config.get("share_embedding"):
        words = theirs.state["embedding.word.embedding.weight"]
        theirs.state["tgt_embedding.word.embedding.weight"] = words
    y = theirs.embed("tgt_embedding", options, answer, len(answer), [1] * len(answer))
    y = theirs.transformer("decoder", y, causal(len(answer)), config, memory)
    bias = config.get("has_lmtarget_bias", False)
    return theirs.linear("target.lm.output_layer", y, config["words"], bias)


@pytest.mark.parametrize(
    "config",
    [
        T5,
        {**T5, "hidden_act": "gelu_fast", "feed_forward": "gated", "attention_head_size": 5, "tie_weights": False},
        {**T5, "remove_attention_scale": False},
        {**LAYERS, **WRITES, "embedding": ["word", "pos"], "tgt_embedding": ["word", "pos"], "has_lmtarget_bias": True,
         "share_embedding": True, "tie_weights": True},
        {**LAYERS, **PRE, **WRITES, "embedding": ["word", "sinusoidalpos"], "tgt_embedding": ["word", "sinusoidalpos"],
         "share_embedding": True, "tie_weights": True, "has_lmtarget_bias": True},
        {**LAYERS, **WRITES, "embedding": ["word", "sinusoidalpos"], "tgt_embedding": ["word", "sinusoidalpos"],
         "parameter_sharing": False},
    ],
    ids=["T5", "T5 1.1", "scaled relative positions", "BART", "Pegasus", "translation"],
)  # fmt: skip
def test_models_with_a_decoder(config: dict[str, Any], tmp_path: Path) -> None:
    """Relative positions are stored in every layer, and a shared embedding leaves the output layer
    untied. Sines and cosines alternate."""
    theirs = Theirs(config)
    expected = written(theirs, IDS, len(IDS), MORE)
    model = convert(theirs, tmp_path)
    assert relative_error(logits(model, IDS, MORE)["lm"], expected) < 1e-6


@pytest.mark.parametrize("gated", [True, False])
def test_t5_can_be_exported(gated: bool, tmp_path: Path) -> None:
    """The norms of T5 have no bias, so `remove_transformer_bias` leaves none."""
    theirs = Theirs(
        {**T5, "feed_forward": "gated" if gated else "dense", "hidden_act": "gelu_fast"}
    )
    expected = written(theirs, IDS, len(IDS), MORE)
    model = to_hf(convert(theirs, tmp_path), "t5")
    given = {"input_ids": torch.tensor([IDS]), "decoder_input_ids": torch.tensor([MORE])}
    with KeepDouble():
        assert relative_error(model(**given).logits[0], expected) < 1e-6


def test_a_tied_output_layer_is_tied(tmp_path: Path) -> None:
    theirs = Theirs(T5)
    written(theirs, IDS, len(IDS), MORE)
    words = theirs.state["embedding.word.embedding.weight"]
    theirs.state["target.lm.output_layer.weight"] = words
    assert convert(theirs, tmp_path).config.targets["lm"].tied


def test_names_of_parallel_modules(tmp_path: Path) -> None:
    theirs = Theirs(T5)
    expected = written(theirs, IDS, len(IDS), MORE)
    theirs.state = {f"module.{name}": x for name, x in theirs.state.items()}
    assert relative_error(logits(convert(theirs, tmp_path), IDS, MORE)["lm"], expected) < 1e-6


def test_speech(tmp_path: Path) -> None:
    """Sines stand before cosines, also in the decoder; frames and words are multiplied by √size."""
    config = {
        **LAYERS, **PRE, **WRITES, "data_processor": "s2t", "embedding": ["speech", "sinusoidalpos"],
        "tgt_embedding": ["word", "sinusoidalpos"], "conv_channels": [6, 24], "conv_kernel_sizes": [5, 3],
        "audio_feature_size": 4, "max_audio_frames": 60,
    }  # fmt: skip
    frames = torch.randn(22, 4, dtype=torch.float64)
    theirs = Theirs(config)
    expected = written(theirs, frames, 6, MORE)
    model = convert(theirs, tmp_path)
    assert relative_error(logits(model, frames, MORE)["lm"], expected) < 1e-6
    with pytest.raises(ConfigError, match=r"conv_channels \[6, 20\] must be \[6, 24\]"):
        convert(theirs, tmp_path, conv_channels=[6, 20])


@pytest.mark.parametrize("residual", [True, False])
@pytest.mark.parametrize("relative", [True, False])
def test_untied_masked_words(residual: bool, relative: bool, tmp_path: Path) -> None:
    """With residual attention each layer adds its scores to those of the layer before, relative
    positions included."""
    config = {
        **BERT, "target": ["mlm"], "has_residual_attention": residual, "relative_position_embedding": relative,
    }  # fmt: skip
    theirs = Theirs(config)
    x = theirs.embed("embedding", config, IDS, len(IDS), [1] * len(IDS))
    x = theirs.transformer("encoder", x, visible(len(IDS)), config)
    expected = theirs.masked_words(x, 13)
    found = logits(convert(theirs, tmp_path), IDS)["mlm"]
    assert relative_error(found, expected) < 1e-9
    with pytest.raises(WeightsError, match=r"differs from it; set tie_weights to false"):
        convert(theirs, tmp_path, tie_weights=True)


def test_residual_attention_in_causal_texts_with_padding(tmp_path: Path) -> None:
    config = {
        **LAYERS,
        "embedding": ["word"],
        "mask": "causal",
        "target": ["lm"],
        "has_residual_attention": True,
    }
    theirs, expected = Theirs(config), []
    for ids in (IDS, MORE):
        x = theirs.embed("embedding", config, ids, len(ids), [1] * len(ids))
        x = theirs.transformer("encoder", x, causal(len(ids)), config)
        expected.append(theirs.linear("target.lm.output_layer", x, 13, bias=False))
    model = convert(theirs, tmp_path)
    layout = model.config.tasks["lm"].layout("lm").with_lengths((len(IDS),))
    ids = torch.tensor([IDS, [*MORE, 0, 0]])
    found = model(Batch(layout, (ids,), torch.tensor([[len(IDS)], [len(MORE)]]))).logits["lm"]
    assert relative_error(found, torch.cat(expected)) < 1e-9


def test_visible_prefix(tmp_path: Path) -> None:
    """DALL-E's `prefix`: the first part is seen by all, the second part is causal."""
    config = {**BERT, **PRE, "mask": "prefix", "target": ["lm"]}
    theirs, count = Theirs(config), len(IDS) + len(MORE)
    mask = causal(count)
    mask[:, : len(IDS)] = 0
    x = theirs.embed("embedding", config, IDS + MORE, count, [1] * len(IDS) + [2] * len(MORE))
    x = theirs.transformer("encoder", x, mask, config)
    expected = theirs.linear("target.lm.output_layer", x, 13, bias=False)
    found = logits(convert(theirs, tmp_path), IDS, MORE)["lm"]
    assert relative_error(found, expected) < 1e-9


def test_masked_patches(tmp_path: Path) -> None:
    """BEiT: the table of positions is longer than a picture."""
    config = {
        **LAYERS,
        **PICTURE,
        "embedding": ["masked_patch", "pos"],
        "target": ["mlm"],
        "tokenizer": "vqgan",
    }
    pixels, masked = torch.randn(3, 8, 8, dtype=torch.float64), [1, 4]
    theirs = Theirs(config)
    x = theirs.embed("embedding", config, (pixels, masked), PATCHES, [1] * PATCHES)
    x = theirs.transformer("encoder", x, visible(PATCHES), config)
    expected = theirs.masked_words(x, 19)
    model = convert(theirs, tmp_path)
    hidden = torch.tensor([[place in masked for place in range(PATCHES)]])
    found = logits(model, pixels, masked=(hidden,))["masked_image_token"]
    assert relative_error(found, expected) < 1e-9


def test_words_and_patches(tmp_path: Path) -> None:
    """ViLT: patches have the positions behind the padded words, and the second segment."""
    config = {
        **LAYERS,
        **PICTURE,
        "embedding": ["word_patch", "pos", "seg"],
        "target": ["mlm", "sp"],
    }
    pixels, count = torch.randn(3, 8, 8, dtype=torch.float64), len(IDS) + PATCHES
    theirs = Theirs(config)
    seg = [1] * len(IDS) + [2] * PATCHES
    x = theirs.embed("embedding", config, (IDS, pixels), count, seg)
    x = theirs.transformer("encoder", x, visible(count), config)
    expected = theirs.masked_words(x, 13)[: len(IDS)]
    match = theirs.linear("target.sp.linear_1", x[0], 12)
    match = theirs.linear("target.sp.linear_2", torch.tanh(match), 2)
    found = logits(convert(theirs, tmp_path, seq_length=len(IDS)), IDS, pixels)
    assert relative_error(found["mlm"], expected) < 1e-9
    assert relative_error(found["sp"], match) < 1e-9
    classes = convert(theirs, tmp_path, seq_length=len(IDS)).config.targets["sp"].classes
    assert classes == ["random", "matching"]  # In its ViltDataloader, 1 is a match.
    with pytest.raises(ConfigError, match="set seq_length in the configuration"):
        convert(theirs, tmp_path)


def pair(theirs: Theirs, *inputs: Any) -> list[Tensor]:
    """The output of both streams, whose embeddings are normalised twice."""
    found = []
    for i, data in enumerate(inputs):
        options = {**theirs.config, **theirs.config[f"stream_{i}"]}
        length = len(data) if isinstance(data, list) else PATCHES
        external = f"embedding.dual.embedding_{i}"
        x = theirs.embed(external, options, data, length, [1] * length)
        if not options.get("remove_embedding_layernorm"):
            x = theirs.norm(f"embedding.dual.stream_{i}_layer_norm", x)
        found.append(theirs.transformer(f"encoder.encoder_{i}", x, visible(length), options))
    return found


def test_text_and_picture(tmp_path: Path) -> None:
    picture = {
        **LAYERS, **PRE, **PICTURE, "emb_size": 15, "hidden_size": 15, "hidden_act": "gelu_fast", "embedding": ["patch", "pos"],
        "feed_forward": "gated", "pooling": "mean",
    }  # fmt: skip
    text = {**LAYERS, "embedding": ["word", "pos"], "pooling": "first"}
    config = {
        "stream_0": text, "stream_1": picture, "embedding": ["dual"], "encoder": "dual", "target": ["clr"], "feature_size": 7,
        "projection": True, "tie_weights": False, **PICTURE,
    }  # fmt: skip
    pixels = torch.randn(3, 8, 8, dtype=torch.float64)
    theirs = Theirs(config)
    words, patches = pair(theirs, IDS, pixels)
    u = words[0] @ theirs.weight("target.clr.encoder_0_projection", 12, 7)
    v = patches.mean(0) @ theirs.weight("target.clr.encoder_1_projection", 15, 7)
    # Its scale has no limit; 100 is ours.
    theirs.state["target.clr.logit_scale"] = torch.tensor(5.0, dtype=torch.float64)
    expected = torch.exp(torch.tensor(5.0)) * (u @ v) / (u.norm() * v.norm())
    found = logits(convert(theirs, tmp_path), IDS, pixels)["contrastive"]
    assert relative_error(found, expected.view(1, 1)) < 1e-6


def siamese() -> Theirs:
    stream = {**BERT, "mask": "fully_visible"}
    theirs = Theirs(
        {
            "stream_0": stream, "stream_1": stream, "embedding": ["dual"], "encoder": "dual", "pooling": "mean",
            "tie_weights": True, "dropout": 0.1,
        }
    )  # fmt: skip
    pair(theirs, IDS, MORE)
    for name, x in list(theirs.state.items()):
        if "_0." in name or "stream_0" in name:  # the second stream is the first one
            theirs.state[re.sub(r"(embedding|encoder|stream)_0", r"\1_1", name)] = x
    return theirs


def test_pair_of_texts(tmp_path: Path) -> None:
    """SBERT: the classifier of `run_classifier_siamese.py` reads u, v, |u - v| and u · v."""
    theirs = siamese()
    u, v = (x.mean(0) for x in pair(theirs, IDS, MORE))
    expected = theirs.linear("classifier", torch.cat([u, v, (u - v).abs(), u * v]), 3)
    found = logits(convert(theirs, tmp_path), IDS, MORE)["classification"]
    assert relative_error(found, expected) < 1e-9


def test_two_texts_with_norms_of_their_own(tmp_path: Path) -> None:
    theirs = siamese()
    theirs.state["embedding.dual.stream_1_layer_norm.beta"] = torch.randn(12).double()
    with pytest.raises(WeightsError, match="here one stream reads both texts of a pair"):
        convert(theirs, tmp_path)
    other = {**theirs.config["stream_1"], "hidden_act": "relu"}
    with pytest.raises(
        ConfigError, match="share their weights, so they must have the same options"
    ):
        convert(siamese(), tmp_path, stream_1=other)


def test_gated_convolutions(tmp_path: Path) -> None:
    config = {
        "words": 13, "emb_size": 5, "hidden_size": 8, "layers_num": 6, "kernel_size": 3, "block_size": 2, "dropout": 0.1,
        "embedding": ["word"], "remove_embedding_layernorm": True, "encoder": "gatedcnn", "target": ["lm"],
    }  # fmt: skip
    theirs = Theirs(config)
    x = theirs.embed("embedding", config, IDS, len(IDS), [1] * len(IDS))
    x = theirs.gated_cnn("encoder", x, config)
    expected = theirs.linear("target.lm.output_layer", x, 13, bias=False)
    assert relative_error(logits(convert(theirs, tmp_path), IDS)["lm"], expected) < 1e-9
    del theirs.state["encoder.gate_b.2"]
    with pytest.raises(
        WeightsError, match=r"gate\.2\.bias and encoder\.gate_b\.2 must both have 8"
    ):
        convert(theirs, tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rotary_position_embedding": True, "relative_position_embedding": True}, "exclude each other"),
        ({"layernorm": "rms"}, "it must have remove_embedding_layernorm"),
        ({"embedding": ["word", "pos", "sinusoidalpos"]}, "has both pos and sinusoidalpos"),
        ({"embedding": ["patch", "sinusoidalpos"], **PICTURE}, "unknown embedding 'sinusoidalpos'"),
        ({"mask": "prefx"}, "unknown mask 'prefx'; did you mean 'prefix'"),
        ({"mask": "prefix", "target": ["cls"], "pooling": "last"}, "it must be first"),
        ({**WRITES, "tgt_embedding": ["word"], "target": ["mlm"]}, "target mlm reads the encoder here"),
        ({**WRITES, **PRE, "tgt_embedding": ["word"], "layernorm": "rms"}, "is a layer norm there"),
    ],
)  # fmt: skip
def test_what_is_refused(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        convert(Theirs({**BERT, **changes}), tmp_path)


@pytest.mark.parametrize(
    ("name", "x", "message"),
    [
        ("encoder.transformer.0.layer_norm_1.gamma", "text", "expected tensors by name, found str"),
        ("embedding.word.embedding.weight", torch.tensor(1.0), "is a single number"),
        ("embedding.seg.embedding.weight", torch.zeros(3, 5), "wrong shape"),
        ("target.mlm.linear_2.weight", torch.zeros(13, 12).long(), "holds integers"),
    ],
)
def test_damaged_weights(name: str, x: Any, message: str, tmp_path: Path) -> None:
    config = {**BERT, "target": ["mlm"]}
    theirs = Theirs(config)
    y = theirs.embed("embedding", config, IDS, len(IDS), [1] * len(IDS))
    theirs.masked_words(theirs.transformer("encoder", y, visible(len(IDS)), config), 13)
    theirs.state[name] = x
    with pytest.raises(WeightsError, match=message):
        convert(theirs, tmp_path)
