"""The commands `evaluate`, `inspect` and `interference`."""

import json
from xml.etree import ElementTree

import pytest
import yaml
from tiny_run import make_run, save_run

import skillweave as sw
from skillweave import cli


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
        "experts of encoder.qkv (route skill)" in shown
        and "experts of encoder.feed_forward_out (route task)" in shown
    )
    assert (
        f"experts of encoder.feed_forward_in: the data decide; skillweave evaluate {run} counts which"
        " are used" in shown
    )
    assert cli.main(["evaluate", str(run), "--bootstrap", "0"]) == 0 and cli.main(words) == 0
    shown = capsys.readouterr().out
    assert (
        "experts of encoder.feed_forward_in (route token)" in shown
        and "the data decide" not in shown
    )
    rows = json.loads((tmp_path / "i.json").read_text("utf-8"))["routing"]
    spans = {(row["task"], row["span"]) for row in rows if row["site"] == "feed_forward_in"}
    assert (
        spans == {(row["task"], row["span"]) for row in rows if row["site"] == "qkv"}
        and len(spans) == 8
    )
    assert all(sum(row["shares"].values()) == pytest.approx(1, abs=1e-4) for row in rows)
    page = (run / "report.html").read_text("utf-8")
    assert all(
        f"Experts of encoder.{site} (route " in page
        for site in ("qkv", "feed_forward_in", "feed_forward_out")
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
    texts = [(element.tag.rpartition("}")[2], element.text or "") for element in picture.iter()]
    told = {text.partition(":")[0] for tag, text in texts if tag == "title"}
    assert told == {f"{j} on {i}" for i in tasks for j in tasks}
    assert {"I", "ratio of means"} <= {text for tag, text in texts if tag == "text"}
    (run / "interference.json").unlink()


def test_a_carved_folder_is_measured_on_data_that_are_named(run, tmp_path, capsys):
    task, small, out = "text_classification", tmp_path / "small", tmp_path / "out.json"
    sw.carve(sw.load(run), task).save_pretrained(small)
    file = run.parent / "data" / f"{task}.jsonl"
    words = ["--bootstrap", "0", "--json", str(out)]
    assert cli.main(["evaluate", str(small), "--data", f"{task}={file}", *words]) == 0
    found = json.loads(out.read_text("utf-8"))[task]
    assert cli.main(["evaluate", str(run), "--tasks", task, *words]) == 0
    whole = json.loads(out.read_text("utf-8"))[task]
    same = ("accuracy", "chance", "baseline", "n", "activated_parameters")
    assert {name: found[name] for name in same} == {name: whole[name] for name in same}
    assert not (small / "evaluation.json").exists() and not (small / "report.html").exists()
    capsys.readouterr()
    assert cli.main(["evaluate", str(small)]) == 2
    assert "name them with --data TASK=PATH" in capsys.readouterr().err


def test_columns_of_other_data_are_named_as_in_training(run, tmp_path):
    """Also in the folder that `carve` writes."""
    recipe = yaml.safe_load((run / "recipe.yaml").read_text("utf-8"))
    rows = [
        {"split": split, "sentence": f"so {word}", "kind": kind, "key": f"{split}{i}"}
        for split in ("train", "test")
        for i, (word, kind) in enumerate([("good", "positive"), ("bad", "negative")] * 3)
    ]
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    data = {"path": str(file), "columns": {"text": "sentence", "label": "kind"}}
    tasks = {"text_classification": {"data": data}}
    model = {**recipe["model"], "tasks": {}, "targets": {}}
    named = save_run({**recipe, "model": model, "tasks": tasks, "output": str(tmp_path / "run")})
    out = tmp_path / "out.json"
    words = ["--data", f"text_classification={file}", "--bootstrap", "0", "--json", str(out)]
    assert cli.main(["evaluate", str(named / "best"), *words]) == 0
    assert json.loads(out.read_text("utf-8"))["text_classification"]["n"] == 6
