"""The command line: words to settings, one line for expected errors, and every command on a tiny
run."""

import json
import subprocess
import sys
from xml.etree import ElementTree

import pytest
import yaml
from tiny_run import make_run

import skillweave
from skillweave.cli import app as cli
from skillweave.cli import commands
from skillweave.cli import tools as tool_commands
from skillweave.config import ConfigError


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("cli"))


def test_overrides_are_told_from_words():
    words = ["train", "r.yaml", "--training.steps", "5", "a.b=c=d", "--x.y=1", "--resume", "name=n"]
    kept, overrides = cli.split_overrides(words)
    assert kept == ["train", "r.yaml", "--resume"]
    assert overrides == ["training.steps=5", "a.b=c=d", "x.y=1", "name=n"]
    assert cli.split_overrides(["train", "--tasks.my-task.weight", "2"])[1] == [
        "tasks.my-task.weight=2"
    ]


def test_other_commands_keep_their_words():
    assert cli.split_overrides(["search", "runs/a", "x=y"]) == (["search", "runs/a", "x=y"], [])


def test_an_override_without_value_is_told():
    with pytest.raises(SystemExit, match=r"--training.steps needs a value"):
        cli.split_overrides(["train", "r.yaml", "--training.steps"])


def test_help_loads_no_heavy_library():
    code = (
        "import sys; from skillweave.cli import app as cli; cli.build_parser().format_help();"
        " print(*sys.modules)"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert not {"torch", "numpy", "pydantic", "rich", "yaml", "sklearn", "av"} & set(loaded)


COMMANDS = [
    "quickstart",
    "train",
    "evaluate",
    "inspect",
    "schema",
    "interference",
    "upcycle",
    "weave",
]
COMMANDS += ["predict", "index", "search", "carve", "average", "vocabulary", "features"]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_and_code(command, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main([command, "--help"])
    assert stop.value.code == 0 and "usage: skillweave" in capsys.readouterr().out
    assert command == "schema" or any(
        hasattr(module, f"run_{command}") for module in (commands, tool_commands)
    )


def test_fraction_is_set_for_every_task(capsys):
    assert cli.main(["train", "quickstart", "--fraction", "0.01", "--print-config"]) == 0
    tasks = yaml.safe_load(capsys.readouterr().out)["tasks"]
    assert len(tasks) == 5 and {task["data"]["fraction"] for task in tasks.values()} == {0.01}
    assert cli.main(["train", "quickstart", "--fraction", "2", "--print-config"]) == 2
    assert (
        "tasks.text_to_code.data.fraction: Input should be less than or equal to 1 (got 2.0)"
        in capsys.readouterr().err
    )


def test_print_config_is_a_recipe_with_every_setting(capsys):
    assert (
        cli.main(["train", "quickstart", "--print-config", "--training.steps", "7", "name=other"])
        == 0
    )
    printed = yaml.safe_load(capsys.readouterr().out)
    assert printed["training"]["steps"] == 7 and printed["name"] == "other"
    # which the recipe itself does not mention
    assert printed["training"]["optimizer"]["epsilon"] == 1e-8


def test_schema_is_json(capsys):
    assert cli.main(["schema"]) == 0
    assert "training" in json.loads(capsys.readouterr().out)["properties"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (
            ["train", "quickstart", "training.stesp=3"],
            "training.stesp: unknown key; did you mean 'steps'?",
        ),
        (["train", "/nowhere.yaml"], "/nowhere.yaml: no such recipe"),
        (["train", "quickstrat"], "unknown recipe 'quickstrat'; did you mean 'quickstart'?"),
        (["evaluate", "/nowhere"], "/nowhere: no such run"),
        (["search", "RUN", "x", "--in", "vidoe"], "no task of this run relates text to vidoe"),
        (["search", "RUN"], "give one thing to look for"),
        (
            ["search", "RUN", "--image", "/nowhere.png", "--in", "text"],
            "/nowhere.png: no such file",
        ),
        (
            ["predict", "RUN", "--task", "text_to_imgae", "x"],
            "unknown task 'text_to_imgae'; did you mean 'text_to_image'?",
        ),
        (
            ["predict", "RUN", "--task", "text_classification", "--input", "/nowhere.jsonl"],
            "no such file",
        ),
        (
            ["evaluate", "RUN", "--tasks", "text_to_code", "--json", "/nowhere/out.json"],
            "No such file",
        ),
        (["inspect", "RUN", "training.steps=3"], "is trained already"),
        (
            ["upcycle", "RUN", "--sparse", "{qkv: {rout: skill}}"],
            "qkv.rout: unknown key; did you mean 'route'?",
        ),
        (["upcycle", "RUN", "--sparse", "{qkv"], "--sparse: neither a mapping such as"),
        (
            ["upcycle", "RUN", "--sparse", "quickstart", "--out", "RUN"],
            "is there already; choose another with --out",
        ),
        (
            ["weave", "text=RUN", "--recipe", "quickstrat", "--out", "/nowhere"],
            "did you mean 'quickstart'?",
        ),
        (
            ["weave", "RUN", "--recipe", "quickstart", "--out", "/nowhere"],
            "as MODALITY=MODEL, such as text=runs/texts",
        ),
        (
            ["carve", "RUN", "--task", "text_to_cod"],
            "unknown task 'text_to_cod'; did you mean 'text_to_code'?",
        ),
        (
            ["carve", "RUN", "--task", "text_to_code", "--out", "RUN"],
            "is there already; choose another with --out",
        ),
        (["interference", "RUN", "--tasks", "text_to_code"], "give two or more, not text_to_code"),
        (["interference", "RUN", "--blocks", "1"], "there is no layer 1"),
        (["interference", "RUN", "--batches", "1"], "1 usable batches, but 2 are needed"),
    ],
)
def test_expected_errors_are_one_line_without_stack(run, words, told, capsys):
    assert cli.main([word.replace("RUN", str(run)) for word in words]) == 2
    error = capsys.readouterr().err
    assert (
        told in error and "Traceback" not in error and error.startswith(f"skillweave {words[0]}: ")
    )


def test_debug_shows_the_stack():
    with pytest.raises(ConfigError):
        cli.main(["evaluate", "/nowhere", "--debug"])


def test_interruption_and_full_disk(monkeypatch, capsys, tmp_path):
    def stop(options):
        raise KeyboardInterrupt

    def fill(options):
        raise OSError(28, "No space left on device", str(tmp_path))

    monkeypatch.setattr(commands, "run_index", stop)
    assert cli.main(["index", "x"]) == 130
    monkeypatch.setattr(commands, "run_index", fill)
    assert cli.main(["index", "x"]) == 2
    assert "No space left on device" in capsys.readouterr().err


def test_an_unexpected_error_keeps_its_stack(monkeypatch):
    def fail(options):
        raise ZeroDivisionError

    monkeypatch.setattr(commands, "run_index", fail)
    with pytest.raises(ZeroDivisionError):
        cli.main(["index", "x"])


def test_evaluate_writes_figures_and_page(run, tmp_path, capsys):
    assert (
        cli.main(["evaluate", str(run), "--bootstrap", "10", "--json", str(tmp_path / "out.json")])
        == 0
    )
    written = json.loads((tmp_path / "out.json").read_text("utf-8"))
    assert written == json.loads((run / "evaluation.json").read_text("utf-8"))
    assert {"cer", "chance", "n"} <= written["speech_recognition"].keys()
    assert (run / "report.html").is_file()
    assert "recall@10" in capsys.readouterr().out


def test_some_tasks_leave_the_runs_figures_alone(run):
    (run / "evaluation.json").write_text("{}")
    assert (
        cli.main(
            [
                "evaluate",
                str(run / "best"),
                "--tasks",
                "text_to_code",
                "--split",
                "validation",
                "--bootstrap",
                "0",
            ]
        )
        == 0
    )
    assert (run / "evaluation.json").read_text() == "{}"


def test_search_prints_saves_and_lists(run, tmp_path, capsys):
    found = tmp_path / "found"
    words = ["search", str(run), "--in", "image", "red [square]", "--k", "2", "--out", str(found)]
    assert cli.main([*words, "--json", str(tmp_path / "l.json")]) == 0
    rows = json.loads((tmp_path / "l.json").read_text("utf-8"))
    assert [row["file"] for row in rows] == sorted(map(str, found.iterdir())) and len(rows) == 2
    shown = capsys.readouterr().out
    assert "image for red [square]" in shown and rows[0]["caption"] in shown


def test_search_by_a_file(run, capsys):
    image = run.parent / "data" / "test-1.png"
    assert cli.main(["search", str(run), "--image", str(image), "--in", "text", "--k", "1"]) == 0
    assert "square" in capsys.readouterr().out


def test_index_names_every_modality(run, capsys):
    assert cli.main(["index", str(run)]) == 0
    assert capsys.readouterr().out.splitlines()[1] == "text_to_image · image: 18 samples"


def test_predict_writes_lines(run, tmp_path, capsys):
    assert (
        cli.main(["predict", str(run), "--task", "text_classification", "so good", "so bad"]) == 0
    )
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["input"] for line in lines] == ["so good", "so bad"]
    (tmp_path / "in.jsonl").write_text(
        '{"sound": "%s"}\n' % (run.parent / "data" / "test-0.wav"), "utf-8"
    )
    out = tmp_path / "out.jsonl"
    words = [
        "predict",
        str(run),
        "--task",
        "speech_recognition",
        "--input",
        str(tmp_path / "in.jsonl"),
        "--out",
        str(out),
    ]
    assert cli.main(words) == 0
    assert "transcript" in json.loads(out.read_text("utf-8"))


def test_inspect_adds_up(run, tmp_path, capsys):
    assert cli.main(["inspect", str(run), "--json", str(tmp_path / "i.json")]) == 0
    found = json.loads((tmp_path / "i.json").read_text("utf-8"))
    assert sum(found["components"].values()) == found["total_parameters"]
    assert found["tasks"]["text_to_image"]["skills"] == ["text", "image"]
    assert found["bytes"]["weights"] > 4 * found["total_parameters"] < found["bytes"]["folder"]
    assert "on disk" in capsys.readouterr().out


def test_inspect_shows_who_uses_which_expert_once_it_is_known(tmp_path, capsys):
    run = make_run(
        tmp_path,
        feed_forward_in={"route": "token", "experts": 3},
        feed_forward_out={"route": "task", "experts": 4},
    )
    words = ["inspect", str(run), "--json", str(tmp_path / "i.json")]
    assert cli.main(words) == 0
    shown = capsys.readouterr().out
    assert (
        "experts of qkv (route skill)" in shown
        and "experts of feed_forward_out (route task)" in shown
    )
    assert (
        f"experts of feed_forward_in: the data decide; skillweave evaluate {run} counts what"
        " they do" in shown
    )
    assert cli.main(["evaluate", str(run), "--bootstrap", "0"]) == 0 and cli.main(words) == 0
    shown = capsys.readouterr().out
    assert "experts of feed_forward_in (route token)" in shown and "the data decide" not in shown
    rows = json.loads((tmp_path / "i.json").read_text("utf-8"))["routing"]
    spans = {(row["task"], row["span"]) for row in rows if row["place"] == "feed_forward_in"}
    assert (
        spans == {(row["task"], row["span"]) for row in rows if row["place"] == "qkv"}
        and len(spans) == 8
    )
    assert all(sum(row["shares"].values()) == pytest.approx(1, abs=1e-4) for row in rows)
    page = (run / "report.html").read_text("utf-8")
    assert all(
        f"Experts of {place} (route" in page
        for place in ("qkv", "feed_forward_in", "feed_forward_out")
    )


def test_inspect_counts_presets_and_configurations_of_tencentpretrain(capsys, tmp_path):
    assert cli.main(["inspect", "bert-base"]) == 0
    assert "109,514,298" in capsys.readouterr().out
    (tmp_path / "gpt2.json").write_text(
        '{"embedding": ["word", "pos"], "encoder": "transformer", "target": ["lm"]}'
    )
    assert cli.main(["inspect", str(tmp_path / "gpt2.json")]) == 0
    assert "124,439,808" in capsys.readouterr().out
    assert cli.main(["inspect", "gpt2", "model.width=3"]) == 2


def test_inspect_reads_a_recipe_without_its_data(capsys, tmp_path):
    model = {
        "width": 16,
        "streams": {"text": {"vocabulary": 50}},
        "encoder": {"heads": 2, "layers": 1},
    }
    tasks = {"masked_text": {"data": {"path": "/nowhere.jsonl"}}}
    recipe = {"model": model, "tasks": tasks, "training": {"steps": 1}}
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(recipe))
    assert cli.main(["inspect", str(tmp_path / "r.yaml")]) == 0
    assert "masked_text" in capsys.readouterr().out


def test_upcycle_compares_writes_and_lists(run, tmp_path, capsys):
    sparse, out = (
        "{qkv: {route: skill}, feed_forward: {route: token, experts: 3}}",
        tmp_path / "sparse",
    )
    words = [
        "upcycle",
        str(run),
        "--sparse",
        sparse,
        "--out",
        str(out),
        "--json",
        str(tmp_path / "u.json"),
    ]
    assert cli.main(words) == 0
    shown = capsys.readouterr().out
    assert (
        "compared on validation samples: answers differ" in shown and f"start_from={out}" in shown
    )
    rows = json.loads((tmp_path / "u.json").read_text("utf-8"))
    assert [row["group"] for row in rows if not row["source"]] == [
        "encoder.blocks.*.feed_forward.route.gate"
    ]
    model = skillweave.load(out)
    assert model.assets and sum(row["numbers"] for row in rows) == model.count_parameters()


def test_upcycle_writes_nothing_that_answers_otherwise(run, tmp_path, capsys):
    sparse, out = (
        "{feed_forward: {route: token, experts: 3}, qkv: {route: skill}}",
        tmp_path / "noisy",
    )
    assert (
        cli.main(["upcycle", str(run), "--sparse", sparse, "--noise", "0.5", "--out", str(out)])
        == 0
    )
    again = [
        "upcycle",
        str(out),
        "--sparse",
        sparse.replace("3}", "3, active: 1}"),
        "--out",
        str(tmp_path / "no"),
    ]
    assert cli.main(again) == 2  # experts that differ, mixed otherwise
    told = capsys.readouterr()
    assert "so nothing was written" in told.err and not (tmp_path / "no").exists()
    assert "compared on made inputs, as there are no samples" in told.out


def test_weave_writes_a_model_and_says_what_came_from_where(run, tmp_path, capsys):
    out = tmp_path / "woven"
    words = [
        "weave",
        "--recipe",
        str(run / "recipe.yaml"),
        "--out",
        str(out),
        f"text={run}",
        f"video={run}",
    ]
    assert cli.main([*words, "--shared", "video"]) == 0
    assert f"start_from={out}" in capsys.readouterr().out
    rows = {row["group"]: row for row in json.loads((out / "weave.json").read_text("utf-8"))}
    assert rows["embeddings.text"]["source"] == f"text={run}"
    assert rows["encoder.last_norm"]["source"] == f"video={run}"
    assert (
        rows["embeddings.sound"]["source"] == ""
        and rows["embeddings.sound"]["note"] == "no model given for it"
    )
    assert sum(row["numbers"] for row in rows.values()) == skillweave.load(out).count_parameters()


def test_carve_compares_writes_and_says_why(run, tmp_path, capsys):
    out = tmp_path / "small"
    words = [
        "carve",
        str(run),
        "--task",
        "speech_recognition",
        "--out",
        str(out),
        "--weights",
        "int8",
        "--json",
        str(tmp_path / "c"),
    ]
    assert cli.main(words) == 0
    shown = capsys.readouterr().out
    assert (
        "compared on 6 validation samples" in shown
        and "towers/sound.pt2: torch.export, because Wav2Vec2Model adds" in shown
    )
    assert json.loads((tmp_path / "c").read_text()) == json.loads((out / "carve.json").read_text())
    assert (
        cli.main(["evaluate", str(out), "--bootstrap", "5"]) == 0
        and (out / "report.html").is_file()
    )
    assert (
        cli.main(
            [
                "predict",
                str(out),
                "--task",
                "speech_recognition",
                str(run.parent / "data" / "test-0.wav"),
            ]
        )
        == 0
    )
    assert "transcript" in capsys.readouterr().out


@pytest.mark.parametrize("command", [["inspect"], ["upcycle", "--sparse", "{qkv: {route: skill}}"]])
def test_a_hugging_face_folder_is_told(command, tmp_path, capsys):
    (tmp_path / "config.json").write_text('{"architectures": ["BertModel"], "model_type": "bert"}')
    assert cli.main([command[0], str(tmp_path), *command[1:]]) == 2
    assert "a Hugging Face model (bert); convert it" in capsys.readouterr().err


def test_quickstart_says_what_is_there_already(tmp_path, capsys):
    words = ["quickstart", f"output={tmp_path}"]
    (tmp_path / "recipe.yaml").touch()
    assert cli.main(words) == 2
    assert (
        f"go on with: skillweave quickstart output={tmp_path} --resume" in capsys.readouterr().err
    )
    (tmp_path / "evaluation.json").touch()
    assert cli.main(words) == 0
    shown = capsys.readouterr().out
    assert "is complete" in shown and f'skillweave search {tmp_path} "一个笑脸" --in image' in shown


def test_quickstart_trains_measures_and_shows(run, monkeypatch, capsys, tmp_path):
    seen = []
    monkeypatch.setattr(
        commands, "train", lambda recipe, resume: seen.append((recipe.name, resume))
    )
    monkeypatch.setattr(commands, "measure_run", lambda folder: seen.append(folder))
    assert cli.main(["quickstart", f"output={tmp_path / 'new'}"]) == 0
    assert seen == [("quickstart", False), tmp_path / "new"]


def test_interference_is_printed_drawn_and_written(run, tmp_path, capsys):
    words = [
        "interference",
        str(run),
        "--batches",
        "4",
        "--bootstrap",
        "10",
        "--advise",
        "--blocks",
        "feed_forward",
    ]
    tasks = ["text_to_image", "speech_recognition"]
    assert (
        cli.main(
            [
                *words,
                "--tasks",
                *tasks,
                "--json",
                str(tmp_path / "i.json"),
                "--out",
                str(tmp_path / "i.svg"),
            ]
        )
        == 0
    )
    found = json.loads((tmp_path / "i.json").read_text("utf-8"))
    assert found == json.loads((run / "interference.json").read_text("utf-8"))
    assert (
        found["tasks"] == tasks and found["blocks"][0]["block"] == "encoder.blocks.0.feed_forward"
    )
    assert found["blocks"][0]["values"][0][0] == pytest.approx(1)
    shown = capsys.readouterr().out
    assert "encoder.blocks.0.feed_forward" in shown and "with fewer than 10 batches" in shown
    picture = ElementTree.fromstring((tmp_path / "i.svg").read_text("utf-8"))
    texts = [element.text for element in picture.iter() if element.tag.endswith("text")]
    assert {"encoder.blocks.0.feed_forward", "ratio of means", *tasks} <= {*texts}
    assert texts.count("1.00") >= 2 * 2  # eq. 2 and the ratio of means of each task on itself
    (run / "interference.json").unlink()
