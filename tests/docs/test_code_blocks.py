"""Every code block of the documentation runs, on small data and for two training steps.

Shell blocks run command by command in one folder per page, Python blocks share one namespace per
page, and YAML blocks are read as recipes or as parts of one. A block with a comment
`<!-- not run: REASON -->` above it is only checked: its commands, options and names exist.
"""

from __future__ import annotations

import ast
import gc
import json
import re
import shlex
import shutil
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from documentation import PAGES, ROOT, Block, inline_commands, read_blocks
from documentation_data import make_data, shrink
from typer.main import get_command

import skillweave as sw
from skillweave import cli
from skillweave.cli.app import build
from skillweave.config.layering import merge
from skillweave.config.registry import Registry
from skillweave.config.task import TaskConfig
from skillweave.corpus import CleanConfig
from skillweave.evaluation.zero_shot import read_tasks
from skillweave.tasks.task import TASKS

SHORTER = {
    "quickstart": ["training.steps=2"],
    "train": ["training.steps=2", "training.epochs=null"],
    "sweep": ["training.steps=2", "training.epochs=null"],
    "evaluate": ["--bootstrap", "20"],
    "interference": ["--batches", "2", "--bootstrap", "20"],
    "features": ["--whiten", "2"],
    "shard": ["--workers", "0"],
}
"""Command → options that make it quick, added at the end."""
PREPARED = {
    "runs/quickstart": "quickstart",
    "runs/moe": "train moe",
    "runs/unified": "train unified",
    "runs/photos": "train photos.yaml",
    "runs/reviews": "train reviews.yaml",
    "models/bert": "convert downloads/bert --out models/bert",
    "models/classifier": "convert downloads/classifier --out models/classifier",
}
"""Folder that other pages use → the command that writes it."""
BASE: dict[str, Any] = {
    "model": {
        "width": 32,
        "streams": {"text": {}, "image": {}, "sound": {}, "video": {}, "code": {}},
        "encoder": {"heads": 4},
    },
    "tasks": {"text_classification": {"data": {"path": "reviews.csv"}}},
    "training": {"steps": 1},
}
"""The recipe that parts of a recipe are merged into."""
BLOCKS = {page: blocks for page in PAGES if (blocks := read_blocks(page))}
RECIPE_FILES = {
    block.file: block.text
    for blocks in BLOCKS.values()
    for block in blocks
    if block.language == "yaml" and block.file
}


def page_name(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the data, the recipes of all pages, and the results of `PREPARED`."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("documentation")
    make_data(folder)
    for name, text in RECIPE_FILES.items():
        write_small(folder / name, text)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for command in PREPARED.values():
            run_command(command.split(), command)
    return folder


@pytest.fixture
def registries() -> Iterator[None]:
    """Remove what a block adds to a registry."""
    found = [one for one in gc.get_objects() if type(one) is Registry]
    before = [(registry, dict(registry)) for registry in found]
    yield
    for registry, content in before:
        registry.clear()
        registry.update(content)


@pytest.mark.parametrize("page", BLOCKS, ids=page_name)
@pytest.mark.usefixtures("registries")
def test_code_blocks(
    page: Path, prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocks = BLOCKS[page]
    folder = tmp_path / "work"
    if {block.language for block in blocks} & {"python", *RUNNERS}:
        shutil.copytree(prepared, folder)
        monkeypatch.chdir(folder)
        own = {tuple(words[1:]) for block in blocks for words in shell_words(block)}
        for made, command in PREPARED.items():
            if tuple(command.split()) in own and made != "runs/quickstart":
                shutil.rmtree(made)  # the page makes it itself
    names: dict[str, Any] = {"__name__": "documentation"}
    for block in blocks:
        if block.language == "python":
            run_python(block, names)
        elif run := RUNNERS.get(block.language):
            run(block)
        elif block.language not in ("", "toml"):
            raise AssertionError(f"{block.place}: no check for {block.language} blocks")


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_inline_commands_exist(page: Path) -> None:
    commands: dict[str, Any] = get_command(build()).commands
    for words in map(str.split, inline_commands(page)):
        if words[1].isupper():  # COMMAND
            continue
        assert words[1] in commands, words
        known = {name for option in commands[words[1]].params for name in option.opts}
        options = {re.split(r"[=|\]]", word.lstrip("["))[0] for word in words if "--" in word}
        assert {o for o in options if "." not in o} <= {*known, "--help"}, words


def shell_words(block: Block) -> list[list[str]]:
    """The words of each command of a shell block."""
    if block.language != "sh":
        return []
    return [words for line in block.commands if (words := shlex.split(line, comments=True))]


def run_shell(block: Block) -> None:
    for words in shell_words(block):
        what = f"{block.place}: {shlex.join(words)}"
        if Path(words[0]).name == "skillweave":
            if block.reason:
                assert cli.main([*words[1:], "--help"]) == 0, what
            else:
                run_command(words[1:], what)
        elif words[0] == "make":
            targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
            assert words[1] in targets, what
        elif words[0] == "python":
            check_program(words[1:], what)
        elif words[0] == ".ci/run":
            assert (ROOT / words[0]).is_file(), what
        else:
            assert words[0] in ("source", "pip", "torchrun", "ray"), f"{what}: an unknown command"


def run_command(words: list[str], what: str) -> None:
    assert cli.main([*words, *SHORTER.get(words[0], ())]) == 0, what


def check_program(words: list[str], what: str) -> None:
    """The file exists and knows the options, itself or by one of its neighbours."""
    file = ROOT / words[0]
    assert file.is_file(), what
    known = "".join(other.read_text("utf-8") for other in file.parent.glob("*.py"))
    for option in words[1:]:
        assert not option.startswith("--") or f'"{option}"' in known, what


def run_python(block: Block, names: dict[str, Any]) -> None:
    tree = ast.parse(block.text)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("skillweave"):
            module = import_module(node.module or "")
            for alias in node.names:
                assert hasattr(module, alias.name), f"{block.place}: {node.module}.{alias.name}"
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            known = node.value.id != "sw" or hasattr(sw, node.attr)
            assert known, f"{block.place}: sw.{node.attr}"
    if not block.reason:
        # lines are those of the page in a traceback
        ast.increment_lineno(tree, block.line - 1)
        exec(compile(tree, str(block.page), "exec"), names)


def run_yaml(block: Block) -> None:
    """A recipe, a corpus, tasks for a zero-shot evaluation, or a part of a recipe."""
    content = yaml.safe_load(block.text)
    try:
        if "sources" in content:
            CleanConfig.parse(content)
            if block.file:
                Path(block.file).write_text(block.text, "utf-8")
            return
        if not block.file:
            check_settings(content)
            return
        file = Path(block.file)
        file.write_text(block.text, "utf-8")
        if set(content) == {"tasks"}:
            read_tasks(file)
        else:
            sw.read_recipe(file)
        write_small(file, block.text)
    except sw.ConfigError as error:
        raise AssertionError(f"{block.place}: {error}") from error


def write_small(file: Path, text: str) -> None:
    """Write a recipe with a smaller model."""
    recipe = yaml.safe_load(text)
    recipe = recipe if "sources" in recipe else shrink(recipe)
    file.write_text(yaml.safe_dump(recipe, allow_unicode=True, sort_keys=False), "utf-8")


def check_settings(content: dict[str, Any]) -> None:
    """Parse a part of a recipe, of a task, or of the tasks."""
    if set(content) <= {*sw.RecipeConfig.model_fields}:
        has_length = {"steps", "epochs", "samples"} & content.get("training", {}).keys()
        base = {**BASE, "training": {}} if has_length else BASE
        recipe = sw.RecipeConfig.parse(merge(base, content))
        for name, task in recipe.tasks.items():
            TASKS.find(task.kind or name)
    elif set(content) <= {*TaskConfig.model_fields}:
        TaskConfig.parse({**BASE["tasks"]["text_classification"], **content})
    else:
        for name, task in content.items():
            TASKS.find(TaskConfig.parse(task).kind or name)


def run_json(block: Block) -> None:
    """Each line, or the whole block, is JSON."""
    if block.file:
        Path(block.file).write_text(block.text, "utf-8")
    try:
        json.loads(block.text)
    except ValueError:
        for line in block.text.splitlines():
            json.loads(line)


RUNNERS = {"sh": run_shell, "yaml": run_yaml, "json": run_json}
"""Language → what runs a block, except Python."""
