"""Baselines on cases whose answer is plain."""

from skillweave.metrics.baselines import classify_texts, code_words, retrieve_code


def test_identifiers_are_split():
    assert code_words("def readHTTPFile_v2(x1)") == [
        "def",
        "read",
        "http",
        "file",
        "v",
        "2",
        "x",
        "1",
    ]
    assert code_words("股票价格") == ["股", "票", "价", "格", "股票", "票价", "价格"]


def test_code_is_found_by_its_words():
    similarity = retrieve_code(
        ["open a file", "股票"], ["def sell(): '股票'", "def openFile(): pass"]
    )
    assert similarity.argmax(axis=1).tolist() == [1, 0]


def test_texts_are_classified_by_characters():
    train = ["很好很好", "好的好", "太差了", "很差"] * 3
    assert classify_texts(train, ["+", "+", "-", "-"] * 3, ["真好", "真差"]) == ["+", "-"]
