"""Models of the hub by their ids, from the cache of the hub's library, without a network."""

import json
from pathlib import Path

import huggingface_hub
import pytest
import torch
from hf_references import BERT, Reference

import skillweave as sw
from skillweave.cli.app import main
from skillweave.config import ConfigError
from skillweave.weights.files import WeightsError

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and no network."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "hub"


def put(cache: Path, name: str) -> tuple[Path, dict[str, torch.Tensor]]:
    """Put a model into the cache; its folder and weights."""
    own = cache / f"models--{name.replace('/', '--')}"
    folder = own / "snapshots" / COMMIT
    theirs = Reference("BertForMaskedLM", "BertConfig", BERT).build(torch.float32)
    theirs.save_pretrained(folder)
    (own / "refs").mkdir()
    (own / "refs" / "main").write_text(COMMIT)
    return folder, theirs.state_dict()


@pytest.mark.parametrize("name", ["someone/small-bert", "small-bert"])
def test_a_model_by_its_id(name: str, cache: Path) -> None:
    _, state = put(cache, name)
    model = sw.from_hf(name)
    assert torch.equal(
        model.words(sw.Modality.TEXT), state["bert.embeddings.word_embeddings.weight"]
    )


def test_pickles_if_there_is_nothing_else(cache: Path) -> None:
    folder, state = put(cache, "someone/old-bert")
    (folder / "model.safetensors").unlink()
    torch.save(dict(state), folder / "pytorch_model.bin")
    assert torch.equal(
        sw.from_hf("someone/old-bert").words(sw.Modality.TEXT),
        state["bert.embeddings.word_embeddings.weight"],
    )


def test_the_command_takes_an_id(cache: Path, tmp_path: Path) -> None:
    put(cache, "someone/small-bert")
    assert main(["convert", "someone/small-bert", "--out", str(tmp_path / "out")]) == 0
    assert (
        json.loads((tmp_path / "out" / "config.json").read_text())["width"] == BERT["hidden_size"]
    )


def test_a_folder_comes_before_an_id(cache: Path, tmp_path: Path) -> None:
    (tmp_path / "small-bert").mkdir()
    with pytest.raises(WeightsError, match="small-bert: no weights there"):
        sw.from_hf("small-bert")


@pytest.mark.parametrize("name", ["someone/not-there", "notthere"])
def test_an_unknown_id(name: str, cache: Path) -> None:
    with pytest.raises(
        ConfigError,
        match=f"{name}: no such folder, and it cannot be downloaded from the Hugging Face hub",
    ):
        sw.from_hf(name)


def test_a_path_is_no_id(cache: Path) -> None:
    with pytest.raises(WeightsError, match="a/b/c: no weights there"):
        sw.from_hf("a/b/c")
