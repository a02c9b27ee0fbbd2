"""Masked targets: logits where there are labels alone, however padding and spans lie."""

import pytest
import torch
import torch.nn.functional as F
from tiny import (
    STREAMS,
    TARGETS,
    hidden_states,
    make_batch,
    random_batch,
    random_examples,
    task,
    tiny_config,
    tiny_model,
)

from skillweave.batch import IGNORE, Batch, Example, Features, Layout, Modality, Span
from skillweave.data.collate import collate
from skillweave.model.model import Model

LENGTHS = {
    "masked_text": [[9], [2], [5]],
    "masked_code": [[6, 9], [3, 2], [8, 4]],
    "masked_sound": [[9], [2], [5]],
}


@pytest.mark.parametrize("task", ["masked_text", "masked_code"])
def test_words_by_a_plain_loop(task: str) -> None:
    model = tiny_model()
    batch = random_batch(task, LENGTHS[task], model.config)
    target, words = model.targets["mlm"], model.shared["word"].weight
    hidden, labels = hidden_states(model, batch)[0], batch.labels["label_ids"]
    assert labels.shape == hidden.shape[:2]
    losses = [
        F.cross_entropy(
            words @ target.norm(F.gelu(target.transform(hidden[i, j]))) + target.bias, labels[i, j]
        )
        for i, j in (labels != IGNORE).nonzero().tolist()
    ]
    out = model(batch)
    torch.testing.assert_close(out.loss, torch.stack(losses).mean())
    assert out.logits["mlm"].shape == (len(losses), len(words))


def test_units_by_a_plain_loop() -> None:
    model = tiny_model()
    batch = random_batch("masked_sound", LENGTHS["masked_sound"], model.config)
    hidden, labels = hidden_states(model, batch)[0], batch.labels["units"]
    places = (labels != IGNORE).nonzero().tolist()
    losses = [
        F.cross_entropy(model.targets["masked_unit"].classifier(hidden[i, j]), labels[i, j])
        for i, j in places
    ]
    torch.testing.assert_close(model(batch).loss, torch.stack(losses).mean())


def test_nothing_masked_costs_nothing_and_has_a_gradient() -> None:
    model = tiny_model()
    batch = random_batch("masked_text", LENGTHS["masked_text"], model.config)
    batch.labels["label_ids"].fill_(IGNORE)
    batch.logits_to_keep.fill_(False)
    out = model(batch)
    out.loss.backward()
    assert out.loss.item() == 0
    assert out.logits["mlm"].shape[0] == 0


def test_without_labels_every_token_has_logits() -> None:
    model = tiny_model()
    batch = make_batch(
        "masked_text", random_examples("masked_text", [[9], [2]], model.config), model.config
    )
    out = model(batch)
    assert out.loss is None
    assert out.logits["mlm"].shape == (11, model.config.streams.text.vocabulary)


MASKED = torch.tensor([[True, False, True, False], [False, True, True, False]])


def of_pictures(target: str, module: str) -> Model:
    """A model that masks patches, 2 × 2 a picture, with a task beside it that does not."""
    streams = {**STREAMS, "image": {**STREAMS["image"], "embedding": [module, "position"]}}
    tasks = {"mask": task(target, "image"), "name": task("classification", "image")}
    small = {
        "width": 8,
        "decoder": {
            "layers": 1,
            "heads": 2,
            "feed_forward": 16,
            "dropout": 0,
            "attention_dropout": 0,
        },
    }
    options = {
        "masked_image_token": {"vocabulary": 7},
        "masked_autoencoder": small,
        "masked_pixels": {},
    }
    targets = {"classification": TARGETS["classification"], target: options[target]}
    return tiny_model(tiny_config(streams=streams, targets=targets, tasks=tasks))


def masked_pictures(
    model: Model, length: int, pixels: torch.Tensor, **labels: torch.Tensor
) -> Batch:
    """Collated as in training."""
    spans = [
        Features(x, length, F.pad(masked, (1, 0))) for x, masked in zip(pixels, MASKED, strict=True)
    ]
    examples = [
        Example((span,), {name: x[i] for name, x in labels.items()}) for i, span in enumerate(spans)
    ]
    return collate(Layout("mask", (Span(Modality.IMAGE),)), examples, model.config.streams, 4)


def test_visual_tokens_by_a_plain_loop() -> None:
    model = of_pictures("masked_image_token", "masked_patch")
    units = torch.where(F.pad(MASKED, (1, 0)), torch.randint(7, (2, 5)), IGNORE)
    batch = masked_pictures(model, 5, torch.randn(2, 3, 8, 8, dtype=torch.float64), units=units)
    hidden, target = hidden_states(model, batch)[0], model.targets["masked_image_token"]
    places = (units != IGNORE).nonzero().tolist()
    losses = [
        F.cross_entropy(target.classifier(target.norm(hidden[i, j])), units[i, j])
        for i, j in places
    ]
    torch.testing.assert_close(model(batch).loss, torch.stack(losses).mean())


@pytest.mark.parametrize(
    ("target", "module", "length"),
    [("masked_pixels", "masked_patch", 5), ("masked_autoencoder", "visible_patch", 3)],
)
def test_what_is_masked_is_not_seen(target: str, module: str, length: int) -> None:
    model, pixels = of_pictures(target, module), torch.randn(2, 3, 8, 8, dtype=torch.float64)
    hidden_part = MASKED.view(2, 1, 2, 2).repeat_interleave(4, 2).repeat_interleave(4, 3)
    first, second, third = (
        model(masked_pictures(model, length, x, masked=MASKED)).logits[target]
        for x in (
            pixels,
            torch.where(hidden_part, pixels + 3, pixels),
            torch.where(hidden_part, pixels, pixels + 3),
        )
    )
    torch.testing.assert_close(first, second)
    assert not torch.allclose(first, third)


def test_a_task_that_masks_nothing_leaves_the_mask_idle() -> None:
    model = of_pictures("masked_pixels", "masked_patch")
    assert "embeddings.image.mask" in model.active_parameters("mask")
    assert "embeddings.image.mask" not in model.active_parameters("name")
