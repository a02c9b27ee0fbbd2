"""Duplicates: the groups are those of an exact computation, in bounded memory."""

from __future__ import annotations

import hashlib
import random
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from skillweave.corpus import clean
from skillweave.corpus.components import Components, equal_keys, sorted_entries
from skillweave.corpus.step import STEPS
from skillweave.corpus.tokens import normalized_tokens

EDGES = st.lists(st.tuples(st.integers(0, 19), st.integers(0, 19)), max_size=25)


@given(EDGES, st.integers(1, 7))
def test_components_as_scipy(tmp_path_factory, edges: list[tuple[int, int]], chunk: int) -> None:
    components = Components(20, tmp_path_factory.mktemp("tables"))
    left, right = np.array(edges, np.int64).reshape(-1, 2).T
    for start in range(0, len(edges), chunk):
        components.join(left[start : start + chunk], right[start : start + chunk])
    graph = coo_array((np.ones(len(edges)), (left, right)), shape=(20, 20))
    _, labels = connected_components(graph, directed=False)
    (records,) = components.groups([20])
    for row in range(20):
        group = np.flatnonzero(labels == labels[row])
        assert (records["first"][row], records["size"][row]) == (group[0], len(group))


@given(
    st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), max_size=30),
    st.integers(1, 9),
    st.booleans(),
)
def test_equal_keys_as_a_plain_loop(rows: list[tuple[int, int]], chunk: int, wide: bool) -> None:
    spread = np.uint64(2**64 // 5)  # over the whole range of keys
    keys = np.array(rows, np.uint64).reshape(-1, 2) * spread
    cuts = [0, len(rows) // 3, len(rows) // 3, len(rows)]
    blocks = [sorted_entries(keys[a:b], wide) for a, b in pairwise(cuts)]
    counts = np.diff(cuts).tolist()
    found = {
        (int(a), int(b))
        for left, right in equal_keys(blocks, counts, chunk)
        for a, b in zip(left, right, strict=True)
    }
    expected = set()
    for band in range(1 if wide else 2):
        first: dict[Any, int] = {}
        for number, row in enumerate(rows):
            key = row if wide else row[band]
            if first.setdefault(key, number) != number:
                expected.add((first[key], number))
    assert found == expected


def jaccard(left: str, right: str, n: int = 5) -> float:
    grams = [
        {tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)}
        for tokens in map(normalized_tokens, (left, right))
    ]
    return len(grams[0] & grams[1]) / max(len(grams[0] | grams[1]), 1)


VOCABULARY = [f"{a}{b}{c}" for a in "bdfgk" for b in "aeiou" for c in "lmnrs"]
HAN = [chr(code) for code in range(0x4E00, 0x4E00 + 800)]


def make_pairs(words: list[str], joint: str, count: int) -> list[tuple[str, str]]:
    """Texts of 300 tokens, and copies of which 1 to 9 tokens are others."""
    chance = random.Random(5)
    pairs = []
    for number in range(count):
        tokens = chance.choices(words, k=300)
        changed = list(tokens)
        for place in chance.sample(range(300), 1 + number % 9):
            changed[place] = chance.choice(words)
        pairs.append((joint.join(tokens), joint.join(changed)))
    return pairs


@pytest.mark.parametrize(("words", "joint"), [(VOCABULARY, " "), (HAN, "")], ids=["en", "zh"])
def test_recall_and_precision_of_signatures(words: list[str], joint: str) -> None:
    step = STEPS["near_duplicates"]()
    pairs = make_pairs(words, joint, 150)
    texts = [text for pair in pairs for text in pair]
    keys = step.keys([{"text": text} for text in texts])
    found = [bool((keys[2 * i] == keys[2 * i + 1]).any()) for i in range(len(pairs))]
    similar = [jaccard(*pair) >= 0.8 for pair in pairs]
    assert 40 < sum(similar) < len(pairs)
    assert np.mean(np.array(found)[similar]) >= 0.95
    shuffled = np.roll(keys[1::2], 1, axis=0)
    assert not (keys[::2] == shuffled).any()


def test_signatures_estimate_the_jaccard_similarity() -> None:
    step = STEPS["near_duplicates"](bands=64, rows=8)
    for left, right in make_pairs(VOCABULARY, " ", 9):
        one, two = step.signatures([left, right])
        # 512 hashes: a standard deviation of at most 0.022
        assert np.mean(one == two) == pytest.approx(jaccard(left, right), abs=0.07)


def test_han_characters_are_tokens() -> None:
    step = STEPS["near_duplicates"]()
    one, two, other = step.signatures(["".join(HAN[:60]), " ".join(HAN[:60]), "".join(HAN[60:120])])
    assert (one == two).all() and not (one == other).any()


def test_exact_duplicates_and_punctuation() -> None:
    rows = [{"text": "A b, c."}, {"text": "a  B C"}, {"text": "A b, c."}]
    exact = STEPS["exact_duplicates"]().keys(rows).tolist()
    assert exact[0] == exact[2] != exact[1]
    assert bytes(np.array(exact[0], "<u8")) == hashlib.blake2b(b"A b, c.", digest_size=16).digest()
    loose = STEPS["exact_duplicates"](ignore_punctuation=True).keys(rows).tolist()
    assert loose[0] == loose[1] == loose[2]


def test_rows_without_text_are_no_duplicates(write_jsonl, configure) -> None:
    file = write_jsonl(
        "a.jsonl", [{"text": None}, {}, {"text": "!!!"}, {"text": "???"}, {"text": "a"}]
    )
    config = configure(file, {"kind": "exact_duplicates"}, {"kind": "near_duplicates"})
    assert clean(config, processes=1)["rows"]["kept"] == 5


def test_clusters_in_the_report(write_jsonl, configure) -> None:
    texts = [text for pair in make_pairs(VOCABULARY, " ", 2) for text in pair]
    rows = [{"text": text} for text in [*texts, texts[0], "another text of a few words"]]
    config = configure(write_jsonl("a.jsonl", rows), {"kind": "near_duplicates"})
    report = clean(config, processes=1)
    assert report["summaries"] == {"near_duplicates": {"cluster_sizes": {"2": 1, "3": 1}}}
    assert "cluster sizes" in Path(config.out, "report.html").read_text()
