"""Model cards."""

import ast
import hashlib
import json
import re
from pathlib import Path

import pytest
import yaml
from tiny_run import make_run

import skillweave as sw
from skillweave import cli
from skillweave.reporting.card import MARK, model_card, write_card

FIGURES = {
    "text_to_code": {
        "n": 6,
        "recall_at_1": 0.5,
        "interval": {"recall_at_1": [0.25, 0.75]},
        "chance": {"recall_at_1": 0.125},
    }
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("card"))


@pytest.fixture(scope="module")
def card(run: Path) -> str:
    return model_card(run)


def section(card: str, title: str) -> str:
    return card.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def test_tasks_parameters_and_data(run: Path, card: str) -> None:
    model = sw.load(run)
    rows = section(card, "Tasks").splitlines()
    for task in model.config.tasks:
        (row,) = (row for row in rows if row.startswith(f"| `{task}`"))
        assert re.search(r"\| [\d.,]+[kM]? \|$", row)
        assert f"`{task}.jsonl`" in section(card, "Data")  # without the folders of this machine
    assert str(run.parent) not in card
    digest = hashlib.sha256((run / "best" / "model.safetensors").read_bytes()).hexdigest()
    assert digest in section(card, "Licence")
    front = yaml.safe_load(card.split("---")[1])
    assert front["library_name"] == "skillweave" and "sound" in front["tags"]
    assert "TODO" in section(card, "Licence") and "TODO" in section(card, "Limits")
    assert "Not measured yet" in section(card, "Figures")


def test_the_code_of_the_card_names_every_task(run: Path, card: str) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    calls = [node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Call)]
    given = {word.arg: word.value for call in calls for word in call.keywords}
    assert len(calls) == len(sw.load(run).config.tasks) and {"task", "inputs"} <= given.keys()
    assert all(hasattr(sw, call.func.attr) for call in calls)
    classified = code.replace('"tiny"', "RUN").replace('"a text"', '"so good"')
    (line,) = (line for line in classified.splitlines() if '"text_classification"' in line)
    names = {"sw": sw, "RUN": str(run)}
    exec(line, names)
    assert names["answers"][0]["class"] in ("positive", "negative")


def test_a_card_has_the_figures_of_evaluate(run: Path, tmp_path: Path) -> None:
    assert cli.main(["evaluate", str(run), "--bootstrap", "20", "-q"]) == 0
    shown = section(model_card(run), "Figures")
    tables = json.loads((run / "evaluation.json").read_text("utf-8"))
    for task, table in tables.items():
        assert f"| `{task}` |" in shown and f"| {table['n']:,} |" in shown
    assert "TODO" not in shown
    (run / "evaluation.json").unlink()


def test_a_changed_card_stays(run: Path, tmp_path: Path) -> None:
    file = write_card(run, tmp_path)
    assert file == tmp_path / "README.md" and MARK in file.read_text("utf-8")
    file.write_text(MARK + "\nold")
    assert "## Tasks" in write_card(run, tmp_path).read_text("utf-8")
    file.write_text("my own text")
    assert write_card(run, tmp_path).read_text("utf-8") == "my own text"


def test_the_command_prints_or_writes(run: Path, card: str, tmp_path: Path, capsys) -> None:
    assert cli.main(["card", str(run), "--quiet"]) == 0
    assert capsys.readouterr().out == card
    file = tmp_path / "card.md"
    assert cli.main(["card", "skillweave/tiny", "--out", str(file), "--name", "my/tiny"]) == 0
    assert f"TODO ({file.read_text('utf-8').count('TODO')})" in capsys.readouterr().out
    written = file.read_text("utf-8")
    assert "# my/tiny" in written and "`text_to_video`" in written
    assert 'sw.encode("my/tiny", task="text_to_image", text=["a text"])' in written
    assert "what it was trained on" in written
