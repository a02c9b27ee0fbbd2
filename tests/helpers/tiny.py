"""A model of all five modalities and batches for it, just large enough to tell right from wrong."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from skillweave.batch import IGNORE, Batch, Example, Features, Layout, Modality
from skillweave.data.collate import collate
from skillweave.model.config import ModelConfig, ModelTask
from skillweave.model.model import Model

VOCABULARY = 30
TEXT, IMAGE, SOUND, VIDEO, CODE = (m.value for m in Modality)
STREAMS: dict[str, Any] = {
    TEXT: {"vocabulary": VOCABULARY, "max_length": 32},
    CODE: {"vocabulary": VOCABULARY, "max_length": 16},
    IMAGE: {"size": 8, "patch": 4},
    SOUND: {"channels": 6, "kernels": [4, 3, 2], "strides": [2, 2, 1], "max_length": 16},
    VIDEO: {"size": 8, "frames": 2, "tubelet": [1, 4, 4]},
}
TARGETS: dict[str, Any] = {
    "classification": {"classes": ["a", "b", "c"]},
    "ctc": {"characters": ["x", "y", "z"]},
    "contrastive": {},
    "mlm": {},
    "masked_unit": {"clusters": 5},
}


def task(target: str, *spans: str) -> dict[str, Any]:
    """A task of the model's configuration; a span is `modality`, `modality/causal` or
    `modality@pass`."""
    configs = []
    for span in spans:
        name, _, number = span.partition("@")
        modality, _, attention = name.partition("/")
        configs.append(
            {
                "modality": modality,
                "attention": attention or "full",
                "encoder_pass": int(number or 0),
            }
        )
    return {"spans": configs, "targets": {target: 1.0}}


TASKS = {
    "classify": task("classification", TEXT),
    "transcribe": task("ctc", SOUND),
    "to_image": task("contrastive", TEXT, "image@1"),
    "to_video": task("contrastive", TEXT, "video@1"),
    "to_code": task("contrastive", TEXT, "code@1"),
    "masked_text": task("mlm", TEXT),
    "masked_code": task("mlm", CODE, TEXT),
    "masked_sound": task("masked_unit", SOUND),
    "captioning": task("mlm", IMAGE, "text/causal"),
    "denoising": task("mlm", VIDEO, TEXT, "text/causal"),
}


def tiny_config(
    route: str = "skill", feed_forward: dict[str, Any] | None = None, **changes: Any
) -> ModelConfig:
    """`route`: of the projections. `changes`: other keys of the model's configuration."""
    encoder = {"layers": 2, "heads": 3, "feed_forward": 20, "dropout": 0, "attention_dropout": 0}
    encoder["sparse"] = {"qkv": {"route": route}, "feed_forward": feed_forward or {}}
    data = {"width": 12, "streams": STREAMS, "shared": ["word"], "targets": TARGETS, "tasks": TASKS}
    return ModelConfig.parse(
        {**data, **changes, "encoder": {**encoder, **changes.get("encoder", {})}}
    )


def randomise(model: torch.nn.Module, std: float = 0.3) -> None:
    """Give every parameter a value that matters: biases and norms start as if they were not
    there."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(
                1.0 if parameter.ndim == 1 and "norm" in name and "weight" in name else 0.0, std
            )


def tiny_model(config: ModelConfig | None = None, dtype: torch.dtype = torch.float64) -> Model:
    """All random, in evaluation mode."""
    model = Model(config or tiny_config()).to(dtype).eval()
    randomise(model)
    return model


def layout_of(name: str, tasks: dict[str, Any] = TASKS) -> Layout:
    """The layout of a task of the configuration."""
    return ModelTask.parse(tasks[name]).layout(name)


def random_features(
    modality: Modality, length: int, config: ModelConfig, dtype: torch.dtype = torch.float64
) -> Features:
    """One span; pictures and clips have the length that they have."""
    streams = config.streams
    match modality:
        case Modality.TEXT | Modality.CODE:
            return Features(torch.randint(6, VOCABULARY, (length,)), length)
        case Modality.IMAGE:
            size = streams.image.size
            return Features(torch.randn(3, size, size, dtype=dtype), streams.image.max_length)
        case Modality.VIDEO:
            size = streams.video.size
            return Features(
                torch.randn(3, streams.video.frames, size, size, dtype=dtype),
                streams.video.max_length,
            )
        case Modality.SOUND:
            least = streams.sound.samples(length - 1) + 1
            spare = streams.sound.samples(length) - least
            return Features(
                torch.randn(least + int(torch.randint(spare + 1, ())), dtype=dtype), length
            )


def random_examples(
    name: str,
    lengths: Sequence[Sequence[int]],
    config: ModelConfig,
    dtype: torch.dtype = torch.float64,
) -> list[Example]:
    """Unlabelled examples of a task; `lengths`: per sample and span."""
    spans = layout_of(name).spans
    return [
        Example(
            tuple(
                random_features(s.modality, n, config, dtype)
                for s, n in zip(spans, sample, strict=True)
            ),
            {},
            str(i),
        )
        for i, sample in enumerate(lengths)
    ]


def labelled(name: str, examples: Sequence[Example], rng: np.random.Generator) -> list[Example]:
    """The same with labels of the kind that the task's target learns."""
    target = next(iter(TASKS[name]["targets"]))
    return [_with_mask(_labelled(target, example, rng)) for example in examples]


def _with_mask(example: Example) -> Example:
    if "units" not in example.token_labels:
        return example
    (features,) = example.spans
    masked = example.token_labels["units"] != IGNORE
    return replace(example, spans=(replace(features, masked=masked),))


def _labelled(target: str, example: Example, rng: np.random.Generator) -> Example:
    length = sum(span.length for span in example.spans)
    some = rng.random(length) < 0.5
    some[int(rng.integers(length))] = True

    def at_some(values: np.ndarray) -> Tensor:
        return torch.from_numpy(np.where(some, values, IGNORE))

    match target:
        case "classification":
            return replace(example, labels={"class": int(rng.integers(3))})
        case "contrastive":
            return replace(example, labels={"caption": int(rng.integers(2**62))})
        case "ctc":
            characters = torch.from_numpy(rng.integers(1, 4, max(1, length // 2)))
            return replace(example, labels={"characters": characters})
        case "mlm":
            ids = at_some(rng.integers(6, VOCABULARY, length))
            return replace(example, token_labels={"label_ids": ids})
        case _:
            return replace(example, token_labels={"units": at_some(rng.integers(5, size=length))})


def make_batch(
    name: str, examples: Sequence[Example], config: ModelConfig, bucket: int = 4
) -> Batch:
    """Collated as in training."""
    return collate(layout_of(name), examples, config.streams, bucket)


def random_batch(
    name: str, lengths: Sequence[Sequence[int]], config: ModelConfig, bucket: int = 4
) -> Batch:
    """A labelled batch."""
    examples = labelled(name, random_examples(name, lengths, config), np.random.default_rng(0))
    return make_batch(name, examples, config, bucket)


def hidden_states(model: Model, batch: Batch) -> list[Tensor]:
    """The encoder's output, [N, L, D] per pass, zeros where there is no token."""
    return model.hidden(batch)


def relative_error(found: Tensor, expected: Tensor) -> float:
    """The largest difference, as a share of the largest expected magnitude."""
    return ((found - expected).abs().max() / expected.abs().max().clamp(min=1e-30)).item()
