"""skillweave/tiny as ONNX: every modality, on real inputs, against the model itself."""

from pathlib import Path

import numpy as np
import onnxruntime
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from tiny_run import CAPTIONS

import skillweave as sw
from skillweave.data.sources.pack import pack_folder
from skillweave.evaluation.agreement import real_batch
from skillweave.inference.loading import recipe_for
from skillweave.surgery.formats.graphs import Onnx, pass_graphs

ROOT = Path(__file__).parents[3]
DATA = {
    "text": ("text_to_image", "emoji"),
    "image": ("text_to_image", "emoji"),
    "video": ("text_to_video", "clips"),
    "code": ("text_to_code", f"functions:{ROOT / 'src' / 'skillweave' / 'layers'}"),
    "sound": ("speech_recognition", "pack:speech"),
}


@pytest.fixture(scope="module")
def model() -> sw.Model:
    return sw.load("skillweave/tiny")


def source(name: str, folder: Path) -> str:
    """A few rows of a pack, with the names that the columns had in the model's training."""
    if ":" in name:
        return name
    table = pq.read_table(pack_folder() / f"{name}.parquet").to_pylist()
    rows = [row for row in table if row["split"] == "test"][:8]
    for row in rows:
        row |= {"text_zh": row.pop("caption_zh"), "text_en": row.pop("caption_en")}
    file = folder / f"{name}.parquet"
    pq.write_table(pa.Table.from_pylist(rows), file)
    return str(file)


@pytest.mark.parametrize("modality", DATA)
def test_onnxruntime_gives_what_the_model_gives(modality, model, tmp_path: Path) -> None:
    task, path = DATA[modality]
    recipe = recipe_for(model, {task: source(path, tmp_path)}, "skillweave/tiny", "test")
    batch, _ = real_batch(recipe, task, 6)
    (one,) = (one for one in pass_graphs(model, batch) if one.name == modality)
    file = tmp_path / "graph.onnx"
    Onnx().write(one, file)
    found = Onnx().run(one, file)
    with torch.inference_mode():
        if one.graph.embeds:
            expected = model.embed(batch)[("text", modality).index(modality)]
        else:
            (expected,) = model(batch).logits.values()  # zeros at padding
            found[expected.abs().sum(-1) == 0] = 0
    np.testing.assert_allclose(found, expected, atol=1e-5 * expected.abs().max().item(), rtol=0)
    session = onnxruntime.InferenceSession(file)
    assert session.get_inputs()[0].name == modality
    # a sample alone, and another number of samples than it was exported with
    alone = [x[:1].numpy() for x in one.tensors]
    (single,) = session.run(None, dict(zip(one.names, alone, strict=True)))
    single = torch.from_numpy(single)
    single[expected[:1].abs().sum(-1) == 0] = 0
    np.testing.assert_allclose(single, expected[:1], atol=1e-5 * expected.abs().max().item())
    if modality == "text":
        _compare_other_lengths(model, session)


def _compare_other_lengths(model: sw.Model, session: onnxruntime.InferenceSession) -> None:
    """Longer and shorter texts than those of the export, through the model's tokenizer."""
    predictor = sw.Predictor(model)
    texts = [*CAPTIONS, "a long text " * 9]
    expected = predictor.encode("text_to_image", text=texts)
    _, processor = predictor.encoder("text_to_image", "text")
    for text, vector_D in zip(texts, expected, strict=True):
        features = processor(text)
        given = {"text": features.data[None].numpy(), "lengths": np.array([[features.length]])}
        np.testing.assert_allclose(session.run(None, given)[0][0], vector_D, atol=1e-5)
