"""A recipe starts from a model of Hugging Face as it is; it is converted once, into the cache."""

import pytest
import torch
from hf_folder import save_bert
from transformers import BertForMaskedLM

import skillweave as sw
from skillweave.config import ConfigError
from skillweave.recipe import RecipeConfig
from skillweave.training.initial_weights import start_folder


def test_a_hugging_face_folder_is_converted_once(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    theirs = save_bert(tmp_path / "bert", BertForMaskedLM)
    task = {"data": {"path": "a.txt"}, "target": "mlm"}
    described = {"start_from": str(tmp_path / "bert"), "tasks": {"masked_text": task}}
    described["training"] = {"steps": 1}
    with pytest.warns(UserWarning, match="bert was converted to"):
        recipe = RecipeConfig.parse(described)
    assert recipe.model.encoder.layers == theirs.config.num_hidden_layers
    model = sw.load(start_folder(recipe.start_from))
    words = theirs.get_input_embeddings().weight
    assert any(torch.equal(x, words) for x in model.parameters())
    (converted,) = (tmp_path / "cache" / "skillweave").iterdir()
    assert RecipeConfig.parse(described) == recipe  # without a warning, so not again
    assert [converted] == list((tmp_path / "cache" / "skillweave").iterdir())


def test_an_id_that_cannot_be_downloaded_is_told(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    described = {
        "start_from": "no-such-org/model",
        "tasks": {"masked_text": {"data": {"path": "a"}}},
    }
    with pytest.raises(ConfigError, match="no-such-org/model: no such folder, and it cannot be"):
        RecipeConfig.parse({**described, "training": {"steps": 1}})
