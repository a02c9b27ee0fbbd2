"""Names of recipes, tasks, targets and skills become names of files and modules."""

import json

import pytest
import yaml
from rich.console import Console

from skillweave.config import ConfigError
from skillweave.config.names import printable
from skillweave.recipe import RecipeConfig
from skillweave.reporting.console import evaluation_table, search_table

RECIPE = """
name: run
model:
  width: 8
  streams: {text: {vocabulary: 50}}
  encoder: {layers: 1, heads: 2, sparse: {qkv: {route: skill, skills: {text: read}}}}
  targets: {classification: {}}
tasks: {text_classification: {target: classification, data: {path: a.jsonl}}}
training: {steps: 1}
"""

PATHS = [
    "../x",
    "/x",
    "a/b",
    "a\\b",
    "..",
    ".",
    ".hidden",
    "",
    " ",
    "a\x1b[2J",
    "a\nb",
    "\x00",
    "a" * 300,
]
MODULES = ["a.b", "keys", "train", "type"]


@pytest.mark.parametrize("name", PATHS)
def test_a_run_is_not_named_like_a_path(name):
    with pytest.raises(ConfigError, match="name: a name"):
        RecipeConfig.parse({**yaml.safe_load(RECIPE), "name": name})


@pytest.mark.parametrize("name", ["bert-1.0", "中文", "<b>", "[bold]", "a b"])
def test_other_names_are_free(name):
    assert RecipeConfig.parse({**yaml.safe_load(RECIPE), "name": name}).name == name


@pytest.mark.parametrize("name", PATHS + MODULES)
@pytest.mark.parametrize("what", ["text_classification", "classification", "read"])
def test_a_task_target_or_skill_is_not_named_like_a_path_or_a_method(what, name):
    text = json.dumps(yaml.safe_load(RECIPE))
    given = json.loads(text.replace(f'"{what}"', json.dumps(name)))
    with pytest.raises(ConfigError, match="choose"):
        RecipeConfig.parse(given)


def test_text_of_others_gives_no_commands_to_the_terminal():
    assert (
        printable("a\x1b[2J\x9b\r\x7fb\n\t中\ud800")
        == "a\\u001b[2J\\u009b\\u000d\\u007fb\n\t中\\ud800"
    )
    text = json.dumps({"a": "\x9b\x7f\ud800"}, ensure_ascii=False)
    assert json.loads(printable(text)) == json.loads(text)


def test_tables_show_strings_as_they_are():
    hostile = "[/x][bold]\x1b[2J"
    console = Console(width=200)
    row = {"score": 0.5, "caption": hostile, "key": hostile}
    figures = {"accuracy": 0.5, "n": 1, "pool": None, "activated_parameters": 1}
    tables = search_table([row], hostile), evaluation_table({hostile: figures}, hostile)
    for table, times in zip(tables, (3, 2), strict=True):
        with console.capture() as shown:
            console.print(table)
        assert shown.get().count("[/x][bold]\\u001b[2J") == times and "\x1b[2J" not in shown.get()
