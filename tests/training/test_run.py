"""Complete runs on the packed poems and emoji, with a model of a few thousand weights."""

import errno
import json
import shutil
import subprocess

import pytest
from training_recipes import recipe

import skillweave as sw
from skillweave.config import ConfigError
from skillweave.model.model import Model
from skillweave.storage import Damaged
from skillweave.tasks.retrieval import Retrieval
from skillweave.training import Interrupted, train
from skillweave.training.checkpoint import Checkpoints
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
    names |= {"validation.json", "SHA256SUMS"}
    assert {entry.name for entry in (whole / "last").iterdir()} == names
    subprocess.run(["sha256sum", "-c", "--quiet", "SHA256SUMS"], cwd=whole / "last", check=True)
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


@pytest.mark.parametrize("kind", ["adafactor", "muon", "adamw_8bit"])
def test_a_run_with_another_optimizer_resumes_to_the_same_bits(tmp_path, kind):
    if kind == "adamw_8bit":
        pytest.importorskip("bitsandbytes")
    settings = {"checkpoint_every": 2, "optimizer": {"kind": kind, "learning_rate": 1e-3}}
    run = train(recipe(tmp_path / "run", **settings), quiet=True)
    whole = weights(run)
    shutil.rmtree(run / "checkpoints" / "step-00000004")
    train(recipe(run, **settings), resume=True, quiet=True)
    assert weights(run) == whole


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


def test_an_error_never_removes_a_checkpoint(tmp_path, monkeypatch):
    def broken(*args, **kwargs):
        raise ConfigError("100 broken samples in a row")

    first = recipe(tmp_path / "run", checkpoint_every=1, log_every=100)
    with monkeypatch.context() as patch, pytest.raises(ConfigError, match="100 broken"):
        patch.setattr("skillweave.training.trainer.Trainer._run_validation", broken)
        patch.setattr("skillweave.training.trainer.Trainer._validation_is_due", True)
        train(first, quiet=True)
    assert not (tmp_path / "run" / "checkpoints").exists()
    calls = iter(range(9))
    with monkeypatch.context() as patch, pytest.raises(ConfigError, match="100 broken"):
        patch.setattr(
            "skillweave.training.trainer.Trainer._run_validation",
            lambda self: next(calls) < 3 or broken(),
        )
        train(first, quiet=True)
    assert Checkpoints(tmp_path / "run").steps() == [2, 3]
    train(first, resume=True, quiet=True)


@pytest.fixture(scope="module")
def two_checkpoints(tmp_path_factory):
    folder = tmp_path_factory.mktemp("two") / "run"
    return train(recipe(folder, checkpoint_every=1, validate_every=2), quiet=True)


def spoil(file, how):
    content = file.read_bytes()
    file.unlink()
    if how == "cut":
        file.write_bytes(content[: len(content) // 2])
    elif how == "flipped":
        middle = len(content) // 2
        file.write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])


FILES = ["model.safetensors", "optimizer.safetensors", "state.json", "validation.json", "config.json",
         "assets/text_tokenizer.json", "SHA256SUMS"]  # fmt: skip


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("how", ["cut", "flipped", "gone"])
def test_a_damaged_checkpoint_is_set_aside_and_the_one_before_is_resumed(
    two_checkpoints, tmp_path, capsys, name, how
):
    if (name, how) == ("SHA256SUMS", "gone"):
        pytest.skip("a folder without checksums, such as another program's, is not checked")
    run = tmp_path / "moved"
    shutil.copytree(two_checkpoints, run, symlinks=True)
    newest = run / "checkpoints" / "step-00000004"
    spoil(newest / name, how)
    settings = {"checkpoint_every": 1, "validate_every": 2}
    with pytest.warns(UserWarning, match="step-00000004"):
        assert train(recipe(run, **settings), resume=True, quiet=True) == run
    told = capsys.readouterr().err
    assert "damaged-1-step-00000004; " in told and "step-00000003 is used instead" in told
    assert (run / "checkpoints" / "damaged-1-step-00000004").is_dir()
    assert weights(run) == weights(two_checkpoints)
    assert (run / "metrics.jsonl").read_text().count('"kind": "validation"') == 2


def test_a_damaged_best_checkpoint_is_replaced_by_another_for_inference(two_checkpoints, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(two_checkpoints, run, symlinks=True)
    spoil(run / "best" / "model.safetensors", "flipped")
    with pytest.warns(UserWarning, match=r"model.safetensors: damaged.*is used instead"):
        sw.load(run)
    with pytest.raises(Damaged, match="damaged: its checksum is not the one in SHA256SUMS"):
        sw.load(run / "best")


def test_a_run_without_an_undamaged_checkpoint_says_so(two_checkpoints, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(two_checkpoints, run, symlinks=True)
    for folder in (run / "checkpoints").iterdir():
        spoil(folder / "optimizer.safetensors", "cut")
    before = sorted(run.rglob("*"))
    with pytest.raises(ConfigError, match="every checkpoint is damaged"):
        train(recipe(run, checkpoint_every=1, validate_every=2), resume=True, quiet=True)
    assert sorted(run.rglob("*")) == before


def test_a_run_that_was_moved_by_a_program_that_follows_links_resumes(tmp_path):
    settings = {"checkpoint_every": 1, "save_total_limit": 9}
    whole = train(recipe(tmp_path / "whole", **settings), quiet=True)
    shutil.copytree(whole, tmp_path / "copy")  # best and last become folders
    shutil.rmtree(tmp_path / "copy" / "checkpoints" / "step-00000004")
    train(recipe(tmp_path / "copy", **settings), resume=True, quiet=True)
    assert weights(tmp_path / "copy") == weights(whole)
    assert (tmp_path / "copy" / "last").is_symlink()


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


def test_remarks_on_the_data_come_once_before_training(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(Retrieval, "data_remarks", lambda self, source: [f"{len(source)} alike"])
    run = recipe(tmp_path / "run", ("text_to_image",), steps=1)
    for resume in (False, True):
        train(run, resume=resume, quiet=True)
        assert ("task text_to_image: " in capsys.readouterr().err) != resume


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
