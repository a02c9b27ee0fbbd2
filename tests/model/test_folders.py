"""Where a model is found: models that are installed with the package, by name."""

from pathlib import Path

import pytest

from skillweave.config import ConfigError
from skillweave.model import folders
from skillweave.model.folders import is_hf_model, model_folder, own_folder, packaged_models


@pytest.fixture
def packaged(tmp_path, monkeypatch) -> Path:
    """A package with one model, `skillweave/some`; the current folder is another."""
    folder = tmp_path / "package" / "pretrained" / "some"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    monkeypatch.setattr(folders, "files", lambda package: tmp_path / "package")
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return folder


def test_a_model_of_the_package_has_a_name(packaged):
    assert packaged_models() == {"skillweave/some": packaged}
    assert model_folder("skillweave/some") == packaged
    assert own_folder("skillweave/some") == str(packaged)
    assert not is_hf_model("skillweave/some")


def test_a_folder_here_is_meant_before_a_model_of_the_package(packaged):
    here = Path("skillweave/some")
    here.mkdir(parents=True)
    (here / "config.json").write_text("{}")
    assert model_folder("skillweave/some") == here


def test_a_name_that_no_model_of_the_package_has_is_an_error_with_the_nearest(packaged):
    for find in (model_folder, own_folder, is_hf_model):
        with pytest.raises(ConfigError, match=r"'skillweave/som'.*did you mean 'skillweave/some'"):
            find("skillweave/som")


def test_other_names_are_those_of_the_hub(packaged):
    assert is_hf_model("someone/skillweave")
    assert is_hf_model("bert-base/uncased")
