"""Retrieval: both sides of a pair, and what belongs together."""

from task_examples import make_context, make_example, text_processors
from tiny import tiny_config

from skillweave.batch import Modality
from skillweave.tasks import TASKS
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
