"""Small vision models of Transformers with random weights, as checkpoints on disk."""

from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModel,
    CLIPVisionConfig,
    ConvNextConfig,
    ConvNextImageProcessor,
    Dinov2Config,
    PreTrainedModel,
    ResNetConfig,
    SwinConfig,
    ViTConfig,
    ViTImageProcessor,
)

from skillweave.model.config import ModelConfig

SMALL: dict[str, Any] = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "image_size": 64,
}
STAGES: dict[str, Any] = {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1]}
CONFIGS = {
    "resnet": ResNetConfig(embedding_size=8, layer_type="basic", **STAGES),
    "swin": SwinConfig(
        image_size=64, embed_dim=12, depths=[1, 1, 1, 1], num_heads=[1, 1, 1, 1], window_size=2
    ),
    "convnext": ConvNextConfig(**STAGES),
    "vit": ViTConfig(**SMALL),
    "dinov2": Dinov2Config(**SMALL | {"patch_size": 16}),
    "clip_vision_model": CLIPVisionConfig(**SMALL | {"patch_size": 16}),
}
RESNET = CONFIGS["resnet"].to_dict()


def write_checkpoint(folder: Path, name: str = "resnet", size: int = 64) -> PreTrainedModel:
    """A folder of Transformers with weights and a preprocessor of its own mean and size; the model
    in it, whose batch norms are not those of a new one."""
    torch.manual_seed(0)
    model = AutoModel.from_config(CONFIGS[name])
    with torch.no_grad():
        for x in [*model.parameters(), *model.buffers()]:
            if x.is_floating_point():
                x += 0.05 * torch.rand_like(x)
    model.save_pretrained(folder)
    colours = {"image_mean": [0.4, 0.5, 0.6], "image_std": [0.2, 0.3, 0.25]}
    if name in ("resnet", "convnext"):
        processor = ConvNextImageProcessor(
            size={"shortest_edge": size}, crop_pct=0.875, resample=3, **colours
        )
    else:
        processor = ViTImageProcessor(size={"height": size, "width": size}, resample=2, **colours)
    processor.save_pretrained(folder)
    return model.eval()


def classifier(backbone: dict[str, Any], modality: str = "image", **stream: Any) -> ModelConfig:
    """A classifier of pictures or videos that go through a backbone."""
    return ModelConfig.parse(
        {
            "width": 12,
            "streams": {modality: {"backbone": backbone, **stream}},
            "encoder": {"layers": 1, "heads": 2, "dropout": 0, "attention_dropout": 0},
            "targets": {"classification": {"classes": ["a", "b"]}},
            "tasks": {
                "classify": {
                    "spans": [{"modality": modality}],
                    "targets": {"classification": 1.0},
                }
            },
        }
    )
