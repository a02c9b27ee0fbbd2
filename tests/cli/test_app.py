"""What holds for all commands: the forms of arguments, help, completion, imports, errors."""

import inspect
import json
import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from skillweave import cli
from skillweave.cli import app, shared, training
from skillweave.config import ConfigError
from skillweave.inference import loading, predictor

SKILLWEAVE = [sys.executable, "-m", "skillweave"]
HEAVY = {"lightning_fabric", "torch._dynamo", "matplotlib", "transformers", "sklearn"}


def mark(*words: str) -> list[str]:
    return list(app._mark_settings(words))


def test_settings_are_told_from_words() -> None:
    words = ("train", "r.yaml", "--training.steps", "5", "a.b=c=d", "--x.y=1", "--resume", "name=n")
    settings = ["training.steps=5", "a.b=c=d", "x.y=1", "name=n"]
    marked = mark(*words)
    assert [after for word, after in pairwise(marked) if word == "--set"] == settings
    rest = [word for word in marked if word not in ("--set", *settings)]
    assert rest == ["train", "r.yaml", "--resume"]
    assert mark("train", "--tasks.my-task.weight", "2")[1:] == ["--set", "tasks.my-task.weight=2"]


def test_settings_may_be_marked_already() -> None:
    words = ("train", "r.yaml", "--set", "a.b=1", "--set", "name=n", "c.d=2", "--vary", "e.f=1..2")
    expected = "train r.yaml --set a.b=1 --set name=n --set c.d=2 --vary e.f=1..2"
    assert " ".join(mark(*words)) == expected


def test_folds_are_not_trained_on_ray(capsys) -> None:
    assert cli.main(("train", "quickstart", "--folds", "2", "--engine", "ray")) == 2
    assert "leave --engine ray out" in capsys.readouterr().err


def test_other_commands_keep_their_words() -> None:
    assert mark("search", "runs/a", "x=y") == ["search", "runs/a", "x=y"]


def test_options_with_several_values_are_repeated() -> None:
    words = "evaluate --tasks a b c --split test run --compare d e"
    expected = "evaluate --tasks a --tasks b --tasks c --split test run --compare d --compare e"
    repeated = app._repeat_options(words.split(), {"--tasks", "--compare"})
    assert " ".join(repeated) == expected


@pytest.mark.parametrize("words", [["--training.steps"], ["--set", "training.steps"]])
def test_a_setting_without_value_is_told(words: list[str], capsys) -> None:
    assert cli.main(["train", "quickstart", *words]) == 2
    assert "'training.steps': write it as path.to.key=value" in capsys.readouterr().err


@pytest.mark.parametrize(
    "command", [function.__name__.replace("_", "-") for function in app.COMMANDS]
)
def test_every_command_has_help(command: str, capsys: pytest.CaptureFixture) -> None:
    assert cli.main([command, "--help"]) == 0
    shown = capsys.readouterr().out
    assert f"Usage: skillweave {command} " in shown
    assert all(option in shown for option in ("--json FILE", "-q, --quiet", "--debug", "--help"))


@pytest.mark.parametrize("function", app.COMMANDS, ids=lambda function: function.__name__)
def test_every_command_has_the_common_options_and_returns_results(function) -> None:
    own = inspect.signature(function)
    assert not app.COMMON.keys() & own.parameters.keys()
    assert own.return_annotation == "Results"
    (command,) = (
        c for c in app.build().registered_commands if c.callback.__name__ == function.__name__
    )
    given = inspect.signature(command.callback).parameters
    assert {name: given[name].default for name in app.COMMON} == {
        "json": None,
        "quiet": False,
        "debug": False,
    }
    assert len(own.parameters) + len(app.COMMON) == len(given)


# What a command prints although it is quiet: the answers that it was asked for.
QUIET = {
    "inspect RUN": "",
    "index RUN": "",
    "search RUN square": "",
    "evaluate RUN --tasks text_to_code --bootstrap 0": "",
    "predict RUN --task text_classification good": '{"input": "good"',
    "predict RUN --task text_classification good --out TMP/answers.jsonl": "",
    "train RUN --print-config": "name: tiny",
    "schema": "{",
    "doctor": "",
}


@pytest.mark.parametrize("words", QUIET)
def test_quiet_shows_answers_only_and_json_has_the_results(words, run, tmp_path, capfd) -> None:
    given = words.replace("RUN", str(run)).replace("TMP", str(tmp_path)).split()
    file = tmp_path / "results.json"
    assert cli.main([*given, "--quiet", "--json", str(file)]) == 0
    shown = capfd.readouterr()
    assert shown.out.startswith(QUIET[words]) and bool(shown.out) == bool(QUIET[words])
    assert not shown.err
    assert json.loads(file.read_text("utf-8"))


def test_errors_are_told_in_quiet_commands(tmp_path: Path, capfd) -> None:
    assert cli.main(["inspect", str(tmp_path), "-q"]) == 2
    told = capfd.readouterr()
    assert told.err.startswith("skillweave inspect: ") and not told.out


def test_results_that_are_incomplete_are_written(run: Path, tmp_path: Path, capsys) -> None:
    (tmp_path / "rows.jsonl").write_text('{"text": "good"}\n{"text": null}\n')
    rows = ["--input", str(tmp_path / "rows.jsonl"), "--out", str(tmp_path / "answers.jsonl")]
    file = tmp_path / "results.json"
    words = ["predict", str(run), "--task", "text_classification", *rows, "--json", str(file)]
    assert cli.main(words) == 2
    assert "1 of 2 inputs have no answer" in capsys.readouterr().err
    assert json.loads(file.read_text())["failed"] == 1


@pytest.mark.parametrize(
    ("words", "meant"),
    [("trian", "train"), ("serach", "search"), ("doctr", "doctor"), ("train --rsume", "--resume")],
)
def test_a_misspelt_word_gets_a_suggestion(words: str, meant: str, capsys) -> None:
    assert cli.main(words.split()) == 2
    assert meant in capsys.readouterr().err


def test_all_commands_are_listed(capsys: pytest.CaptureFixture) -> None:
    assert cli.main(["--help"]) == 0
    listed = capsys.readouterr().out.partition("Commands:")[2].splitlines()
    names = "quickstart init train plan lr-find sweep runs evaluate predict generate"
    names += " index search serve features inspect interference rate ratings carve export"
    names += " upcycle weave average vocabulary convert card push pull shard clean cache"
    names += " schema doctor"
    assert [line.split()[0] for line in listed if line.strip()] == names.split()


def loaded(code: str, *arguments: str) -> set[str]:
    """The modules that a program has loaded at its end."""
    code = f"import sys; from skillweave import cli; {code}; print('loaded', *sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True
    )
    return set(done.stdout.splitlines()[-1].split())


def test_help_loads_no_heavy_library() -> None:
    modules = loaded("cli.main(['--help'])")
    assert "typer" in modules
    assert not {"torch", "numpy", "pydantic", "rich", "yaml", "sklearn", "av"} & modules
    modules = loaded("cli.main(['train', '--help'])")
    assert not {"torch", "numpy", "rich", "yaml", "sklearn", "av"} & modules


def test_commands_for_inference_load_no_library_for_training(run: Path, tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"text": "so good"}\n')
    calls = [
        "predict RUN --task text_classification good",
        "index RUN",
        "search RUN square",
        "features RUN --task text_to_image --input TMP/rows.jsonl --out TMP/vectors.npy",
        "inspect RUN",
        "carve RUN --task text_classification --out TMP/small --no-export",
    ]
    words = [call.replace("RUN", str(run)).replace("TMP", str(tmp_path)).split() for call in calls]
    code = "import json; assert not any(map(cli.main, json.loads(sys.argv[1])))"
    modules = loaded(code, json.dumps(words))
    assert "torch" in modules and not HEAVY & modules


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(shell: str) -> None:
    def complete(words: str) -> str:
        given = {
            "_SKILLWEAVE_COMPLETE": f"complete_{shell}",
            "COMP_WORDS": words,
            "COMP_CWORD": str(len(words.split()) - 1),
            "_TYPER_COMPLETE_ARGS": words,
            "_TYPER_COMPLETE_FISH_ACTION": "get-args",
        }
        return subprocess.run(
            SKILLWEAVE, env={**os.environ, **given}, capture_output=True, text=True, check=True
        ).stdout

    assert "evaluate" in complete("skillweave eval")
    assert "--resume" in complete("skillweave train quickstart --training.steps 5 --re")
    assert "validation" in complete("skillweave evaluate runs/a --split v")


def test_a_closed_pipe_is_no_error() -> None:
    piped = f"set -o pipefail; {' '.join(SKILLWEAVE)} schema | head -c 1"
    done = subprocess.run(["bash", "-c", piped], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("{", "")


def test_inputs_may_follow_options(run: Path, capsys: pytest.CaptureFixture) -> None:
    assert cli.main(["predict", str(run), "--task", "text_classification", "good", "bad"]) == 0
    lines = map(json.loads, capsys.readouterr().out.splitlines())
    assert [line["input"] for line in lines] == ["good", "bad"]


def test_a_model_is_moved_to_its_device(monkeypatch: pytest.MonkeyPatch, run: Path) -> None:
    for module in (loading, predictor):
        monkeypatch.setattr(module, "choose_device", lambda name: {"auto": "meta"}[name])
    model, recipe = shared.open_run(str(run), "auto")
    assert all(x.is_meta for x in model.parameters()) and recipe.recipe.folder == run
    found = shared.open_predictor(str(run), "auto")
    assert found.device.type == "meta"
    data = [f"text_to_code={run.parent / 'data' / 'text_to_code.jsonl'}"]
    model, recipe = shared.open_run(str(run), "auto", data)
    assert all(x.is_meta for x in model.parameters()) and list(recipe.tasks) == ["text_to_code"]


@pytest.mark.parametrize(
    "words",
    [
        "predict RUN --task text_classification good",
        "index RUN",
        "search RUN square --json TMP/found.json",
        "evaluate RUN --tasks text_to_code --bootstrap 0",
        "features RUN --task text_to_image --input TMP/rows.jsonl --out TMP/vectors.npy",
    ],
)
def test_commands_take_a_device(words: str, run: Path, tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"text": "so good"}\n')
    given = words.replace("RUN", str(run)).replace("TMP", str(tmp_path)).split()
    assert cli.main([*given, "--device", "cpu"]) == 0


def test_debug_shows_the_stack() -> None:
    with pytest.raises(ConfigError):
        cli.main(["evaluate", "/nowhere", "--debug"])


def test_interruption_and_full_disk(monkeypatch, capsys, tmp_path: Path) -> None:
    def stop(*arguments: object) -> None:
        raise KeyboardInterrupt

    def fill(*arguments: object) -> None:
        raise OSError(28, "No space left on device", str(tmp_path))

    monkeypatch.setattr(training, "open_recipe", stop)
    assert cli.main(["train", "x"]) == 130
    assert capsys.readouterr().err == "interrupted\n"
    monkeypatch.setattr(training, "open_recipe", fill)
    assert cli.main(["train", "x"]) == 2
    assert "No space left on device" in capsys.readouterr().err


def test_an_interrupted_training_exits_with_the_code_of_the_signal(monkeypatch, capsys) -> None:
    from skillweave.training.errors import Interrupted

    def stop(*arguments: object) -> None:
        raise Interrupted(Path("runs/a"), 7, 15)

    monkeypatch.setattr(training, "open_recipe", stop)
    assert cli.main(["train", "x"]) == 128 + 15
    assert "stopped after step 7" in capsys.readouterr().err


def test_an_unexpected_error_keeps_its_stack(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(training, "open_recipe", fail)
    with pytest.raises(ZeroDivisionError):
        cli.main(["train", "x"])


@pytest.mark.skipif(sys.platform != "linux", reason="PyTorch contains libgomp on Linux")
@pytest.mark.parametrize(
    ("given", "spins"),
    [({}, "1000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "passive"}, "0")],
)
def test_idle_threads_spin_briefly_unless_the_user_decides(given, spins):
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("OMP_", "GOMP_"))}
    done = subprocess.run(
        [sys.executable, "-m", "skillweave", "inspect", "cove"],
        env={**environment, **given, "OMP_DISPLAY_ENV": "verbose"},
        capture_output=True,
        text=True,
    )
    assert f"GOMP_SPINCOUNT = '{spins}'" in done.stderr
