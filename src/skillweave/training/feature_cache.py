"""The features of frozen backbones from disk (`training.feature_cache`)."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import torch
from torch.utils.data import DataLoader, Dataset

from skillweave.batch import Modality
from skillweave.components.embeddings.backbone import BackboneEmbedding
from skillweave.config import ConfigError
from skillweave.config.streams import BackboneImageStream
from skillweave.config.training import FeatureCacheConfig
from skillweave.data.feature_store import FeatureCache, FeatureStore
from skillweave.data.processors.base import BadInput
from skillweave.data.processors.media import MediaProcessor
from skillweave.model.model import Model
from skillweave.tasks.dataset import TaskDataset
from skillweave.weights.files import fingerprint

PREPROCESSING = {"size", "resize", "resize_to", "resize_filter", "mean", "std"}
"""Options of a stream that decide which pixels the backbone sees."""


class CachedBackbone(NamedTuple):
    """A frozen backbone of the model and the cache of its features."""

    embedding: BackboneEmbedding
    cache: FeatureCache


def cache_features(
    model: Model,
    datasets: Mapping[str, Mapping[str, TaskDataset]],
    config: FeatureCacheConfig,
) -> dict[Modality, CachedBackbone]:
    """Let the datasets give features from the cache in place of pixels; returns the caches.

    `datasets`: by split and task. Processors compute what is missing with a copy of the backbone on
    the CPU. Raises ConfigError for a model without a frozen backbone, for a backbone that is
    trained, and for tasks that augment what it reads.
    """
    caches = _caches(model, config)
    for tasks in datasets.values():
        for name, dataset in tasks.items():
            for modality in caches.keys() & dataset.context.processors.keys():
                _require_plain(dataset, name)
                processor = dataset.context.processors[modality]
                assert isinstance(processor, MediaProcessor)
                processor.features = caches[modality].cache
    return caches


def _caches(model: Model, config: FeatureCacheConfig) -> dict[Modality, CachedBackbone]:
    store, found = FeatureStore(config.path, config.max_bytes), {}
    for modality, stream in model.config.streams.present().items():
        if not isinstance(stream, BackboneImageStream):
            continue
        if not stream.backbone.frozen:
            raise ConfigError(
                f"training.feature_cache: the backbone of stream {modality.value!r} is trained, so"
                " its features change; set `frozen: true`, or leave feature_cache out"
            )
        embedding = model.get_submodule(f"embeddings.{modality.value}.content.features")
        assert isinstance(embedding, BackboneEmbedding)
        # what is missing is computed by data workers, where there is no accelerator
        own = copy.deepcopy(embedding).cpu().eval()
        shape = stream.backbone.shape(stream.size)
        found[modality] = CachedBackbone(
            embedding, FeatureCache(store, own.features, shape, _name(embedding, stream))
        )
    if not found:
        raise ConfigError(
            "training.feature_cache: no stream of the model has a backbone; add one under"
            " model.streams.image.backbone, or leave feature_cache out"
        )
    return found


def _name(embedding: BackboneEmbedding, stream: BackboneImageStream) -> str:
    """What features depend on besides the picture: the weights, and which numbers they are of which
    pixels."""
    weights = fingerprint(embedding.model.state_dict())
    settings = stream.backbone.without_path().model_dump_json()
    pixels = stream.model_dump_json(include=PREPROCESSING)
    return hashlib.sha256(f"{weights} {settings} {pixels}".encode()).hexdigest()


def _require_plain(dataset: TaskDataset, name: str) -> None:
    augment = dataset.config.augment
    if dataset.context.training and (augment.shift or augment.scale or augment.colour):
        raise ConfigError(
            f"tasks.{name}.augment changes pictures at random, and training.feature_cache holds the"
            " features of unchanged ones; set shift, scale and colour to 0, or leave feature_cache"
            " out"
        )


class Filled(NamedTuple):
    """How far the filling of a cache has come: samples that were read, of how many, the features
    that were computed, and the samples that cannot be read."""

    done: int
    total: int
    computed: int
    broken: int


def fill_cache(
    caches: Mapping[Modality, CachedBackbone],
    datasets: Mapping[str, Mapping[str, TaskDataset]],
    batch_size: int,
    workers: int,
    device: torch.device,
) -> Iterator[Filled]:
    """Compute the features that the cache lacks, in batches on a device. What is stored stays
    stored, so the same call again continues."""
    for one in caches.values():
        one.embedding.to(device).eval()
        one.cache.missing = []
    samples = _Samples(caches, [d for tasks in datasets.values() for d in tasks.values()])
    waiting: dict[Modality, dict[bytes, torch.Tensor]] = {modality: {} for modality in caches}
    computed = broken = 0
    try:
        for done, found in enumerate(DataLoader(samples, None, num_workers=workers), 1):
            broken += found is None
            for modality, rows in (found or {}).items():
                waiting[modality] |= dict(rows)
                if len(waiting[modality]) >= batch_size:
                    computed += _store(caches[modality], waiting[modality], device)
            yield Filled(done, len(samples), computed, broken)
        for modality, rows in waiting.items():
            computed += _store(caches[modality], rows, device)
        yield Filled(len(samples), len(samples), computed, broken)
    finally:
        for one in caches.values():
            one.cache.missing = None


@torch.inference_mode()
def _store(one: CachedBackbone, rows: dict[bytes, torch.Tensor], device: torch.device) -> int:
    """Compute the features of pictures by key, store them and empty the table; returns their
    number."""
    if not rows:
        return 0
    pixels = torch.stack([*rows.values()]).to(device)
    features = one.embedding.features(pixels).float().cpu().numpy()
    one.cache.store.put(zip(rows, features, strict=True))
    count = len(rows)
    rows.clear()
    return count


class _Samples(Dataset):
    """The pictures of each sample whose features are not stored, by modality, with their keys; None
    for a broken sample."""

    def __init__(
        self, caches: Mapping[Modality, CachedBackbone], datasets: list[TaskDataset]
    ) -> None:
        self.caches = {modality: one.cache for modality, one in caches.items()}
        self.places = [(dataset, i) for dataset in datasets for i in range(len(dataset))]

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int) -> dict[Modality, list[tuple[bytes, torch.Tensor]]] | None:
        dataset, row = self.places[index]
        try:
            dataset.examples(row)
        except BadInput:
            return None
        found = {}
        for modality, cache in self.caches.items():
            found[modality], cache.missing = cache.missing or [], []
        return found
