"""Token by token, a model says what it says of the whole text.

The whole pass has no cache; its logits equal those of Transformers (tests/interop).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from hf_answers import bart, gpt2, llama
from hf_references import Reference, make_batch
from tiny import layout_of, random_examples, random_features, task, tiny_config, tiny_model
from torch import Tensor
from torch._dynamo.testing import CompileCounterWithBackend
from writers import LM, OPTIONS, PREFIXES, WRITERS, batch_of, whole_logits

from skillweave.batch import Batch, Example, Modality
from skillweave.config import ConfigError
from skillweave.config.encoder import GatedCNNConfig
from skillweave.data.collate import collate
from skillweave.interop.huggingface import from_hf
from skillweave.model.config import ModelConfig
from skillweave.model.decoding import DecodingState
from skillweave.model.model import Model

STEPS = 3


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
    """Step by step, two tokens at once, and after the samples were put in another order; with room
    that grows, and with room of a fixed length where there are keys and values."""
    begun = without_last(batch, STEPS)
    check_state(lambda: model.prefill(begun), model, batch, bound)
    if model.prefill(begun).droppable:
        check_state(lambda: model.prefill(begun).fixed(STEPS), model, batch, bound)


def check_state(
    begin: Callable[[], DecodingState], model: Model, batch: Batch, bound: float
) -> None:
    expected_NLV = whole_logits(model, batch)
    rows, device = torch.arange(len(expected_NLV)), expected_NLV.device
    first_N = batch.lengths[:, -1] - STEPS

    def close(found_NV: Tensor, after: int, order: Tensor = rows) -> None:
        wanted = expected_NLV[order, first_N[order] - 1 + after]
        assert (found_NV - wanted).abs().max() <= bound * expected_NLV.abs().max()

    def tokens(after: int, order: Tensor = rows) -> Tensor:
        return batch.inputs[-1][order, first_N[order] + after].to(device)

    state = begin()
    close(state.logits, 0)
    for i in range(STEPS):
        close(model.step(tokens(i).unsqueeze(1), state), i + 1)
    state = begin()
    close(model.step(torch.stack([tokens(0), tokens(1)], dim=1), state), 2)
    if state.droppable:
        state.drop(1)
        both_N2V = model.steps(torch.stack([tokens(1), tokens(2)], dim=1), state, 2)
        close(both_N2V[:, 0], 2)
        close(both_N2V[:, 1], 3)
    state = begin()
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


@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("prefix", PREFIXES)
def test_options(option: str, prefix: str) -> None:
    torch.manual_seed(0)
    config = tiny_config("dense", targets=LM, tasks=PREFIXES, encoder=OPTIONS[option])
    model = tiny_model(config)
    check(model, batch_of(prefix, config))


@pytest.mark.parametrize("option", ["plain", "prompts_and_rope", "experts_by_context"])
def test_beams_are_reordered_without_what_they_share(option: str) -> None:
    torch.manual_seed(0)
    config = tiny_config("dense", targets=LM, tasks=PREFIXES, encoder=OPTIONS[option])
    model, batch = tiny_model(config), batch_of("denoising", config)
    check_beams(model, batch)


def check_beams(model: Model, batch: Batch) -> None:
    """As `reorder`, but for logits, after other tokens in each of two beams."""
    first, second, found = torch.arange(3, 9)[:, None], torch.full((6, 1), 4), []
    for way in ("reorder", "reorder_beams"):
        state = model.eval().prefill(batch)
        state.reorder(torch.arange(3).repeat_interleave(2))
        before = model.step(first, state)
        getattr(state, way)(torch.tensor([1, 0, 2, 2, 5, 4]))
        found.append(model.step(second, state))
    assert not torch.equal(before[0], before[1])
    assert torch.equal(*found)


def test_beams_of_a_decoder_are_reordered_without_its_memory() -> None:
    model = from_hf(bart(0))
    check_beams(model, make_batch(model, torch.float64, (5, 8, 6)))


def compiled(model: Model) -> tuple[Callable[..., Tensor], Any]:
    """A step as one graph, and what counts how often it is compiled."""
    torch._dynamo.reset()
    counter = CompileCounterWithBackend("aot_eager")
    return torch.compile(model.steps, backend=counter, fullgraph=True, dynamic=False), counter


def written(batch: Batch) -> Iterator[Tensor]:
    """Tokens [N, 1] to write."""
    generator = torch.Generator().manual_seed(5)
    for _ in range(4):
        yield torch.randint(3, 20, (len(batch), 1), generator=generator)


def check_compiled(model: Model, batch: Batch) -> None:
    """For two texts one after the other, and in another order."""
    step, counter = compiled(model.eval())
    order = torch.arange(len(batch)).flip(0)
    for _ in range(2):
        growing, fixed = model.prefill(batch), model.prefill(batch).fixed(4)
        for tokens in written(batch):
            wanted_N1V = model.steps(tokens, growing, 1)
            found_N1V = step(tokens, fixed, 1)
            assert (found_N1V - wanted_N1V).abs().max() <= 1e-9 * wanted_N1V.abs().max()
            assert counter.frame_count == 1
            for state in (growing, fixed):
                state.reorder(order)


@pytest.mark.parametrize("build", [gpt2, llama, bart])
def test_a_step_over_room_of_a_fixed_length_is_compiled_once(build: Any) -> None:
    model = from_hf(build(0))
    lengths = (6, 6, 6) if build is gpt2 else (5, 8, 6)
    check_compiled(model, make_batch(model, torch.float64, lengths))


@pytest.mark.parametrize(
    ("option", "prefix"),
    [("prompts_and_rope", "denoising"), ("t5_bias", "captioning"), ("experts_by_skill", "seen")],
)
def test_a_step_after_a_prefix_is_compiled_once(option: str, prefix: str) -> None:
    torch.manual_seed(0)
    config = tiny_config("dense", targets=LM, tasks=PREFIXES, encoder=OPTIONS[option])
    check_compiled(tiny_model(config), batch_of(prefix, config))


def test_a_growing_state_would_be_compiled_again() -> None:
    model = from_hf(gpt2(0))
    batch = make_batch(model, torch.float64, (6, 6, 6))
    step, counter = compiled(model)
    state = model.prefill(batch)
    for tokens in written(batch):
        step(tokens, state, 1)
    assert counter.frame_count > 1


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
    model, batch = tiny_model(config), collate(layout, examples, config.streams, 4)
    check(model, batch)
    with pytest.raises(ConfigError, match="cache_implementation static"):
        model.prefill(batch).fixed(STEPS)


def test_a_window_over_neighbours_keeps_nothing() -> None:
    config = tiny_config(
        targets=LM,
        tasks={"writing": task("lm", "text/causal")},
    ).changed(encoder=GatedCNNConfig(input_size=12))
    examples = [Example((random_features(Modality.TEXT, 4, config),))]
    batch = collate(config.tasks["writing"].layout("writing"), examples, config.streams, 4)
    with pytest.raises(ConfigError, match="does not write text token by token"):
        tiny_model(config).prefill(batch)
