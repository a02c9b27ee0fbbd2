"""How the pretraining texts, functions and recordings of skillweave/tiny are made, and what they
leave out."""

import io
import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile

ROOT = Path(__file__).parents[2]


@pytest.fixture
def step(monkeypatch):
    """A function that imports a module of the builder's steps. Two packs have a package `steps`."""
    monkeypatch.syspath_prepend(ROOT / "packs")
    monkeypatch.syspath_prepend(ROOT / "packs" / "tiny")
    ours = [name for name in sys.modules if name.partition(".")[0] in ("steps", "quickstart")]
    for name in ours:
        monkeypatch.delitem(sys.modules, name)
    yield lambda name: import_module(f"steps.{name}")
    for name in [name for name in sys.modules if name.partition(".")[0] in ("steps", "quickstart")]:
        del sys.modules[name]


@pytest.mark.parametrize(
    ("pinyin", "expected"),
    [
        ("guo2", "ㄍㄨㄛ2"),
        ("ma1", "ㄇㄚ1"),
        ("zhi1", "ㄓ1"),
        ("shi4", "ㄕ4"),
        ("lu:4", "ㄌㄩ4"),
        ("lve4", "ㄌㄩㄝ4"),
        ("ju3", "ㄐㄩ3"),
        ("quan2", "ㄑㄩㄢ2"),
        ("xiong2", "ㄒㄩㄥ2"),
        ("zhong1", "ㄓㄨㄥ1"),
        ("yuan2", "ㄩㄢ2"),
        ("you3", "ㄧㄡ3"),
        ("wu5", "ㄨ5"),
        ("weng1", "ㄨㄥ1"),
        ("er2", "ㄦ2"),
        ("liu4", "ㄌㄧㄡ4"),
        ("dui4", "ㄉㄨㄟ4"),
        ("sun1", "ㄙㄨㄣ1"),
        ("nü3", "ㄋㄩ3"),
        ("Bo1", "ㄅㄛ1"),
    ],
)
def test_pinyin_is_written_in_zhuyin(step, pinyin, expected):
    assert step("zhuyin").zhuyin(pinyin) == expected


@pytest.mark.parametrize("wrong", ["r5", "xx5", "guo", "guo6", "boo1", "3C"])
def test_what_is_no_syllable_is_refused(step, wrong):
    with pytest.raises(ValueError, match="no syllable of pinyin"):
        step("zhuyin").zhuyin(wrong)


def test_each_syllable_of_the_speaker_has_a_pinyin_that_gives_it_back(step):
    zhuyin, spelled = step("zhuyin").zhuyin, step("zhuyin").pinyin_syllables()
    table = pq.read_table(
        ROOT / "src/skillweave/data/packs/quickstart/speech.parquet", columns=["base"]
    )
    consonants = set(
        "ㄅㄆㄇㄈㄉㄊㄋㄌㄍㄎㄏㄐㄑㄒ"
    )  # the names of signs, which pinyin cannot write
    bases = set(table["base"].to_pylist()) - consonants
    assert bases <= spelled.keys()
    assert all(zhuyin(f"{pinyin}3") == f"{sign}3" for sign, pinyin in spelled.items())


def test_copies_of_functions_are_found(step):
    original = """def area(width, height):
    if width < 0 or height < 0:
        raise ValueError("negative")
    total = width * height
    return total
"""
    renamed = original.replace("area", "surface")
    other = """def greet(name):
    words = ["hello", name]
    for word in words:
        print(word.title())
    return len(words)
"""
    known = step("likeness").KnownCode([original])
    assert known.has_like(original)
    assert known.has_like(renamed)
    assert not known.has_like(other)


def test_likeness_is_the_jaccard_similarity_of_runs_of_five_tokens(step):
    # a..h has the runs abcde bcdef cdefg defgh; a..g has the first three: 3 / 4
    whole, part = "a b c d e f g h", "a b c d e f g"
    assert step("likeness").KnownCode([whole], threshold=0.75).has_like(part)
    assert not step("likeness").KnownCode([whole], threshold=0.76).has_like(part)


def test_a_functions_own_name_is_hidden_where_it_stands_alone(step):
    code = "def fact(n):\n    return n * fact(n - 1) if n else factor"
    assert step("code").hide_name(code, "fact") == (
        "def f(n):\n    return n * f(n - 1) if n else factor"
    )


def test_each_code_is_kept_once_and_each_description_twice(step):
    rows = [
        {"key": str(i), "name": name, "text": text, "code": f"def {name}():\n    return {value}"}
        for i, (name, text, value) in enumerate(
            [
                ("a", "One.", 1),
                ("b", "Other.", 1),
                ("c", "Same.", 2),
                ("d", "same.", 3),
                ("e", "Same.", 4),
            ]
        )
    ]
    kept = [*step("code").distinct(rows)]
    assert len([row for row in kept if row["code"].endswith("1")]) == 1
    assert len([row for row in kept if row["text"].lower() == "same."]) == 2
    assert [*step("code").distinct(rows, before=rows)] == []


def test_nothing_that_the_project_measures_on_is_in_the_lock_file(step):
    names = {source.name.lower() for source in step("locked").locked().values()}
    assert not names & step("code").LEFT_OUT


def test_the_lock_file_pins_versions_and_contents(step):
    for source in step("locked").locked().values():
        assert source.version and source.archive and source.licence
        assert len(source.sha256) == 64


def test_syllables_that_the_quickstart_tests_on_are_left_out(step):
    table = pq.read_table(ROOT / "src/skillweave/data/packs/quickstart/speech.parquet")
    expected = {
        row["transcript"]
        for row in table.select(["transcript", "split"]).to_pylist()
        if row["split"] in ("validation", "test")
    }
    sound = step("sound")
    assert sound.tested_syllables() == expected
    said = {utterance.transcript for utterance in sound._syllables()}
    assert said
    assert not said & expected


def test_silence_at_the_ends_is_cut_and_long_or_silent_recordings_are_left_out(step):
    sound = step("sound")
    tone = 0.3 * np.sin(np.arange(8000) * 0.3)
    quiet = np.zeros(16000)
    samples, rate = soundfile.read(
        io.BytesIO(sound.flac(np.concatenate([quiet, tone, quiet]), 16000))
    )
    assert rate == 16000
    assert abs(len(samples) - (8000 + 2 * sound.MARGIN * 16000)) <= 2  # a tone begins at zero
    assert sound.flac(quiet, 16000) is None
    assert sound.flac(np.tile(tone, 9), 16000) is None


def test_whole_groups_are_for_validation(step):
    rows = [{"key": str(i), "group": str(i // 10)} for i in range(1000)]
    split = {row["key"]: row["split"] for row in step("splits").with_splits(rows, share=0.05)}
    chosen = {key for key, name in split.items() if name == "validation"}
    assert len(chosen) == 50
    assert len({int(key) // 10 for key in chosen}) == 5


def test_manual_pages_lose_their_markup(step):
    page = """.\\" a comment
.TH LS 1
.SH 名称
ls \\- 列出目录内容
.SH 描述
.TP
\\fB\\-a\\fP, \\fB\\-\\-all\\fP
不要忽略以点号起始的条目
.B 加粗
"""
    assert [*step("documents")._manual(page)] == [
        "# 名称",
        "ls - 列出目录内容",
        "# 描述",
        "-a, --all 不要忽略以点号起始的条目 加粗",
    ]


def test_html_loses_its_tags(step):
    assert step("documents").plain("<b>a &amp; b</b>\n  c") == "a & b c"
