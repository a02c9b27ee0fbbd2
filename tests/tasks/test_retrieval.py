"""Retrieval: both sides of a pair, and what belongs together."""

import numpy as np
import pytest
from task_examples import make_context, make_example, text_processors
from tiny import tiny_config

from skillweave.batch import Modality
from skillweave.data.sources import Source
from skillweave.data.sources.base import MemoryTable
from skillweave.data.values import first_text
from skillweave.tasks import TASKS
from skillweave.tasks.retrieval import RetrievalPredictions
from skillweave.tasks.task import caption_hash

STREAMS = {"text": {"vocabulary": 200, "max_length": 12}, "code": {"vocabulary": 200}}
CONFIG = tiny_config(streams=STREAMS, tasks={}, targets={"contrastive": {}})
PROCESSORS = text_processors(CONFIG, ["red cat sees blue dog", "def cat ( dog ) : return blue"])
TOKENIZER = PROCESSORS[Modality.TEXT].tokenizer


def test_pairs() -> None:
    context = make_context(CONFIG, PROCESSORS, CONFIG.targets["contrastive"])
    example = make_example("text_to_code", {"text": "red cat", "code": "def cat"}, context)
    text, code = example.spans
    assert text.data[0] == TOKENIZER.token_to_id("[CLS]")
    assert code.data[0] == TOKENIZER.token_to_id("[CLS_code]")
    assert example.labels == {"caption": caption_hash("red cat")} and example.key == "k"


def test_batches_are_sorted_by_length_where_items_differ_in_length() -> None:
    """A caption is short, and so is the text that is looked for."""
    assert TASKS["text_to_code"].length_field == "code"
    assert TASKS["text_to_image"].length_field is TASKS["text_matching"].length_field is None
    assert TASKS["code_to_text"].length_field == "code"
    assert TASKS["text_classification"].length_field == "text"


@pytest.mark.parametrize(
    ("task", "field", "captions", "same"),
    [
        ("text_to_code", "text", ["Same  words", "same words", ["SAME words", "x"], "other"], 3),
        ("text_matching", "second", ["same"] * 4, 4),
        ("simcse", "text", ["a", "a", "b", "c"], 0),  # half of them is not most
        ("text_to_code", "text", ["same"], 0),  # a sample alone
    ],
)
def test_captions_that_are_mostly_the_same_deserve_a_remark(task, field, captions, same) -> None:
    entry = TASKS[task]
    rows = MemoryTable("x", [{"key": str(i), field: text} for i, text in enumerate(captions)])
    told = entry.data_remarks(Source(rows, range(len(rows)), {field: field}))
    hashes = np.array([caption_hash(first_text(caption)) for caption in captions])
    vectors = np.eye(len(hashes), dtype=np.float32)
    found = RetrievalPredictions(queries=vectors, items=vectors, captions=hashes)
    assert told == entry.remarks(found) and bool(told) == bool(same)
    if same:
        assert told[0].startswith(f"{same} of 4 samples have the same caption")
