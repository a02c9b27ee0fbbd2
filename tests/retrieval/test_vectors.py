"""Every kind of index: exact, keyed, filtered, and by words; its answers are those of plain loops."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skillweave.config import ConfigError
from skillweave.retrieval import lance, vectors
from skillweave.retrieval.filters import Filter, parse_filters
from skillweave.retrieval.lance import LanceIndex
from skillweave.retrieval.vectors import Entry, ExactIndex, VectorIndex
from skillweave.retrieval.words import Words, fused, segmented

CAPTIONS = ["a red dog", "小狗在跑", "a red car", "红色的汽车", "rain"]


def entries(count: int, first: int = 0) -> list[Entry]:
    numbers = range(first, first + count)
    return [
        Entry(
            f"k'{i}",
            CAPTIONS[i % 5],
            "",
            i,
            metadata={"year": 2000 + i, "label": "odd" if i % 2 else "even", "good": i < 3},
            mark=str(i),
        )
        for i in numbers
    ]


def units(count: int, seed: int = 0, width: int = 6) -> np.ndarray:
    x = np.random.default_rng(seed).normal(size=(count, width)).astype(np.float32)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def exact(tmp_path: Path) -> VectorIndex:
    return ExactIndex(np.zeros((0, 6), np.float32), [])


def flat(tmp_path: Path) -> VectorIndex:
    return exact(tmp_path)


def on_disk(tmp_path: Path) -> VectorIndex:
    return LanceIndex(tmp_path / "index", "text_to_image.image", "weights")


KINDS = [exact, flat, on_disk]


@pytest.fixture(params=KINDS, ids=lambda kind: kind.__name__)
def kind(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Callable[[Path], VectorIndex]:
    if request.param is flat:
        monkeypatch.setattr(vectors, "FLAT", 1)
    return request.param


def test_an_index_is_its_items(kind: Callable[[Path], VectorIndex], tmp_path: Path) -> None:
    index = kind(tmp_path)
    query = units(1, seed=9)[0]
    assert len(index) == 0 and index.search(query, 3) == [] and list(index.entries) == []
    index.add(entries(20), units(20))
    index.optimize()
    every = {entry.key: vector for entry, vector in zip(entries(20), units(20), strict=True)}

    def check(k: int = 5) -> None:
        best = sorted(every, key=lambda key: -float(every[key] @ query))[:k]
        hits = index.search(query, k)
        assert [hit.entry.key for hit in hits] == best
        scores = [float(every[key] @ query) for key in best]
        assert [hit.score for hit in hits] == pytest.approx(scores, abs=1e-5)
        assert len(index) == len(every) == len(index.entries) == len(index.vectors)
        assert {entry.key for entry in index.entries} == every.keys()

    check()
    assert index.search(query, 1)[0].entry in entries(20)  # all of it came back
    index.add(entries(3, first=18), units(3, seed=5))  # two known keys, one new
    every |= {e.key: v for e, v in zip(entries(3, first=18), units(3, seed=5), strict=True)}
    check()
    assert index.delete(["k'0", "k'19", "absent"]) == 2
    every = {key: x for key, x in every.items() if key not in ("k'0", "k'19")}
    check()
    check(100)
    assert index.marks() == {key: key[2:] for key in every}


def test_conditions_choose_before_the_search(
    kind: Callable[[Path], VectorIndex], tmp_path: Path
) -> None:
    index, query = kind(tmp_path), units(1, seed=9)[0]
    index.add(entries(20), units(20))
    for conditions, right in [
        (["year>=2015"], lambda i: i >= 15),
        (["year>2014.5"], lambda i: i >= 15),
        (["year<2003", "label=odd"], lambda i: i < 3 and i % 2),
        (["good=true"], lambda i: i < 3),
        (["good!=true"], lambda i: i >= 3),
        (["label != odd"], lambda i: i % 2 == 0),
        (["key=k'7"], lambda i: i == 7),
        (["caption=小狗在跑"], lambda i: i % 5 == 1),
        (["label=' OR '1'='1"], lambda i: False),
    ]:
        found = {hit.entry.row for hit in index.search(query, 20, parse_filters(conditions))}
        assert found == {i for i in range(20) if right(i)}, conditions
    mapped = parse_filters({"year": 2004, "good": False})
    assert [hit.entry.row for hit in index.search(query, 20, mapped)] == [4]
    with pytest.raises(ConfigError, match="unknown column 'yer'; did you mean 'year'"):
        index.search(query, 3, parse_filters(["yer=1"]))
    with pytest.raises(ConfigError, match="year=new: the column holds a number"):
        index.search(query, 3, parse_filters(["year=new"]))


def test_words_join_the_order(kind: Callable[[Path], VectorIndex], tmp_path: Path) -> None:
    index = kind(tmp_path)
    index.add(entries(20), units(20))
    index.optimize()
    query = units(20)[3]
    plain = [hit.entry.row for hit in index.search(query, 20)]
    for words, caption in [("狗", 1), ("DOG", 0), ("红色", 3)]:
        hits = index.search(query, 20, words=words)
        rows = [hit.entry.row for hit in hits]
        assert sorted(rows) == sorted(plain)
        raised = [plain.index(row) - rows.index(row) for row in rows if row % 5 == caption]
        assert sum(raised) > 0  # what has the word comes before what has not
        assert hits[0].score == pytest.approx(float(units(20)[rows[0]] @ query), abs=1e-5)
    nothing = index.search(query, 20, words="absent")
    assert [hit.entry.row for hit in nothing] == plain
    some = index.search(query, 20, parse_filters(["label=odd"]), words="dog")
    assert all(hit.entry.row % 2 for hit in some)


def test_an_index_on_disk_is_there_again_and_knows_its_model(tmp_path: Path) -> None:
    on_disk(tmp_path).add(entries(3), units(3))
    again = on_disk(tmp_path)
    assert len(again) == 3 and again.entries[1].metadata["year"] == 2001
    with pytest.raises(ConfigError, match="vectors of other weights"):
        LanceIndex(tmp_path / "index", "text_to_image.image", "others")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("mine")
    with pytest.raises(ConfigError, match="holds other files"):
        LanceIndex(tmp_path / "full", "a.image", "weights")
    (tmp_path / "index" / lance.FILE).write_text("[]")
    with pytest.raises(ConfigError, match="description of an index"):
        on_disk(tmp_path)


def test_columns_may_come_later_and_keep_their_type(tmp_path: Path) -> None:
    index = on_disk(tmp_path)
    index.add([Entry("a", "", "", 0, metadata={"size": 1})], units(1))
    index.add([Entry("b", "", "", 1, metadata={"size": 2, "name": "x"})], units(1, seed=1))
    assert [entry.metadata for entry in index.entries] == [{"size": 1}, {"size": 2, "name": "x"}]
    with pytest.raises(ConfigError, match="column 'size' holds int64 in the index"):
        index.add([Entry("c", "", "", 2, metadata={"size": "large"})], units(1))


def test_an_approximate_index_is_ranked_exactly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lance, "APPROXIMATE", 1000)
    index, every = on_disk(tmp_path), units(2000, width=16)
    index.add([Entry(str(i), "", "", i) for i in range(2000)], every)
    index.optimize()
    assert index.table.index_stats("vector_idx").num_indexed_rows == 2000
    plan = index.table.search(every[0]).distance_type("cosine").nprobes(5).analyze_plan()
    assert "partitions_searched=5" in plan and "index_comparisons=2.00 K" not in plan
    queries = units(30, seed=3, width=16)
    shares = []
    for query in queries:
        best = np.argsort(-every @ query)[:10]
        hits = index.search(query, 10)
        shares.append(len({hit.entry.row for hit in hits} & {*best.tolist()}) / 10)
        scores = [hit.score for hit in hits]
        exact_scores = [float(every[hit.entry.row] @ query) for hit in hits]
        assert scores == sorted(scores, reverse=True) == pytest.approx(exact_scores, abs=1e-5)
    assert np.mean(shares) >= 0.9


@given(st.text(), st.sampled_from(["=", "!=", "<", "<=", ">", ">="]), st.text())
def test_conditions_are_what_python_compares(cell: str, comparison: str, value: str) -> None:
    ours = Filter("x", comparison, value).holds(cell)
    names = {"=": "==", "!=": "!=", "<": "<", "<=": "<=", ">": ">", ">=": ">="}
    assert ours == eval(f"a {names[comparison]} b", {"a": cell, "b": value})
    assert not Filter("x", comparison, value).holds(None)


@pytest.mark.parametrize("text", ["", "year", "=5", "a b=1", "year~5"])
def test_no_condition(text: str) -> None:
    with pytest.raises(ConfigError, match="is no condition"):
        parse_filters([text])


def test_chinese_characters_are_words() -> None:
    assert segmented("红色 Dog，跑!") == "红 色 dog 跑"
    assert segmented("ｗide 笑脸 emoji") == "ｗide 笑 脸 emoji"


def test_words_are_weighted_as_bm25_says() -> None:
    texts = ["a b b", "b c", "", "c c c c"]
    found = Words(texts)("b B unknown")
    split = [text.split() for text in texts]
    mean = sum(map(len, split)) / 4
    for text, score in zip(split, found, strict=True):
        holding = sum("b" in one for one in split)
        weight = np.log(1 + (4 - holding + 0.5) / (holding + 0.5))
        count = text.count("b")
        length = 1.2 * (1 - 0.75 + 0.75 * len(text) / mean)
        assert score == pytest.approx(weight * count * 2.2 / (count + length))
    assert not Words([])("a").size


def test_orders_are_joined_by_reciprocal_ranks() -> None:
    assert fused([["a", "b", "c"], ["c", "d"]]) == ["c", "a", "b", "d"]  # b and d: 1/62 each
    assert fused([[1, 2], []]) == [1, 2]
