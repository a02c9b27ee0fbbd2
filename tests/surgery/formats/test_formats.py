"""Models in the formats of other programs, read back by those programs."""

import json
import sys
from pathlib import Path

import onnx
import pytest
import torch
from tiny_run import make_run

import skillweave as sw
from skillweave import cli
from skillweave.evaluation.agreement import made_batch
from skillweave.surgery.formats import FORMATS, Exported, Format, TorchExport, export_model
from skillweave.surgery.formats.base import logit_quality, vector_quality
from skillweave.weights.files import FILE


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("formats"))


def export(run: Path, out: Path, *words: str) -> dict:
    file = out.with_suffix(".json")
    given = ["export", str(run), "--out", str(out), "--json", str(file), *words]
    assert cli.main(given) == 0
    about = json.loads(file.read_text("utf-8"))
    assert about == json.loads((out / "export.json").read_text("utf-8"))
    return about


def test_torch_export_of_a_run_on_its_samples(run: Path, tmp_path: Path, capsys) -> None:
    about = export(run, tmp_path / "made", "--to", "torch", "--task", "text_to_image")
    shown = capsys.readouterr().out
    assert "text.pt2" in shown and "compared on 6 validation samples" in shown
    text, image = about["files"]
    assert text["inputs"] == {"text": ["N", "L"], "lengths": ["N", 1]}
    assert image["inputs"] == {"image": ["N", 3, 16, 16]}
    assert max(one["largest_relative_error"] for one in about["files"]) <= 1e-5
    assert text["quality"]["same_nearest"] == 1 and text["gives"] == "vectors"
    assert (tmp_path / "made" / "config.json").is_file()
    assert (tmp_path / "made" / "assets").is_dir()  # the tokenizer
    program = torch.export.load(tmp_path / "made" / "image.pt2").module()
    vectors = program(inputs=[torch.randn(3, 3, 16, 16)], lengths=None)
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(3))


def test_int8_is_smaller_and_states_its_loss(run: Path, tmp_path: Path, capsys) -> None:
    about = export(run, tmp_path / "made", "--to", "int8", "--task", "text_classification")
    (one,) = about["files"]
    assert one["gives"] == "logits" and one["samples"] == 6
    assert one["quality"].keys() == {"same_largest"}
    assert 0 < one["largest_relative_error"] < 0.2
    assert "same largest 1.0000" in capsys.readouterr().out or one["quality"]["same_largest"] < 1
    stored = {x.data_type for x in onnx.load(tmp_path / "made" / one["path"]).graph.initializer}
    assert onnx.TensorProto.INT8 in stored
    assert [file.name for file in (tmp_path / "made").glob("*.onnx")] == ["text.onnx"]


def test_a_model_without_data_is_compared_on_made_inputs(run: Path, tmp_path: Path) -> None:
    sw.carve(sw.load(run), "text_classification").save_pretrained(tmp_path / "small")
    about = export(tmp_path / "small", tmp_path / "made", "--to", "torch")
    assert about["task"] == "text_classification" and "made inputs" in about["compared_on"]


def test_what_cannot_be_exported_is_told(run: Path, tmp_path: Path, capsys, monkeypatch) -> None:
    def fault(*words: str) -> str:
        out = tmp_path / "out"
        assert cli.main(["export", str(run), "--out", str(out), *words]) == 2
        assert not out.exists()
        return capsys.readouterr().err

    assert "did you mean 'onnx'" in fault("--to", "onxn", "--task", "text_to_image")
    assert "choose the task with --task: text_classification" in fault("--to", "onnx")
    assert "unknown task" in fault("--to", "onnx", "--task", "text_to_imag")
    monkeypatch.setattr("skillweave.surgery.formats.base.find_spec", lambda name: None)
    told = fault("--to", "onnx", "--task", "text_to_image")
    assert "onnxruntime: not installed (pip install 'skillweave[export]')" in told


def test_a_graph_that_cannot_be_written_is_one_line(run, tmp_path, capfd, monkeypatch) -> None:
    def fail(*words: object) -> None:
        print("a long graph", file=sys.stderr)
        raise RuntimeError("Could not guard on 192*u1\nand much more")

    monkeypatch.setattr(TorchExport, "write", fail)
    words = ["--to", "torch", "--task", "text_classification", "--out", str(tmp_path / "out")]
    assert cli.main(["export", str(run), *words]) == 2
    told = capfd.readouterr().err
    assert told == (
        "skillweave export: task 'text_classification': a graph cannot hold pass text:"
        " Could not guard on 192*u1\n"
    )
    assert not (tmp_path / "out").exists()


def test_an_export_that_differs_is_not_written(run: Path, tmp_path: Path) -> None:
    class Wrong(Format):
        summary = "a file of another model"

        def export(self, model, batch, folder):
            (folder / "file").write_bytes(b"")
            return [Exported("file", "logits", {}, len(batch), 0, self.error)]

    model = sw.load(run)
    try:
        FORMATS.register("wrong")(Wrong)
        batch = made_batch(model, "text_classification")
        for error in (1e-3, float("nan")):
            Wrong.error = error
            with pytest.raises(sw.ConfigError, match="nothing was written"):
                export_model(model, "wrong", batch, tmp_path / "out")
            assert not (tmp_path / "out").exists()
        Wrong.error = 1e-6
        export_model(model, "wrong", batch, tmp_path / "out")
        assert not (tmp_path / "out" / FILE).exists()
    finally:
        del FORMATS["wrong"]


def test_quality_is_what_a_plain_loop_gives() -> None:
    expected = torch.nn.functional.normalize(torch.randn(5, 4), dim=1)
    found = torch.nn.functional.normalize(expected + 0.8 * torch.randn(5, 4), dim=1)
    cosines = [float(a @ b) for a, b in zip(expected, found, strict=True)]
    same = 0
    for i in range(5):
        others = [j for j in range(5) if j != i]
        best = [max(others, key=lambda j: float(x[i] @ x[j])) for x in (expected, found)]
        same += best[0] == best[1]
    quality = vector_quality(found, expected)
    assert quality["mean_cosine"] == pytest.approx(sum(cosines) / 5, abs=1e-6)
    assert quality["least_cosine"] == pytest.approx(min(cosines), abs=1e-6)
    assert quality["same_nearest"] == pytest.approx(same / 5)
    logits = torch.tensor([[1.0, 2.0], [3.0, 1.0]])
    assert logit_quality(logits, logits.flip(1)) == {"same_largest": 0.0}
    assert logit_quality(logits, 2 * logits) == {"same_largest": 1.0}
