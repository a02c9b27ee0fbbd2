"""Prompting: the template, and the positions of its masks."""

import pytest
from task_examples import make_context, make_example, text_processors
from text_rows import text_rows
from tiny import tiny_config

from skillweave.batch import Example, Modality
from skillweave.components.targets.prompt import PromptConfig
from skillweave.config.task import TaskSettings

CONFIG = tiny_config(
    streams={"text": {"vocabulary": 300, "max_length": 16}}, shared=[], tasks={}, targets={}
)
PROCESSORS = text_processors(CONFIG, ["the red cat sees the blue dog and the sun", "what is red"])
TEXT = PROCESSORS[Modality.TEXT]


def pieces(text: str) -> list[int]:
    return TEXT.encode(text).ids


def build(template: str, text: str) -> Example:
    target = PromptConfig(words=[pieces("red cat"), pieces("blue dog")])
    classes = {"r": "red cat", "b": "blue dog"}
    settings = TaskSettings(template=template, classes=classes)
    context = make_context(CONFIG, PROCESSORS, target, settings=settings)
    row = text_rows("text_prompting")[0] | {"text": text, "label": "b"}
    return make_example("text_prompting", row, context)


def test_a_prompt_keeps_its_masks_when_the_text_is_cut() -> None:
    example = build("what is the {text}? [MASK] and", "sun " * 30)
    ids, keep = example.spans[0].data, example.logits_to_keep
    assert len(ids) == 16 and ids[keep].tolist() == [TEXT.mask] * 2
    assert ids.tolist()[-1:] == pieces("and") and example.labels["class"] == 1


@pytest.mark.parametrize("template", ["[MASK] is {text}", "{text} is [MASK]"])
def test_a_mask_in_the_text_is_no_class(template: str) -> None:
    """The text may hold what stands for a mask; the class is read off the template's own."""
    example = build(template, "the [MASK] cat")
    ids, keep = example.spans[0].data.tolist(), example.logits_to_keep.tolist()
    template_ids = [i for i, one in enumerate(keep) if one]
    assert len(template_ids) == 2 and template_ids[1] == template_ids[0] + 1
    assert all(ids[i] == TEXT.mask for i in template_ids)
    assert template_ids[0] == (1 if template.startswith("[MASK]") else len(ids) - 2)
