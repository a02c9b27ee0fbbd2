"""The pipeline as a whole: rows in, shards, report, interruptions, explanations."""

from __future__ import annotations

import errno
import json
import os
import random
import signal
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from corpus_rows import dropped_rows, shard_rows

from skillweave import corpus, storage
from skillweave.config import ConfigError
from skillweave.corpus import CleanConfig, Drop, Pipeline, clean, dry_run, explain
from skillweave.corpus import pipeline as pipeline_module
from skillweave.corpus.engine import Workers
from skillweave.corpus.sources import base, lines
from skillweave.corpus.step import STEPS
from skillweave.data.sources import open_table

WORDS = ["river", "stone", "cloud", "garden", "letter", "winter", "music", "bridge", "paper"]
HAN = "天地玄黄宇宙洪荒日月盈昃辰宿列张寒来暑往秋收冬藏闰余成岁律吕调阳云腾致雨露结为霜"


def make_rows(count: int = 60) -> list[dict[str, Any]]:
    """English and Chinese texts, each third a copy of an earlier one, each fifth too short."""
    chance = random.Random(3)
    rows: list[dict[str, Any]] = []
    for number in range(count):
        if number % 3 == 2:
            text = rows[number // 2]["text"]
        elif number % 5 == 4:
            text = "short"
        elif number % 2:
            text = "".join(chance.choices(HAN, k=60)) + "。"
        else:
            text = " ".join(chance.choices(WORDS, k=30)) + "."
        rows.append({"text": text, "title": f"title {number}", "topic": {"n": number}})
    return rows


STEPS_OF_TEST = (
    {"kind": "unicode"},
    {"kind": "length"},
    {"kind": "exact_duplicates"},
    {"kind": "near_duplicates"},
    {"kind": "personal_data"},
)


@pytest.fixture
def small_units(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files are read in parts of 1,500 bytes."""
    for module in (base, lines):
        monkeypatch.setattr(module, "UNIT_BYTES", 1500)


def checksums(config: CleanConfig) -> str:
    return Path(config.out, storage.CHECKSUMS_FILE).read_text()


def test_every_row_is_kept_or_dropped_with_a_reason(write_jsonl, configure) -> None:
    rows = make_rows()
    config = configure(write_jsonl("a.jsonl", [*rows, "no json"]), *STEPS_OF_TEST)
    report = clean(config, processes=1)
    first: dict[str, int] = {}
    kept = [
        row
        for i, row in enumerate(rows)
        if len(row["text"]) >= 15 and first.setdefault(row["text"], i) == i
    ]
    found = shard_rows(config)
    assert [row["text"] for row in found] == [row["text"] for row in kept]
    assert [row["title"] for row in found] == [row["title"] for row in kept]
    dropped = dropped_rows(config)
    assert len({row["id"] for row in (*found, *dropped)}) == len(rows) + 1
    assert report["rows"] == {
        "read": len(rows) + 1,
        "made": 0,
        "dropped": len(rows) + 1 - len(kept),
        "kept": len(kept),
    }
    short = sum(len(row["text"]) < 15 for row in rows)
    reasons = {
        step["step"]: {r["reason"]: r["rows"] for r in step["reasons"]} for step in report["funnel"]
    }
    assert reasons["length"] == {"text under 15 characters": short}
    assert reasons["exact_duplicates"] == {"duplicate": len(rows) - short - len(kept)}
    assert reasons["read"] == {"not JSON": 1}
    assert sum(sum(found.values()) for found in reasons.values()) == len(dropped)


def test_provenance_finds_the_row_again(write_jsonl, configure) -> None:
    file = write_jsonl("a.jsonl", make_rows())
    config = configure(file, {"kind": "length"})
    clean(config, processes=1)
    content = file.read_bytes()
    for row in shard_rows(config):
        line = content[int(row["location"]) :].split(b"\n")[0]
        assert json.loads(line)["text"] == row["text"]
        assert (row["source"], row["file"]) == ("web", str(file))
        assert row["id"] == f"web:a.jsonl:{row['location']}"


@pytest.mark.usefixtures("small_units")
def test_the_shards_do_not_depend_on_the_number_of_processes(
    write_jsonl, configure, tmp_path
) -> None:
    file = write_jsonl("a.jsonl", make_rows(24))
    one = configure(file, *STEPS_OF_TEST[:2], shards={"rows": 8})
    two = one.model_copy(update={"out": str(tmp_path / "two")})
    clean(one, processes=1)
    shown: list[tuple[str, int, int]] = []
    clean(two, processes=2, progress=lambda *step: shown.append(step))
    assert checksums(one) == checksums(two)
    assert ("shards", 3, 3) in shown
    assert max(total for what, _, total in shown if what.startswith("stage 1")) > 2


@pytest.mark.usefixtures("small_units")
def test_the_shards_do_not_depend_on_how_files_are_cut(
    write_jsonl, configure, tmp_path, monkeypatch
) -> None:
    file = write_jsonl("a.jsonl", make_rows(20))
    cut = configure(file, *STEPS_OF_TEST)
    whole = cut.model_copy(update={"out": str(tmp_path / "whole")})
    clean(cut, processes=1)
    for module in (base, lines):
        monkeypatch.setattr(module, "UNIT_BYTES", 2**20)
    clean(whole, processes=1)
    assert shard_rows(cut) == shard_rows(whole)


class Killed(BaseException):
    """Stands for SIGKILL: nothing is cleaned up."""


@pytest.mark.usefixtures("small_units")
def test_killed_anywhere_and_started_again(write_jsonl, configure, tmp_path, monkeypatch) -> None:
    whole = configure(
        write_jsonl("a.jsonl", make_rows(12)), *STEPS_OF_TEST[1:4], shards={"rows": 3}
    )
    clean(whole, processes=1)
    expected = checksums(whole)
    replace, remove = os.replace, storage.remove
    calls = killed_at = 0

    def count(*paths: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == killed_at:
            raise Killed
        replace(*paths)

    monkeypatch.setattr(os, "replace", count)
    monkeypatch.setattr(
        storage, "remove", lambda path: None if calls == killed_at else remove(path)
    )
    finished = False
    while not finished:
        killed_at += 5  # each fifth moment at which something becomes visible
        config = whole.model_copy(update={"out": str(tmp_path / f"killed-{killed_at}")})
        calls = 0
        try:
            clean(config, processes=1)
            finished = True
        except Killed:
            calls = killed_at + 1
            clean(config, processes=1)
        assert checksums(config) == expected
        assert not list(Path(config.out).rglob(f".*{storage.PARTIAL}"))
    assert killed_at >= 25


def test_a_process_that_is_killed(write_jsonl, configure, tmp_path) -> None:
    """SIGKILL in the middle of a unit, and the same command again."""
    module = tmp_path / "deadly.py"
    module.write_text(
        "import os, signal\n"
        "from skillweave import corpus\n"
        "@corpus.step('deadly')\n"
        "def deadly(row):\n"
        "    if row['title'] == 'title 6' and not os.path.exists('survived'):\n"
        "        open('survived', 'w').close()\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    write_jsonl("a.jsonl", make_rows(10))
    recipe = tmp_path / "c.yaml"
    recipe.write_text(
        "out: out\nmodules: [deadly]\nsources: {web: {kind: jsonl, path: a.jsonl}}\n"
        "steps: [{kind: length}, {kind: deadly}]\n"
    )
    source = Path(corpus.__file__).parents[2]
    path = os.pathsep.join([str(source), str(tmp_path)])
    command = [sys.executable, "-m", "skillweave", "clean", "c.yaml", "--processes", "1"]
    run = [
        subprocess.run(command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": path}, check=False)
        for _ in range(2)
    ]
    assert [one.returncode for one in run] == [-signal.SIGKILL, 0]
    expected = configure(tmp_path / "a.jsonl", {"kind": "length"})
    expected = expected.model_copy(update={"out": str(tmp_path / "other")})
    clean(expected, processes=1)
    found = pq.read_table(tmp_path / "out" / "shards").to_pylist()
    assert [row["text"] for row in found] == [row["text"] for row in shard_rows(expected)]


@pytest.fixture
def store() -> Any:
    """An object store in memory, empty."""
    import fsspec

    system = fsspec.filesystem("memory")
    system.store.clear()
    yield system
    system.store.clear()


def test_a_corpus_in_an_object_store(write_jsonl, configure, tmp_path, store, monkeypatch) -> None:
    """Interrupted after the first upload and started again: what is there is what a folder has."""
    local = configure(write_jsonl("a.jsonl", make_rows()), *STEPS_OF_TEST, shards={"rows": 9})
    clean(local, processes=1)
    there = {"out": "memory://bucket/corpus", "work": str(tmp_path / "work")}
    remote = CleanConfig.parse({**local.model_dump(mode="json"), **there})
    uploads: list[str] = []
    put = type(store).put_file

    def fail(self: Any, source: str, target: str, **options: Any) -> None:
        if len(uploads) == 1:
            raise OSError("the network failed")
        uploads.append(target)
        put(self, source, target, **options)

    with monkeypatch.context() as patch, pytest.raises(OSError, match="network failed"):
        patch.setattr(type(store), "put_file", fail)
        clean(remote, processes=1)
    first = store.info(uploads[0])["created"]
    report = clean(remote, processes=1)
    assert store.info(uploads[0])["created"] == first  # it was not written again
    own = ("SHA256SUMS", "dropped.parquet", *(f"shards/{name}" for name in report["shards"]))
    for name in own:
        assert store.cat(f"/bucket/corpus/{name}") == Path(local.out, name).read_bytes()
    assert json.loads(store.cat("/bucket/corpus/report.json")) == report
    assert not list((tmp_path / "work" / "shards").glob("*.parquet"))
    assert clean(remote, processes=1) == report
    other = remote.model_copy(update={"work": str(tmp_path / "other")})
    with pytest.raises(ConfigError, match="which was not begun in"):
        clean(other, processes=1)
    dry_run(remote, rows=5)


def test_an_object_store_needs_a_folder_for_the_state(write_jsonl, configure) -> None:
    file = write_jsonl("a.jsonl", make_rows(3))
    data = configure(file, {"kind": "length"}).model_dump(mode="json")
    with pytest.raises(ConfigError, match="give a folder on the disk for the state"):
        CleanConfig.parse({**data, "out": "s3://bucket/corpus"})
    with pytest.raises(ConfigError, match="work: only for an `out` in an object store"):
        CleanConfig.parse({**data, "work": "state"})


def test_workers_that_end_early(write_jsonl, configure, monkeypatch) -> None:
    """As Daft's do after Ctrl-C: without an error."""
    config = configure(write_jsonl("a.jsonl", make_rows(4)), {"kind": "length"})
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Workers, "_answers", lambda *_: iter(()))
        clean(config, processes=2)
    assert clean(config, processes=1)["rows"]["read"] == 4


def test_a_full_disk(write_jsonl, configure, monkeypatch) -> None:
    config = configure(write_jsonl("a.jsonl", make_rows(20)), *STEPS_OF_TEST)
    write = pq.ParquetWriter.write_table

    def fail(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(pq.ParquetWriter, "write_table", fail)
    with pytest.raises(OSError, match="No space left") as told:
        clean(config, processes=1)
    assert told.value.errno == errno.ENOSPC
    monkeypatch.setattr(pq.ParquetWriter, "write_table", write)
    report = clean(config, processes=1)
    assert report["rows"]["read"] == 20


def test_a_finished_corpus_is_not_made_again(write_jsonl, configure, monkeypatch) -> None:
    config = configure(write_jsonl("a.jsonl", make_rows(10)), {"kind": "length"})
    report = clean(config, processes=1)
    monkeypatch.setattr(pipeline_module, "_run", None)
    assert clean(config, processes=1) == report


def test_other_settings_and_changed_files(write_jsonl, configure) -> None:
    file = write_jsonl("a.jsonl", make_rows(10))
    config = configure(file, {"kind": "length"})
    clean(config, processes=1)
    with pytest.raises(
        ConfigError, match=r"begun with other settings \(steps\); give another `out`"
    ):
        clean(configure(file, {"kind": "length", "text_characters": 20}), processes=1)
    write_jsonl("a.jsonl", make_rows(11))
    with pytest.raises(ConfigError, match="source 'web' has changed since this corpus was begun"):
        clean(config, processes=1)


def test_out_holds_something_else(write_jsonl, configure, tmp_path) -> None:
    config = configure(write_jsonl("a.jsonl", make_rows(3)), {"kind": "length"})
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("mine")
    with pytest.raises(ConfigError, match=r"already holds thesis.txt; give an empty folder"):
        clean(config, processes=1)


def test_shards_are_sources_of_recipes(write_jsonl, configure) -> None:
    config = configure(
        {
            "web": {
                "kind": "jsonl",
                "path": str(write_jsonl("a.jsonl", make_rows(20))),
                "keep": ["topic"],
            }
        },
        {"kind": "length"},
        shards={"rows": 6},
    )
    clean(config, processes=1)
    table = open_table(f"{config.out}/shards/*.parquet")
    found = shard_rows(config)
    assert len(table) == len(found)
    assert [table.read(i, ["text"])["text"] for i in range(len(table))] == [
        r["text"] for r in found
    ]
    assert [json.loads(row["topic"]) for row in found[:2]] == [{"n": 0}, {"n": 1}]
    counts = [len(pq.read_table(f)) for f in sorted(Path(config.out, "shards").iterdir())]
    assert counts[:-1] == [6] * (len(counts) - 1)


def test_webdataset_shards(write_jsonl, configure) -> None:
    config = configure(
        write_jsonl("a.jsonl", make_rows(12)), {"kind": "length"}, shards={"format": "webdataset"}
    )
    clean(config, processes=1)
    file = Path(config.out, "shards", "part-00000.tar")
    table = open_table(str(file))
    texts = [row["text"] for row in make_rows(12) if len(row["text"]) >= 15]
    assert [table.read(i, ["text"])["text"] for i in range(len(table))] == texts
    with tarfile.open(file) as tar:
        described = json.loads(tar.extractfile("00000000.json").read())
    assert described["id"] == "web:a.jsonl:0"


def test_a_corpus_of_which_nothing_is_left(write_jsonl, configure) -> None:
    config = configure(write_jsonl("a.jsonl", [{"text": "no"}]), *STEPS_OF_TEST)
    report = clean(config, processes=1)
    assert report["rows"]["kept"] == 0 and shard_rows(config) == []
    assert "no texts" in Path(config.out, "report.html").read_text()


def test_the_report(write_jsonl, configure) -> None:
    texts = [
        "two words and three more of them",
        "一二三四五六七八九十一二三四五",
        "<script>alert(1)</script>",
    ]
    rows = [{"text": text} for text in [*texts[:2], "<b>&"]]
    config = configure(write_jsonl("a.jsonl", rows), {"kind": "length"})
    report = clean(config, processes=1)
    found = report["sources"]["web"]
    assert (found["passages"], found["tokens"], found["pictures"]) == (2, 7 + 15, 0)
    assert found["average_length"] == 11.0
    assert found["text_bytes"] == len("".join(texts[:2]).encode())
    assert found["lengths"] == {"3": 1, "4": 1}  # 4-7 and 8-15 tokens
    assert report == json.loads(Path(config.out, "report.json").read_text())
    page = Path(config.out, "report.html").read_text()
    assert "&lt;b&gt;&amp;" in page and "<b>&" not in page
    assert "text under 15 characters: 1" in page


def test_a_dry_run_keeps_nothing(write_jsonl, configure) -> None:
    config = configure(write_jsonl("a.jsonl", make_rows(30)), *STEPS_OF_TEST)
    report = dry_run(config, rows=10)
    assert report["rows"]["read"] == 10
    assert not Path(config.out).exists()


def test_explain(write_jsonl, configure) -> None:
    rows = make_rows()
    rows[31]["text"] += "ＡＢ１２ 电话：13812345678"
    config = configure(write_jsonl("a.jsonl", rows), *STEPS_OF_TEST)
    undecided = explain(config, "web:a.jsonl:0")
    assert [one.outcome for one in undecided if one.step == "exact_duplicates"] == ["undecided"]
    clean(config, processes=1)
    kept = next(row for row in shard_rows(config) if row["title"] == "title 31")
    told = {one.step: one for one in explain(config, kept["id"])}
    assert told["length"].outcome == "unchanged"
    assert told["unicode"].changes["text"][1].endswith("AB12 电话：13812345678")
    assert told["personal_data"].changes["text"][1].endswith("电话：<phone>")
    copy = next(row for row in dropped_rows(config) if row["step"] == "exact_duplicates")
    *_, last = explain(config, copy["id"])
    original = next(
        row for row in shard_rows(config) if row["id"] == last.detail.removeprefix("duplicate of ")
    )
    assert last.outcome == "dropped" and original["copies"] > 1
    with pytest.raises(ConfigError, match=r"no row 'web:a.jsonl:1'; an id is SOURCE:FILE:LOCATION"):
        explain(config, "web:a.jsonl:1")


@pytest.fixture
def own_steps() -> Any:
    before = dict(STEPS)
    yield
    STEPS.clear()
    STEPS.update(before)


@pytest.mark.usefixtures("own_steps")
def test_a_step_of_a_user_is_one_function(write_jsonl, configure) -> None:
    @corpus.step("no_vowels", writes={"vowels": "int32"})
    def no_vowels(row, *, least: int = 3):
        """Drop texts without vowels."""
        count = sum(map(row["text"].count, "aeiou"))
        return {"vowels": count} if count >= least else Drop("no vowels", f"{count}")

    rows = [{"text": "a e i o u and a longer text"}, {"text": "brrr grrr hmmm tsss"}]
    config = configure(write_jsonl("a.jsonl", rows), {"kind": "no_vowels", "least": 5})
    clean(config, processes=1)
    assert [row["vowels"] for row in shard_rows(config)] == [5 + 5]
    assert dropped_rows(config)[0]["reason"] == "no vowels"
    with pytest.raises(ConfigError, match=r"steps.0.leest: unknown key; did you mean 'least'\?"):
        configure(Path("x"), {"kind": "no_vowels", "leest": 5})
    import daft.pickle

    again = daft.pickle.loads(daft.pickle.dumps(no_vowels(least=2)))
    assert again.change({"text": "a e"}) == {"vowels": 2}
    with pytest.raises(ConfigError, match="write its function as"):
        corpus.step("wrong")(lambda row, least: None)


@pytest.mark.usefixtures("own_steps")
def test_faults_of_own_steps_name_step_and_row(write_jsonl, configure) -> None:
    @corpus.step("broken")
    def broken(row):
        return {"lenght": 1} if row["title"] == "b" else 1 / 0 if row["title"] == "c" else None

    for title, told in (
        ("b", "returned the field 'lenght', which it does not declare"),
        ("c", r"step 'broken' failed on the row 'web:c.jsonl:28': ZeroDivisionError"),
    ):
        rows = [{"text": "x", "title": "a"}, {"text": "x", "title": title}]
        config = configure(write_jsonl(f"{title}.jsonl", rows), {"kind": "broken"})
        config = config.model_copy(update={"out": str(write_jsonl("z", []).with_name(title))})
        with pytest.raises((ConfigError, RuntimeError), match=told):
            clean(config, processes=1)


def test_mistakes_are_told_before_work_begins(
    configure, write_jsonl, tmp_path, monkeypatch
) -> None:
    file = write_jsonl("a.jsonl", make_rows(3))
    with pytest.raises(ConfigError, match=r"unknown value 'lenght'; did you mean 'length'\?"):
        configure(file, {"kind": "lenght"})
    with pytest.raises(ConfigError, match="text_characters"):
        configure(file, {"kind": "length", "text_characters": -1})
    with pytest.raises(
        ConfigError, match="picture_size reads 'width', which no source and no step"
    ):
        configure(file, {"kind": "picture_size"})
    with pytest.raises(ConfigError, match="two are called 'length'; give one a `name`"):
        configure(file, {"kind": "length"}, {"kind": "length"})
    config = configure(file, {"kind": "gopher", "languages": ["zh", "fi"]})
    with pytest.raises(ConfigError, match="gopher: no list for the language 'fi'"):
        clean(config, processes=1)
    assert not list((tmp_path / "out" / "state").glob("*"))
    with pytest.raises(ConfigError, match=r"none.jsonl: no file; give a file or a glob"):
        clean(configure(tmp_path / "none.jsonl", {"kind": "length"}), processes=1)
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match="pip install 'skillweave\\[corpus-ray\\]'"):
        clean(configure(file, {"kind": "length"}), engine="ray")


def test_a_frame(tmp_path) -> None:
    import daft

    rows = make_rows(30)
    frame = daft.from_pylist([{"text": r["text"], "number": i} for i, r in enumerate(rows)])
    steps = [STEPS["unicode"](), STEPS["length"]()]
    lazy = Pipeline(steps).apply(frame)
    kept = [i for i, row in enumerate(rows) if len(row["text"]) >= 15]
    assert lazy.to_pydict()["number"] == kept
    assert lazy.column_names == ["text", "number"]
    marked = Pipeline(steps).apply(frame, keep_dropped=True).to_pylist()
    assert {row["dropped"] for row in marked} == {None, "length: text under 15 characters"}
    assert len(marked) == len(rows)
    whole = Pipeline([*steps, STEPS["exact_duplicates"]()])
    with pytest.raises(ConfigError, match=r"exact_duplicates must see all rows; use Pipeline.run"):
        whole.apply(frame)
    found = whole.run(frame, tmp_path / "out", processes=1).to_pydict()
    texts = [rows[i]["text"] for i in kept]
    assert found["text"] == list(dict.fromkeys(texts))
    assert [rows[int(i)]["text"] for i in found["number"]] == found["text"]


def test_the_package_needs_no_torch() -> None:
    code = "import sys; import skillweave.corpus; print(*sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "daft", "trafilatura", "pandas"} & set(found.stdout.split())


@pytest.mark.usefixtures("own_steps", "small_units")
def test_two_processes_work_at_the_same_time(write_jsonl, configure, tmp_path: Path) -> None:
    """Rows of two pieces wait for each other, which do not end in one process."""

    def meet(row: dict[str, Any], *, place: str) -> None:
        import time
        from pathlib import Path

        end = time.monotonic() + 60
        (Path(place) / row["text"][:3]).touch()
        while len(list(Path(place).iterdir())) < 2:
            if time.monotonic() > end:
                raise RuntimeError("no other process came")
            time.sleep(0.01)

    rows = [{"text": f"{name} {'.' * 1500}"} for name in ("one", "two")]
    place = tmp_path / "meeting"
    place.mkdir()
    corpus.step("test_meet")(meet)
    config = configure(write_jsonl("a.jsonl", rows), {"kind": "test_meet", "place": str(place)})
    shown: list[tuple[str, int, int]] = []
    clean(config, processes=2, progress=lambda *step: shown.append(step))
    assert [step for step in shown if step[0] == "test_meet"] == [
        ("test_meet", done, 3) for done in range(4)
    ]
