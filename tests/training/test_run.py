"""Complete runs on the packed poems and emoji, with a model of a few thousand weights."""

import errno
import json
import shutil

import pytest
from training_recipes import recipe

from skillweave.config import ConfigError
from skillweave.model.model import Model
from skillweave.training import Interrupted, train
from skillweave.training.run import remedy_for


def weights(run):
    return (run / "last" / "model.safetensors").read_bytes()


def test_a_run_leaves_all_that_is_promised_and_resumes_from_any_step(tmp_path):
    both = ("text_classification", "text_to_image")
    whole = train(recipe(tmp_path / "whole", both, validate_every=2, log_every=1), quiet=True)
    assert {entry.name for entry in whole.iterdir()} >= {
        "recipe.yaml", "environment.json", "metrics.jsonl", "skipped.jsonl", "checkpoints", "best", "last"
    }  # fmt: skip
    names = {"config.json", "model.safetensors", "optimizer.safetensors", "state.json", "assets"}
    assert {entry.name for entry in (whole / "last").iterdir()} == names
    lines = [json.loads(line) for line in (whole / "metrics.jsonl").read_text().splitlines()]
    validated = {line["task"]: line["metric"] for line in lines if line["kind"] == "validation"}
    assert (
        "accuracy" in validated["text_classification"]
        and "recall_at_1" in validated["text_to_image"]
    )
    Model.from_pretrained(whole / "best")

    cut = train(
        recipe(
            tmp_path / "cut",
            both,
            validate_every=2,
            checkpoint_every=1,
            save_total_limit=9,
            log_every=1,
        ),
        quiet=True,
    )
    for step in (4, 3):
        shutil.rmtree(cut / "checkpoints" / f"step-{step:08d}")
    train(
        recipe(cut, both, validate_every=2, checkpoint_every=1, save_total_limit=9, log_every=1),
        resume=True,
        quiet=True,
    )
    assert weights(whole) == weights(cut)


def test_faults_come_before_any_training(tmp_path):
    run = train(recipe(tmp_path / "run"), quiet=True)
    with pytest.raises(ConfigError, match="already holds a run"):
        train(recipe(run), quiet=True)
    with pytest.raises(ConfigError, match=r"training\.steps: was 4, now 5"):
        train(recipe(run, steps=5), resume=True, quiet=True)
    with pytest.raises(ConfigError, match="start_from"):
        train(recipe(tmp_path / "other", start_from=tmp_path / "nowhere"), quiet=True)
    assert not (tmp_path / "other").exists()


def test_a_fault_found_late_leaves_no_folder_in_the_way(tmp_path, monkeypatch):
    def full(*args):
        raise ConfigError("no room")

    with monkeypatch.context() as patch, pytest.raises(ConfigError, match=r"^no room$"):
        patch.setattr("skillweave.training.run.require_space", full)
        train(recipe(tmp_path / "run"), quiet=True)
    train(recipe(tmp_path / "run", steps=2), quiet=True)


def test_a_finished_run_resumes_to_itself(tmp_path):
    run = train(recipe(tmp_path / "run"), quiet=True)
    before = weights(run), (run / "metrics.jsonl").read_text()
    assert train(recipe(run), resume=True, quiet=True) == run
    assert before == (weights(run), (run / "metrics.jsonl").read_text())


def test_fine_tuning_starts_from_what_agrees(tmp_path, capsys):
    first = train(recipe(tmp_path / "first"), quiet=True)
    second = train(
        recipe(tmp_path / "second", ("text_to_image",), start_from=first, steps=1), quiet=False
    )
    assert (
        "start_from" in (report := capsys.readouterr().err)
        and "not used: targets.classification" in report
    )
    assert (first / "best" / "assets" / "text_tokenizer.json").read_bytes() == (
        second / "best" / "assets" / "text_tokenizer.json"
    ).read_bytes()


def test_failures_of_the_machine_come_with_a_remedy():
    assert remedy_for(OSError(errno.ENOSPC, "No space left on device")) == "free some space"
    assert "lower training.workers" in remedy_for(
        RuntimeError("DataLoader worker (pid(s) 7) exited unexpectedly")
    )
    assert not remedy_for(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))


def test_interruption_tells_how_to_go_on_and_how_to_exit(tmp_path):
    error = Interrupted(tmp_path, 7, 2)
    assert error.exit_status == 130
    assert "stopped after step 7" in str(error) and "--resume" in str(error)
