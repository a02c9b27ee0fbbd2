"""The bits of a token, row by row of Uni-Perceiver-MoE Table 2."""

import pytest

from skillweave.batch import Attention, Layout, Modality, Role, Span
from skillweave.layers.sparse.routes.attributes import ATTRIBUTES, authors, extended, paper

TEXT, IMAGE, SOUND, VIDEO, CODE = (
    Modality.TEXT,
    Modality.IMAGE,
    Modality.SOUND,
    Modality.VIDEO,
    Modality.CODE,
)


def target(modality: Modality, **options: object) -> Span:
    return Span(modality, Role.TARGET, **options)


def layout(*spans: Span) -> Layout:
    return Layout("new", spans)


CLASSIFICATION = layout(Span(IMAGE), target(TEXT, encoder_pass=1))
CAPTIONING = layout(
    Span(IMAGE), Span(TEXT, attention=Attention.CAUSAL), target(TEXT, encoder_pass=1)
)


def test_the_papers_example() -> None:
    """Section 3.2: "any token from the input sequences of image classification task should be [1,
    0, 0, 1, 1, 0, 0, 1]"."""
    assert paper(CLASSIFICATION.condition(0)) == [1, 0, 0, 1, 1, 0, 0, 1]


@pytest.mark.parametrize(
    ("row", "true", "false"),
    [
        (0, (layout(Span(VIDEO), target(TEXT)), 1), (layout(Span(TEXT), target(IMAGE)), 1)),
        (1, (layout(Span(TEXT), target(IMAGE)), 1), (layout(Span(VIDEO), target(TEXT)), 1)),
        (2, (layout(Span(TEXT), target(IMAGE)), 0), (layout(Span(IMAGE), target(TEXT)), 0)),
        (3, (layout(Span(IMAGE), target(TEXT)), 0), (layout(Span(TEXT), target(IMAGE)), 0)),
        (4, (layout(Span(TEXT), Span(IMAGE)), 1), (layout(Span(TEXT), Span(IMAGE)), 0)),
        (5, (layout(Span(TEXT), Span(IMAGE)), 0), (layout(Span(TEXT), Span(IMAGE)), 1)),
        (6, (CAPTIONING, 1), (CAPTIONING, 0)),
        (7, (CAPTIONING, 1), (CAPTIONING, 2)),
    ],
)
def test_each_row_of_the_table(
    row: int, true: tuple[Layout, int], false: tuple[Layout, int]
) -> None:
    bits = [paper(given.condition(span))[row] for given, span in (true, false)]
    assert bits == [True, False]


def test_the_authors_order() -> None:
    """Rows of the lookup table in their code: classification's inputs and class names, and a
    caption's words."""
    assert [authors(CLASSIFICATION.condition(i)) for i in range(2)] == [
        [1, 0, 0, 1, 1, 0, 0, 0],
        [1, 0, 0, 1, 0, 1, 1, 0],
    ]
    assert authors(CAPTIONING.condition(1)) == [1, 1, 0, 1, 0, 1, 0, 1]


def test_extended_rows_are_the_papers_for_images_and_text_and_differ_for_all_modalities() -> None:
    for given in (CLASSIFICATION, CAPTIONING):
        for condition in given.conditions:
            assert extended(condition) == [*paper(condition), *[False] * 9]
    rows = {tuple(extended(layout(Span(m)).condition(0))) for m in Modality}
    assert (
        len(rows)
        == len(Modality)
        > len({tuple(paper(layout(Span(m)).condition(0))) for m in Modality})
    )


@pytest.mark.parametrize("name", sorted(ATTRIBUTES))
def test_sizes(name: str) -> None:
    size, describe = ATTRIBUTES[name]
    assert len(describe(CAPTIONING.condition(2))) == size
