"""Masked pictures: what is hidden, what it is compared with, and that both ways of restoring it
learn on the real pack."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from skillweave.batch import Batch
from skillweave.config import ConfigError
from skillweave.data.masking import mask_patches
from skillweave.data.processors.units import PatchModel
from skillweave.evaluation.evaluator import predict_dataset
from skillweave.model.model import Model
from skillweave.recipe import RecipeConfig
from skillweave.tasks.dataset import TaskDataset
from skillweave.tasks.resolve import resolve

SIZE, PATCH = 16, 4
WAYS = {"masked_pixels": ("masked_patch", 0.6), "masked_autoencoder": ("visible_patch", 0.75)}
"""Target → the embedding that hides patches, and the share that its paper hides."""


def recipe(target: str, **masking: Any) -> RecipeConfig:
    decoder = {"layers": 1, "heads": 2, "feed_forward": 32, "norm_position": "pre", "dropout": 0}
    own = {"width": 16, "decoder": decoder} if target == "masked_autoencoder" else {}
    model = {
        "width": 24,
        "streams": {
            "image": {"size": SIZE, "patch": PATCH, "embedding": [WAYS[target][0], "position"]}
        },
        "encoder": {
            "layers": 1,
            "heads": 2,
            "feed_forward": 48,
            "norm_position": "pre",
            "dropout": 0,
        },
        "targets": {target: own},
    }
    data = {"path": "pack:emoji", "limit": 64}
    tasks = {"masked_image": {"target": target, "data": data, "batch_size": 64, "masking": masking}}
    return RecipeConfig.parse(
        {"model": model, "tasks": tasks, "training": {"steps": 1, "threads": 1}}
    )


def opened(target: str, training: bool = False) -> tuple[Model, TaskDataset]:
    torch.manual_seed(0)
    run = resolve(recipe(target))
    return Model(run.model, run.assets), run.dataset("masked_image", "train", training)


def hidden_patches(batch: Batch, specials: int = 1) -> Tensor:
    """[N, P] which patches are hidden."""
    return batch.masked[0][:, specials:]


@given(
    side=st.integers(2, 8),
    block=st.integers(1, 4),
    share=st.floats(0.01, 0.99),
    seed=st.integers(0, 99),
)
def test_as_many_squares_in_every_draw(side: int, block: int, share: float, seed: int) -> None:
    masked = mask_patches(side * block, share, block, np.random.default_rng(seed)).reshape(
        side, block, side, block
    )
    corners = masked[:, :1, :, :1]
    assert torch.equal(masked, corners.expand_as(masked))
    assert int(corners.sum()) == min(max(round(share * side**2), 1), side**2 - 1)


@pytest.mark.parametrize("target", WAYS)
def test_what_is_hidden(target: str) -> None:
    _, dataset = opened(target)
    examples = [dataset.examples(i)[0] for i in range(5)]
    batch = dataset.collate(examples, rng=np.random.default_rng(0))
    patches = (SIZE // PATCH) ** 2
    count = round(WAYS[target][1] * patches)
    hidden = hidden_patches(batch)
    assert hidden.shape == (5, patches) and not batch.masked[0][:, 0].any()
    assert (hidden.sum(1) == count).all() and len({tuple(row) for row in hidden.tolist()}) > 1
    seen = patches - count if target == "masked_autoencoder" else patches
    assert (batch.lengths == 1 + seen).all() and batch.layout.spans[0].length == 1 + seen


@pytest.mark.parametrize("target", WAYS)
def test_error_of_a_model_that_paints_everything_grey(target: str) -> None:
    """Patch by patch: theirs against 0 and against the mean of the patches that are seen."""
    model, dataset = opened(target)
    torch.nn.init.zeros_(model.targets[target].output.weight)
    torch.nn.init.zeros_(model.targets[target].output.bias)
    found = predict_dataset(model, dataset, dataset.batches(7))
    for i, batch in enumerate(dataset.batches(1, limit=4)):
        pixels, hidden = batch.labels["pixels"][0], hidden_patches(batch)[0].tolist()
        patches = [cut(pixels, number) for number in range(len(hidden))]
        mean = torch.stack(
            [patch for patch, is_hidden in zip(patches, hidden, strict=True) if not is_hidden]
        ).mean(0)
        wanted = [patch for patch, is_hidden in zip(patches, hidden, strict=True) if is_hidden]
        assert found.errors[i] == pytest.approx(
            sum(float((patch**2).sum()) for patch in wanted), rel=1e-5
        )
        assert found.of_mean[i] == pytest.approx(
            sum(float(((patch - mean) ** 2).sum()) for patch in wanted), rel=1e-5
        )


@pytest.mark.parametrize("normalised", [False, True])
@pytest.mark.parametrize("target", WAYS)
def test_painting_what_is_wanted_gives_the_picture(target: str, normalised: bool) -> None:
    """Hidden patches alone are painted, where they stand; a report shows colours as they were."""
    model, dataset = opened(target)
    module = model.targets[target]
    module.normalised = normalised
    batch = next(iter(dataset.batches(3)))
    pixels, hidden = batch.labels["pixels"], hidden_patches(batch)
    torch.testing.assert_close(module.paint(module.patches(pixels), pixels, hidden), pixels)
    grey = module.paint(torch.zeros_like(module.patches(pixels)), pixels, ~hidden)
    for number in hidden[0].nonzero().flatten().tolist():
        assert torch.equal(cut(grey[0], number), cut(pixels[0], number))
    views = predict_dataset(model, dataset, dataset.batches(3)).views
    assert len(views) == 6 and views[0][0].shape == (SIZE, SIZE, 3)
    torch.testing.assert_close(
        torch.from_numpy(views[0][0]) / 127.5 - 1, pixels[0].permute(1, 2, 0), atol=0.005, rtol=0
    )


def cut(pixels: Tensor, number: int) -> Tensor:
    """A patch [3, patch, patch], counted row by row."""
    row, column = divmod(number, SIZE // PATCH)
    return pixels[:, row * PATCH : (row + 1) * PATCH, column * PATCH : (column + 1) * PATCH]


@pytest.mark.parametrize("target", WAYS)
def test_hidden_pixels_are_learned(target: str) -> None:
    model, dataset = opened(target, training=True)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
    for step in range(60):
        rng = np.random.default_rng(step)
        batch = dataset.collate([dataset.example(i, rng) for i in range(len(dataset))], rng=rng)
        model(batch).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    found = predict_dataset(model, dataset, dataset.batches(64))
    assert found.errors.sum() < 0.9 * found.of_mean.sum()


def test_visual_tokens_are_the_nearest_centres() -> None:
    """As many colours as tokens: each patch's colour is its token, wherever it stands."""
    colours = torch.randn(5, 3)
    numbers = torch.randint(5, (20, 4, 4))
    pictures = (
        colours[numbers].permute(0, 3, 1, 2).repeat_interleave(PATCH, 2).repeat_interleave(PATCH, 3)
    )
    tokens = PatchModel.from_bytes(PatchModel.fit(pictures, 5, PATCH).to_bytes())
    named = {
        int(n): int(token)
        for n, token in zip(numbers[0].flatten(), tokens(pictures[0]), strict=True)
    }
    for picture, wanted in zip(pictures, numbers, strict=True):
        for n, token in zip(wanted.flatten().tolist(), tokens(picture).tolist(), strict=True):
            assert named.setdefault(n, token) == token
    assert len(set(named.values())) == 5
    with pytest.raises(ConfigError, match="320 patches cannot make 321 visual tokens"):
        PatchModel.fit(pictures, 321, PATCH)


def test_squares_that_do_not_fill_a_picture() -> None:
    with pytest.raises(
        ConfigError, match=r"masking\.block: 4 × 4 patches cannot be hidden in squares of 3"
    ):
        resolve(recipe("masked_pixels", block=3))


def test_a_clip_s_hidden_places_are_the_same_in_all_frames() -> None:
    decoder = {"layers": 1, "heads": 2, "feed_forward": 32, "norm_position": "pre", "dropout": 0}
    video = {
        "size": 16,
        "frames": 4,
        "tubelet": [2, 4, 4],
        "embedding": ["visible_tubelet", "interleaved_sinusoidal"],
        "cls_token": False,
    }
    model: dict[str, Any] = {"width": 24, "streams": {"video": video}, "encoder": decoder}
    model["targets"] = {
        "masked_autoencoder": {
            "stream": "video",
            "width": 16,
            "decoder": decoder,
            "normalised": True,
        }
    }
    tasks = {"masked_video": {"data": {"path": "pack:clips", "limit": 12}, "batch_size": 6}}
    run = resolve(
        RecipeConfig.parse({"model": model, "tasks": tasks, "training": {"steps": 1, "threads": 1}})
    )
    torch.manual_seed(0)
    made, data = Model(run.model, run.assets), run.dataset("masked_video", "train")
    examples = [data.examples(i)[0] for i in range(6)]
    batch = data.collate(examples, rng=np.random.default_rng(0))
    hidden = hidden_patches(batch, specials=0).unflatten(1, (2, 16))
    assert (
        torch.equal(hidden[:, 0], hidden[:, 1]) and (hidden[:, 0].sum(1) == round(0.9 * 16)).all()
    )
    assert (batch.lengths == 2 * (16 - round(0.9 * 16))).all()
    made(batch).loss.backward()
    assert all(p.grad is not None for _, p in made.named_parameters())
    assert set(made.active_parameters("masked_video")) == {
        name for name, _ in made.named_parameters()
    }
    found = predict_dataset(made, data, data.batches(5))
    assert len(found.errors) == len(data) and found.views[0][2].shape == (16, 16, 3)
    target, pixels = made.targets["masked_autoencoder"], batch.labels["pixels"]
    torch.testing.assert_close(
        target.paint(target.patches(pixels), pixels, hidden.flatten(1)),
        pixels,
        atol=1e-5,
        rtol=1e-5,
    )
    # behind those of the first two frames, in the second row
    number, tubelet = 16 + 6, pixels[0, :, 2:4, 4:8, 8:12]
    target.normalised = False
    assert torch.equal(target.patches(pixels)[0, number], tubelet.permute(1, 2, 3, 0).flatten())
