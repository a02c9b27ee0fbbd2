"""Well-known checkpoints fine-tuned by recipes, and by the models of Transformers on the same
samples in the same order: score, time of a step and memory.

python benchmarks/finetune_checkpoints.py [CASE ...] [--checkpoints FOLDER] [--seeds 0 1 2]
[--steps N] [--threads 1] [--output runs/checkpoints] [--json FILE] [--quick]

A case is a recipe of recipes/checkpoints. Both sides train in processes of their own, one after the
other: `skillweave train` and `evaluate`, then this script with `--peer RUN`, which takes samples,
order, optimizer and schedule from the run, and the model from Transformers. A run that is there is
not trained again. `--checkpoints` holds the checkpoints as folders with the names of CHECKPOINTS;
without it they come from the hub. It ends by writing docs/finetune_checkpoints.md.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
import yaml
from pages import markdown, write_parts
from report import Figure, report
from torch import Tensor, nn

from skillweave.batch import IGNORE, Batch
from skillweave.data.mixture import Mixture
from skillweave.inference.loading import run_recipe
from skillweave.metrics.transcription import edit_counts
from skillweave.model.folders import model_folder
from skillweave.tasks.resolve import ResolvedRecipe, resolved
from skillweave.training.allocator import keep_freed_memory
from skillweave.training.optimizer import make_optimizer, make_schedule
from skillweave.weights.files import read_assets

ROOT = Path(__file__).resolve().parents[1]
RECIPES = ROOT / "recipes" / "checkpoints"
CHECKPOINTS = {
    "sentence-transformers/all-MiniLM-L6-v2": "minilm",
    "openai/whisper-base": "whisper-base",
    "HuggingFaceTB/SmolLM2-135M-Instruct": "smollm2-135m",
}
"""Id on the hub → name of a folder that has the same."""
METRICS = {
    "text_classification": ("accuracy", False),
    "speech_to_text": ("cer", True),
    "language_modelling": ("perplexity", True),
}
"""Task → the metric that is compared, and whether a lower value is better."""
BATCH = 32
"""Test samples of a batch."""


def attention_mask(batch: Batch, span: int = 0) -> Tensor:
    """[N, L] 1 for tokens and 0 for padding."""
    length = batch.inputs[span].shape[1]
    return (torch.arange(length) < batch.lengths[:, span : span + 1]).long()


class Peer(ABC):
    """A model of Transformers, given the batches of a run."""

    model: nn.Module

    @abstractmethod
    def loss(self, batch: Batch) -> Tensor:
        """Of a training batch."""

    @abstractmethod
    def score(self, batches: Iterator[Batch]) -> float:
        """The metric on test batches."""


class SentenceClassifier(Peer):
    """The mean of an encoder's outputs, and a linear layer."""

    def __init__(self, checkpoint: str, recipe: ResolvedRecipe, task: str) -> None:
        import transformers

        body = transformers.AutoModel.from_pretrained(checkpoint)
        target: Any = recipe.task(task).target
        classifier = nn.Linear(body.config.hidden_size, len(target.classes))
        nn.init.normal_(classifier.weight, 0.0, recipe.model.initial_std)
        nn.init.zeros_(classifier.bias)
        self.model = nn.ModuleDict({"body": body, "classifier": classifier})

    def logits(self, batch: Batch) -> Tensor:
        """[N, C]."""
        mask_NL = attention_mask(batch)
        given = {"input_ids": batch.inputs[0], "attention_mask": mask_NL}
        hidden_NLD = self.model["body"](**given).last_hidden_state
        mask_NL1 = mask_NL.unsqueeze(2)
        return self.model["classifier"]((hidden_NLD * mask_NL1).sum(1) / mask_NL1.sum(1))

    def loss(self, batch: Batch) -> Tensor:
        """Cross-entropy."""
        return F.cross_entropy(self.logits(batch), batch.labels["class"])

    def score(self, batches: Iterator[Batch]) -> float:
        """Accuracy."""
        right = [
            one for b in batches for one in (self.logits(b).argmax(1) == b.labels["class"]).tolist()
        ]
        return statistics.mean(right)


class LanguageModel(Peer):
    """A causal language model."""

    def __init__(self, checkpoint: str, recipe: ResolvedRecipe, task: str) -> None:
        import transformers

        load = transformers.AutoModelForCausalLM.from_pretrained
        self.model = load(checkpoint, dtype=torch.float32)

    def losses(self, batch: Batch) -> Tensor:
        """[M] of all tokens that are predicted."""
        given = {"input_ids": batch.inputs[0], "attention_mask": attention_mask(batch)}
        logits_NLV = self.model(**given, use_cache=False).logits
        labels_NL = batch.labels["label_ids"]
        kept_NL = labels_NL != IGNORE
        return F.cross_entropy(logits_NLV[kept_NL], labels_NL[kept_NL], reduction="none")

    def loss(self, batch: Batch) -> Tensor:
        """Their mean."""
        return self.losses(batch).mean()

    def score(self, batches: Iterator[Batch]) -> float:
        """Perplexity."""
        return torch.cat([self.losses(batch) for batch in batches]).mean().exp().item()


class Speech(Peer):
    """Whisper with as few positions as the run's."""

    def __init__(self, checkpoint: str, recipe: ResolvedRecipe, task: str) -> None:
        import transformers

        load = transformers.WhisperForConditionalGeneration.from_pretrained
        self.model: Any = load(checkpoint, dtype=torch.float32)
        self.tokenizer = transformers.AutoTokenizer.from_pretrained(checkpoint)
        stream, self.target = recipe.model.streams.sound, recipe.task(task).target
        assert stream is not None
        encoder = self.model.model.encoder
        table = encoder.embed_positions.weight[: stream.max_length].detach().clone()
        encoder.embed_positions = nn.Embedding.from_pretrained(table, freeze=False)
        self.model.config.max_source_positions = stream.max_length
        encoder.max_source_positions = stream.max_length

    def loss(self, batch: Batch) -> Tensor:
        """Cross-entropy of the transcripts' tokens."""
        given = {
            "input_features": batch.inputs[0].transpose(1, 2),
            "decoder_input_ids": batch.inputs[1],
        }
        logits_NLV = self.model(**given, use_cache=False).logits
        return F.cross_entropy(logits_NLV.flatten(0, 1), batch.labels["label_ids"].flatten())

    def score(self, batches: Iterator[Batch]) -> float:
        """Character error rate of the texts that greedy search writes."""
        errors = length = 0.0
        language, task = (token.strip("<|>") for token in self.target.begin[:2])
        for batch in batches:
            rows = self.model.generate(
                batch.inputs[0].transpose(1, 2),
                language=language,
                task=task,
                max_new_tokens=self.target.max_answer_tokens,
                num_beams=self.target.beams,
            )
            texts = self.tokenizer.batch_decode(rows, skip_special_tokens=True)
            wrong, of = edit_counts([about["answer"] for about in batch.metadata], texts)
            errors, length = errors + float(wrong.sum()), length + float(of.sum())
        return errors / length


PEERS = {
    "text_classification": SentenceClassifier,
    "language_modelling": LanguageModel,
    "speech_to_text": Speech,
}


def run_peer(run: Path, checkpoint: str, out: Path, threads: int) -> None:
    """Fine-tune and measure a model of Transformers as a run was, and write what was measured."""
    torch.set_num_threads(threads)
    keep_freed_memory()  # as in training
    config = run_recipe(run)
    recipe = resolved(config, read_assets(model_folder(run)))
    (task,) = recipe.tasks
    torch.manual_seed(config.training.seed)
    peer = PEERS[task](checkpoint, recipe, task)
    dataset = recipe.dataset(task, "train", training=True)
    mixture = Mixture({task: dataset}, config.training, config.tasks)

    def measured() -> float:
        peer.model.eval()
        with torch.inference_mode():
            return peer.score(recipe.dataset(task, "test").batches(BATCH))

    before = measured() if task != "text_classification" else None  # its classifier is new
    optimizer = make_optimizer(peer.model.train(), config.training.optimizer)
    schedule = make_schedule(optimizer, config.training.optimizer, len(mixture))
    losses, seconds = [], []
    for number in range(len(mixture)):
        batch, start = mixture[number], time.perf_counter()
        loss = peer.loss(batch)
        loss.backward()
        if config.training.optimizer.max_grad_norm:
            nn.utils.clip_grad_norm_(
                peer.model.parameters(), config.training.optimizer.max_grad_norm
            )
        optimizer.step()
        schedule.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(loss.item())
        seconds.append(time.perf_counter() - start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    result = {"before": before, "value": measured(), "megabytes": peak, "losses": losses}
    out.write_text(json.dumps({**result, "seconds": statistics.median(seconds)}), "utf-8")


def run_ours(case: str, folder: Path, options: argparse.Namespace, seed: int) -> None:
    """Train and evaluate a recipe, unless that was done; ours.json has the most memory that
    training took."""
    recipe = RECIPES / f"{case}.yaml"
    source = checkpoint_of(case, options)
    settings = [f"start_from={source}", f"output={folder}", f"training.seed={seed}"]
    settings += [f"training.threads={options.threads}"]
    if "preset" in yaml.safe_load(recipe.read_text("utf-8")).get("model", {}):
        settings.append(f"model.preset={source}")
    if options.steps:
        settings.append(f"training.steps={options.steps}")
    command = [sys.executable, "-m", "skillweave"]
    if not (folder / "last").exists():
        process = subprocess.Popen([*command, "train", str(recipe), *settings])
        _, status, usage = os.wait4(process.pid, 0)
        if status:
            sys.exit(f"{case}: training failed")
        told = {"megabytes": usage.ru_maxrss / 1024}
        (folder / "ours.json").write_text(json.dumps(told), "utf-8")
    if not (folder / "evaluation.json").is_file():
        subprocess.run([*command, "evaluate", str(folder)], check=True)


def checkpoint_of(case: str, options: argparse.Namespace) -> str:
    """The folder or the id of a recipe's checkpoint."""
    name = yaml.safe_load((RECIPES / f"{case}.yaml").read_text("utf-8"))["start_from"]
    return str((options.checkpoints / CHECKPOINTS[name]).resolve()) if options.checkpoints else name


def measure(case: str, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """What both sides reached with a seed."""
    folder = options.output / f"{case}-{seed}"
    run_ours(case, folder, options, seed)
    theirs = folder / "theirs.json"
    if not theirs.is_file():
        words = ["--peer", str(folder), "--of", checkpoint_of(case, options)]
        words += ["--threads", str(options.threads), "--json", str(theirs)]
        environment = {**os.environ, "OMP_NUM_THREADS": str(options.threads)}
        subprocess.run([sys.executable, __file__, *words], check=True, env=environment)
    (task, found), *_ = json.loads((folder / "evaluation.json").read_text("utf-8")).items()
    lines = (folder / "metrics.jsonl").read_text("utf-8").splitlines()
    trained = [one for one in map(json.loads, lines) if one["kind"] == "train"]
    batch = yaml.safe_load((folder / "recipe.yaml").read_text("utf-8"))["tasks"][task]["batch_size"]
    pace = statistics.median(one["samples_per_second"] for one in trained)
    metric, _ = METRICS[task]
    own = json.loads((folder / "ours.json").read_text("utf-8"))
    own |= {"value": found[metric], "seconds": batch / pace, "interval": found["interval"][metric]}
    baseline = found.get("baseline", {}).get(metric)
    about = {"case": case, "seed": seed, "task": task, "n": found["n"], "baseline": baseline}
    return {**about, "ours": own, "theirs": json.loads(theirs.read_text("utf-8"))}


def figures(case: str, found: list[dict[str, Any]]) -> list[Figure]:
    """The score holds when it lies within the interval of ours, or is better."""
    _, lower = METRICS[found[0]["task"]]
    ours, theirs = ([one[side] for one in found] for side in ("ours", "theirs"))
    worse = statistics.mean(
        (o["value"] - t["value"]) * (1 if lower else -1) for o, t in zip(ours, theirs, strict=True)
    )
    half = statistics.mean((o["interval"][1] - o["interval"][0]) / 2 for o in ours)
    time_ratio, memory_ratio = (
        statistics.median(t[key] / o[key] for o, t in zip(ours, theirs, strict=True))
        for key in ("seconds", "megabytes")
    )
    return [
        Figure(f"{case}: worse by", worse, "at most half our interval", half, worse <= half),
        Figure(f"{case}: time of a step", time_ratio, "theirs / ours, ≥", 0.98, time_ratio >= 0.98),
        Figure(f"{case}: memory", memory_ratio, "theirs / ours, ≥", 1.0, memory_ratio >= 1.0),
    ]


def page(found: list[dict[str, Any]], options: argparse.Namespace) -> list[str]:
    """A row for each case and side."""
    rows = []
    for case in dict.fromkeys(one["case"] for one in found):
        own = [one for one in found if one["case"] == case]
        metric, _ = METRICS[own[0]["task"]]
        for side, title in (("ours", "skillweave"), ("theirs", "Transformers")):
            values = [one[side]["value"] for one in own]
            before = own[0]["theirs"]["before"]
            baseline = own[0]["baseline"]
            rows.append([
                case, title, metric, f"{statistics.mean(values):.3f}",
                ", ".join(f"{value:.3f}" for value in values),
                "" if before is None else f"{before:.3f}",
                "" if baseline is None else f"{baseline:.3f}", f"{own[0]['n']:,}",
            ])  # fmt: skip
    header = ["case", "library", "metric", "mean", "by seed", "before", "baseline", "samples"]
    import transformers

    return [
        markdown(header, rows),
        f"- Threads: {options.threads}. Transformers {transformers.__version__}, PyTorch"
        f" {torch.__version__}.",
    ]


RULE = """# Well-known checkpoints, fine-tuned with both libraries

`python benchmarks/finetune_checkpoints.py` writes this page. It fine-tunes checkpoints with the recipes of `recipes/checkpoints`, and
with the models of Transformers: the same weights, samples, order, optimizer and schedule. `before` is the checkpoint without fine-tuning."""


def main() -> int:
    """Run the cases, or one side of one."""
    cases = sorted(file.stem for file in RECIPES.glob("*.yaml"))
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("cases", nargs="*", default=cases, help=f"of {', '.join(cases)}")
    parser.add_argument("--checkpoints", type=Path, help="a folder with those of CHECKPOINTS")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="default 0")
    parser.add_argument("--steps", type=int, help="in place of the recipes' own")
    parser.add_argument("--threads", type=int, default=1, help="of both sides (default 1)")
    parser.add_argument("--output", type=Path, default=Path("runs/checkpoints"))
    parser.add_argument("--docs", type=Path, default=ROOT / "docs", help="folder of the page")
    parser.add_argument("--json", type=Path, help="write the figures there")
    parser.add_argument("--quick", action="store_true", help="two steps, and no page")
    parser.add_argument("--peer", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--of", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peer:
        run_peer(options.peer, options.of, options.json, options.threads)
        return 0
    if unknown := sorted({*options.cases} - {*cases}):
        parser.error(f"no case {unknown[0]!r}; there are {', '.join(cases)}")
    if options.quick:
        options.steps, options.output = 2, options.output.with_name("checkpoints-quick")
    found = [measure(case, seed, options) for case in options.cases for seed in options.seeds]
    if not options.quick:
        write_parts(options.docs, "finetune_checkpoints", [RULE], page(found, options))
    own = [
        figure
        for case in options.cases
        for figure in figures(case, [one for one in found if one["case"] == case])
    ]
    return report("fine-tuned checkpoints, skillweave against Transformers", own, options.json)


if __name__ == "__main__":
    sys.exit(main())
