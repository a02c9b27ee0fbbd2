"""The n-gram model is a distribution, and as a plain loop; perplexity and buckets."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest
from corpus_rows import shard_rows

from skillweave.config import ConfigError
from skillweave.corpus import clean
from skillweave.corpus.ngram_model import NGramModel
from skillweave.corpus.step import STEPS

TEXTS = ["a b a b c", "a b c a", "b b a c a b", "a", "c c a b d"]


def plain_model(texts: list[str], order: int, words: set[str]):
    """Interpolated Kneser-Ney by dictionaries, from its definition."""
    raw: dict[int, Counter] = defaultdict(Counter)
    for text in texts:
        tokens = ["<s>"] * max(order - 1, 0) + [w if w in words else "<unk>" for w in text.split()]
        tokens.append("</s>")
        for end in range(max(order - 1, 0), len(tokens)):
            raw[order][tuple(tokens[end - order + 1 : end + 1])] += 1
    for k in range(order - 1, 0, -1):
        raw[k] = Counter(gram[1:] for gram in raw[k + 1])
    discounts = {}
    for k, counts in raw.items():
        once, twice = (sum(v == n for v in counts.values()) for n in (1, 2))
        discounts[k] = once / (once + 2 * twice) if once else 0.5

    def probability(word: str, history: tuple[str, ...], k: int) -> float:
        if k == 0:
            return 1 / (len(words) + 2)
        shorter = probability(word, history, k - 1)
        context = history[len(history) - k + 1 :] if k > 1 else ()
        after = {gram[-1]: n for gram, n in raw[k].items() if gram[:-1] == context}
        if not after:
            return shorter
        total, discount = sum(after.values()), discounts[k]
        own = max(after.get(word, 0) - discount, 0)
        return (own + discount * len(after) * shorter) / total

    return probability


@pytest.mark.parametrize("order", [1, 2, 3])
def test_probabilities_as_a_plain_loop(order: int) -> None:
    model = NGramModel.train(TEXTS, order, least_count=2)
    words = {"a", "b", "c"}
    reference = plain_model(TEXTS, order, words)
    for text in ["a b c", "b", "c a a d e", ""]:
        tokens = [w if w in words else "<unk>" for w in text.split()] + ["</s>"]
        padded = ["<s>"] * (order - 1) + tokens
        expected = [
            reference(word, tuple(padded[i : i + order - 1]), order)
            for i, word in enumerate(tokens)
        ]
        assert model.log_probabilities(text) == pytest.approx(np.log(expected))


def test_probabilities_of_all_words_add_up_to_one() -> None:
    model = NGramModel.train(TEXTS, 3, least_count=1)
    for history in ("", "a b", "c", "d d"):
        count = len(history.split())
        total = math.exp(model.log_probabilities(history)[count])  # the end
        for word in ("a", "b", "c", "d", "unknown"):
            total += math.exp(model.log_probabilities(f"{history} {word}")[count])
        assert total == pytest.approx(1)


def test_counting_in_chunks_changes_nothing(monkeypatch) -> None:
    whole = NGramModel.train(TEXTS, 3)
    monkeypatch.setattr("skillweave.corpus.ngram_model.TOKENS", 4)
    chunked = NGramModel.train(TEXTS, 3)
    for text in TEXTS:
        assert chunked.log_probabilities(text) == pytest.approx(whole.log_probabilities(text))


def test_a_saved_model(tmp_path: Path) -> None:
    model = NGramModel.train(TEXTS, 3)
    model.save(tmp_path / "models" / "m.npz")
    again = NGramModel.load(tmp_path / "models" / "m.npz")
    assert again.perplexity("a b c") == model.perplexity("a b c")
    (tmp_path / "bad.npz").write_bytes(b"PK\x03\x04 no")
    with pytest.raises(ConfigError, match=r"bad.npz: not an n-gram model"):
        NGramModel.load(tmp_path / "bad.npz")


GOOD = "今天天气很好我们去公园散步看见很多花孩子们在草地上玩"


def test_the_model_is_trained_on_the_reference(tmp_path: Path, write_jsonl, configure) -> None:
    reference = write_jsonl("good.jsonl", [{"text": GOOD[i:] + GOOD[:i]} for i in range(20)])
    source = {"kind": "jsonl", "path": str(reference)}
    rows = [{"text": GOOD}, {"text": GOOD[::-1]}]
    model = tmp_path / "zh.npz"
    step = {"kind": "perplexity", "model": str(model), "reference": source, "most": 10}
    config = configure(write_jsonl("a.jsonl", rows), step)
    report = clean(config, processes=1)
    (found,) = shard_rows(config)
    assert found["text"] == GOOD and 1 < found["perplexity"] < 3
    assert report["funnel"][1]["reasons"][0]["reason"] == "perplexity over 10"
    assert model.is_file()
    assert found["perplexity"] == pytest.approx(NGramModel.load(model).perplexity(GOOD))
    lost = STEPS["perplexity"](model=str(tmp_path / "none.npz"))
    with pytest.raises(ConfigError, match=r"no model .*none.npz; give good texts as `reference`"):
        lost.prepare()
    (tmp_path / "empty.jsonl").write_text("\n")
    source["path"] = str(tmp_path / "empty.jsonl")
    empty = STEPS["perplexity"].parse(
        {"kind": "perplexity", "model": lost.model, "reference": source}
    )
    with pytest.raises(ConfigError, match="no text to train on"):
        empty.prepare()


def test_buckets_of_each_language(tmp_path: Path) -> None:
    from skillweave.corpus.step import Blocks

    step = STEPS["buckets"](keep=("head", "middle"))
    rows = [{"language": "zh", "perplexity": float(10 * (i + 1))} for i in range(10)]
    rows += [{"language": "en", "perplexity": float(1000 * (i + 1))} for i in range(10)]
    rows += [{"language": "en", "perplexity": None}]
    blocks = []
    for number, part in enumerate((rows[:7], rows[7:])):
        blocks.append(tmp_path / f"{number}.npy")
        np.save(blocks[-1], step.pack(step.collect(part)))
    records = np.concatenate(list(step.decide(Blocks(blocks, [7, 14]), tmp_path)))
    found = [
        step.judge(row, i, record)
        for i, (row, record) in enumerate(zip(rows, records, strict=True))
    ]
    expected = [{"bucket": "head"}] * 3 + [{"bucket": "middle"}] * 3
    for language in (0, 10):
        assert found[language : language + 6] == expected
        assert {one.reason for one in found[language + 6 : language + 10]} == {
            "in the tail of its language"
        }
    assert found[20] is None
    assert step.summary([records]) == {"buckets": {"head": 6, "middle": 6, "tail": 8}}
