"""A slice of a model: what it reads, what it holds, and that it answers as the whole."""

from io import FileIO
from pathlib import Path

import pytest
import torch
from tiny import TASKS, relative_error, tiny_config, tiny_model

import skillweave as sw
from skillweave.config import ConfigError
from skillweave.evaluation.agreement import made_batch
from skillweave.model.model import Model
from skillweave.weights import files as weights
from skillweave.weights.files import FILE

ROUTES = {
    "skill": {"qkv": {"route": "skill"}},
    "attribute": {"linears": {"route": "attribute", "experts": 8}},
    "modality": {"linears": {"route": "modality", "experts": 8}, "every": 2},
    "task": {"linears": {"route": "task", "experts": 8}},
    "whole feed-forwards": {"feed_forward": {"route": "modality", "experts": 8}},
    "token": {"feed_forward": {"route": "token", "experts": 4}},
    "context": {"linears": {"route": "context", "experts": 4}},
}


@pytest.fixture(params=ROUTES)
def saved(request, tmp_path: Path) -> tuple[Model, Path]:
    model = tiny_model(tiny_config(encoder={"sparse": ROUTES[request.param]}), torch.float32)
    model.assets = {
        name: b"x" for name in ("text_tokenizer.json", "sound_units.safetensors", "notes.txt")
    }
    model.save_pretrained(tmp_path / "whole")
    return model, tmp_path / "whole"


def same_answers(part: Model, whole: Model, task: str) -> bool:
    batch = made_batch(whole, task)
    with torch.no_grad():
        pairs = zip(part(batch).logits.values(), whole(batch).logits.values(), strict=True)
        return all(relative_error(found, expected) == 0 for found, expected in pairs)


def test_it_holds_what_the_tasks_activate_and_answers_alike(saved) -> None:
    whole, folder = saved
    for tasks in (*([task] for task in TASKS), ["to_image", "transcribe"], list(TASKS)):
        part = sw.load(folder, tasks=tasks)
        assert set(part.state_dict()) == set(whole.active_parameters(tasks))
        assert list(part.config.tasks) == tasks and not part.training
        assert all(same_answers(part, whole, task) for task in tasks)
        assert part.count_parameters(tasks[0]) == whole.count_parameters(tasks[0])


def test_a_saved_slice_is_a_model(saved, tmp_path: Path) -> None:
    whole, folder = saved
    sw.load(folder, tasks="to_video").save_pretrained(tmp_path / "part")
    again = sw.load(tmp_path / "part")
    assert set(again.state_dict()) == set(whole.active_parameters("to_video")) and same_answers(
        again, whole, "to_video"
    )
    with pytest.raises(ConfigError, match="unknown task 'transcribe'; valid names: to_video"):
        sw.load(tmp_path / "part", tasks=["transcribe"])


def test_only_the_bytes_of_the_slice_are_read(saved, monkeypatch) -> None:
    whole, folder = saved
    counts: list[int] = []

    class Counting(FileIO):
        def readinto(self, buffer) -> int:
            got = super().readinto(buffer)
            counts.append(got)
            return got

    monkeypatch.setattr(weights, "FileIO", Counting)
    for task in TASKS:
        counts.clear()
        sw.load(folder, tasks=[task])
        names = whole.active_parameters(task)
        header = 8 + int.from_bytes((folder / FILE).read_bytes()[:8], "little")
        twice = any(".route." in name for name in names)  # gates first, then what they pick
        assert sum(counts) == sum(
            4 * whole.get_parameter(name).numel() for name in names
        ) + header * (1 + twice)


def test_assets_of_other_tasks_stay_where_they_are(saved) -> None:
    _, folder = saved
    assert set(sw.load(folder, tasks=["classify"]).assets) == {"text_tokenizer.json", "notes.txt"}
    assert set(sw.load(folder, tasks=["masked_sound"]).assets) == {
        "sound_units.safetensors",
        "notes.txt",
    }
    assert set(sw.load(folder, tasks=["transcribe"]).assets) == {"notes.txt"}


def test_tasks_that_the_model_never_had(saved) -> None:
    _, folder = saved
    with pytest.raises(ConfigError, match="unknown task 'to_imgae'; did you mean 'to_image'"):
        sw.load(folder, tasks=["classify", "to_imgae"])
    with pytest.raises(ConfigError, match=r"no task is named.*valid names: classify"):
        sw.load(folder, tasks=[])


def test_code_alone_keeps_the_words_it_shares(tmp_path: Path) -> None:
    tasks = {"code": {"spans": [{"modality": "code"}], "targets": {"mlm": 1.0}}, **TASKS}
    whole = tiny_model(tiny_config(tasks=tasks), torch.float32)
    whole.save_pretrained(tmp_path)
    part = sw.load(tmp_path, tasks=["code"])
    assert "shared.word.weight" in part.state_dict() and part.config.asset_names == {
        "text_tokenizer.json"
    }
    assert same_answers(part, whole, "code")


def test_a_gate_that_leaves_the_slice_is_told(tmp_path: Path) -> None:
    whole = tiny_model(
        tiny_config(encoder={"sparse": {"linears": {"route": "task", "experts": 8}}}), torch.float32
    )
    whole.save_pretrained(tmp_path)
    part = sw.load(tmp_path, tasks=["classify"])
    with torch.no_grad():
        for block in part.encoder.blocks:
            block.attention.qkv.route.gate.weight.neg_()
    with pytest.raises(
        ConfigError,
        match="not in this slice; to train gates or use other tasks, load the whole model",
    ):
        part(made_batch(part, "classify"))
