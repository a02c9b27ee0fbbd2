"""The training loop: accumulation, exact resumption, steps without a finite loss, validation."""

import json
import os
import signal

import pytest
import torch
from stand_ins import SAMPLES, TinyModel, fit_tiny, tiny_recipe, tiny_trainer, validate_tiny

from skillweave.config import ConfigError
from skillweave.training.checkpoint import Checkpoints, TrainingState
from skillweave.training.errors import TrainingError
from skillweave.training.optimizer import learning_rate


def assert_equal(one, other):
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def lines(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def losses(folder):
    return [(line["step"], line["kind"], line["task"], line["loss"]) for line in lines(folder)]


def stop_at(micro_batch, number=signal.SIGTERM):
    def spoil(index, x):
        if index == micro_batch:
            os.kill(os.getpid(), number)

    return spoil


def test_same_recipe_same_weights_and_another_seed_others(tmp_path):
    first = fit_tiny(tiny_recipe(tmp_path / "a"))
    assert_equal(first, fit_tiny(tiny_recipe(tmp_path / "b")))
    other = fit_tiny(tiny_recipe(tmp_path / "c", seed=1))
    assert not torch.equal(first["shared.weight"], other["shared.weight"])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("step", [0, 4, 10])
def test_interrupted_and_resumed_is_bit_identical(tmp_path, step, number):
    whole, cut = (
        tiny_recipe(tmp_path / name, gradient_accumulation_steps=2, validate_every=5)
        for name in ("whole", "cut")
    )
    weights = fit_tiny(whole, validate=validate_tiny)
    with tiny_trainer(cut, spoil=stop_at(2 * step, number), validate=validate_tiny) as trainer:
        assert trainer.fit() == number
        assert trainer.state.step == step + 1  # the step was finished
    assert Checkpoints(cut.folder, 1).steps()[-1] == step + 1
    assert_equal(weights, fit_tiny(cut, validate=validate_tiny))
    assert losses(whole.folder) == losses(cut.folder)
    ends = [TrainingState.read(recipe.folder / "last") for recipe in (whole, cut)]
    for state in ends:
        state.logger.pop("seconds")
    assert ends[0] == ends[1]


def test_a_signal_during_the_last_step_ends_as_usual(tmp_path):
    with tiny_trainer(tiny_recipe(tmp_path), spoil=stop_at(11)) as trainer:
        assert trainer.fit() == 0


def test_workers_change_nothing(tmp_path):
    assert_equal(
        fit_tiny(tiny_recipe(tmp_path / "a")), fit_tiny(tiny_recipe(tmp_path / "b", workers=2))
    )


def test_accumulation_is_the_mean_over_micro_batches(tmp_path):
    recipe = tiny_recipe(tmp_path, gradient_accumulation_steps=2, optimizer={"max_grad_norm": None})
    model = TinyModel(dropout=0, noise=0)
    with tiny_trainer(recipe, model=model) as trainer:
        batches = [trainer.mixture[0], trainer.mixture[1]]
        expected = torch.stack([model(batch).loss for batch in batches]).mean()
        expected.backward()
        gradient = model.shared.weight.grad.clone()
        model.zero_grad()
        loss, norm, _ = trainer.backward(iter(batches))
        torch.testing.assert_close(loss, expected.detach())
        torch.testing.assert_close(model.shared.weight.grad, gradient)
        norms = [p.grad.norm() for p in model.parameters() if p.grad is not None]
        torch.testing.assert_close(norm, torch.stack(norms).norm())


def test_clipping_limits_the_gradient(tmp_path):
    recipe = tiny_recipe(tmp_path, optimizer={"max_grad_norm": 1e-3})
    with tiny_trainer(recipe) as trainer:
        trainer.backward(iter([trainer.mixture[0]]))
        norms = [p.grad.norm() for p in trainer.model.parameters() if p.grad is not None]
        torch.testing.assert_close(torch.stack(norms).norm(), torch.tensor(1e-3))


def test_the_resting_skill_keeps_its_weights(tmp_path):
    # these steps train the left skill only
    with tiny_trainer(tiny_recipe(tmp_path, steps=3)) as trainer:
        before = trainer.model.skills["right"].weight.clone()
        trainer.fit()
        assert torch.equal(trainer.model.skills["right"].weight, before)


def test_a_step_without_a_finite_loss_changes_nothing_and_is_reported(tmp_path):
    def spoil(index, x):
        if index == 5:
            x[0, 0] = float("nan")

    recipe = tiny_recipe(tmp_path)
    with tiny_trainer(recipe, spoil=spoil) as trainer:
        batches = trainer.batches()
        for _ in range(5):
            trainer.update(batches)
        before = {name: tensor.clone() for name, tensor in trainer.model.state_dict().items()}
        trainer.update(batches)
        assert_equal(before, trainer.model.state_dict())
        assert trainer.state.nonfinite == 1
        trainer.update(batches)
        assert trainer.state.nonfinite == 0
    (report,) = [line for line in lines(tmp_path) if line["kind"] == "nonfinite"]
    assert (report["step"], report["task"], report["loss"]) == (6, "right", "nan")
    assert report["keys"] == [f"5/{i}" for i in range(SAMPLES)]


def test_a_first_step_without_a_finite_loss_advances_the_schedule_silently(tmp_path, recwarn):
    def spoil(index, x):
        if index == 0:
            x.fill_(float("nan"))

    with tiny_trainer(tiny_recipe(tmp_path, steps=3, log_every=1), spoil=spoil) as trainer:
        recwarn.clear()
        trainer.fit()
        config = trainer.config.optimizer
    assert not recwarn.list
    rates = [line["learning_rate"] for line in lines(tmp_path) if line["kind"] == "train"]
    assert rates == [learning_rate(step, 3, config) for step in (1, 2)]


def test_too_many_of_them_stop_the_run_and_name_the_samples(tmp_path):
    def spoil(index, x):
        if index >= 4:
            x.fill_(float("inf"))

    recipe = tiny_recipe(tmp_path, max_nonfinite_steps=3, checkpoint_every=2)
    with (
        tiny_trainer(recipe, spoil=spoil) as trainer,
        pytest.raises(TrainingError, match=r"3 steps in a row.*6/0, 6/1"),
    ):
        trainer.fit()
    # The checkpoint holds the count: a resumed run continues it.
    assert TrainingState.read(tmp_path / "last").nonfinite == 3


@pytest.mark.parametrize("error", [ConfigError("100 broken samples in a row"), RuntimeError("OOM")])
def test_an_error_within_a_step_costs_this_step_alone(tmp_path, error):
    whole, cut = tiny_recipe(tmp_path / "whole"), tiny_recipe(tmp_path / "cut")
    weights = fit_tiny(whole, validate=validate_tiny)

    def spoil(index, x):
        if index == 7:
            raise error

    with pytest.raises(type(error)):
        fit_tiny(cut, spoil=spoil, validate=validate_tiny)
    assert Checkpoints(cut.folder).steps() == [7]
    assert_equal(weights, fit_tiny(cut, validate=validate_tiny))
    assert losses(whole.folder) == losses(cut.folder)


def test_validation_disturbs_nothing(tmp_path):
    silent = fit_tiny(tiny_recipe(tmp_path / "a"))
    assert_equal(
        silent, fit_tiny(tiny_recipe(tmp_path / "b", validate_every=1), validate=validate_tiny)
    )


class Broken(Exception):
    """Stands for whatever ends a validation."""


@pytest.mark.parametrize("step", [5, 12])
def test_a_validation_that_ends_the_process_costs_no_step(tmp_path, step):
    whole, cut = (tiny_recipe(tmp_path / name, validate_every=5) for name in ("whole", "cut"))
    weights = fit_tiny(whole, validate=validate_tiny)
    left = {5: 0, 12: 2}[step]  # validations that succeed before
    numbers = iter(range(9))

    def validate(model):
        if next(numbers) == left:
            raise Broken
        return validate_tiny(model)

    with pytest.raises(Broken):
        fit_tiny(cut, validate=validate)
    assert Checkpoints(cut.folder).steps()[-1] == step
    # The resumed run does the validation first.
    assert_equal(weights, fit_tiny(cut, validate=validate_tiny))
    assert losses(whole.folder) == losses(cut.folder)
    for link in ("best", "last"):
        assert os.readlink(whole.folder / link) == os.readlink(cut.folder / link)


def test_a_task_that_cannot_be_validated_is_reported_and_the_others_count(tmp_path):
    def validate(model):
        return {"left": {"loss": 1.0, "accuracy": 0.5}}, [], [], {"right": "no sample can be read"}

    fit_tiny(tiny_recipe(tmp_path), validate=validate)
    found = {line["kind"]: line for line in lines(tmp_path)}
    assert found["not_validated"]["reason"] == "no sample can be read"
    assert TrainingState.read(tmp_path / "last").best_value == 0.5


def test_best_is_the_highest_mean_score(tmp_path):
    # Scores are accuracy and 1 - error rate: their means are 0.35, 0.6, 0.55, 0.5; losses and ranks
    # are no scores.
    table = iter([(0.3, 0.6), (0.5, 0.3), (0.7, 0.6), (0.9, 0.9)])

    def validate(model):
        accuracy, error_rate = next(table)
        left = {"loss": 1 - accuracy, "accuracy": accuracy, "median_rank": 100 * accuracy}
        return {"left": left, "right": {"loss": 1.0, "cer": error_rate}}, [], []

    recipe = tiny_recipe(tmp_path, validate_every=3)
    fit_tiny(recipe, validate=validate)
    assert os.readlink(tmp_path / "best").endswith("step-00000006")
    assert os.readlink(tmp_path / "last").endswith("step-00000012")
    assert TrainingState.read(tmp_path / "best").best_value == 0.6
    found = [line for line in lines(tmp_path) if line["kind"] == "validation"]
    assert [(line["step"], line["task"]) for line in found][:2] == [(3, "left"), (3, "right")]
    assert found[0]["metric"] == {"accuracy": 0.3, "median_rank": 30.0}


def test_a_score_that_is_not_a_number_is_never_the_best(tmp_path):
    table = iter([float("nan"), 0.5])
    recipe = tiny_recipe(tmp_path, steps=6, validate_every=3)
    fit_tiny(
        recipe, validate=lambda model: ({"left": {"loss": 1.0, "accuracy": next(table)}}, [], [])
    )
    assert TrainingState.read(tmp_path / "last").best_step == 6


def test_the_model_trains_in_training_mode_and_validates_in_evaluation_mode(tmp_path):
    seen = []

    def validate(model):
        seen.append((model.training, torch.is_grad_enabled()))
        return {}, [], []

    with tiny_trainer(tiny_recipe(tmp_path, validate_every=6), validate=validate) as trainer:
        trainer.model.eval()
        trainer.fit()
        assert trainer.model.training
    assert seen == [(False, False)] * 2


def test_bf16_runs_the_forward_in_bf16_and_keeps_weights_in_float32(tmp_path):
    seen = []
    model = TinyModel()
    model.shared.register_forward_hook(
        lambda module, inputs, output: seen.append((inputs[0].dtype, output.dtype))
    )
    with tiny_trainer(tiny_recipe(tmp_path, steps=1, precision="bf16"), model=model) as trainer:
        trainer.fit()
        assert all(p.dtype == torch.float32 for p in trainer.model.parameters())
    assert seen == [(torch.float32, torch.bfloat16)]  # the batch itself is not rounded


def test_train_lines_hold_the_mean_loss_of_each_task_in_the_window(tmp_path):
    fit_tiny(tiny_recipe(tmp_path, log_every=5))
    train = [line for line in lines(tmp_path) if line["kind"] == "train"]
    assert [(line["step"], line["task"]) for line in train] == [
        (5, "left"), (5, "right"), (10, "right"), (10, "left"), (12, "right"),
    ]  # fmt: skip
    assert all(line["samples_per_second"] > 0 and 0 <= line["wait"] <= 1 for line in train)


def test_a_checkpoint_that_cannot_be_written_during_the_next_steps_ends_the_run(tmp_path):
    recipe = tiny_recipe(tmp_path, checkpoint_every=3, asynchronous_checkpoints=True)

    def spoil(index, x):
        if index == 5:  # the writing of step 3 may have begun, that of step 6 has not
            (tmp_path / "checkpoints" / "step-00000006").mkdir(parents=True)
            (tmp_path / "checkpoints" / "step-00000006" / "other").touch()

    with pytest.raises(TrainingError, match="the checkpoint of step 6 could not be written"):
        fit_tiny(recipe, spoil=spoil)
    assert TrainingState.read(tmp_path / "last").step == 3
