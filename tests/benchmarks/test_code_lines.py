"""Lines of code are counted as one would by hand, and what runs is found whole."""

import importlib.util
from pathlib import Path

import code_lines
import implementation_cost
from code_lines import Definition
from torch import nn

TEXT = '''"""Of the module."""

import torch  # a comment behind code counts as code

LETTERS = """a

b"""  # a string that is no docstring: 2 lines, and a blank
TABLE = {"double": lambda x: 2 * x}


@property
# a comment
def first(x):
    """Two
    lines."""

    return (
        x
    )


class Second:
    """Of the class."""

    size: int = 3
    """Of the field."""

    def method(self):
        def inner():
            return 1

        return inner()


def third():
    return TABLE["double"](1) + Second().method()
'''
LINES = {3: 1, 5: 2, 8: 1, 11: 5, 22: 6, 35: 2}
"""First line of each top-level statement → its lines of code."""


def test_lines_by_hand() -> None:
    source = code_lines.Source(TEXT)
    assert {top: source.count(top) for top in source.tops if top > 1} == LINES
    assert len(source.lines) == sum(LINES.values())
    assert source.top(28) == 22 and source.top(13) == 11


def test_what_runs_is_found_whole(tmp_path: Path) -> None:
    file = tmp_path / "example.py"
    file.write_text(TEXT, "utf-8")
    spec = importlib.util.spec_from_file_location("example", file)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found = code_lines.reached(module.third, tmp_path)
    assert found == {Definition(file, line) for line in (8, 22, 35)}
    assert code_lines.count(found) == 1 + 6 + 2
    assert code_lines.count_files(found) == sum(LINES.values())


def test_a_model_counts_its_classes_and_their_bases() -> None:
    class Base(nn.Module):
        pass

    class Own(Base):
        def __init__(self) -> None:
            super().__init__()
            self.part = nn.Linear(1, 1)

    # both stand in this function, and PyTorch's count nowhere
    assert len(code_lines.modules(Own(), __name__)) == 1
    assert code_lines.modules(Own(), "elsewhere") == set()


def test_a_row_adds_what_no_row_above_it_has() -> None:
    file = Path(implementation_cost.__file__)
    tops = code_lines.source(file).tops
    a, b, c = (Definition(file, top) for top in list(tops)[-4:-1])
    size = {one: code_lines.count({one}) for one in (a, b, c)}
    cost = implementation_cost.Cost
    rows = [cost({a}, {a, c}), None, cost({a, b}, {a, b, c})]
    first, absent, second = implementation_cost.added(rows, start={b})
    assert first == (size[a] + size[b], size[a], size[a] + size[c]) and absent is None
    assert second == (0, size[b], size[b])
