"""The pretraining tasks of M6 (arXiv 2103.00823 section 3.3): what is given, what is asked for, and
text that is written by one model."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from skillweave import cli
from skillweave.batch import IGNORE, Example, Modality
from skillweave.config import ConfigError
from skillweave.data.processors import BadInput
from skillweave.evaluation.evaluator import predict_dataset
from skillweave.inference.predictor import Predictor
from skillweave.inference.writing import TextWriter
from skillweave.model.model import Model
from skillweave.recipe import RecipeConfig
from skillweave.tasks.dataset import TaskDataset
from skillweave.tasks.generation import GeneratedText
from skillweave.tasks.masked_prediction import MaskedPredictions
from skillweave.tasks.resolve import ResolvedRecipe, resolve

STREAMS: dict[str, Any] = {
    "text": {"vocabulary": 700, "max_length": 48, "separate_parts": True},
    "code": {"vocabulary": 400, "max_length": 24},
    "image": {"size": 16, "patch": 8, "cls_token": False},
    "sound": {"channels": 8, "max_length": 100},
    "video": {"size": 16, "frames": 2, "tubelet": [1, 8, 8]},
}
SIDE = {"layers": 1, "heads": 2, "feed_forward": 32}
M6 = {"width": 16, "streams": STREAMS, "encoder": SIDE, "targets": {"lm": {}}}
BART = {**M6, "target_embedding": {"max_length": 40}, "decoder": SIDE}
PICTURES = {"path": "pack:emoji", "limit": 20, "columns": {"text": "caption_zh"}}
DATA: dict[str, Any] = {
    "language_modelling": {"path": "pack:poems", "limit": 20},
    "text_denoising": {"path": "pack:poems", "limit": 20},
    "image_captioning": PICTURES,
    "image_based_text_denoising": PICTURES,
    "video_based_text_denoising": {
        "path": "pack:clips",
        "limit": 20,
        "columns": {"text": "caption_zh"},
    },
    "sound_based_text_denoising": {
        "path": "pack:speech",
        "limit": 20,
        "columns": {"text": "transcript"},
    },
    "code_based_text_denoising": {"path": "pack:code_zh", "limit": 20},
    "text_to_text": {
        "path": "pack:emoji",
        "limit": 20,
        "columns": {"text": "name_zh", "answer": "name_en"},
    },
    "code_to_text": {"path": "pack:code_zh", "limit": 20},
    "image_to_text": {"path": "pack:emoji", "limit": 20, "columns": {"text": "name_zh"}},
}
SEEN = {
    "text_denoising": [],
    "image_based_text_denoising": ["image"],
    "video_based_text_denoising": ["video"],
    "sound_based_text_denoising": ["sound"],
    "code_based_text_denoising": ["code"],
}


def resolved(model: dict[str, Any], *names: str, **more: Any) -> ResolvedRecipe:
    tasks = {name: {"data": DATA[name], "target": "lm", "batch_size": 4, **more} for name in names}
    recipe = {"model": model, "tasks": tasks, "training": {"steps": 1, "threads": 1}}
    return resolve(RecipeConfig.parse(recipe))


def opened(model: dict[str, Any], name: str, **more: Any) -> tuple[TaskDataset, Model]:
    run = resolved(model, name, **more)
    torch.manual_seed(0)
    return run.dataset(name, "train"), Model(run.model, run.assets).eval()


@pytest.mark.parametrize("name", SEEN)
def test_the_whole_text_is_asked_for_after_a_text_with_masks(name: str) -> None:
    """[what is seen | [CLS] masked text | [CLS] complete text [SEP]] in one pass; each position of
    the complete text predicts the next token, and no other position anything."""
    data, model = opened(M6, name)
    layout = data.task.layout
    assert [span.name for span in map(layout.condition, range(len(layout.spans)))] == [
        *SEEN[name],
        "text",
        "text/target/causal",
    ]
    assert len(layout.passes) == 1
    processor = data.context.processors[Modality.TEXT]
    (example,) = data.examples(0)
    *seen, masked, complete = example.spans
    assert masked.data[0] == complete.data[0] == processor.cls
    assert complete.data[-1] == processor.separator and processor.mask in masked.data
    before = sum(features.length for features in (*seen, masked))
    labels = example.token_labels["label_ids"]
    assert labels[:before].tolist() == [IGNORE] * before and labels[-1] == IGNORE
    assert torch.equal(labels[before:-1], complete.data[1:])
    found = predict_dataset(model, data, data.batches(4, limit=6))
    assert isinstance(found, MaskedPredictions)
    assert set(data.task.entry.columns(found)) == {"perplexity", "masked_accuracy"}


@pytest.mark.parametrize("name", ["text_denoising", "image_based_text_denoising"])
def test_a_decoder_may_write_it(name: str) -> None:
    data, _ = opened(BART, name)
    assert [span.written for span in data.task.layout.spans] == [
        *[False] * (1 + len(SEEN[name])),
        True,
    ]
    (example,) = data.examples(0)
    labels = example.token_labels["label_ids"]
    assert len(labels) == example.spans[-1].length
    assert torch.equal(labels[:-1], example.spans[-1].data[1:])


def ids(data: TaskDataset) -> list[tuple[list[int], list[int]]]:
    """The masked and the complete tokens of each sample, without special ones."""
    return [
        (example.spans[0].data[1:].tolist(), example.spans[1].data[1:-1].tolist())
        for example in (data.examples(i)[0] for i in range(len(data)))
    ]


@pytest.mark.parametrize(
    ("masking", "share", "length"),
    [
        ({}, 0.15, None),
        ({"share": 0.5, "span_length": "fixed", "mean_span_length": 2}, 0.5, 2),
        ({"span_length": "fixed", "mean_span_length": 1}, 0.15, 1),
    ],
)
def test_share_and_lengths_of_spans_are_settings(
    masking: dict[str, Any], share: float, length: int | None
) -> None:
    data, _ = opened(M6, "text_denoising", masking=masking)
    mask = data.context.processors[Modality.TEXT].mask
    for given, wanted in ids(data):
        masks = given.count(mask)
        removed = len(wanted) - (len(given) - masks)
        assert 1 <= removed <= max(1, round(share * len(wanted)))
        if length:
            # the last span may be shorter, as no more tokens are replaced than the share
            assert masks == -(-removed // length)


def test_sentences_stay_in_order_unless_they_are_permuted() -> None:
    def positions(**masking: Any) -> list[bool]:
        data, _ = opened(M6, "text_denoising", masking=masking)
        mask = data.context.processors[Modality.TEXT].mask
        in_order = []
        for given, wanted in ids(data):
            rest = iter(wanted)
            in_order.append(all(token in rest for token in given if token != mask))
        return in_order

    assert all(positions())
    assert not all(positions(permute_sentences=True))


def written(model: Model, name: str, *rows: Any, **settings: Any) -> list[str]:
    writer = TextWriter(Predictor(model, device=None), name, settings)
    return [best["text"] for best, *_ in writer.write(rows)]


def test_one_model_writes_about_all_that_may_stand_before_its_text() -> None:
    """Greedy tokens are those of whole passes over a prefix that is built by hand."""
    names = [
        "image_captioning",
        "image_based_text_denoising",
        "text_denoising",
        "language_modelling",
    ]
    run = resolved(M6, *names)
    torch.manual_seed(0)
    model = Model(run.model, run.assets).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.3)
    data = run.dataset("image_based_text_denoising", "train")
    processor = data.context.processors[Modality.TEXT]
    picture = data.source[0]["image"]
    masked = [*processor.encode("按键").ids, processor.mask, *processor.encode("四").ids]
    rows = {
        "image_captioning": {"image": picture},
        "image_based_text_denoising": {"image": picture, "text": "按键[MASK]四"},
        "text_denoising": {"text": "按键[MASK]四"},
        "language_modelling": {"text": ""},
    }
    for name, row in rows.items():
        layout = model.config.tasks[name].layout(name)
        spans = [
            data.context.features({"image": picture}, span.modality, None)  # ty: ignore[invalid-argument-type]
            if span.modality is Modality.IMAGE
            else processor.assemble(masked)
            for span in layout.spans[:-1]
        ]
        text = [processor.cls]
        for _ in range(4):
            example = Example((*spans, processor.assemble(text, cls=False)))
            batch = run.dataset(name, "train").collate([example])
            text.append(int(model(batch).logits["lm"][-1].argmax()))
        wanted = [t for t in text[1:] if t != processor.separator]
        (found,) = written(model, name, row, max_new_tokens=4, num_beams=1)
        assert found == TextWriter(Predictor(model, device=None), name).text(wanted)


def test_chinese_is_written_without_spaces() -> None:
    run = resolved(M6, "language_modelling")
    torch.manual_seed(0)
    model = Model(run.model, run.assets).eval()
    torch.nn.init.normal_(model.words(Modality.TEXT), 0, 2)
    writer = TextWriter(Predictor(model, device=None), "language_modelling", {"max_new_tokens": 9})
    assert writer.text(writer.processor.encode("春风，雪").ids) == "春风，雪"
    ((best,),) = writer.write(["春风"])
    assert "".join(writer.stream("春风")) == best["text"] and len(best["text"]) > 3


def test_a_row_of_a_file_holds_the_beginning_of_its_answer(tmp_path: Path) -> None:
    """A column `prompt`, beside what the task itself reads."""
    _, model = opened(M6, "text_denoising")
    torch.nn.init.normal_(model.words(Modality.TEXT), 0, 2)
    model.save_pretrained(tmp_path / "model")
    rows = [{"text": "春[MASK]", "prompt": prompt} for prompt in ("", "风雪")]
    file, out = tmp_path / "rows.jsonl", tmp_path / "out.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)))
    command = ["generate", str(tmp_path / "model"), "--task", "text_denoising"]
    assert cli.main([*command, "--input", str(file), "--out", str(out)]) == 0
    found = [json.loads(line)["score"] for line in out.read_text("utf-8").splitlines()]
    writer = TextWriter(Predictor(model, device=None), "text_denoising")
    assert found == pytest.approx([best["score"] for (best,) in writer.write(rows)], rel=1e-4)
    assert found[0] != pytest.approx(found[1], rel=1e-2)


def test_a_text_that_is_too_long_to_be_written_again_is_refused() -> None:
    _, model = opened(M6, "text_denoising")
    writer = TextWriter(Predictor(model, device=None), "text_denoising")
    ((answer,),) = writer.write([{"text": "春" * 30 + "[MASK]"}])
    assert "the text has 31 tokens, and the model reads 22" in answer["error"]
    with pytest.raises(BadInput, match="no text"):
        writer.prompted({"text": "  "})
    with pytest.raises(ConfigError, match="generate --task text_denoising"):
        list(Predictor(model, device=None).predict("text_denoising", ["春[MASK]"]))


@pytest.mark.parametrize("name", ["text_to_text", "code_to_text", "image_to_text"])
def test_texts_about_an_input_are_written_after_it(name: str) -> None:
    """Without a decoder, [input | [CLS] answer] is one pass, and the answer ends with [SEP]."""
    data, model = opened(M6, name)
    assert len(data.task.layout.passes) == 1 and data.task.layout.spans[-1].causal
    processor = data.context.processors[Modality.TEXT]
    (example,) = data.examples(0)
    given, read = example.spans
    labels = example.token_labels["label_ids"]
    assert labels[: given.length].tolist() == [IGNORE] * given.length
    assert torch.equal(labels[given.length : -1], read.data[1:])
    assert (read.data[0], labels[-1]) == (processor.cls, processor.separator)
    found = predict_dataset(model, data, data.batches(4, limit=4))
    assert isinstance(found, GeneratedText) and len(found.hypotheses) == 4
    (answer, *_) = Predictor(model, device=None).predict(
        name, [data.source[0][data.task.entry.given[0]]]
    )
    assert set(answer) == {"answer"}


def test_half_of_the_positions_are_for_the_given_text() -> None:
    """M6 appendix A.1: 256 of 512 for each of two texts."""
    data, _ = opened(M6, "text_to_text")
    row = {"key": "k", "text": "春 " * 60, "answer": "风 " * 60}
    example = data.task.entry.build_parts(row, data.context)[0]
    assert [span.length for span in example.spans] == [24, 23]
