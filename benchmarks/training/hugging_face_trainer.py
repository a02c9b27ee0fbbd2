"""Our Trainer against `transformers.Trainer`: BERT, GPT-2, T5 and ViT, at full lengths and at real
ones.

    python benchmarks/training/hugging_face_trainer.py [--json FILE] [--steps 10] [--threads 1]
        [--quick]

Models, samples and collation are those of `benchmarks/training_throughput.py`, which compares bare
steps. Here both sides are whole Trainers with AdamW, clipping, a linear schedule and logs. They
alternate in one process: after each step of theirs, a callback makes the same step of ours. Their
step is timed from the end of our last one, so it includes what their Trainer does between steps.
Losses must agree at every step. Samples are tokenized before, for both. Useful tokens are those
that are no padding.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import transformers
from torch.utils.data import Dataset

sys.path.append(str(Path(__file__).resolve().parents[1]))
from report import Figure, report
from side_by_side import AGREE, Given, draw, open_reviews, read_options
from trainer_overhead import open_trainer
from training_throughput import KINDS, SETTINGS, TINY, Setting

import skillweave as sw
from skillweave.batch import IGNORE
from skillweave.config.task import TaskConfig
from skillweave.config.training import TrainingConfig
from skillweave.model.model import Model
from skillweave.recipe import RecipeConfig
from skillweave.tasks.dataset import TaskDataset

BOUNDS = {"BERT": 2.2, "GPT-2": 2.0, "T5": 2.0, "ViT": 1.0}
"""Least speed-up at real lengths."""
FULL_LENGTH = 1.0
"""Least speed-up where both compute the same products."""
RATE = 1e-4


class Prepared(Dataset[dict[str, Any]]):
    """Batches that are made before."""

    def __init__(self, batches: list[Given]) -> None:
        self.batches = [theirs for _, theirs in batches]

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.batches[index]


class Alternate(transformers.TrainerCallback):
    """Makes our step after each of theirs, and times both."""

    def __init__(self, trainer: Any, batches: list[Given]) -> None:
        self.trainer, self.batches = trainer, batches
        self.seconds: dict[str, list[float]] = {"theirs": [], "ours": []}
        self.ended = 0.0

    def on_train_begin(self, *args: Any, **more: Any) -> None:
        """Their first step begins."""
        self.ended = time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        """Their step is done."""
        start = time.perf_counter()
        self.trainer.update(iter([self.batches[state.global_step - 1][0]]))
        self.seconds["theirs"].append(start - self.ended)
        self.ended = time.perf_counter()
        self.seconds["ours"].append(self.ended - start)


def measure(reviews: TaskDataset, setting: Setting, steps: int, folder: Path) -> list[Figure]:
    """The speed-up of ours, and the agreement of the losses."""
    torch.manual_seed(0)
    build, give = KINDS[setting.kind]
    reference = build(setting)
    model: Model = sw.from_hf(reference)
    drawn = list(draw(reviews, setting.batch, steps + 2, setting.full))
    batches = [give(model, reviews, examples) for examples in drawn]
    if setting.kind == "GPT-2":
        for _, theirs_batch in batches:
            # nothing predicts the first token, but their Trainer divides by it, too
            theirs_batch["labels"][:, 0] = IGNORE
    training = TrainingConfig.parse(
        {
            "steps": len(batches),
            "log_every": 1,
            "accelerator": "cpu",
            "optimizer": {"learning_rate": RATE, "weight_decay": 0.0, "warmup": 0},
        }
    )
    name = batches[0][0].layout.task
    tasks = {name: TaskConfig.parse({"data": {"path": "prepared"}})}
    recipe = RecipeConfig.model_construct(training=training, tasks=tasks)
    mixture = SimpleNamespace(steps=len(batches))
    arguments = transformers.TrainingArguments(
        output_dir=str(folder / "theirs"),
        max_steps=len(batches),
        per_device_train_batch_size=1,
        learning_rate=RATE,
        weight_decay=0.0,
        optim="adamw_torch_fused",
        lr_scheduler_type="linear",
        max_grad_norm=1.0,
        logging_steps=1,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        use_cpu=True,
        train_sampling_strategy="sequential",
        remove_unused_columns=False,
    )
    with open_trainer(recipe, model, mixture, folder / "ours") as (ours, losses):
        ours.model.train()
        alternate = Alternate(ours, batches)
        theirs = transformers.Trainer(
            model=reference,
            args=arguments,
            train_dataset=Prepared(batches),
            data_collator=lambda items: items[0],
            callbacks=[alternate],
        )
        theirs.train()
    logged = [line["loss"] for line in theirs.state.log_history if "loss" in line]
    pairs = list(zip(*alternate.seconds.values(), strict=True))[2:]
    speedup = statistics.median(them / us for them, us in pairs)
    tokens = sum(ours_batch.tokens for ours_batch, _ in batches[2:]) / len(pairs)
    seconds = statistics.median(us for _, us in pairs)
    bound = FULL_LENGTH if setting.full else BOUNDS[setting.kind]
    bound = 0.0 if setting in TINY else bound
    difference = max(abs(us / them - 1) for us, them in zip(losses, logged, strict=True))
    unit = f"× transformers.Trainer, at least ({tokens / seconds:,.0f} useful tokens/s)"
    return [
        Figure(f"{setting.name}: speed-up", speedup, unit, bound, speedup >= bound),
        Figure(f"{setting.name}: losses", difference, "relative, at most", AGREE,
               difference <= AGREE),
    ]  # fmt: skip


def main() -> int:
    """Measure and report."""
    options = read_options(__doc__)
    transformers.logging.set_verbosity_error()
    reviews, figures = open_reviews(), []
    for setting in TINY if options.quick else SETTINGS:
        with tempfile.TemporaryDirectory() as folder:
            figures += measure(reviews, setting, options.steps, Path(folder))
    title = f"our Trainer against transformers.Trainer, {options.threads} threads"
    return report(title, figures, options.json)


if __name__ == "__main__":
    sys.exit(main())
