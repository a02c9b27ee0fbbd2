"""Plausible mistakes with the command line's tools: each is told in a line that says what to do."""

import json
import warnings
from pathlib import Path

import pytest
import torch
from tiny_run import make_run

import skillweave as sw
from skillweave import cli

FILES = {
    "empty.txt": "",
    "other.jsonl": '{"txet": "so good"}\n',
    "texts.jsonl": '{"text": "so good"}\n',
    "gaps.jsonl": '{"text": "so good"}\n{"text": null}\n',
    "broken.jsonl": '{"text": "so good"}\n{"text":\n',
    "cut/config.json": '{"model_type": ',
    "list/config.json": "[1]",
    "unknown/config.json": '{"model_type": "brt"}',
    "nameless/config.json": '{"model_type": "bert"}',
    "model.bin": "",
    "preset.yaml": (
        "model: bert-bsae\ntasks: {masked_text: {data: {path: pack:poems}}}\ntraining: {steps: 1}\n"
    ),
    "base.yaml": "base: quickstrat.yaml\n",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("misuse")
    make_run(folder)
    for name, content in FILES.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(content)
    for name in ("unknown", "nameless"):
        torch.save({}, folder / name / "pytorch_model.bin")
    assert (
        cli.main(
            [
                "vocabulary",
                str(folder / "data" / "text_classification.jsonl"),
                "--out",
                str(folder / "pieces.json"),
            ]
        )
        == 0
    )
    return folder


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (
            "convert data --out new",
            "holds no model (config.json is neither there nor in best/ or last/)",
        ),
        ("convert cut --out new", "config.json: not valid JSON"),
        (
            "convert list --out new",
            "list/config.json: 1 fault\n  - model: expected a mapping of settings",
        ),
        ("convert unknown --out new", "unknown family 'brt'; did you mean 'bert'?"),
        (
            "convert nameless --out new",
            'names no architecture; add "architectures": [one of BertModel, BertForMaskedLM',
        ),
        ("convert run --out new --family brt", "unknown family 'brt'; did you mean 'bert'?"),
        (
            "convert run --out new",
            "classification, contrastive, ctc; convert one task at a time, after `skillweave carve`",
        ),
        (
            "convert model.bin --out new",
            "a checkpoint of TencentPretrain also needs --config FILE.json",
        ),
        (
            "shard other.jsonl --tokenizer pieces.json --out new",
            "--column: no column 'text'; did you mean 'txet'?",
        ),
        ("shard empty.txt --tokenizer pieces.json --out new", "empty.txt: no rows"),
        (
            "shard texts.jsonl --tokenizer pieces.json --out pieces.json",
            "exists and holds no shards; give another --out",
        ),
        (
            "predict run --task text_classification --input other.jsonl",
            "no column for the field 'text'; did you mean 'txet'?",
        ),
        ("predict run --task text_classification --input empty.txt", "empty.txt: no rows"),
        ("predict run --task text_classification good --input texts.jsonl", "not both"),
        (
            "features run --task text_to_image --input gaps.jsonl --out new.npy",
            "gaps.jsonl:2: no text",
        ),
        (
            "features run --task text_to_image --input texts.jsonl --out new.npy --whiten 0",
            "fitted on two or more vectors, not 1",
        ),
        ("train run/recipe.yaml --folds 1", "cross-validation needs at least 2"),
        ("train preset.yaml", "model: expected a mapping of settings by name (got 'bert-bsae')"),
        ("train base.yaml", "base 'quickstrat.yaml' is not there; write its path, counted from"),
        (
            "average run --out new",
            "0 checkpoints, and a mean is of two or more; train with a larger training.save_total_limit",
        ),
        ("vocabulary empty.txt --out new.json", "empty.txt: no rows"),
        (
            "vocabulary texts.jsonl --out nowhere/new.json",
            "there is no folder nowhere to write into",
        ),
        (
            "vocabulary empty.txt --extend run --out new",
            "no word to add: all are known, or there are none",
        ),
        ("inspect bert-bsae", "unknown recipe or preset 'bert-bsae'; did you mean 'bert-base'?"),
        (
            "carve run --task sentiment",
            "unknown task 'sentiment'; valid names: text_classification, speech_recognition",
        ),
    ],
)
def test_a_mistake_is_told_in_a_line(
    words: str, told: str, folder: Path, monkeypatch, capsys
) -> None:
    monkeypatch.chdir(folder)
    assert cli.main(words.split()) == 2
    error = capsys.readouterr().err
    assert told in error and error.startswith(f"skillweave {words.split()[0]}: ")
    assert not list(folder.glob("new*"))


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("predict run --task text_to_image good --k 0", "'--k': Input should be greater than or"),
        ("search run good --k 0", "'--k': Input should be greater than or equal to 1"),
        ("shard texts.jsonl --tokenizer pieces.json --out new --rows 0", "'--rows': Input should"),
        ("shard texts.jsonl --tokenizer pieces.json --out new --workers -1", "'--workers': Input"),
        ("evaluate run --split tset", "'tset' is not one of 'train', 'validation', 'test'"),
        ("evaluate run --bootstrap many", "'--bootstrap': Input should be a valid integer"),
        ("evaluate run --splt test", "No such option: --splt (Possible options: --split)"),
        ("evaluate run --spl test", "No such option: --spl (Possible options: --split)"),
        ("evaluate run --bootstrap", "Option '--bootstrap' requires an argument"),
        ("evaluate", "Missing argument 'MODEL'"),
        ("evaluate run other", "unexpected extra argument(s) (other)"),
        ("search run good bad", "unexpected extra argument(s) (bad)"),
        ("evalute run", "No such command 'evalute'. Did you mean 'evaluate'?"),
        ("carve run", "Missing option '--task'"),
    ],
)
def test_a_wrong_option_is_told(words: str, told: str, folder: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(folder)
    assert cli.main(words.split()) == 2
    error = capsys.readouterr().err
    assert told in error.splitlines()[-1] and "Traceback" not in error
    assert not list(folder.glob("new*"))


def test_rows_that_cannot_be_read_are_told(folder: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(folder)
    assert (
        cli.main(["predict", "run", "--task", "text_classification", "--input", "broken.jsonl"])
        == 0
    )
    shown = capsys.readouterr()
    assert (
        len(shown.out.splitlines()) == 1
        and "broken.jsonl: 1 skipped (first: broken.jsonl:2: " in shown.err
    )


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
        (["search", "RUN", "x", "--in", "vidoe"], "no task of this model relates text to vidoe"),
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
            "there is no folder /nowhere to write into",
        ),
        (
            ["inspect", "RUN", "training.steps=3"],
            "is not a recipe; only a recipe takes settings such as training.steps=3",
        ),
        (
            ["upcycle", "RUN", "--sparse", "{qkv: {rout: skill}}"],
            "qkv.rout: unknown key; did you mean 'route'?",
        ),
        (["upcycle", "RUN", "--sparse", "{qkv"], "--sparse: not a mapping such as"),
        (
            ["upcycle", "RUN", "--sparse", "quickstart", "--out", "RUN"],
            "already exists; choose another with --out",
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
            "already exists; choose another with --out",
        ),
        (["evaluate", "RUN", "--data", "text_to_code"], "text_to_code: write it as TASK=PATH"),
        (
            ["evaluate", "RUN", "--data", "text_to_cod=a.jsonl"],
            "unknown task 'text_to_cod'; did you mean 'text_to_code'?",
        ),
        (
            ["evaluate", "RUN", "--data", "text_to_code=/nowhere.jsonl"],
            "no such file or folder: /nowhere.jsonl",
        ),
        (["index", "RUN", "/nowhere"], "no such file or folder: /nowhere"),
        (["search", "RUN", "x", "--data", "/nowhere"], "no such file or folder: /nowhere"),
        (["search", "RUN", "RUN/../data/test-0.png"], "to look for what resembles it: --image"),
        (["index", "RUN", "--device", "cuda"], "device 'cuda' is not available here; choose"),
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


def test_a_hugging_face_folder_is_told(tmp_path, capsys):
    (tmp_path / "config.json").write_text('{"architectures": ["BertModel"], "model_type": "bert"}')
    assert cli.main(["inspect", str(tmp_path)]) == 2
    assert "a Hugging Face model (bert); convert it" in capsys.readouterr().err
    assert cli.main(["upcycle", str(tmp_path), "--sparse", "{qkv: {route: skill}}"]) == 2
    assert "no weights there; expected model.safetensors" in capsys.readouterr().err


def test_what_follows_two_dashes_are_values(run, capsys):
    words = ["predict", str(run), "--task", "text_classification", "--", "-good", "--tasks", "b"]
    assert cli.main(words) == 0
    answers = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [answer["input"] for answer in answers] == ["-good", "--tasks", "b"]


def test_warnings_of_this_package_alone_are_shown_in_a_line(run, capsys, monkeypatch):
    def warned(*_, **__):
        warnings.warn("of another library", stacklevel=1)
        source = "import warnings; warnings.warn('of \\x1b this one', stacklevel=1)"
        exec(compile(source, cli.__file__, "exec"), {})
        raise sw.ConfigError("the end")

    monkeypatch.setattr(sw, "Predictor", warned)
    assert cli.main(["index", str(run)]) == 2
    told = capsys.readouterr().err
    assert told == "warning: of \\u001b this one\nskillweave index: the end\n"


@pytest.mark.parametrize(
    "words",
    [
        ["upcycle", "RUN", "--sparse", "{qkv: {route: skill}}", "--seed", str(2**70)],
        ["upcycle", "RUN", "--sparse", "{qkv: {route: skill}}", "--seed", "-1"],
        ["evaluate", "RUN", "--bootstrap", str(10**12)],
    ],
)
def test_numbers_beyond_all_use_are_refused(run, words, capsys):
    assert cli.main([word.replace("RUN", str(run)) for word in words]) == 2
    assert "Input should be" in capsys.readouterr().err
