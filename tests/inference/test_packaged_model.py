"""skillweave/tiny, the model that is installed with the package."""

import numpy as np
import pyarrow.parquet as pq
import pytest

import skillweave as sw
from skillweave.data.sources.pack import pack_folder
from skillweave.inference.predictor import Predictor
from skillweave.model.folders import model_folder

NAME = "skillweave/tiny"
LARGEST = 25e6


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return Predictor(sw.load(NAME))


def test_it_is_small() -> None:
    assert sum(file.stat().st_size for file in model_folder(NAME).rglob("*")) <= LARGEST


def test_it_finds_unseen_emoji_by_their_words(predictor: Predictor) -> None:
    table = pq.read_table(pack_folder() / "emoji.parquet", columns=["split", "image", "caption_zh"])
    rows = [row for row in table.to_pylist() if row["split"] == "test"]
    items = predictor.encode("text_to_image", None, image=[row["image"]["bytes"] for row in rows])
    queries = predictor.encode("text_to_image", None, text=[row["caption_zh"] for row in rows])
    scores = queries @ items.T
    found = (scores > np.diag(scores)[:, None]).sum(1) < 10
    assert found.mean() > 5 * 10 / len(rows)  # five times chance


def test_it_relates_words_of_two_languages(predictor: Predictor) -> None:
    english, chinese = (
        ["dog", "car", "rain", "smile", "music"],
        ["狗", "汽车", "雨", "微笑", "音乐"],
    )
    one, other = (
        predictor.encode("text_matching", None, text=texts) for texts in (english, chinese)
    )
    assert ((one @ other.T).argmax(1) == np.arange(len(english))).sum() >= 4


def test_vectors_are_shortened_on_request(predictor: Predictor) -> None:
    texts = ["a red car", "红色的汽车", "rain"]
    whole = sw.encode(predictor, "text_to_image", text=texts)
    with pytest.warns(UserWarning, match="not trained to be shortened"):
        short = sw.encode(predictor, "text_to_image", dimensions=16, text=texts)
    expected = [row[:16] / np.sqrt((row[:16] ** 2).sum()) for row in whole]
    np.testing.assert_allclose(short, np.stack(expected), atol=1e-6)
    same = sw.encode(predictor, "text_to_image", dimensions=whole.shape[1], text=texts)
    np.testing.assert_array_equal(same, whole)
    for size in (0, 193):
        with pytest.raises(sw.ConfigError, match=f"the vectors have 192, not {size}"):
            sw.encode(predictor, "text_to_image", dimensions=size, text=texts)
