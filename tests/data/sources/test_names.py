"""Files whose names are not UTF-8, such as those that unzip makes of archives from Windows."""

import io
import os
import tarfile
from pathlib import Path

import pytest
from PIL import Image

from skillweave.data.sources import open_rows
from skillweave.data.sources.files import readable
from skillweave.inference.inputs import read_inputs, read_words

NAME = "照片".encode("gbk")  # d5 d5 c6 ac, where c6 ac is also a letter in UTF-8
SHOWN = "\\xd5\\xd5" + b"\xc6\xac".decode()


def picture() -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (4, 4)).save(out, "PNG")
    return out.getvalue()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = os.path.join(os.fsencode(tmp_path), NAME)
    os.mkdir(place)
    for name in (NAME + b".png", b"plain.png"):
        Path(os.fsdecode(os.path.join(place, name))).write_bytes(picture())
    return tmp_path


def assert_utf_8(value: object) -> None:
    str(value).encode("utf-8")


def test_readable_keeps_every_other_name() -> None:
    assert readable(os.fsdecode(NAME)) == SHOWN
    assert readable("照片 \\xd5.png") == "照片 \\xd5.png"


def test_a_folder_gives_readable_keys_and_labels_and_the_files(folder: Path) -> None:
    table = open_rows(str(folder))
    rows = [table.read(i, ["key", "label", "image"]) for i in range(len(table))]
    assert [row["key"] for row in rows] == [f"{SHOWN}/plain.png", f"{SHOWN}/{SHOWN}.png"]
    assert {row["label"] for row in rows} == {SHOWN}
    assert all((folder / row["image"]).is_file() for row in rows)


def test_what_is_skipped_is_readable(folder: Path) -> None:
    for path in list(folder.rglob("*.png")):
        path.with_suffix(".docx").touch()
    for key, reason in open_rows(str(folder)).skipped:
        assert_utf_8(key + reason)


def test_tar_members(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        member = tarfile.TarInfo(os.fsdecode(NAME) + ".png")
        member.size = len(picture())
        tar.addfile(member, io.BytesIO(picture()))
    table = open_rows(str(tmp_path / "a.tar"))
    assert SHOWN in table.locate(0) and table.read(0, ["image"])["image"]["bytes"] == picture()


def test_inputs_of_predict(folder: Path) -> None:
    found = read_inputs(folder, ["image"])
    file = next(path for path in folder.rglob("*.png") if path.name != "plain.png")
    for one in (found, read_inputs(file, ["image"]), read_words([str(file)], ["image"])):
        for shown in one.shown:
            assert_utf_8(shown)
    assert all(Path(row["image"]["path"]).is_file() for row in found)
