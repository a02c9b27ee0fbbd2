import pytest

from skillweave.config import ConfigError
from skillweave.config.data import DataConfig
from skillweave.data.sources import KINDS, SUFFIXES, open_source, open_table
from skillweave.data.sources.base import MemoryTable, Source, name_fields
from skillweave.data.sources.files import expand_braces, find_files

ROWS = [
    {"key": "a", "name": "cat", "words": ["pet", "", "animal"], "kind": "x", "image": b"1"},
    {"key": "b", "name": None, "words": None, "kind": "y", "image": "b.png"},
]


def selection(columns, wanted=None):
    table = MemoryTable("here", ROWS)
    return Source(table, [0, 1], name_fields(table, columns, wanted))


def test_columns_are_renamed_joined_and_the_rest_passes():
    source = selection({"text": ["name", "words"], "label": "kind"})
    assert source.columns == ["key", "text", "label", "image"]
    image = {"bytes": b"1", "path": None}
    assert source[0] == {"key": "a", "text": ["cat", "pet", "animal"], "label": "x", "image": image}
    assert source[1] == {
        "key": "b",
        "text": [],
        "label": "y",
        "image": {"bytes": None, "path": "b.png"},
    }
    for field in ("key", "text", "label"):
        assert source.column(field) == [source[i][field] for i in range(2)]
    with pytest.raises(ValueError, match="read row by row"):
        source.column("image")
    assert selection({"text": "words"})[0]["text"] == ["pet", "", "animal"]
    assert (
        selection({"key": "kind"}).column("key")
        == ["x", "y"]
        == [row["key"] for row in selection({"key": "kind"})]
    )


def test_only_the_wanted_fields_are_read():
    assert selection({"text": "name"}, ["text"])[0] == {"key": "a", "text": "cat"}
    with pytest.raises(ConfigError, match=r"no column for the field 'imag'; did you mean 'image'"):
        selection({}, ["imag"])


@pytest.mark.parametrize("columns", [{"text": "nane"}, {"text": ["kind", "nane"]}])
def test_a_missing_column_is_named_with_the_nearest(columns):
    with pytest.raises(
        ConfigError, match=r"here: columns.text: no column 'nane'; did you mean 'name'"
    ):
        selection(columns)


def test_braces_and_globs(tmp_path):
    assert expand_braces("s/{08..11}.tar") == ["s/08.tar", "s/09.tar", "s/10.tar", "s/11.tar"]
    assert expand_braces("{a,b}{1..2}") == ["a1", "a2", "b1", "b2"]
    for bomb in ("{0..1000000000}", "{0..99999}{0..99999}", "{a,b}" * 60):
        with pytest.raises(ConfigError, match="stands for more than 100,000 files"):
            expand_braces(bomb)
    for name in ("1.jsonl", "2.jsonl", "[x].jsonl"):
        (tmp_path / name).write_text("{}\n")
    assert [file.name for file in find_files(f"{tmp_path}/*.jsonl")] == [
        "1.jsonl",
        "2.jsonl",
        "[x].jsonl",
    ]
    assert [file.name for file in find_files(f"{tmp_path}/[x].jsonl")] == ["[x].jsonl"]
    with pytest.raises(ConfigError, match=r"3\.jsonl; did you mean '[12]\.jsonl'"):
        find_files(f"{tmp_path}/{{1..3}}.jsonl")
    with pytest.raises(ConfigError, match="no file matches"):
        find_files(f"{tmp_path}/*.csv")


def test_what_cannot_be_opened_is_explained(tmp_path):
    (tmp_path / "a.odt").write_text("x")
    (tmp_path / "a.jsonl").write_text("{}\n")
    (tmp_path / "a.csv").write_text("x\n")
    for path, match in (
        ("pakc:emoji", "unknown kind of source 'pakc'; did you mean 'pack'"),
        ("https://example.org/a.tar", "web addresses are not read"),
        (str(tmp_path / "a.odt"), "unknown kind of file '.odt'; one of .arrow, .csv, .jsonl"),
        (str(tmp_path / "a.*"), "mixes kinds"),
        (str(tmp_path / "none" / "a.csv"), "there is no folder"),
    ):
        with pytest.raises(ConfigError, match=match):
            open_table(path)
    assert (
        set(KINDS) >= {"pack", "installed", "hf", "glue", "clue", "squad"}
        and ".parquet" in SUFFIXES
    )


def test_a_path_per_split(tmp_path):
    for name, count in (("train", 3), ("test", 2)):
        (tmp_path / f"{name}.jsonl").write_text(
            "".join(f'{{"text": "{name} {i}"}}\n' for i in range(count))
        )
    train, test = str(tmp_path / "train.jsonl"), str(tmp_path / "test.jsonl")
    data = DataConfig(path={"train": train, "test": test})
    assert [len(open_source(data, split)) for split in ("train", "test")] == [3, 2]
    with pytest.raises(ConfigError, match="no source for 'validation', only for train, test"):
        open_source(data, "validation")
    with pytest.raises(ConfigError, match="the same rows for train and test"):
        open_source(DataConfig(path={"train": train, "test": train}), "train")


def test_one_path_may_validate_and_test(tmp_path):
    train, other = tmp_path / "train.jsonl", tmp_path / "dev.jsonl"
    train.write_text('{"text": "a"}\n')
    other.write_text('{"text": "b"}\n{"text": "c"}\n')
    path = {"train": str(train), "validation": str(other), "test": str(other)}
    data = DataConfig(path=path)
    assert [len(open_source(data, split)) for split in ("train", "validation", "test")] == [1, 2, 2]


def test_a_web_address_is_told_as_it_is_written(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"image": "https://example.org/a.png"}\n')
    row = open_source(DataConfig(path=str(tmp_path / "a.jsonl")), "train")[0]
    assert row["image"]["path"] == "https://example.org/a.png"
