"""Files that are written whole, checked when they are read, and locked."""

import json

import pytest

from skillweave.storage import (
    Damaged,
    add_checksums,
    read_json,
    read_lines,
    replacing,
    verify,
    write_json,
)


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_failed_write_leaves_what_was_there(tmp_path, error):
    file = tmp_path / "figures.json"
    write_json(file, {"old": 1})
    (tmp_path / "figures.json.partial").write_text("a file of the user")
    with pytest.raises(type(error)), replacing(file) as partial:
        partial.write_text("ha")
        raise error
    assert read_json(file) == {"old": 1}
    assert {entry.name for entry in tmp_path.iterdir()} == {"figures.json", "figures.json.partial"}


def test_a_folder_never_replaces_one_that_holds_something(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "mine.txt").touch()
    with pytest.raises(OSError), replacing(tmp_path / "model") as partial:
        partial.mkdir()
    assert [entry.name for entry in tmp_path.rglob("*")] == ["model", "mine.txt"]


def test_text_that_is_no_utf_8_survives(tmp_path):
    name = b"\xd5\xd5\xc6\xac3.png".decode("utf-8", "surrogateescape")  # in GBK
    write_json(tmp_path / "a.json", {"key": name, "caption": "照片"})
    assert json.loads((tmp_path / "a.json").read_bytes()) == {"key": name, "caption": "照片"}


@pytest.mark.parametrize("content", [b"", b"[1]", b"\xff\x00", b"{", b"[" * 100_000, b"3"])
def test_junk_is_left_out_with_a_warning(tmp_path, content):
    file = tmp_path / "a"
    assert read_json(file) == {} and read_lines(file, {}) == []
    file.write_bytes(content)
    with pytest.warns(UserWarning, match="not a JSON mapping"):
        assert read_json(file) == {}
    file.write_bytes(b'{"step": 1}\n' + content + b'\n{"step": 2}\n{"step": "x"}\n{"st')
    with pytest.warns(UserWarning, match=f"a: {3 if content else 2} of {5 if content else 4} lin"):
        assert read_lines(file, {"step": int}) == [{"step": 1}, {"step": 2}]


def test_checksums_find_changed_and_missing_files(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).write_text(name)
    add_checksums(tmp_path, ["a", "b"])
    verify(tmp_path)
    (tmp_path / "a").write_text("A")
    with pytest.raises(Damaged, match="a: damaged"):
        verify(tmp_path)
    verify(tmp_path, but=["a"])
    add_checksums(tmp_path, ["a"])
    verify(tmp_path)
    (tmp_path / "b").unlink()
    with pytest.raises(Damaged, match="b: No such file"):
        verify(tmp_path)
