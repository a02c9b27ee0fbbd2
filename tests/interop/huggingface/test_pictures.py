"""Pixels of converted models are those of the model's own image processor, for pictures of any
shape, in both directions."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import transformers as T
from hf_references import CLIP, SIGLIP, Reference
from hf_vision import CLASSES, DINOV2, DINOV3, VIDEOMAE, VIT
from PIL import Image

from skillweave.config import ConfigError
from skillweave.data.processors.image import ImageProcessor
from skillweave.data.processors.video import VideoProcessor
from skillweave.interop.huggingface import convert_folder, from_hf
from skillweave.model.config import ModelConfig

SHAPES = [(30, 30), (64, 31), (20, 57), (12, 12), (9, 21), (10, 7)]
SQUARE, EDGE = {"height": 12, "width": 12}, {"shortest_edge": 12}
VIT_MODEL = ("ViTForImageClassification", "ViTConfig", {**VIT, **CLASSES})
CLIP_MODEL = ("CLIPModel", "CLIPConfig", CLIP)
PROCESSORS: dict[str, tuple[tuple[Any, ...], str, dict[str, Any]]] = {
    "stretched": (VIT_MODEL, "ViTImageProcessorPil", {"size": SQUARE}),
    "stretched, then cut": (
        ("DeiTForImageClassification", "DeiTConfig", {**VIT, **CLASSES}),
        "DeiTImageProcessorPil",
        {"size": {"height": 15, "width": 15}, "crop_size": SQUARE},
    ),
    "shorter side": (CLIP_MODEL, "CLIPImageProcessorPil", {"size": EDGE, "crop_size": SQUARE}),
    "shorter side, then cut": (
        CLIP_MODEL,
        "CLIPImageProcessorPil",
        {"size": {"shortest_edge": 17}, "crop_size": SQUARE, "resample": 1},
    ),
    "siglip": (
        ("SiglipModel", "SiglipConfig", SIGLIP),
        "SiglipImageProcessorPil",
        {"size": SQUARE},
    ),
    "dinov2, with a larger table": (
        ("Dinov2Model", "Dinov2Config", {**DINOV2, "image_size": 28}),
        "BitImageProcessorPil",
        {"size": {"shortest_edge": 17}, "crop_size": SQUARE},
    ),
    "range": (
        VIT_MODEL,
        "ViTImageProcessorPil",
        {"size": SQUARE, "rescale_factor": 1 / 127.5, "resample": 0},
    ),
    "colours as they are": (
        VIT_MODEL,
        "ViTImageProcessorPil",
        {"size": SQUARE, "do_normalize": False, "resample": 5},
    ),
    "bytes": (
        VIT_MODEL,
        "ViTImageProcessorPil",
        {"size": SQUARE, "do_rescale": False, "resample": 4},
    ),
}


def noise(width: int, height: int) -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


@pytest.mark.parametrize(
    ("model", "name", "options"), PROCESSORS.values(), ids=[name for name in PROCESSORS]
)
def test_pixels_of_pictures(
    model: tuple[Any, ...], name: str, options: dict[str, Any], tmp_path: Path
) -> None:
    Reference(*model).build().save_pretrained(tmp_path / "theirs")
    processor = getattr(T, name)(**options)
    processor.save_pretrained(tmp_path / "theirs")
    convert_folder(tmp_path / "theirs", tmp_path / "ours")
    convert_folder(tmp_path / "ours", tmp_path / "back")
    stream = ModelConfig.from_file(tmp_path / "ours" / "config.json").streams.image
    assert stream is not None
    settings = json.loads((tmp_path / "back" / "preprocessor_config.json").read_text())
    back = T.CLIPImageProcessorPil(**settings)
    for shape in SHAPES:
        image = noise(*shape)
        expected = processor(image, return_tensors="np")["pixel_values"][0]
        level = (expected.max() - expected.min()) / 255
        found = ImageProcessor(stream)(image).data.numpy()
        assert np.abs(found - expected).max() < level / 100, shape
        again = back(image, return_tensors="np")["pixel_values"][0]
        assert np.abs(again - expected).max() < level / 100, shape


def test_pixels_of_dinov3(tmp_path: Path) -> None:
    """Its processor resizes before it rounds, and needs torchvision, which resizes as PyTorch does.
    It may make larger pictures than the configuration says."""
    Reference("DINOv3ViTModel", "DINOv3ViTConfig", DINOV3).build().save_pretrained(tmp_path)
    mean, std = [0.48, 0.45, 0.4], [0.2, 0.3, 0.25]
    settings = {"size": {"height": 20, "width": 20}, "resample": 2, "do_center_crop": None}
    settings |= {"image_processor_type": "DINOv3ViTImageProcessorFast", "crop_size": None}
    settings |= {"image_mean": mean, "image_std": std, "do_resize": True}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(settings))
    config = from_hf(tmp_path).config
    stream = config.streams.image
    assert stream is not None and stream.size == 20
    assert config.encoder.position.grid == (5, 5)
    for width, height in SHAPES:
        image = noise(width, height)
        shares_3HW = torch.from_numpy(np.asarray(image) / 255).permute(2, 0, 1)
        resized = F.interpolate(shares_3HW[None], (20, 20), mode="bilinear", antialias=True)[0]
        found = ImageProcessor(stream)(image).data
        back = found * torch.tensor(std).view(3, 1, 1) + torch.tensor(mean).view(3, 1, 1)
        assert (back - resized).abs().max() < 1.5 / 255


def test_pixels_of_clips(tmp_path: Path) -> None:
    theirs = Reference("VideoMAEModel", "VideoMAEConfig", VIDEOMAE).build()
    theirs.save_pretrained(tmp_path)
    processor = T.VideoMAEImageProcessorPil(size={"shortest_edge": 14}, crop_size=SQUARE)
    processor.save_pretrained(tmp_path)
    stream = from_hf(tmp_path).config.streams.video
    assert stream is not None
    frames = [noise(30 + i, 41) for i in range(1)] * stream.frames
    expected = processor(frames, return_tensors="np")["pixel_values"][0]
    found = VideoProcessor(stream)(np.stack([np.asarray(frame) for frame in frames])).data.numpy()
    assert np.abs(found.swapaxes(0, 1) - expected).max() < 2 / 255


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"size": {"height": 12, "width": 15}}, "size="),
        ({"size": {"height": 9, "width": 9}}, "size="),
        ({"size": {"longest_edge": 12}}, "size="),
        ({"size": SQUARE, "do_resize": False}, "do_resize=False"),
        (
            {"size": SQUARE, "do_center_crop": True, "crop_size": {"height": 9, "width": 9}},
            "crop_size",
        ),
        ({"size": SQUARE, "do_flip_channel_order": True}, "do_flip_channel_order=True"),
    ],
)
def test_what_has_no_counterpart_is_refused(
    options: dict[str, Any], told: str, tmp_path: Path
) -> None:
    Reference(*VIT_MODEL).build().save_pretrained(tmp_path)
    settings = {"image_processor_type": "ViTImageProcessor", **options}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(settings))
    with pytest.raises(ConfigError, match=f"the image processor's {told}"):
        from_hf(tmp_path)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("Levit", {"size": {"shortest_edge": 12}, "crop_size": SQUARE}),
        ("EfficientNet", {"size": SQUARE, "rescale_offset": True}),
        ("ViT", {"size": SQUARE, "do_pad": True, "pad_size": {"height": 20, "width": 20}}),
    ],
)
def test_options_of_other_processors_are_not_dropped(
    kind: str, options: dict[str, Any], tmp_path: Path
) -> None:
    Reference(*VIT_MODEL).build().save_pretrained(tmp_path)
    settings = {"image_processor_type": f"{kind}ImageProcessor", **options}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(settings))
    with pytest.raises(ConfigError, match=f"{kind}ImageProcessor.* makes other inputs"):
        from_hf(tmp_path)


def test_pictures_that_keep_their_shape_are_told(tmp_path: Path) -> None:
    Reference(*VIT_MODEL).build().save_pretrained(tmp_path)
    T.SiglipImageProcessorPil(size=EDGE).save_pretrained(tmp_path)
    with pytest.warns(UserWarning, match="keeps the shape of pictures"):
        from_hf(tmp_path)
