"""Random configurations of Hugging Face are converted exactly or refused."""

from parity_random import draw


def test_some_random_configurations() -> None:
    found = list(draw(25, 5, ""))
    assert not [row for row in found if row[2].startswith("fault")]
    assert sum(row[2] == "converted" for row in found) > 10
    assert all(changes for _, changes, _ in found)
