"""Similarity against plain loops in float64: one candidate for a sample or a position, sampled
candidates, and pairs."""

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from tiny import (
    TARGETS,
    TASKS,
    layout_of,
    random_examples,
    relative_error,
    task,
    tiny_config,
    tiny_model,
)
from torch import Tensor

from skillweave.batch import IGNORE, Batch, Example, Features
from skillweave.config import ConfigError
from skillweave.data.collate import collate
from skillweave.model.config import ModelConfig
from skillweave.model.model import Model

UNIFIED = {
    **TASKS,
    "name_image": task("similarity", "image", "text@1"),
    "caption": task("similarity", "image", "text/causal", "text@1"),
    "find_code": task("similarity", "text", "code@1"),
    "find_frames": task("similarity", "text", "image@1", "image@2"),
}
NAMES = [[7, 8], [9], [7, 9, 10], [11]]


@pytest.fixture
def config() -> ModelConfig:
    sparse = {"linears": {"route": "attribute", "experts": 4}}
    targets = {**TARGETS, "similarity": {"temperature": 0.2, "pooling": "mean"}}
    return tiny_config(targets=targets, tasks=UNIFIED, encoder={"sparse": sparse})


@pytest.fixture
def model(config: ModelConfig) -> Model:
    return tiny_model(config)


def inputs(name: str, lengths: list[list[int]], config: ModelConfig) -> Batch:
    """The task's first pass alone."""
    layout = layout_of(name, UNIFIED).only(0)
    kind = {"name_image": "to_image", "caption": "captioning"}[name]
    width = len(layout.spans)
    examples = [
        Example(e.spans[-1:] if name == "name_image" else e.spans[:width], {})
        for e in random_examples(kind, lengths, config)
    ]
    return collate(layout, examples, config.streams, 4)


def candidates(name: str, config: ModelConfig, rows: list[int] | None = None) -> Batch:
    ids = [NAMES[row] for row in (range(len(NAMES)) if rows is None else rows)]
    examples = [Example((Features(torch.tensor(row), len(row)),), {}) for row in ids]
    return collate(layout_of(name, UNIFIED).only(1), examples, config.streams, 1)


def vectors(name: str, model: Model) -> Tensor:
    """Each candidate encoded alone."""
    return torch.cat(
        [model.embed(candidates(name, model.config, [row]))[0] for row in range(len(NAMES))]
    )


def cross_entropy(scores: list[float], wanted: int) -> float:
    return math.log(sum(math.exp(s) for s in scores)) - scores[wanted]


def test_a_class_by_a_plain_loop(model: Model) -> None:
    batch, wanted = inputs("name_image", [[1, 5]] * 3, model.config), [2, 0, 2]
    names, scale = vectors("name_image", model), 1 / 0.2
    model.targets["similarity"].pairs.log_scale.data.fill_(math.log(scale))
    pictures, names = model.embed(batch)[0].detach(), names.detach()
    scores = [[scale * float(pictures[i] @ names[c]) for c in range(4)] for i in range(3)]
    expected = sum(map(cross_entropy, scores, wanted)) / 3
    batch = replace(batch, labels={"class": torch.tensor(wanted)})
    own = model(replace(batch, candidates=candidates("name_image", model.config)))
    given = model(batch, candidates=names)
    assert own.loss.item() == pytest.approx(expected, rel=1e-9)
    assert given.loss.item() == pytest.approx(expected, rel=1e-9)
    torch.testing.assert_close(own.logits["similarity"], torch.tensor(scores, dtype=torch.float64))


def test_words_of_a_causal_text_by_a_plain_loop(model: Model) -> None:
    batch = inputs("caption", [[5, 6], [5, 3]], model.config)
    labels = torch.full((2, 5 + 8), IGNORE)
    wanted = {(0, 5): 1, (0, 9): 3, (1, 5): 1, (1, 7): 0}
    for place, row in wanted.items():
        labels[place] = row
    batch = replace(
        batch,
        labels={"label_ids": labels},
        logits_to_keep=labels != IGNORE,
        candidates=candidates("caption", model.config),
    )
    hidden, names = model._encode(batch)[0][0].padded().detach(), vectors("caption", model).detach()
    scale = model.targets["similarity"].pairs.scale.item()
    losses = []
    for place, row in wanted.items():
        position = hidden[place] / hidden[place].norm()
        losses.append(cross_entropy([scale * float(position @ names[c]) for c in range(4)], row))
    assert model(batch).loss.item() == pytest.approx(sum(losses) / 4, rel=1e-9)


def test_a_negative_that_stands_for_several_counts_as_often(model: Model) -> None:
    """As if the others were copies of it."""
    batch = replace(
        inputs("name_image", [[1, 5]] * 2, model.config), labels={"class": torch.tensor([0, 1])}
    )
    few = replace(
        candidates("name_image", model.config, [0, 1, 3]),
        labels={"stands_for": torch.tensor([1.0, 1.0, 3.0], dtype=torch.float64)},
    )
    copies = candidates("name_image", model.config, [0, 1, 3, 3, 3])
    assert (
        relative_error(
            model(replace(batch, candidates=few)).loss,
            model(replace(batch, candidates=copies)).loss,
        )
        < 1e-9
    )


def test_a_correction_is_zero_at_first_and_follows_the_candidates_numbers() -> None:
    targets = {**TARGETS, "similarity": {"corrections": {"name_image": len(NAMES)}}}
    model = Model(tiny_config(targets=targets, tasks=UNIFIED)).double().eval()
    correction = model.targets["similarity"].corrections["name_image"]
    assert not any(p.any() for p in correction.parameters())
    batch, names = (
        inputs("name_image", [[1, 5]] * 3, model.config),
        vectors("name_image", model).detach(),
    )
    before = model(batch, candidates=names).logits["similarity"]
    torch.nn.init.normal_(correction.weight)
    torch.nn.init.normal_(correction.bias)
    expected = before + model.embed(batch)[0] @ correction.weight.T + correction.bias
    torch.testing.assert_close(model(batch, candidates=names).logits["similarity"], expected)
    some = replace(
        candidates("name_image", model.config, [3, 1]), labels={"numbers": torch.tensor([3, 1])}
    )
    torch.testing.assert_close(
        model(replace(batch, candidates=some)).logits["similarity"], expected[:, [3, 1]]
    )
    with pytest.raises(ConfigError, match="tuned for 4 classes, not 2"):
        model(batch, candidates=names[:2])


def test_gradients_reach_inputs_and_candidates_and_nothing_else(model: Model) -> None:
    batch = replace(
        inputs("name_image", [[1, 5]] * 3, model.config), labels={"class": torch.tensor([2, 0, 2])}
    )
    model(replace(batch, candidates=candidates("name_image", model.config))).loss.backward()
    assert {n for n, p in model.named_parameters() if p.grad is not None} == set(
        model.active_parameters("name_image")
    )
    assert sum(p.numel() for p in model.targets["similarity"].parameters()) == 1


def test_pairs_have_the_contrastive_loss(model: Model) -> None:
    examples = random_examples("to_code", [[5, 7], [3, 9], [8, 4]], model.config)
    labels = {"caption": torch.tensor([1, 2, 1])}
    batch = replace(
        collate(layout_of("find_code", UNIFIED), examples, model.config.streams, 4), labels=labels
    )
    texts, codes = model.embed(batch)
    scores = model.targets["similarity"].pairs.scale * texts @ codes.T
    scores[0, 2] = scores[2, 0] = -math.inf
    expected = (
        F.cross_entropy(scores, torch.arange(3)) + F.cross_entropy(scores.T, torch.arange(3))
    ) / 2
    torch.testing.assert_close(model(batch).loss, expected)


def test_a_clip_is_the_mean_direction_of_its_frames(model: Model) -> None:
    pictures = [e.spans[1] for e in random_examples("to_image", [[2, 5]] * 4, model.config)]
    texts = [e.spans[0] for e in random_examples("to_image", [[4, 5], [6, 5]], model.config)]
    examples = [Example((texts[i], pictures[2 * i], pictures[2 * i + 1]), {}) for i in range(2)]
    batch = collate(layout_of("find_frames", UNIFIED), examples, model.config.streams, 4)
    queries, *frames = model.embed(batch)
    clips = [(frames[0][i] + frames[1][i]) / (frames[0][i] + frames[1][i]).norm() for i in range(2)]
    expected = model.targets["similarity"].pairs.scale * torch.stack(
        [torch.stack([q @ c for c in clips]) for q in queries]
    )
    torch.testing.assert_close(model(batch).logits["similarity"], expected)


def test_answers_without_candidates_are_an_error(model: Model) -> None:
    batch = replace(
        inputs("name_image", [[1, 5]], model.config), labels={"class": torch.tensor([0])}
    )
    with pytest.raises(
        ValueError, match=r"no candidates to choose from: encode them with model\.embed"
    ):
        model(batch)
