"""Token by token, a model says what it says of the whole text.

The whole pass has no cache; its logits equal those of Transformers (tests/interop).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from hf_references import REFERENCES, Reference, make_batch
from tiny import layout_of, random_examples, random_features, task, tiny_config, tiny_model
from torch import Tensor

from skillweave.batch import Batch, Example, Layout, Modality
from skillweave.config import ConfigError
from skillweave.config.encoder import GatedCNNConfig
from skillweave.data.collate import collate
from skillweave.interop.huggingface import from_hf
from skillweave.model.config import ModelConfig
from skillweave.model.model import Model

STEPS = 3
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


def without_last(batch: Batch, count: int) -> Batch:
    """The batch without the last tokens of each sample."""
    lengths = batch.lengths.clone()
    lengths[:, -1] -= count
    longest = int(lengths[:, -1].max())
    *others, _ = (span.length for span in batch.layout.spans)
    layout = batch.layout.with_lengths((*others, longest))
    inputs = (*batch.inputs[:-1], batch.inputs[-1][:, :longest])
    return replace(batch, layout=layout, inputs=inputs, lengths=lengths)


def check(model: Model, batch: Batch, bound: float = 1e-9) -> None:
    """Step by step, two tokens at once, and after the samples were put in another order."""
    expected_NLV = whole_logits(model, batch)
    rows, device = torch.arange(len(expected_NLV)), expected_NLV.device
    first_N = batch.lengths[:, -1] - STEPS

    def close(found_NV: Tensor, after: int, order: Tensor = rows) -> None:
        wanted = expected_NLV[order, first_N[order] - 1 + after]
        assert (found_NV - wanted).abs().max() <= bound * expected_NLV.abs().max()

    def tokens(after: int, order: Tensor = rows) -> Tensor:
        return batch.inputs[-1][order, first_N[order] + after].to(device)

    state = model.prefill(without_last(batch, STEPS))
    close(state.logits, 0)
    for i in range(STEPS):
        close(model.step(tokens(i).unsqueeze(1), state), i + 1)
    state = model.prefill(without_last(batch, STEPS))
    close(model.step(torch.stack([tokens(0), tokens(1)], dim=1), state), 2)
    if state.droppable:
        state.drop(1)
        both_N2V = model.steps(torch.stack([tokens(1), tokens(2)], dim=1), state, 2)
        close(both_N2V[:, 0], 2)
        close(both_N2V[:, 1], 3)
    state = model.prefill(without_last(batch, STEPS))
    order = torch.cat([rows.flip(0), rows[:1]])
    state.reorder(order)
    close(state.logits, 0, order)
    for i in range(STEPS):
        close(model.step(tokens(i, order).unsqueeze(1), state), i + 1, order)


@pytest.mark.parametrize("reference", WRITERS, ids=lambda one: f"{one.architecture}")
def test_families(reference: Reference) -> None:
    model = from_hf(reference.build())
    (name,) = model.config.tasks
    if "lm" not in model.config.tasks[name].targets:
        pytest.skip("it writes no text")
    scaling = getattr(getattr(model.config.encoder, "position", None), "scaling", None)
    # LongRoPE rotates a whole text by its length, and a written one by that of its beginning.
    turn = getattr(scaling, "original_length", 0)
    more = turn if 9 <= turn < 12 else 0
    check(model, make_batch(model, torch.float64, (9 + more, 12 + more, 10 + more)))


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


@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("prefix", PREFIXES)
def test_options(option: str, prefix: str) -> None:
    torch.manual_seed(0)
    config = tiny_config("dense", targets=LM, tasks=PREFIXES, encoder=OPTIONS[option])
    model = tiny_model(config)
    layout: Layout = layout_of(prefix, PREFIXES)
    lengths, spans = LENGTHS[prefix], [span.modality for span in layout.spans]
    image = config.streams.image.max_length
    if "image" in layout.modalities:
        lengths = [(image, *others) for _, *others in lengths]
    examples = [
        Example(tuple(random_features(m, n, config) for m, n in zip(spans, sample, strict=True)))
        for sample in lengths
    ]
    check(model, collate(layout, examples, config.streams, 4))


def test_a_task_that_writes_no_text_is_named() -> None:
    config = tiny_config()
    examples = random_examples("classify", [(4,)], config)
    batch = collate(layout_of("classify"), examples, config.streams, 4)
    with pytest.raises(ConfigError, match="'classify': its last span is no causal text"):
        tiny_model(config).prefill(batch)


@pytest.mark.parametrize("kind", ["rnn", "gru", "lstm"])
@pytest.mark.parametrize("decoder", [True, False])
def test_recurrent_layers_keep_their_states(kind: str, decoder: bool) -> None:
    torch.manual_seed(0)
    recurrent = {"name": kind, "layers": 2, "dropout": 0}
    tasks = {"writing": task("lm", "text/causal")}
    changes: dict[str, Any] = {"encoder": recurrent}
    if decoder:
        tasks["writing"]["spans"] = [
            {"modality": "text"},
            {"modality": "text", "attention": "causal", "role": "target", "encoder_pass": 1},
        ]
        changes = {"decoder": recurrent, "target_embedding": {"vocabulary": 30, "max_length": 32}}
    data = {"width": 12, "streams": {"text": {"vocabulary": 30, "max_length": 32}}, "targets": LM}
    encoder = {"layers": 1, "heads": 3, "feed_forward": 20, "dropout": 0}
    config = ModelConfig.parse({**data, "encoder": encoder, **changes, "tasks": tasks})
    layout = layout_of("writing", tasks)
    examples = [
        Example(tuple(random_features(span.modality, n, config) for span in layout.spans))
        for n in (5, 8, 6)
    ]
    check(tiny_model(config), collate(layout, examples, config.streams, 4))


def test_a_window_over_neighbours_keeps_nothing() -> None:
    config = tiny_config(
        targets=LM,
        tasks={"writing": task("lm", "text/causal")},
    ).changed(encoder=GatedCNNConfig(input_size=12))
    examples = [Example((random_features(Modality.TEXT, 4, config),))]
    batch = collate(config.tasks["writing"].layout("writing"), examples, config.streams, 4)
    with pytest.raises(ConfigError, match="does not write text token by token"):
        tiny_model(config).prefill(batch)
