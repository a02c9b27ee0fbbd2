"""Features of vision models: those of Transformers on raw pictures, frozen or trained, saved and
loaded."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from backbones import CONFIGS, RESNET, classifier, write_checkpoint
from PIL import Image
from transformers import (
    AutoImageProcessor,
    ConvNextBackbone,
    Dinov2Backbone,
    ResNetBackbone,
    SwinBackbone,
)

import skillweave as sw
from skillweave.batch import Batch, Example, Layout, Modality, Span
from skillweave.components.embeddings.backbone import BackboneEmbedding
from skillweave.config import ConfigError
from skillweave.config.training import AdamWConfig
from skillweave.data.collate import collate
from skillweave.data.processors import build_processors
from skillweave.model.config import ModelConfig
from skillweave.model.model import Model
from skillweave.surgery.carve import carve
from skillweave.training.optimizer import make_optimizer, split_by_decay
from skillweave.weights.meta import meta_device


def picture(width: int = 100, height: int = 80, seed: int = 0) -> Image.Image:
    """A picture whose neighbouring pixels are alike, so that filters are told apart by little."""
    noise = np.random.default_rng(seed).integers(0, 256, (height // 8, width // 8, 3), np.uint8)
    return Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)


def embedding_of(model: Model, modality: str = "image") -> BackboneEmbedding:
    found = model.get_submodule(f"embeddings.{modality}.content.features")
    assert isinstance(found, BackboneEmbedding)
    return found


def batch_of(config: ModelConfig, values: list[Any], labels: list[int]) -> Batch:
    (modality,) = config.streams.present()
    processor = build_processors(config, {})[modality]
    layout = Layout("classify", (Span(modality),))
    examples = [
        Example((processor(value),), {"class": torch.tensor(label)})
        for value, label in zip(values, labels, strict=True)
    ]
    return collate(layout, examples, config.streams, 1)


@torch.no_grad()
def features_of(config: ModelConfig, *pictures: Image.Image) -> torch.Tensor:
    processor = build_processors(config, {})[Modality.IMAGE]
    pixels = torch.stack([processor(one).data for one in pictures])
    return embedding_of(Model(config).eval()).features(pixels)


@torch.no_grad()
def test_regions_are_those_of_hugging_face(tmp_path: Path) -> None:
    """16 parts of a raw picture, each through its ResNet as a picture of its own (M6)."""
    theirs = write_checkpoint(tmp_path)
    config = classifier({"kind": "resnet_regions", "path": str(tmp_path)})
    pictures = picture(), picture(80, 120, seed=1)
    processor = AutoImageProcessor.from_pretrained(tmp_path, backend="pil")
    for one, found_LC in zip(pictures, features_of(config, *pictures), strict=True):
        pixels = processor(one, return_tensors="pt")["pixel_values"]
        assert pixels.shape == (1, 3, 64, 64)
        expected = [
            theirs(pixels[:, :, 16 * y : 16 * y + 16, 16 * x : 16 * x + 16]).pooler_output.flatten()
            for y in range(4)
            for x in range(4)
        ]
        torch.testing.assert_close(found_LC, torch.stack(expected), atol=1e-5, rtol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("name", CONFIGS)
def test_feature_maps_are_those_of_hugging_face(tmp_path: Path, name: str) -> None:
    theirs = write_checkpoint(tmp_path, name)
    config = classifier({"path": str(tmp_path)})
    pixels = AutoImageProcessor.from_pretrained(tmp_path, backend="pil")(
        picture(), return_tensors="pt"
    )["pixel_values"]
    expected = theirs(pixels).last_hidden_state
    if expected.ndim == 4:
        expected = torch.stack([x.reshape(x.shape[0], -1).T for x in expected])
    found = features_of(config, picture())
    assert config.streams.present()[Modality.IMAGE].max_length == found.shape[1] + 1
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize(
    ("name", "kind", "stage"),
    [
        ("resnet", ResNetBackbone, "stage3"),
        ("swin", SwinBackbone, "stage3"),
        ("convnext", ConvNextBackbone, "stage3"),
        ("dinov2", Dinov2Backbone, "stage1"),
    ],
)
def test_the_map_of_a_stage_is_that_of_hugging_face(
    tmp_path: Path, name: str, kind: Any, stage: str
) -> None:
    write_checkpoint(tmp_path, name)
    theirs = kind.from_pretrained(tmp_path, out_features=[stage]).eval()
    pixels = AutoImageProcessor.from_pretrained(tmp_path, backend="pil")(
        picture(), return_tensors="pt"
    )["pixel_values"]
    (map_CHW,) = theirs(pixels).feature_maps[0]
    found = features_of(classifier({"path": str(tmp_path), "stage": stage}), picture())
    expected = torch.stack([map_CHW[:, y, x] for y in range(4) for x in range(4)])
    torch.testing.assert_close(found[0], expected, atol=1e-5, rtol=1e-5)


def test_the_stream_takes_the_pictures_that_the_checkpoint_takes(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, size=64)
    stream = classifier({"path": str(tmp_path)}).streams.image
    assert stream is not None
    assert (stream.size, stream.resize, stream.resize_to) == (64, "shorter_side", 73)
    assert (stream.mean, stream.resize_filter) == ((0.4, 0.5, 0.6), "bicubic")
    # what the recipe says comes first; for another size, pictures are resized in proportion
    other = classifier({"path": str(tmp_path)}, size=128, mean=[0.1, 0.1, 0.1]).streams.image
    assert other is not None and (other.size, other.resize_to) == (128, 146)
    assert other.mean == (0.1, 0.1, 0.1) and other.std == (0.2, 0.3, 0.25)


def test_resnet_50_gives_2048_numbers_a_region() -> None:
    config = classifier({"kind": "resnet_regions", "config": {"model_type": "resnet"}}, size=224)
    stream = config.streams.image
    assert stream is not None and stream.max_length == 17
    with meta_device():
        model = Model(config)
    embedding = embedding_of(model)
    assert embedding.projection.in_features == 2048
    # torchvision's ResNet-50 has 25,557,032 parameters, of which the classifier has 2,049,000
    assert sum(x.numel() for x in embedding.model.parameters()) == 25_557_032 - 2_049_000


@pytest.mark.parametrize("frozen", [True, False])
def test_a_step_trains_a_backbone_unless_it_is_frozen(frozen: bool) -> None:
    config = classifier(
        {"kind": "resnet_regions", "config": RESNET, "frozen": frozen, "grid": 2}, size=64
    )
    torch.manual_seed(0)
    model = Model(config).train()
    backbone = embedding_of(model).model
    before = {name: x.clone() for name, x in backbone.state_dict().items()}
    optimizer = make_optimizer(model, AdamWConfig(learning_rate=0.1, warmup=0))
    batch = batch_of(config, [picture(), picture(seed=1)], [0, 1])
    loss = model(batch).loss
    assert loss is not None
    loss.backward()
    optimizer.step()
    after = backbone.state_dict()
    changed = {name for name, x in before.items() if not torch.equal(x, after[name])}
    in_optimizer = {id(p) for group in optimizer.param_groups for p in group["params"]}
    if frozen:
        assert not changed
        assert not in_optimizer & {id(p) for p in backbone.parameters()}
        assert all(p.grad is None for p in backbone.parameters())
    else:
        assert {name.rpartition(".")[2] for name in changed} >= {"weight", "bias", "running_mean"}
        assert in_optimizer >= {id(p) for p in backbone.parameters()}


def test_norms_of_a_trained_backbone_have_no_weight_decay() -> None:
    model = Model(classifier({"config": RESNET, "frozen": False}, size=64))
    _, no_decay = split_by_decay(model)
    assert any("normalization.weight" in name for name in no_decay)


@torch.no_grad()
@pytest.mark.parametrize("name", CONFIGS)
def test_a_saved_model_needs_no_checkpoint(tmp_path: Path, name: str) -> None:
    write_checkpoint(tmp_path / "theirs", name)
    config = classifier({"path": str(tmp_path / "theirs")})
    model = Model(config).eval()
    batch = batch_of(config, [picture()], [0])
    expected = model(batch).logits["classification"]
    carved = carve(model, "classify")
    model.save_pretrained(tmp_path / "ours")
    for file in (tmp_path / "theirs").iterdir():
        file.unlink()
    for found in (
        carved,
        sw.load(tmp_path / "ours"),
        Model.from_pretrained(tmp_path / "ours", tasks="classify"),
    ):
        torch.testing.assert_close(found(batch).logits["classification"], expected)
    for parameter in embedding_of(Model.from_pretrained(tmp_path / "ours")).model.parameters():
        assert not parameter.requires_grad


def test_regions_can_be_exported_for_any_number_of_pictures() -> None:
    """As `skillweave carve` exports encoders."""
    config = classifier({"kind": "resnet_regions", "config": RESNET, "grid": 2}, size=64)
    embedding = embedding_of(Model(config).eval())
    batch = torch.export.Dim("batch", min=1)
    exported = torch.export.export(
        embedding,
        (torch.randn(3, 3, 64, 64),),
        dynamic_shapes={"data": {0: batch}},
    ).module()
    pixels = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(exported(pixels), embedding(pixels))


@torch.no_grad()
def test_each_frame_of_a_video_goes_through_the_backbone() -> None:
    config = classifier(
        {"kind": "resnet_regions", "config": RESNET, "grid": 2}, "video", size=64, frames=3
    )
    model = Model(config).eval()
    frames = np.stack([np.asarray(picture(64, 64, seed)) for seed in range(3)])
    batch = batch_of(config, [frames], [1])
    embedding = embedding_of(model, "video")
    found = embedding.features(batch.inputs[0])
    apart = [embedding.features(batch.inputs[0][:, :, t]) for t in range(3)]
    torch.testing.assert_close(found, torch.cat(apart, 1))
    assert found.shape == (1, 12, 32) and batch.layout.spans[0].length == 13
    assert torch.isfinite(model(batch).logits["classification"]).all()


@pytest.mark.parametrize(
    ("backbone", "size", "told"),
    [
        ({"kind": "resnet_regions"}, 64, "neither a path nor a config"),
        ({"config": {"hidden_sizes": [8]}}, 64, "lacks model_type"),
        ({"config": {"model_type": "resnett"}}, 64, "resnett"),
        ({"config": {"model_type": "bert"}}, 64, "'bert', which gives no features of pictures"),
        ({"config": RESNET, "stage": "stage9"}, 64, "stage9"),
        ({"kind": "resnet_regions", "config": RESNET}, 65, "4 × 4 regions"),
        ({"kind": "resnet_regions", "config": {"model_type": "swin"}}, 64, "kind transformers"),
        ({"kind": "resnet_regions", "config": RESNET, "stage": "stage3"}, 64, "option of"),
        ({"kind": "resnet_region", "config": RESNET}, 64, "did you mean 'resnet_regions'"),
        ({"path": "no/such/folder/at/all"}, 64, "no such folder"),
    ],
)
def test_a_backbone_that_cannot_be(backbone: dict[str, Any], size: int, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        classifier(backbone, size=size)


def test_a_checkpoint_without_its_weights_is_refused(tmp_path: Path) -> None:
    write_checkpoint(tmp_path)
    wider = {**RESNET, "hidden_sizes": [8, 16, 24, 32], "depths": [2, 1, 1, 1]}
    config = classifier({"path": str(tmp_path), "config": wider}, size=64)
    with pytest.raises(ConfigError, match="its weights lack"):
        Model(config)


def test_masked_pictures_need_patches() -> None:
    config = classifier({"config": RESNET}, size=64)
    with pytest.raises(ConfigError, match="without a backbone"):
        config.visual(Modality.IMAGE)
