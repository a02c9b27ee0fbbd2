"""Targets of texts against loops over samples, with padding and spans in between."""

import math

import pytest
import torch
import torch.nn.functional as F
from tiny import hidden_states, randomise, tiny_config
from torch import Tensor

from skillweave.batch import IGNORE, Batch, Layout, Modality, Span
from skillweave.components.targets.prompt import PromptConfig
from skillweave.model.model import Model, Output

WIDTH, LENGTHS = 12, torch.tensor([[5, 2], [3, 4], [6, 1]])
TEXT = {"modality": "text"}
PASSES = [{**TEXT, "encoder_pass": i} for i in range(2)]
WORDS = [[7, 8], [9, 10], [11, 7]]


def model_of(kind: str, spans: list[dict], **target: object) -> Model:
    tasks = {"t": {"spans": spans, "targets": {kind: 1.0}}}
    streams = {"text": {"vocabulary": 30, "max_length": 16}}
    model = (
        Model(tiny_config(streams=streams, shared=[], tasks=tasks, targets={kind: target}))
        .double()
        .eval()
    )
    randomise(model)
    return model


def run(
    model: Model, labels: dict[str, Tensor], keep: Tensor | None = None
) -> tuple[Output, list[Tensor]]:
    """The output, and each sample's true hidden states [l, D] per pass, joined over the spans of
    the pass."""
    spans = [
        Span(s.modality, encoder_pass=s.encoder_pass, length=6)
        for s in model.config.tasks["t"].spans
    ]
    lengths = LENGTHS[:, : len(spans)]
    inputs = tuple(torch.randint(6, 30, (3, 6)) for _ in spans)
    batch = Batch(Layout("t", tuple(spans)), inputs, lengths, labels, logits_to_keep=keep)
    hidden = hidden_states(model, batch)
    if len(hidden) > 1:
        return model(batch), [
            [h[n, : lengths[n, p]] for n in range(3)] for p, h in enumerate(hidden)
        ]
    (h,) = hidden
    return model(batch), [
        [
            torch.cat([h[n, 6 * s : 6 * s + lengths[n, s]] for s in range(len(spans))])
            for n in range(3)
        ]
    ]


def pooled(head: torch.nn.Module, x_LD: Tensor) -> Tensor:
    return head.output(torch.tanh(head.pooler(x_LD[0])))


@pytest.mark.parametrize("hidden", [True, False])
def test_two_texts_compared(hidden: bool) -> None:
    """InferSent: the largest of each number, then a classifier of u, v, |u - v| and u · v."""
    compared = ["first", "second", "difference", "product"]
    model = model_of(
        "classification",
        PASSES,
        classes=["a", "b"],
        pooling="max",
        compared=compared,
        hidden=hidden,
    )
    out, (firsts, seconds) = run(model, {"class": torch.tensor([0, 1, 1])})
    head = model.targets["classification"]
    for n, (first, second) in enumerate(zip(firsts, seconds, strict=True)):
        u, v = first.max(0).values, second.max(0).values
        x = torch.cat([u, v, (u - v).abs(), u * v])
        assert torch.allclose(
            out.logits["classification"][n],
            head.classifier(torch.tanh(head.pooler(x)) if hidden else x),
        )
    with pytest.raises(ValueError, match="compares 2 passes, not 1"):
        run(model_of("classification", [TEXT], classes=["a", "b"], compared=compared), {})


def test_multi_label() -> None:
    model = model_of("multi_label", [TEXT], classes=["a", "b"])
    labels = torch.tensor([[0.0, 1], [1, 1], [0, 0]])
    out, (xs,) = run(model, {"classes": labels})
    expected = 0.0
    for x, row in zip(xs, labels, strict=True):
        for logit, wanted in zip(pooled(model.targets["multi_label"], x), row, strict=True):
            expected -= math.log(torch.sigmoid(logit if wanted else -logit).item()) / 6
    assert out.loss.item() == pytest.approx(expected)


def test_regression_learns_on_a_scale_of_its_own() -> None:
    model = model_of("regression", [TEXT, TEXT], mean=3.0, deviation=2.0)
    out, (xs,) = run(model, {"score": torch.tensor([1.0, 3.0, 7.0])})
    given = torch.stack([pooled(model.targets["regression"], x)[0] for x in xs])
    torch.testing.assert_close(out.logits["regression"], given * 2 + 3)
    wanted = torch.tensor([-1.0, 0.0, 2.0], dtype=torch.float64)
    assert out.loss.item() == pytest.approx(((given - wanted) ** 2).mean().item())


def test_cosine() -> None:
    model = model_of("cosine", PASSES, least=1.0, most=5.0)
    out, (ones, others) = run(model, {"score": torch.tensor([1.0, 3.0, 5.0])})
    cosines = torch.stack(
        [
            F.cosine_similarity(a.mean(0), b.mean(0), dim=0)
            for a, b in zip(ones, others, strict=True)
        ]
    )
    torch.testing.assert_close(out.logits["cosine"], 1 + 4 * cosines)
    wanted = torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64)
    assert out.loss.item() == pytest.approx(((cosines - wanted) ** 2).mean().item())


def test_choice_leaves_out_what_a_sample_lacks() -> None:
    model = model_of("choice", PASSES)
    out, passes = run(model, {"class": torch.tensor([1, 0, 0]), "choices": torch.tensor([2, 2, 1])})
    scores = torch.stack(
        [
            torch.cat([pooled(model.targets["choice"], x) for x in xs])
            for xs in zip(*passes, strict=True)
        ]
    )
    shares = [scores[0].softmax(0)[1], scores[1].softmax(0)[0], torch.tensor(1.0)]
    assert out.logits["choice"][2, 1] == -math.inf
    assert out.loss.item() == pytest.approx(-sum(math.log(s.item()) for s in shares) / 3)


def test_token_labels_look_at_labelled_positions_alone() -> None:
    model = model_of("token_labels", [TEXT], classes=["O", "B-X"])
    tags = torch.full((3, 6), IGNORE)
    tags[0, 1], tags[0, 4], tags[2, 2] = 1, 0, 1
    out, (xs,) = run(model, {"tags": tags})
    layer = model.targets["token_labels"].classifier
    losses = [F.cross_entropy(layer(xs[n][p]), tags[n, p]) for n, p in ((0, 1), (0, 4), (2, 2))]
    assert out.loss.item() == pytest.approx(torch.stack(losses).mean().item())
    torch.testing.assert_close(out.logits["token_labels"][1, :3], layer(xs[1]))


def test_a_span_is_counted_in_true_positions() -> None:
    model = model_of("span", [TEXT, TEXT])
    begin, end = torch.tensor([5, 0, 6]), torch.tensor([6, 6, 6])
    out, (xs,) = run(model, {"begin": begin, "end": end})
    layer, losses = model.targets["span"].classifier, []
    for n, x in enumerate(xs):
        logits = layer(x)
        losses += [F.cross_entropy(logits[:, 0], begin[n]), F.cross_entropy(logits[:, 1], end[n])]
    assert out.loss.item() == pytest.approx(torch.stack(losses).mean().item())


def test_a_prompt_is_the_likelihood_of_each_classs_word() -> None:
    model = model_of("prompt", [TEXT], words=WORDS)
    keep = torch.zeros(3, 6, dtype=torch.bool)
    places = [(1, 3), (0, 2), (4, 5)]
    for n, pair in enumerate(places):
        keep[n, list(pair)] = True
    out, (xs,) = run(model, {"class": torch.tensor([2, 0, 1])}, keep)
    head, words = model.targets["prompt"], model.words(Modality.TEXT)
    for n, pair in enumerate(places):
        rows = [
            F.linear(head.norm(F.gelu(head.transform(xs[n][p]))), words, head.bias).log_softmax(0)
            for p in pair
        ]
        expected = torch.stack([(rows[0][a] + rows[1][b]) / 2 for a, b in WORDS])
        torch.testing.assert_close(out.logits["prompt"][n], expected)
    assert out.loss.item() == pytest.approx(
        F.cross_entropy(out.logits["prompt"], torch.tensor([2, 0, 1])).item()
    )
    with pytest.raises(ValueError, match=r"needs the positions of \[MASK\]"):
        run(model, {})


def test_a_prompts_parameters_are_those_of_masked_words() -> None:
    prompt = {
        n: p.shape
        for n, p in model_of("prompt", [TEXT], words=WORDS).targets["prompt"].named_parameters()
    }
    masked = {n: p.shape for n, p in model_of("mlm", [TEXT]).targets["mlm"].named_parameters()}
    assert prompt == masked and PromptConfig().modality is Modality.TEXT
