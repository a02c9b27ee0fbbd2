"""Prompts stand before keys and values: compared with loops over samples, heads, queries and
keys."""

import pytest
import torch
from tiny import (
    hidden_states,
    make_batch,
    random_batch,
    random_examples,
    relative_error,
    tiny_config,
    tiny_model,
)
from torch import Tensor, nn

from skillweave.batch import Attention, Batch, Modality
from skillweave.components.encoders.transformer import TransformerEncoder
from skillweave.layers.attention import Heads, SelfAttention
from skillweave.model.model import Model

PROMPTS = 3
LENGTHS = {
    "classify": [[5], [2]],
    "denoising": [[9, 3, 4], [9, 1, 2]],
    "masked_code": [[4, 3], [2, 6]],
}
ROUTES = ("skill", "dense", "attribute", "token", "context")


def prompted(route: str = "skill", **encoder: object) -> Model:
    return tiny_model(tiny_config(route, encoder={"prompts": PROMPTS, **encoder}))


def looped_attention(
    attention: SelfAttention,
    given: list[Tensor],
    modalities: list[Modality],
    prompts: Tensor,
    hidden: list[bool],
) -> Tensor:
    """One sample's true tokens, some `hidden` from those before them; prompts are projected by the
    first token's skill."""
    experts = attention.qkv.experts
    projected = [
        experts[m.value](x).view(3, attention.heads.queries, -1)
        for x, m in zip(given, modalities, strict=True)
    ]
    before = [experts[modalities[0].value](p).view(3, attention.heads.queries, -1) for p in prompts]
    rows = []
    for i, own in enumerate(projected):
        keys = before + [other for j, other in enumerate(projected) if j <= i or not hidden[j]]
        heads = []
        for h in range(attention.heads.queries):
            scores = torch.stack([own[0, h] @ key[1, h] for key in keys]) / own.shape[-1] ** 0.5
            heads.append(sum(w * key[2, h] for w, key in zip(scores.softmax(0), keys, strict=True)))
        rows.append(attention.output(torch.cat(heads)))
    return torch.stack(rows)


def looped_encoder(model: Model, batch: Batch) -> list[Tensor]:
    """Each sample's true tokens through post-norm blocks with one feed-forward."""
    x_TD, tokens, _ = model.embed_tokens(batch, 0, {})
    x_NLD, layout = tokens.to_padded(x_TD), batch.layout
    encoder: TransformerEncoder = model.encoder
    results = []
    for n in range(len(batch)):
        places, start = [], 0
        for span, length in zip(layout.spans, batch.lengths[n].tolist(), strict=True):
            places += [(start + i, span) for i in range(length)]
            start += span.length
        x = x_NLD[n, [place for place, _ in places]]
        hidden = [span.attention is Attention.CAUSAL for _, span in places]
        modalities = [span.modality for _, span in places]
        for block in encoder.blocks:
            given = list(block.attention_norm(x)) if block.pre_norm else list(x)
            prompts = (
                block.attention_norm(block.attention.prompts)
                if block.pre_norm
                else block.attention.prompts
            )
            x = x + looped_attention(block.attention, given, modalities, prompts, hidden)
            x = x if block.pre_norm else block.attention_norm(x)
            feed_forward = block.feed_forward.experts["shared"]
            change = feed_forward(block.feed_forward_norm(x) if block.pre_norm else x)
            x = x + change if block.pre_norm else block.feed_forward_norm(x + change)
        results.append(encoder.last_norm(x))
    return results


@pytest.mark.parametrize("norm_position", ["pre", "post"])
@pytest.mark.parametrize("task", LENGTHS)
def test_as_a_loop_with_prompts_among_keys_and_values(task: str, norm_position: str) -> None:
    model = prompted(norm_position=norm_position)
    batch = random_batch(task, LENGTHS[task], model.config)
    found = hidden_states(model, batch)[0]
    for n, expected in enumerate(looped_encoder(model, batch)):
        places = torch.cat([
            sum(s.length for s in batch.layout.spans[:k]) + torch.arange(int(batch.lengths[n, k]))
            for k in range(len(batch.layout.spans))
        ])  # fmt: skip
        assert relative_error(found[n, places], expected) < 1e-9


@pytest.mark.parametrize("route", ROUTES)
def test_merged_once_as_at_each_call(route: str) -> None:
    model = prompted(route)
    batch = random_batch("to_image", [[4, 5], [6, 5]], model.config)
    resolved = model.resolve("to_image")
    for once, each in zip(model.embed(batch, resolved), model.embed(batch), strict=True):
        assert relative_error(once, each) < 1e-9


@pytest.mark.parametrize("route", ROUTES)
def test_a_sample_does_not_see_its_batch_through_prompts(route: str) -> None:
    model = prompted(route)
    examples = random_examples("denoising", [[9, 3, 4], [9, 1, 2]], model.config)
    alone, both = (
        hidden_states(model, make_batch("denoising", some, model.config))[0][0]
        for some in (examples[:1], examples)
    )
    assert relative_error(both, alone) < 1e-9


@pytest.mark.parametrize("route", ROUTES)
def test_every_prompt_learns(route: str) -> None:
    model = prompted(route)
    model(random_batch("masked_code", LENGTHS["masked_code"], model.config)).loss.backward()
    for block in model.encoder.blocks:
        assert (block.attention.prompts.grad.abs().amax(1) > 0).all()


def test_prompts_that_say_what_the_only_token_says_change_nothing() -> None:
    attention = SelfAttention(
        Heads(2, 2, 2), nn.Linear(4, 12), nn.Linear(4, 4), prompts=torch.randn(1, 4).expand(5, 4)
    ).double()
    bare = SelfAttention(Heads(2, 2, 2), attention.qkv, attention.output)
    model = prompted(layers=1)
    batch = random_batch("classify", [[1]], model.config, bucket=1)
    tokens = model.embed_tokens(batch, 0, {})[1]
    x_1D, condition = attention.prompts[:1].detach(), batch.layout.condition(0)
    found, _ = attention(x_1D, tokens, [attention.resolve(condition)])
    expected, _ = bare(x_1D, tokens, [bare.resolve(condition)])
    torch.testing.assert_close(found, expected)


def test_without_prompts_nothing_is_added() -> None:
    assert not any("prompts" in name for name, _ in tiny_model().named_parameters())
    resolved = tiny_model().resolve("classify")
    assert all(block.attention.prompts is None for blocks in resolved.values() for block in blocks)


def test_16_bit_attention_takes_prompts_resolved_in_32() -> None:
    model = prompted().float()
    batch = random_batch("classify", [[3], [5]], model.config)
    resolved = model.resolve("classify")
    with torch.autocast("cpu", dtype=torch.bfloat16), torch.no_grad():
        found = model(batch, resolved=resolved).loss
    assert relative_error(found, model(batch).loss) < 0.05
