"""Backbones: vision models of Transformers whose features of a picture become the tokens of a
stream."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import field_validator

from skillweave.config.base import ConfigError, Positive
from skillweave.config.image_processor import (
    PIXEL_OPTIONS,
    output_size,
    read_pixels,
    read_preprocessors,
)
from skillweave.config.reading import read_object
from skillweave.config.variants import Variant

if TYPE_CHECKING:
    from torch import Tensor, nn

SETTINGS_FILES = ("config.json", "preprocessor_config.json", "processor_config.json")
NEW_NORMS = "hidden_states_norms."
"""Weights of norms after a stage. Checkpoints lack them, since Transformers adds them to a model
when it is used as a backbone; they start without effect on the scale."""
OF_TRAINING = (
    "_name_or_path",
    "architectures",
    "dtype",
    "id2label",
    "label2id",
    "problem_type",
    "torch_dtype",
    "transformers_version",
)
"""Options in a checkpoint's config.json that do not change its features."""


class Backbone(Variant):
    """A vision model of Transformers."""

    path: str | None = None
    """A folder of Transformers or a model of its hub (`microsoft/resnet-50`), whose weights are the
    initial ones. If absent, the backbone has random weights."""
    config: dict[str, Any] = {}
    """The model's configuration, as in its `config.json`; `model_type` chooses the class. If
    absent, it is read from `path`, with the stream's `size`, `resize`, `resize_to`,
    `resize_filter`, `mean` and `std` from `preprocessor_config.json` there, where the recipe does
    not give them."""
    frozen: bool = True
    """Whether the backbone is not trained. It then stays in evaluation mode (batch norms use their
    stored means), has no gradients and is not in the optimizer."""

    @field_validator("config")
    @classmethod
    def _has_type(cls, config: dict[str, Any]) -> dict[str, Any]:
        if config and "model_type" not in config:
            raise ValueError("lacks model_type, such as {model_type: resnet}")
        return {name: value for name, value in config.items() if name not in OF_TRAINING}

    def without_path(self) -> Self:
        """The same, for a model whose weights are saved beside its configuration."""
        return self.model_copy(update={"path": None})

    def check(self, size: int) -> Iterator[str]:
        """What is wrong, for pictures of `size` × `size` pixels."""
        if not self.config:
            yield "has neither a path nor a config; name a checkpoint, such as microsoft/resnet-50"
        else:
            try:
                self.shape(size)
            except ConfigError as error:
                yield str(error)

    def shape(self, size: int) -> tuple[int, int]:
        """Number and width of the features of a picture of `size` × `size` pixels. Raises
        ConfigError for a model that gives none."""
        raise NotImplementedError

    def extract(self, model: nn.Module, pixels_NCHW: Tensor) -> Tensor:
        """The features [N, L, C] of pictures by the model that `build` gave."""
        raise NotImplementedError

    def build(self, pretrained: bool) -> nn.Module:
        """The model, with the weights of `path` if it is given and they are wanted (`pretrained`),
        otherwise with random ones. Raises ConfigError for weights that do not fit."""
        return _build(json.dumps(self.config), None, self.path if pretrained else None)


class ResNetRegions(Backbone):
    """Regions of the picture, each of which a ResNet makes one vector of (M6 section 3.2 and
    appendix): `grid` × `grid` regions in the order of rows, after the ResNet's average pooling."""

    kind: Literal["resnet_regions"] = "resnet_regions"
    """Selects regions."""
    grid: Positive = 4
    """Number of regions in a row and in a column; `size` is a multiple of it."""

    def check(self, size: int) -> Iterator[str]:
        """The regions are whole, and the model is a ResNet."""
        if size % self.grid:
            yield f"cannot cut pictures of {size} pixels into {self.grid} × {self.grid} regions"
        elif self.config and self.config["model_type"] != "resnet":
            yield (
                f"is a {self.config['model_type']!r}, which has no average pooling; take kind"
                " transformers"
            )
        else:
            yield from super().check(size)

    def shape(self, size: int) -> tuple[int, int]:
        """A vector for each region, as wide as the last stage (ResNet-50: 2,048)."""
        return self.grid**2, _hub_config(json.dumps(self.config)).hidden_sizes[-1]

    def extract(self, model: nn.Module, pixels_NCHW: Tensor) -> Tensor:
        """The regions go through the model as pictures of their own."""
        g = self.grid
        regions = pixels_NCHW.unflatten(3, (g, -1)).unflatten(2, (g, -1))
        regions = regions.permute(0, 2, 4, 1, 3, 5).flatten(0, 2)
        return model(pixel_values=regions).pooler_output.flatten(1).unflatten(0, (-1, g * g))


class TransformersBackbone(Backbone):
    """The feature map of a whole picture, a token for each of its positions in the order of rows:
    any vision model of Transformers (Swin, ConvNeXt, ViT, DINOv2, ResNet, ...)."""

    kind: Literal["transformers"] = "transformers"
    """Selects the feature map."""
    stage: str | None = None
    """Take the feature map after this stage, such as `stage3` (`AutoBackbone`). If absent, the last
    hidden state of the model (`AutoModel`), with its [CLS] if it has one."""

    def build(self, pretrained: bool) -> nn.Module:
        """As `Backbone.build`, up to the stage."""
        return _build(json.dumps(self.config), self.stage, self.path if pretrained else None)

    def shape(self, size: int) -> tuple[int, int]:
        """As many as the model has positions, and as wide as its channels."""
        return _shape(json.dumps(self.config), self.stage, size)

    def extract(self, model: nn.Module, pixels_NCHW: Tensor) -> Tensor:
        """Feature maps are flattened."""
        output = model(pixel_values=pixels_NCHW)
        x = output.last_hidden_state if self.stage is None else output.feature_maps[0]
        return x.flatten(2).transpose(1, 2) if x.ndim == 4 else x


def with_checkpoint(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a stream, with what the checkpoint at its backbone's `path` says of the
    model and of the pictures that it takes. What the settings say themselves comes first."""
    backbone = settings.get("backbone")
    if not isinstance(backbone, Mapping) or not backbone.get("path") or backbone.get("config"):
        return {**settings}
    folder = _settings_folder(str(backbone["path"]))
    published = _read_config(folder)
    pixels: dict[str, Any] = {}
    for given in read_preprocessors(folder):
        if PIXEL_OPTIONS & given.keys():
            pixels = _pixels(given, settings.get("size"), folder)
    return {**pixels, **settings, "backbone": {**backbone, "config": published}}


def _pixels(given: Mapping[str, Any], size: Any, folder: Path) -> dict[str, Any]:
    """Options of the pictures. For another size, pictures are resized in proportion."""
    published = output_size(given, folder)
    found = {"size": published, **read_pixels(given, published, folder)}
    if isinstance(size, int) and size > 0:
        found["resize_to"] = round(found["resize_to"] * size / published)
    return found


def _settings_folder(path: str) -> Path:
    """The folder with a checkpoint's settings. Raises ConfigError where there is none."""
    if Path(path).is_dir():
        return Path(path)
    try:
        from huggingface_hub import snapshot_download

        return Path(snapshot_download(path, allow_patterns=list(SETTINGS_FILES)))
    except ImportError:
        raise _needs_transformers() from None
    except Exception as error:  # of many kinds, by the network and by the name
        raise ConfigError(
            f"backbone.path {path}: no such folder, and no model of the Hugging Face hub that can"
            f" be downloaded ({type(error).__name__})"
        ) from None


def _read_config(folder: Path) -> dict[str, Any]:
    """A checkpoint's configuration; of a model of pictures and texts (CLIP), the pictures' part."""
    found = read_object(folder / "config.json")
    if "model_type" not in found:
        raise ConfigError(
            f"backbone.path {folder}: no config.json of Transformers with a model_type"
        )
    return found.get("vision_config") or found


@cache
def _hub_config(config: str) -> Any:
    """The configuration object of Transformers. Raises ConfigError for an unknown model_type."""
    try:
        from transformers import AutoConfig
    except ImportError:
        raise _needs_transformers() from None
    try:
        return AutoConfig.for_model(**json.loads(config))
    except Exception as error:  # of many kinds, by the class
        raise ConfigError(f"config: Transformers refuses it ({error})") from None


def _build(config: str, stage: str | None, path: str | None = None) -> nn.Module:
    import torch
    from transformers import AutoBackbone, AutoModel

    settings = json.loads(config)
    kind = AutoModel if stage is None else AutoBackbone
    hub_config = _hub_config(config if stage is None else _with_stage(settings, stage))
    if path is None:
        return _trimmed(kind.from_config(hub_config))
    # AutoBackbone.from_pretrained looks for folders on the hub
    with torch.device("meta"):
        chosen = type(kind.from_config(hub_config))
    try:
        model, report = chosen.from_pretrained(path, config=hub_config, output_loading_info=True)
    except (OSError, ValueError, RuntimeError) as error:
        raise ConfigError(f"backbone.path {path}: {error}") from None
    missing = _trimmed(model).state_dict().keys() & set(report["missing_keys"])
    missing = [name for name in missing if not name.startswith(NEW_NORMS)]
    if missing:
        raise ConfigError(
            f"backbone.path {path}: its weights lack {', '.join(sorted(missing)[:5])}"
            f" ({len(missing)} in all)"
        )
    return _trimmed(model).float()


def _with_stage(settings: Mapping[str, Any], stage: str) -> str:
    return json.dumps({**settings, "out_features": [stage], "out_indices": None})


def _trimmed(model: Any) -> Any:
    """Without a pooler that has weights, which no features come from."""
    pooler = getattr(model, "pooler", None)
    if pooler is not None and any(True for _ in pooler.parameters()):
        model.pooler = None
    return model


@cache
def _shape(config: str, stage: str | None, size: int) -> tuple[int, int]:
    """Number and width of the features, found by a run without values."""
    import torch

    backbone = TransformersBackbone(config=json.loads(config), stage=stage)
    try:
        with torch.device("meta"), torch.no_grad():
            model = _build(config, stage).eval()
            if model.main_input_name != "pixel_values":
                raise ValueError("it does not read pictures")
            found = backbone.extract(model, torch.empty(1, 3, size, size))
    except ConfigError:
        raise
    except Exception as error:  # of many kinds, by the class
        raise ConfigError(
            f"is a {json.loads(config)['model_type']!r}, which gives no features of pictures of"
            f" {size} × {size} pixels by {stage or 'its last hidden state'}: {error}"
        ) from None
    return found.shape[1], found.shape[2]


def _needs_transformers() -> ConfigError:
    return ConfigError("a backbone needs Transformers; pip install 'skillweave[hf]'")
