"""Models of pictures with their own preprocessors: the same outputs as in Transformers."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from hf_references import SIGLIP, KeepDouble, Reference, make_batch
from hf_vision import CLASSES, DINOV2, DINOV3, VIT

import skillweave as sw
from skillweave.batch import Batch
from skillweave.config import ConfigError
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
