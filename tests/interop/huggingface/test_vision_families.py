"""Models of pictures with their own preprocessors: the same outputs as in Transformers."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from hf_references import CLIP, SIGLIP, KeepDouble, Reference, make_batch
from hf_vision import CLASSES, DINOV2, DINOV3, VIT
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers, processors

import skillweave as sw
from skillweave.batch import Batch
from skillweave.config import ConfigError
from skillweave.data.processors import build_processors
from skillweave.interop.huggingface import convert_folder


def batch_of(model: Any, pixels: torch.Tensor) -> Batch:
    (name,) = model.config.tasks
    length = model.config.streams.image.max_length
    layout = model.config.tasks[name].layout(name).with_lengths((length,))
    return Batch(layout, (pixels,), torch.full((len(pixels), 1), length))


@pytest.mark.parametrize("registers", [False, True])
def test_positions_are_interpolated_to_the_pictures(registers: bool, tmp_path: Path) -> None:
    """DINOv2 is trained on pictures of 518 pixels, and its preprocessor makes 224."""
    name = "Dinov2WithRegisters" if registers else "Dinov2"
    options = {**DINOV2, **CLASSES, "image_size": 28}
    reference = Reference(f"{name}ForImageClassification", f"{name}Config", options)
    theirs = reference.build()
    theirs.save_pretrained(tmp_path)
    processor = transformers.BitImageProcessor(
        size={"shortest_edge": 16}, crop_size={"height": 12, "width": 12}
    )
    processor.save_pretrained(tmp_path)
    model = sw.from_hf(tmp_path)
    stream = model.config.streams.image
    assert (stream.size, stream.position_size) == (12, 28)
    torch.manual_seed(0)
    pixels = torch.randn(2, 3, 12, 12, dtype=torch.float64)
    with KeepDouble():
        expected = theirs(pixel_values=pixels).logits
    found = model(batch_of(model, pixels)).logits["classification"]
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)
    model.save_pretrained(tmp_path / "ours")
    convert_folder(tmp_path / "ours", tmp_path / "back")
    back = sw.from_hf(tmp_path / "back")
    assert back.config.streams.image == stream


def test_loss_of_pairs_is_that_of_siglip() -> None:
    theirs = Reference("SiglipModel", "SiglipConfig", SIGLIP).build()
    model = sw.from_hf(theirs)
    batch = make_batch(model, torch.float64)
    text, pixels = batch.inputs
    expected = theirs(input_ids=text, pixel_values=pixels, return_loss=True).loss
    found = model(replace(batch, labels={"caption": torch.arange(len(text))})).loss
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(
    ("architecture", "options", "message"),
    [
        ("Dinov2Model", {**DINOV2, "num_channels": 1}, "num_channels=1"),
        ("Dinov2Model", {**DINOV2, "image_size": [12, 8]}, "image_size=.*must be the same"),
        ("ViTModel", {**VIT, "patch_size": (4, 2)}, "patch_size=.*must be the same"),
        ("DINOv3ViTModel", {**DINOV3, "image_size": [12, 8]}, "image_size=.*must be the same"),
        (
            "Dinov2WithRegistersModel",
            {**DINOV2, "num_register_tokens": 0},
            "num_register_tokens=0.*'dinov2'",
        ),
        ("DINOv3ViTModel", {**DINOV3, "num_register_tokens": 0}, "num_register_tokens=0"),
        ("DINOv3ViTModel", {**DINOV3, "query_bias": False}, "query_bias"),
        ("SiglipVisionModel", {**SIGLIP["vision_config"], "vision_use_head": False}, "use_head"),
        ("Siglip2Model", {}, "NaFlex.*model_type is 'siglip'"),
        (
            "SiglipModel",
            {**SIGLIP, "text_config": {**SIGLIP["text_config"], "projection_size": 5}},
            "projection_size=5 cannot be compared",
        ),
    ],
)
def test_what_has_no_counterpart_is_named(
    architecture: str, options: dict[str, Any], message: str
) -> None:
    config = getattr(transformers, architecture).config_class(
        **options, architectures=[architecture]
    )
    with pytest.raises(ConfigError, match=message):
        sw.from_hf({}, config)


@pytest.mark.parametrize("ratio", [1, 2, 5])
@pytest.mark.parametrize("width", [3, 15, 36])
def test_gated_feed_forwards_of_any_size_are_written(width: int, ratio: int) -> None:
    """The ratio in a configuration is rounded up to a multiple of 8 numbers."""
    options = {**DINOV2, "hidden_size": width, "mlp_ratio": ratio, "use_swiglu_ffn": True}
    theirs = Reference("Dinov2Model", "Dinov2Config", options).build(torch.float32)
    back = sw.to_hf(sw.from_hf(theirs), "dinov2").state_dict()
    for name, x in theirs.state_dict().items():
        assert torch.equal(back[name], x), name


def test_sizes_of_equal_sides_are_read() -> None:
    theirs = Reference("Dinov2Model", "Dinov2Config", {**DINOV2, "image_size": [12, 12]}).build()
    assert sw.from_hf(theirs).config.streams.image.size == 12


def siglip(folder: Path, **options: Any) -> tuple[Any, Any, Any]:
    """A model with a tokenizer that ends texts with </s>, which is also the padding, and an image
    processor, saved by Transformers."""
    theirs = Reference("SiglipModel", "SiglipConfig", SIGLIP).build(torch.float32)
    theirs.save_pretrained(folder)
    words = ["<unk>", "</s>", "a", "red", "heart", "two"]
    made = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, "<unk>"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", 1)]
    )
    names = {"unk_token": "<unk>", "eos_token": "</s>", "pad_token": "</s>"}
    options = {"model_max_length": 9, "model_input_names": ["input_ids"], **options}
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=made, **names, **options)
    tokenizer.save_pretrained(folder)
    pictures = transformers.SiglipImageProcessorPil(size={"height": 12, "width": 12})
    pictures.save_pretrained(folder)
    return theirs, tokenizer, pictures


def test_raw_texts_and_pictures_are_compared_as_by_siglip(tmp_path: Path) -> None:
    theirs, tokenizer, pictures = siglip(tmp_path / "theirs")
    texts = ["red heart", "a", "two red heart " * 9]
    pixels = np.random.default_rng(0).integers(0, 256, (2, 20, 33, 3), dtype=np.uint8)
    images = [Image.fromarray(one) for one in pixels]
    given = tokenizer(texts, padding="max_length", truncation=True, return_tensors="pt")
    shown = pictures(images, return_tensors="pt")["pixel_values"]
    with torch.inference_mode():
        expected = theirs(**given, pixel_values=shown).logits_per_text
    convert_folder(tmp_path / "theirs", tmp_path / "ours")
    model = sw.load(tmp_path / "ours")
    processor = build_processors(model.config, model.assets)["text"]
    for text, ids in zip(texts, given["input_ids"], strict=True):
        assert processor(text).data.tolist() == ids.tolist()
    text_vectors = torch.as_tensor(sw.encode(model, "contrastive", text=texts))
    image_vectors = torch.as_tensor(sw.encode(model, "contrastive", image=images))
    found = model.targets["contrastive"].compare(text_vectors, image_vectors)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    convert_folder(tmp_path / "ours", tmp_path / "back")
    back = transformers.AutoTokenizer.from_pretrained(tmp_path / "back")
    again = back(texts, padding="max_length", truncation=True, max_length=9)
    assert {**again} == {"input_ids": given["input_ids"].tolist()}


def test_padding_before_texts_is_refused(tmp_path: Path) -> None:
    siglip(tmp_path, padding_side="left")
    with pytest.raises(ConfigError, match="padding_side='left' has no counterpart"):
        sw.from_hf(tmp_path)


def test_padding_that_transformers_hides_is_told(tmp_path: Path) -> None:
    siglip(tmp_path, model_input_names=["input_ids", "attention_mask"])
    with pytest.warns(UserWarning, match="hides the padding of texts"):
        sw.from_hf(tmp_path)


@pytest.mark.parametrize("scale", [3.0, 5.0])
def test_scales_above_the_bound_of_training_are_kept(scale: float) -> None:
    """CLIP's is 100 at most in training; a checkpoint may have more."""
    theirs = Reference("CLIPModel", "CLIPConfig", CLIP).build()
    theirs.logit_scale.data.fill_(scale)
    model = sw.from_hf(theirs)
    batch = make_batch(model, torch.float64)
    given = {"input_ids": batch.inputs[0], "pixel_values": batch.inputs[1]}
    given["attention_mask"] = (
        torch.arange(given["input_ids"].shape[1]) < batch.lengths[:, :1]
    ).long()
    expected = theirs(**given).logits_per_text
    found = model(batch).logits["contrastive"]
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
    assert model.train()(batch).logits["contrastive"].abs().max() <= 100
