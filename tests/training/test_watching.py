"""Trackers, measurements, the profile, and the comparison of runs."""

import json
import sys
import types

import pytest
from stand_ins import fit_tiny, tiny_recipe
from training_recipes import recipe

import skillweave as sw
from skillweave import cli
from skillweave.config import ConfigError
from skillweave.reporting.comparison import compare_runs, read_run
from skillweave.training import trackers
from skillweave.training.measuring import component_of


def train_lines(folder):
    lines = [json.loads(x) for x in (folder / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if line["kind"] == "train"]


@pytest.fixture(scope="module")
def two_runs(tmp_path_factory):
    """Two runs of a small recipe, which differ in the learning rate."""
    folder = tmp_path_factory.mktemp("runs")
    for name, rate in (("slow", 1e-4), ("fast", 1e-2)):
        settings = {"log_every": 1, "track": [], "optimizer": {"learning_rate": rate}}
        sw.train(recipe(folder / name, **settings), quiet=True)
    return folder


def test_the_logs_have_speed_memory_and_norms_by_component(two_runs):
    line = train_lines(two_runs / "fast")[-1]
    model = sw.load(two_runs / "fast")
    per_token = 6 * model.count_parameters("text_classification")
    rate = line["tokens_per_second"] * per_token / 1e12
    assert line["teraflops"] == pytest.approx(rate, rel=1e-2)
    assert 0.05 < line["memory_gb"] < 100
    parts = {k.partition("/")[2]: v for k, v in line.items() if k.startswith("gradient_norm/")}
    assert {"encoder", "targets.classification", "embeddings.text"} <= parts.keys()
    # the norm of all gradients is that of the norms
    total = sum(value**2 for value in parts.values()) ** 0.5
    assert line["gradient_norm"] == pytest.approx(total, rel=1e-3)


def test_runs_are_compared(two_runs, tmp_path, capsys):
    found = compare_runs([read_run(two_runs / "slow"), read_run(two_runs / "fast")])
    assert found["differences"] == {"training.optimizer.learning_rate": [1e-4, 1e-2]}
    assert [row["steps"] for row in found["runs"]] == [4, 4]
    page = tmp_path / "runs.html"
    assert cli.main(["runs", str(two_runs), "--out", str(page)]) == 0
    assert "learning_rate" in capsys.readouterr().out
    text = page.read_text()
    assert "slow" in text and text.count("<svg") == 3  # accuracy, and both losses
    assert cli.main(["runs", str(tmp_path / "absent")]) == 2
    assert "no run" in capsys.readouterr().err


def test_a_profile_is_recorded(tmp_path):
    fit_tiny(tiny_recipe(tmp_path / "run", profile=2))
    events = json.loads((tmp_path / "run/profile/trace.json").read_text())["traceEvents"]
    names = {event.get("name") for event in events}
    assert {"ProfilerStep#3", "ProfilerStep#4"} <= names
    assert "aten::addmm" in (tmp_path / "run/profile/operations.txt").read_text()


class Recorder:
    """Stands in for a run of a service."""

    def __init__(self):
        self.logged, self.finished = [], False
        self.info = types.SimpleNamespace(run_id="r1")

    def log(self, values, step):
        self.logged.append((step, values))

    def finish(self):
        self.finished = True


def test_wandb_continues_a_run_by_its_folder(tmp_path, monkeypatch):
    given = []
    service = types.ModuleType("wandb")
    service.init = lambda **options: given.append(options) or Recorder()
    monkeypatch.setitem(sys.modules, "wandb", service)
    for step in (0, 4):
        (tracker,) = trackers.open_trackers(["wandb"], tmp_path, "n", {"a": 1}, step)
        tracker.log(5, {"train/loss/t": 0.5})
        tracker.close()
        assert tracker.run.logged == [(5, {"train/loss/t": 0.5})] and tracker.run.finished
    assert given[0] == given[1]
    assert given[0]["resume"] == "allow" and given[0]["config"] == {"a": 1}


def test_mlflow_continues_the_stored_run(tmp_path, monkeypatch):
    calls = []

    class Client:
        def __init__(self, uri):
            self.uri = uri

        def __getattr__(self, name):
            def call(*args, **options):
                calls.append((name, args))
                return None if name == "get_experiment_by_name" else Recorder()

            return call

    tracking = types.ModuleType("mlflow.tracking")
    tracking.MlflowClient = Client
    monkeypatch.setitem(sys.modules, "mlflow", types.ModuleType("mlflow"))
    monkeypatch.setitem(sys.modules, "mlflow.tracking", tracking)
    for step in (0, 4):
        (tracker,) = trackers.open_trackers(["mlflow"], tmp_path, "n", {}, step)
        tracker.log(5, {"x": 1.0})
    assert [name for name, _ in calls].count("create_run") == 1
    assert [args for name, args in calls if name == "log_metric"] == [("r1", "x", 1.0)] * 2


def test_trackio_gets_the_figures(tmp_path, monkeypatch):
    trackio = pytest.importorskip("trackio")
    runs = []
    monkeypatch.setattr(trackio, "init", lambda **options: runs.append(Recorder()) or runs[-1])
    fit = recipe(tmp_path / "run", log_every=2, track=["trackio"])
    sw.train(fit, quiet=True)
    (one,) = runs
    steps = {step for step, values in one.logged if "train/learning_rate" in values}
    assert steps == {2, 4} and one.finished


def test_a_missing_package_is_told_before_the_run(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ConfigError, match=r"wandb needs the package wandb \(.*pip install wandb"):
        sw.train(recipe(tmp_path / "run", track=["wandb"]), quiet=True)
    assert not (tmp_path / "run").exists()


def test_components():
    assert component_of("encoder.blocks.0.norm.weight") == "encoder"
    assert component_of("targets.ctc.output.weight") == "targets.ctc"
