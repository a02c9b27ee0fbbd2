"""The model as a whole: what it returns, which parameters a task activates, how many there are, and
files."""

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import (
    TARGETS,
    TASKS,
    make_batch,
    random_batch,
    random_examples,
    relative_error,
    tiny_config,
    tiny_model,
)

from skillweave.batch import Batch
from skillweave.config import ConfigError
from skillweave.model.config import ModelConfig
from skillweave.model.model import Model
from skillweave.weights.files import WeightsError

LENGTHS = {
    "to_image": [[5, 5], [3, 5]],
    "to_video": [[5, 9], [3, 9]],
    "to_code": [[5, 8], [3, 2]],
    "masked_code": [[5, 8], [3, 2]],
    "captioning": [[5, 8], [5, 2]],
    "denoising": [[9, 4, 6], [9, 2, 3]],
}


def batch_for(name: str, model: Model) -> Batch:
    return random_batch(name, LENGTHS.get(name, [[7], [4]]), model.config)


OWN_WORDS = {
    **TASKS,
    "masked_code": {**TASKS["masked_code"], "targets": {"mlm": 1.0, "mlm_code": 1.0}},
}
"""Each vocabulary has its own output layer."""
CASES = [(name, TASKS, ["word"]) for name in sorted(TASKS)] + [
    (name, OWN_WORDS, []) for name in sorted(OWN_WORDS)
]


@pytest.mark.parametrize(
    ("name", "tasks", "shared"), CASES, ids=[f"{c[0]}-{'shared' if c[2] else 'own'}" for c in CASES]
)
@pytest.mark.parametrize("route", ["skill", "dense"])
def test_gradients_reach_exactly_the_active_parameters(
    name: str, tasks: dict[str, Any], shared: list[str], route: str
) -> None:
    targets = TARGETS if shared else {**TARGETS, "mlm_code": {"kind": "mlm", "modality": "code"}}
    model = tiny_model(tiny_config(route, shared=shared, tasks=tasks, targets=targets))
    out = model(batch_for(name, model))
    assert torch.isfinite(out.loss)
    out.loss.backward()
    found = {n for n, p in model.named_parameters() if p.grad is not None}
    assert found == set(model.active_parameters(name))
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


def test_each_vocabulary_predicts_its_own_words() -> None:
    """Masked code with wordpieces of its own: each target sees the labels of its own spans
    alone."""
    targets = {**TARGETS, "mlm_code": {"kind": "mlm", "modality": "code"}}
    model = tiny_model(tiny_config(shared=[], tasks=OWN_WORDS, targets=targets))
    batch = random_batch("masked_code", LENGTHS["masked_code"], model.config)
    out = model(batch)
    code, text = (batch.labels["label_ids"][:, :5], batch.labels["label_ids"][:, 5:])
    assert out.logits["mlm_code"].shape == (
        int((code != -100).sum()),
        model.config.streams.code.vocabulary,
    )
    assert out.logits["mlm"].shape == (
        int((text != -100).sum()),
        model.config.streams.text.vocabulary,
    )
    assert torch.isclose(out.loss, out.losses["mlm"] + out.losses["mlm_code"])


def test_several_tasks_activate_the_union() -> None:
    model = tiny_model()
    union = {*model.active_parameters("to_image"), *model.active_parameters("transcribe")}
    assert set(model.active_parameters(["to_image", "transcribe"])) == union
    assert set(model.active_parameters(list(TASKS))) == {n for n, _ in model.named_parameters()}


def test_unknown_tasks_are_named() -> None:
    model = tiny_model()
    with pytest.raises(ConfigError, match="unknown task 'clasify'; did you mean 'classify'"):
        model.active_parameters("clasify")


def test_losses_are_weighted_and_summed() -> None:
    tasks = {
        **TASKS,
        "classify": {**TASKS["classify"], "targets": {"classification": 0.5, "second": 2.0}},
    }
    targets = {
        "classification": {"classes": ["a", "b", "c"]},
        "second": {"kind": "classification", "classes": ["a", "b", "c"]},
    }
    model = tiny_model(tiny_config(tasks={"classify": tasks["classify"]}, targets=targets))
    out = model(random_batch("classify", [[7], [4]], model.config))
    assert set(out.logits) == {"classification", "second"}
    torch.testing.assert_close(
        out.loss, 0.5 * out.losses["classification"] + 2 * out.losses["second"]
    )
    assert not out.load


@pytest.mark.parametrize("name", sorted(TASKS))
def test_no_labels_no_loss(name: str) -> None:
    model = tiny_model()
    examples = random_examples(name, LENGTHS.get(name, [[7], [4]]), model.config)
    out = model(make_batch(name, examples, model.config))
    assert out.loss is None and not out.losses and len(out.logits) == 1


def test_dropout_is_on_in_training_alone() -> None:
    model = tiny_model(tiny_config(encoder={"dropout": 0.5}))
    batch = batch_for("classify", model)
    assert torch.equal(model(batch).loss, model(batch).loss)
    model.train()
    assert not torch.equal(model(batch).loss, model(batch).loss)


def test_masked_frames_hide_their_sound() -> None:
    """Where the mask vector stands, the waveform's own frame is not seen; elsewhere it is."""
    model = tiny_model()
    (example,) = random_examples("masked_sound", [[6]], model.config)
    features = example.spans[0]
    masked = torch.tensor([True] * 6)
    outputs = []
    for waveform in (features.data, torch.randn_like(features.data)):
        batch = make_batch("masked_sound", [example], model.config, bucket=1)
        batch = Batch(batch.layout, (waveform[None],), batch.lengths, {}, (masked[None],))
        outputs.append(model(batch).logits["masked_unit"])
    torch.testing.assert_close(*outputs)


def per_layer(width: int, hidden: int, skills: int) -> int:
    """Query, key, value per skill; attention's output; the feed-forward; two norms."""
    linear = width * width + width
    return (
        skills * 3 * linear
        + linear
        + (width * hidden + hidden)
        + (hidden * width + width)
        + 2 * 2 * width
    )


def text_parameters(width: int, length: int) -> int:
    """Positions, segments and norm; words are counted apart."""
    return length * width + 2 * width + 2 * width


PAPER = {
    "streams": {"text": {}, "image": {}, "sound": {}, "video": {}, "code": {}},
    "encoder": {"sparse": {"qkv": {"route": "skill"}}},
    "targets": {
        "contrastive": {},
        "classification": {"classes": [str(i) for i in range(15)]},
        "ctc": {"characters": list("abcdefg")},
    },
    "tasks": {k: TASKS[k] for k in ("classify", "transcribe", "to_image", "to_video", "to_code")},
}
WIDTH, HIDDEN, LAYERS, WORDS = 768, 3072, 12, 21128 * 768


def paper_parts() -> dict[str, int]:
    """Independent of the code, from SkillNet section 3.3 and its sizes."""
    text = text_parameters(WIDTH, 512)
    convolutions = 512 * 10 + 4 * 512 * 512 * 3 + 2 * 512 * 512 * 2
    return {
        "text": text + WORDS,
        "code": text + WORDS,
        "image": (3 * 16 * 16 * WIDTH + WIDTH) + WIDTH + (14 * 14 + 1) * WIDTH,
        "video": (3 * 3 * 16 * 16 * WIDTH + WIDTH) + WIDTH + (2 + 14 + 14) * WIDTH,
        # convolutions, their scale and shift, the norm before the projection, the projection,
        # positions and norm
        "sound": (
            convolutions + 2 * 512 + 2 * 512 + (512 * WIDTH + WIDTH) + 1000 * WIDTH + 2 * WIDTH
        ),
        "contrastive": 1,
        "classification": (WIDTH * WIDTH + WIDTH) + (WIDTH * 15 + 15),
        "ctc": WIDTH * 8 + 8,
    }


def paper_model(**changes: object) -> Model:
    with torch.device("meta"):
        return Model(ModelConfig.parse({**PAPER, **changes}))


def test_text_to_image_at_the_papers_sizes() -> None:
    """SkillNet Table 3: 124M; 123.7M exactly."""
    parts = paper_parts()
    expected = (
        parts["text"] + parts["image"] + parts["contrastive"] + LAYERS * per_layer(WIDTH, HIDDEN, 2)
    )
    found = paper_model().count_parameters("to_image")
    assert found == expected
    assert round(found / 1e6, 1) == 123.7


@pytest.mark.parametrize(
    ("task", "parts", "skills"),
    [
        ("classify", ["text", "classification"], 1),
        ("transcribe", ["sound", "ctc"], 1),
        ("to_video", ["text", "video", "contrastive"], 2),
        ("to_code", ["text", "code", "contrastive"], 2),
    ],
)
def test_the_other_tasks_at_the_papers_sizes(task: str, parts: list[str], skills: int) -> None:
    expected = sum(paper_parts()[part] for part in parts) + LAYERS * per_layer(
        WIDTH, HIDDEN, skills
    )
    assert paper_model().count_parameters(task) == expected


def test_all_five_at_the_papers_sizes() -> None:
    mask = WIDTH  # the vector of masked frames, which no downstream task uses
    expected = sum(paper_parts().values()) + mask + LAYERS * per_layer(WIDTH, HIDDEN, 5)
    model = paper_model()
    assert model.count_parameters() == expected
    assert model.count_parameters(list(PAPER["tasks"])) == expected - mask
    shared = paper_model(shared=["word"])
    assert shared.count_parameters() == expected - WORDS
    assert shared.count_parameters("to_code") == model.count_parameters("to_code") - WORDS


def test_token_experts_count_as_one_token_uses_them() -> None:
    moe = {"route": "token", "experts": 5, "active": 2}
    model = paper_model(encoder={"sparse": {"feed_forward": moe}})
    dense = paper_model(encoder={})
    expert = WIDTH * HIDDEN + HIDDEN + HIDDEN * WIDTH + WIDTH
    gate = 5 * WIDTH
    assert model.count_parameters() == dense.count_parameters() + LAYERS * (4 * expert + gate)
    assert model.count_parameters("classify") == dense.count_parameters("classify") + LAYERS * (
        expert + gate
    )


def test_initialisation() -> None:
    model = Model(
        tiny_config(width=48, encoder={"heads": 4, "feed_forward": 96}, initializer_range=0.1)
    )
    for name, parameter in model.named_parameters():
        if name.endswith("bias") or "norm" in name or "scale" in name or "shift" in name:
            assert set(parameter.flatten().tolist()) <= {0.0, 1.0} or "log_scale" in name, name
        elif "experts" in name:
            assert parameter.std().item() == pytest.approx(0.1, rel=0.1), name
            assert abs(parameter.mean().item()) < 0.01, name
    image = model.embeddings["image"]  # ty: ignore[unresolved-attribute]
    pixels = torch.randn(64, *image.content["patch"].projection.weight.shape[1:])
    # as large as what it is made of
    assert image.content["patch"](pixels)[:, 1:].std().item() == pytest.approx(1, rel=0.1)
    assert image.positions["position"].table.weight.std().item() == pytest.approx(0.5, rel=0.2)


def test_save_and_load(tmp_path: Path) -> None:
    model = tiny_model(dtype=torch.float32)
    model.assets["text_tokenizer.json"] = b"{}"
    model.save_pretrained(tmp_path / "a" / "b")
    torch.manual_seed(3)
    state = torch.get_rng_state()
    loaded = Model.from_pretrained(tmp_path / "a" / "b")
    assert torch.equal(torch.get_rng_state(), state)
    assert loaded.config == model.config and loaded.assets == model.assets and not loaded.training
    batch = make_batch(
        "classify", random_examples("classify", [[7], [4]], model.config), model.config
    )
    assert (
        relative_error(
            loaded(batch).logits["classification"], model(batch).logits["classification"]
        )
        == 0
    )


def test_folders_that_do_not_fit(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no config\.json there"):
        Model.from_pretrained(tmp_path)
    tiny_model(dtype=torch.float32).save_pretrained(tmp_path)
    config = tiny_config(encoder={"layers": 1})
    (tmp_path / "config.json").write_text(config.model_dump_json())
    (tmp_path / "SHA256SUMS").unlink()
    with pytest.raises(WeightsError, match=r"unexpected: encoder\.blocks\.1"):
        Model.from_pretrained(tmp_path)
