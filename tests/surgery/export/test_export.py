"""Exported encoders against the model they come from, read back from their files, on batches of other
sizes than the first."""

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import (
    SOUND,
    STREAMS,
    TASKS,
    TEXT,
    make_batch,
    random_examples,
    relative_error,
    tiny_config,
    tiny_model,
)
from transformers import AutoTokenizer

from skillweave.batch import Batch, Modality
from skillweave.data.processors import build_processors, tokenizer_asset, train_tokenizer
from skillweave.model.model import Model
from skillweave.surgery import export as package
from skillweave.surgery.carve import carve, task_encoders
from skillweave.surgery.export import export_encoder
from skillweave.surgery.export.graph import run_graph, write_graph
from skillweave.surgery.export.hugging_face import run_stock

LENGTHS = {"image": 5, "video": 9}


def model_of(norm_position: str, **options: str) -> Model:
    encoder = {
        "norm_position": norm_position,
        "sparse": {"linears": {"route": "attribute", "experts": 4}},
        **options,
    }
    return tiny_model(tiny_config(encoder=encoder), torch.float32)


def batch_of(task: str, model: Model, samples: list[int]) -> Batch:
    """Samples whose text, code and sound have these lengths."""
    spans = [span["modality"] for span in TASKS[task]["spans"]]
    lengths = [[LENGTHS.get(m, length) for m in spans] for length in samples]
    return make_batch(
        task, random_examples(task, lengths, model.config, torch.float32), model.config
    )


def one_pass(batch: Batch, number: int) -> Batch:
    spans = batch.layout.passes[number]
    return Batch(
        batch.layout.only(number),
        tuple(batch.inputs[s] for s in spans),
        batch.lengths[:, list(spans)],
    )


def agree(found: torch.Tensor, expected: torch.Tensor, batch: Batch) -> bool:
    parts = [
        torch.arange(s.length) < batch.lengths[:, i : i + 1]
        for i, s in enumerate(batch.layout.spans)
    ]
    own = torch.cat(parts, 1)
    return relative_error(found[own], expected[own]) <= 2e-6


@pytest.mark.parametrize(
    ("task", "forms"),
    [
        ("to_image", ["RobertaPreLayerNormModel", "ViTModel"]),
        ("to_video", ["RobertaPreLayerNormModel", "VivitModel"]),
        ("to_code", ["RobertaPreLayerNormModel", "RobertaPreLayerNormModel"]),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_stock_models_read_back_give_the_same_vectors(
    task: str, forms: list[str], tmp_path: Path
) -> None:
    model = model_of("pre")
    first, second = batch_of(task, model, [7, 4]), batch_of(task, model, [3, 9, 5])
    for p, (name, encoder) in enumerate(task_encoders(carve(model, task), task).items()):
        about = export_encoder(
            encoder, one_pass(first, p), model.hidden(first)[p], tmp_path / "encoders", name
        )
        assert (
            about["format"] == forms[p] and about["path"] == f"encoders/{name}" and not about["why"]
        )
        assert about["largest_relative_error"] <= 2e-6
        again = one_pass(second, p)
        assert agree(
            run_stock(encoder, tmp_path / "encoders" / name, again), model.hidden(second)[p], again
        )


@pytest.mark.filterwarnings("ignore")
def test_post_norm_text_is_bert(tmp_path: Path) -> None:
    model = model_of("post")
    batch = batch_of("classify", model, [7, 4])
    (encoder,) = task_encoders(model, "classify").values()
    about = export_encoder(encoder, batch, model.hidden(batch)[0], tmp_path / "encoders", TEXT)
    assert about["format"] == "BertModel" and about["largest_relative_error"] <= 2e-6


@pytest.mark.filterwarnings("ignore")
def test_nonlinearities_have_other_names_there(tmp_path: Path) -> None:
    model = model_of("pre", activation="gelu_tanh")
    batch = batch_of("classify", model, [7, 4])
    (encoder,) = task_encoders(carve(model, "classify"), "classify").values()
    about = export_encoder(encoder, batch, model.hidden(batch)[0], tmp_path / "encoders", TEXT)
    assert about["format"] == "RobertaPreLayerNormModel" and about["largest_relative_error"] <= 2e-6


@pytest.mark.parametrize("task", ["to_image", "transcribe", "denoising"])
@pytest.mark.filterwarnings("ignore")
def test_graphs_hold_for_other_sizes(task: str, tmp_path: Path) -> None:
    """Of pictures, of padded recordings, and of three spans of which one is causal; one sample is
    no constant."""
    model = model_of("post")
    first, second = batch_of(task, model, [7]), batch_of(task, model, [9, 3, 5])
    p = len(first.layout.passes) - 1
    encoder = list(task_encoders(model, task).values())[p]
    write_graph(encoder, one_pass(first, p), tmp_path / "encoder.pt2")
    for batch in (first, second):
        own = one_pass(batch, p)
        assert agree(run_graph(tmp_path / "encoder.pt2", own), model.hidden(batch)[p].detach(), own)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("task", "position", "stream"),
    [
        ("to_image", {"kind": "rope_2d", "grid": [2, 2]}, {"registers": 2, "embedding": ["patch"]}),
        (
            "to_image",
            {},
            {"cls_token": False, "embedding": ["patch", "grid_position"], "position_size": 16},
        ),
        ("transcribe", {"kind": "t5_bias", "gated": True}, {"embedding": ["stem"]}),
        ("transcribe", {"kind": "rope", "interleaved": True}, {}),
        ("transcribe", {"kind": "disentangled", "buckets": 4, "max_distance": 6}, {}),
    ],
)
def test_graphs_of_embeddings_and_positions(
    task: str, position: dict[str, Any], stream: dict[str, Any], tmp_path: Path
) -> None:
    modality = "image" if task == "to_image" else "sound"
    streams = {**STREAMS, modality: {**STREAMS[modality], **stream}}
    route = "dense" if position.get("kind") == "disentangled" else "skill"
    config = tiny_config(route, encoder={"position": position}, streams=streams)
    model = tiny_model(config, torch.float32)
    image = model.config.streams.image.max_length
    spans = [span["modality"] for span in TASKS[task]["spans"]]
    batches = []
    for samples in ([7], [9, 3, 5]):
        lengths = [[image if name == "image" else n for name in spans] for n in samples]
        examples = random_examples(task, lengths, model.config, torch.float32)
        batches.append(make_batch(task, examples, model.config))
    p = len(batches[0].layout.passes) - 1
    encoder = list(task_encoders(model, task).values())[p]
    write_graph(encoder, one_pass(batches[0], p), tmp_path / "encoder.pt2")
    for batch in batches:
        own = one_pass(batch, p)
        assert agree(run_graph(tmp_path / "encoder.pt2", own), model.hidden(batch)[p].detach(), own)


@pytest.mark.filterwarnings("ignore")
def test_without_transformers_it_is_a_graph(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(package, "find_spec", lambda name: None)
    model = model_of("pre")
    batch = batch_of("transcribe", model, [7, 4])
    (encoder,) = task_encoders(model, "transcribe").values()
    about = export_encoder(encoder, batch, model.hidden(batch)[0], tmp_path / "encoders", SOUND)
    assert about["format"] == "torch.export" and "pip install 'skillweave[hf]'" in about["why"]
    assert about["path"] == "encoders/sound.pt2" and about["largest_relative_error"] <= 2e-6


@pytest.mark.filterwarnings("ignore")
def test_the_tokenizer_goes_with_the_text(tmp_path: Path) -> None:
    model = model_of("pre")
    config = model.config.streams.text.tokenizer.model_copy(update={"min_frequency": 1})
    tokenizer = train_tokenizer(["red square", "a blue ring"], config, 30)
    model.assets[tokenizer_asset(Modality.TEXT)] = tokenizer.to_str().encode()
    (encoder,) = task_encoders(model, "classify").values()
    batch = batch_of("classify", model, [7, 4])
    export_encoder(encoder, batch, model.hidden(batch)[0], tmp_path / "encoders", TEXT)
    theirs = AutoTokenizer.from_pretrained(tmp_path / "encoders" / TEXT)
    ours = build_processors(encoder.config, encoder.assets)[TEXT]
    for text in ("red ring", "a blue blue square of some length, longer than fits"):
        assert theirs(text, truncation=True)["input_ids"] == ours(text).data.tolist()
