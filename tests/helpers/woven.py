"""Tiny models of Transformers with different widths, and a recipe that weaves them into one."""

from pathlib import Path
from typing import Any

import torch
import transformers as T
from hf_folder import save_bert
from tiny_run import make_run

from skillweave.config.layering import merge
from skillweave.recipe import RecipeConfig, read_recipe

TRUNK = 12
TASKS = ("text_classification", "text_to_image", "speech_recognition")


def save_models(folder: Path) -> dict[str, Path]:
    """Folders of random models, as Transformers saves them: modality → folder. Their widths are 16
    (text), 24 (images) and 20 (sound)."""
    save_bert(folder / "bert", T.BertModel)
    torch.manual_seed(1)
    image = T.ViTConfig(
        hidden_size=24,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=20,
        image_size=12,
        patch_size=6,
        initializer_range=0.3,
    )
    T.ViTModel(image).eval().save_pretrained(folder / "vit")
    size = {"height": 12, "width": 12}
    T.ViTImageProcessorPil(size=size, resample=3).save_pretrained(folder / "vit")
    save_whisper(folder / "whisper", T.WhisperModel)
    return {
        "text": folder / "bert",
        "image": folder / "vit",
        "sound": folder / "whisper",
    }


def save_whisper(folder: Path, kind: type[T.PreTrainedModel], **options: Any) -> None:
    """Write a random Whisper of width 20, which reads a second, and its feature extractor."""
    sizes = {
        "d_model": 20,
        "encoder_layers": 2,
        "decoder_layers": 1,
        "encoder_attention_heads": 2,
        "decoder_attention_heads": 2,
        "encoder_ffn_dim": 24,
        "decoder_ffn_dim": 24,
        "num_mel_bins": 8,
        "max_source_positions": 50,
        "max_target_positions": 20,
        "vocab_size": 30,
    }
    ids = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1}
    kind(T.WhisperConfig(**{**sizes, **ids, **options}, init_std=0.3)).eval().save_pretrained(
        folder
    )
    seconds = options.get("max_source_positions", 50) // 50
    T.WhisperFeatureExtractor(feature_size=8, chunk_length=seconds).save_pretrained(folder)


def woven_recipe(folder: Path, models: dict[str, Path], **changes: Any) -> RecipeConfig:
    """A recipe over the data of `make_run`: each stream keeps the encoder of its model, and all
    share a trunk of another width."""
    data = folder / "run"
    run = read_recipe((data if data.exists() else make_run(folder)) / "recipe.yaml")
    streams = {m: {"preset": str(path), "projector": "linear"} for m, path in models.items()}
    described = {
        "name": "woven",
        "output": str(folder / "trained"),
        "model": {
            "width": TRUNK,
            "streams": streams,
            "encoder": {"layers": 1, "heads": 2, "feed_forward": 16},
            "targets": {"contrastive": {"pooling": "mean"}},
        },
        "tasks": {name: run.tasks[name].model_dump(mode="json") for name in TASKS},
        "training": {"steps": 3, "threads": 1, "accelerator": "cpu"},
    }
    return RecipeConfig.parse(merge(described, changes))
