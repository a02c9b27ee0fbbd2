"""What raters said: figures by hand, whoever is on which side; files that are no ratings."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from skillweave.config import ConfigError
from skillweave.evaluation.ratings import RatingKey, Ratings, score_ratings

KEY = RatingKey("page", ("new", "old"), {"0": 0, "1": 1, "2": 0})


def rated(rater: str, **items: Any) -> Ratings:
    """The ratings of the systems `new` and `old` by item."""
    return Ratings(rater, {name[1:]: np.array(x, float) for name, x in items.items()})


def write(file: Path, **content: Any) -> Path:
    file.write_text(json.dumps(content))
    return file


def test_means_differences_and_wins_by_hand() -> None:
    """Two items: the first has two raters, the second one. Of the third a rating is missing."""
    raters = [
        rated(
            "a",
            i0=[[5, 4, 3], [1, 2, 3]],
            i1=[[2, 2, 2], [4, 4, 4]],
            i2=[[5, 5, np.nan], [0, 0, 0]],
        ),
        rated("b", i0=[[3, 4, 5], [3, 2, 1]]),
    ]
    found = score_ratings(KEY, raters)
    assert found["n"] == 2 and found["raters"] == {"a": 2, "b": 1}
    grammar = found["criteria"]["grammar"]
    assert grammar["means"] == {"new": (4 + 2) / 2, "old": (2 + 4) / 2}
    assert grammar["difference"] == 0 and grammar["better"] is None
    assert found["criteria"]["overall"]["means"] == {"new": (4 + 2) / 2, "old": (2 + 4) / 2}
    assert found["wins"] == {"new": 1, "old": 1} and found["ties"] == 0
    assert found["p_value"] == 1


def test_a_system_that_is_always_better_wins() -> None:
    items = {f"i{i}": [[4, 4, 5], [2, 4, i % 2]] for i in range(8)}
    key = RatingKey("page", ("new", "old"), {str(i): 0 for i in range(8)})
    found = score_ratings(key, [rated("a", **items)])
    criteria = found["criteria"]
    assert criteria["grammar"]["interval"] == (2, 2) and criteria["grammar"]["better"] == "new"
    assert criteria["correctness"]["better"] is None
    low, high = criteria["richness"]["interval"]
    assert 4 <= low <= criteria["richness"]["difference"] == 4.5 <= high <= 5
    assert found["wins"] == {"new": 8, "old": 0}
    assert found["p_value"] == pytest.approx(2 / 2**8)
    assert found["agreement"]["grammar"] is None


def test_agreement_is_the_mean_kappa_of_pairs_of_raters() -> None:
    first = [[[5, 1, 0], [4, 2, 0]], [[3, 3, 0], [2, 1, 0]], [[0, 5, 0], [1, 4, 0]]]
    second = [[[4, 1, 0], [4, 3, 0]], [[3, 3, 0], [0, 1, 0]], [[1, 5, 0], [1, 4, 0]]]
    names = "i0", "i1", "i2"
    raters = [
        rated(who, **dict(zip(names, x, strict=True))) for who, x in (("a", first), ("b", second))
    ]
    raters.append(rated("c", i0=first[0]))  # agrees wholly with the first, on one item
    found = score_ratings(KEY, raters)["agreement"]
    ours, theirs = (np.array(x)[..., 0].ravel() for x in (first, second))
    kappas = [
        cohen_kappa_score(x, y, weights="quadratic", labels=range(6))
        for x, y in ((ours, theirs), (ours[:2], ours[:2]), (theirs[:2], ours[:2]))
    ]
    assert found["grammar"] == pytest.approx(np.mean(kappas))
    assert found["richness"] == 1  # all ratings are 0


def test_sides_are_given_back_to_their_systems(tmp_path: Path) -> None:
    """The key says that the second system's text stands first on item 1."""
    sides = [[5, 5, 5], [0, 1, None]]
    file = write(tmp_path / "r.json", page="page", rater="a", ratings={"0": sides, "1": sides})
    found = Ratings.read(file, KEY)
    np.testing.assert_array_equal(found.items["0"], [[5, 5, 5], [0, 1, np.nan]])
    np.testing.assert_array_equal(found.items["1"], [[0, 1, np.nan], [5, 5, 5]])


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ({"page": "other", "rater": "a", "ratings": {}}, "ratings of page 'other'"),
        ({"page": "page", "rater": " ", "ratings": {}}, "lacks the rater's name"),
        (
            {"page": "page", "rater": "a", "ratings": {"9": [[1, 1, 1]] * 2}},
            "'9' is not on the page",
        ),
        ({"page": "page", "rater": "a", "ratings": {"0": [[1, 1, 6]] * 2}}, "from 0 to 5"),
        ({"page": "page", "rater": "a", "ratings": {"0": [[1, 1, 1.5]] * 2}}, "whole numbers"),
        ({"page": "page", "rater": "a", "ratings": {"0": [[1, 1]] * 2}}, "2 × 3"),
        ({"page": "page", "rater": "a", "ratings": {"0": None}}, "2 × 3"),
        ({"page": "page", "rater": "a", "ratings": {"0": 7}}, "2 × 3"),
    ],
)
def test_files_that_are_no_ratings_of_the_page(
    tmp_path: Path, content: dict[str, Any], told: str
) -> None:
    with pytest.raises(ConfigError, match=told) as error:
        Ratings.read(write(tmp_path / "r.json", **content), KEY)
    assert "r.json" in str(error.value)


def test_a_file_that_is_no_key(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"\.key\.json"):
        RatingKey.read(write(tmp_path / "r.json", page="page", rater="a", ratings={}))


def test_a_rater_twice_and_nobody_at_all() -> None:
    one = rated("a", i0=[[1, 1, 1], [2, 2, 2]])
    with pytest.raises(ConfigError, match="several files are of rater a"):
        score_ratings(KEY, [one, one])
    with pytest.raises(ConfigError, match="no pair is rated whole"):
        score_ratings(KEY, [rated("a", i0=[[1, 1, np.nan], [2, 2, 2]])])
