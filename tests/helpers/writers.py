"""Models that write text: the architectures of Transformers, and options of a small one."""

from __future__ import annotations

from typing import Any

from hf_references import REFERENCES
from tiny import random_features, task
from torch import Tensor

from skillweave.batch import Batch, Example
from skillweave.data.collate import collate
from skillweave.model.config import ModelConfig, ModelTask
from skillweave.model.model import Model

WRITERS = [
    reference
    for reference in REFERENCES
    if reference.architecture.endswith(("ForCausalLM", "LMHeadModel", "ForConditionalGeneration"))
]


def whole_logits(model: Model, batch: Batch) -> Tensor:
    """[N, L, V] after each token of the written span, from one pass."""
    (name,) = (t for t in model.config.tasks[batch.layout.task].targets if t == "lm")
    hidden_NLD = model.hidden(batch)[-1]
    written_NLD = hidden_NLD[:, hidden_NLD.shape[1] - batch.layout.spans[-1].length :]
    embeddings = model._output_embeddings(batch.layout.task, name)
    return model.targets[name].token_logits(written_NLD, embeddings)


LM: dict[str, Any] = {"lm": {}}
PREFIXES: dict[str, Any] = {
    "continuing": task("lm", "text/causal"),
    "captioning": task("lm", "image", "text/causal"),
    "denoising": task("lm", "image", "text", "text/causal"),
    "seen": task("lm", "sound", "code", "text/causal"),
}
LENGTHS: dict[str, Any] = {
    "continuing": [(5,), (8,), (6,)],
    "captioning": [(5, 5), (5, 7), (5, 4)],
    "denoising": [(5, 3, 6), (5, 7, 4), (5, 1, 5)],
    "seen": [(3, 4, 6), (6, 2, 4), (2, 5, 5)],
}
OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "window": {"window": 3},
    "rope": {"position": {"kind": "rope"}},
    "alibi": {"position": {"kind": "alibi"}},
    "t5_bias": {"position": {"kind": "t5_bias"}},
    "t5_bias_in_every_layer": {"position": {"kind": "t5_bias", "per_layer": True}},
    "gated_bias": {"position": {"kind": "t5_bias", "gated": True}},
    "disentangled": {"position": {"kind": "disentangled"}},
    "grouped": {"heads": 2, "key_value_heads": 1, "position": {"kind": "rope"}},
    "residual_attention": {"residual_attention": True},
    "prompts": {"prompts": 2},
    "prompts_and_rope": {"prompts": 2, "position": {"kind": "rope"}, "window": 4},
    "shared_layers": {"layers": 4, "distinct_layers": 2},
    "experts_by_skill": {"sparse": {"qkv": {"route": "skill"}}},
    "experts_by_token": {"sparse": {"feed_forward": {"route": "token"}}},
    "experts_by_context": {
        "sparse": {"qkv": {"route": "context"}, "feed_forward": {"route": "context"}}
    },
    "experts_by_attribute": {"sparse": {"feed_forward": {"route": "attribute"}}},
}


def batch_of(prefix: str, config: ModelConfig) -> Batch:
    """A random batch of a task of `PREFIXES`, of samples with unequal lengths."""
    layout = ModelTask.parse(PREFIXES[prefix]).layout(prefix)
    lengths = LENGTHS[prefix]
    if "image" in layout.modalities:
        lengths = [(config.streams.image.max_length, *others) for _, *others in lengths]
    spans = [span.modality for span in layout.spans]
    examples = [
        Example(tuple(random_features(m, n, config) for m, n in zip(spans, sample, strict=True)))
        for sample in lengths
    ]
    return collate(layout, examples, config.streams, 4)
