"""The page of M6 at small scale: two sizes with their perplexity and losses, fine-tuning with and
without pretraining, tasks without fine-tuning, and texts."""

from __future__ import annotations

import json
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from m6_texts import Row, text_tables
from pages import (
    COLOURS,
    Conditions,
    Finding,
    Results,
    Rows,
    Study,
    Task,
    draw,
    findings,
    markdown,
    paper_table,
    parameters,
    place,
    setup,
    table,
    tables,
    write_parts,
)
from report import Figure

from skillweave.reporting.figure import new_figure, style, write_svg

SYSTEMS = {"small": "small", "mini": "mini (half the layers, half the width)"}
TASKS = {
    name: Task(f"{title}, perplexity", "perplexity", lower=True, digits=1)
    for name, title in {
        "image_captioning": "captions of pictures",
        "image_based_text_denoising": "denoising about pictures",
        "text_denoising": "denoising of reviews",
        "news_denoising": "denoising of news",
        "language_modelling": "poems",
        "review_modelling": "reviews",
    }.items()
}
STUDY = Study(
    "m6",
    SYSTEMS,
    TASKS,
    [
        Finding(
            "The larger model has the lower loss on every task (Figure 4)",
            "small",
            "mini",
            [*TASKS],
        )
    ],
)

WAYS = {"pretrained": "fine-tuned from small", "scratch": "the same steps from nothing"}


def paper(pretrained: float, scratch: float) -> dict[str, float]:
    """What M6-base and the paper's baseline reach."""
    return {"pretrained": pretrained, "scratch": scratch}


QUESTIONS = {
    f"visual_question_answering{part}": Task(
        f"{title}, right %", "exact_match", 100, paper=paper(*there), digits=1, there=name
    )
    for part, title, name, there in (
        ("", "all", "Overall", (71.0, 66.8)),
        (".kind", "kind", "Detection", (79.0, 74.0)),
        (".relation", "relation", "Relation", (71.0, 64.5)),
        (".colour", "colour", "Color", (70.9, 69.0)),
        (".number", "number", "Number", (45.2, 41.9)),
    )
}
MATCHING = {
    "image_text_matching": Task("accuracy %", "accuracy", 100, digits=1),
    "image_text_matching.auc": Task("area under the ROC curve", "auc"),
}
NAMES = {
    "image_to_text.bleu_4": Task("BLEU-4, %", "bleu_4", 100, digits=1),
    "image_to_text.rouge_l": Task("ROUGE-L, %", "rouge_l", 100, digits=1),
    "image_to_text.cider": Task("CIDEr (0 to 10)", "cider", digits=2),
}
FINETUNED = Study(
    "m6_finetuned",
    WAYS,
    {**QUESTIONS, **MATCHING, **NAMES},
    [
        Finding(
            "Pretraining helps to answer questions of every type (Table 4)",
            "pretrained",
            "scratch",
            [*QUESTIONS],
        ),
        Finding(
            "Pretraining helps to match pictures and texts (Table 5)",
            "pretrained",
            "scratch",
            [*MATCHING],
        ),
        Finding(
            "Pretraining helps to write about pictures (Table 6)",
            "pretrained",
            "scratch",
            [*NAMES],
        ),
    ],
)
"""A name after a dot is a type of questions, or another metric of the same task."""
ASKED = {
    "sentiment": "sentiment, perplexity of the text",
    "sentiment_pmi": "sentiment, PMI",
    "idiom_cloze": "idiom among ten",
}
"""Task of recipes/m6/zero_shot.yaml → its title."""

Losses = dict[tuple[str, str], dict[int, list[float]]]
"""(system, task) → step → the loss of each seed."""

INTRODUCTION = """# M6 at small scale

<!-- Written by studies/m6.py; only the text between the reading marks is kept. -->

M6 ([arXiv 2103.00823](https://arxiv.org/abs/2103.00823)) is one Transformer without a separate decoder. It reads [picture | masked
text | complete text] in one pass. Picture and masked text attend both ways and are seen by everything; the complete text is causal.
[The tutorial](tutorials/unified_generation.md) explains the model. This page pretrains two sizes on the pictures and poems of the
quickstart pack, and on reviews and news that pip installs. Data and sizes are far smaller than the paper's (1.9 TB of images and 292
GB of texts, 327M and 10B parameters), so only the order of the sizes can be compared, not the values. Perplexity is per token of the
complete text; in denoising most of it stands in the masked text too. ± is the standard deviation over seeds; where one seed was run,
the parentheses have the 95 % interval over the test samples. Chance is the word frequencies of the training data."""
QUESTIONS_NOTE = """Questions in Chinese about the pictures of the pack (`pack:questions:zh`), by type, as Table 4 has them. Chance is the commonest answer;
"blind" is the commonest answer to the same question, whatever is seen. The paper asks people about 200 questions of FMIQA."""
MATCHING_NOTE = """Whether a picture and a text belong together; half of the texts are another picture's. The paper reaches 90.2 % on pairs of a shop, and
InterBert 81.8 %."""
NAMES_NOTE = """The Chinese name of a picture, with five beams, against its one right name. No training picture has the name of a test picture, so a
name can only be put together from the words of others. Chance is the commonest name of the training data. The paper has people
rate texts of a shop (Table 6)."""
ASKED_NOTE = """Accuracy in percent on {n} test samples of each task, with the 95 % interval over the samples. Sentiment: `评价：{{text}}；分类：{{label}}`,
the name of the class with the lowest perplexity of the whole text (the paper's way), or with the most pointwise mutual information. Idioms: the
masked text has a [MASK] for the idiom, and each of ten candidates stands in the complete text. The baselines were trained on {m}
samples: for sentiment TF-IDF and logistic regression, for idioms the candidate that is right most often. The paper: TNEWS 65.5 %
(chance 25), ChID 61.7 % (chance 10)."""
PARAMETERS = "In millions: all parameters, and the parameters that each task activates."


class Asked(NamedTuple):
    """What the checkpoint of a size does after so many steps, without fine-tuning. `tables`: task →
    its figures."""

    size: str
    seed: int
    step: int
    tables: Mapping[str, dict[str, Any]]

    @classmethod
    def read(cls, file: Path) -> Asked:
        """From a file such as `asked-seed0-small-600.json`."""
        _, seed, size, step = file.stem.split("-")
        tables = json.loads(file.read_text("utf-8"))
        return cls(size, int(seed.removeprefix("seed")), int(step), tables)

    def cell(self, task: str) -> str:
        """The accuracy with its interval, in percent."""
        row = self.tables[task]
        low, high = row["interval"]["accuracy"]
        return f"{100 * row['accuracy']:.1f} ({100 * low:.1f} – {100 * high:.1f})"


def write_page(
    folder: Path,
    results: Results,
    tuned: Rows,
    asked: Sequence[Asked],
    texts: Mapping[str, Sequence[Row]],
    conditions: Conditions,
    runs: Sequence[Path],
) -> list[Figure]:
    """Write m6.md and the figures beside it; returns the findings that were measured as figures.

    `results`: of the pretraining; `runs`: its folders. `tuned`: what the fine-tuned models
    measured, by task. `texts`: what was written, by question.
    """
    folder.mkdir(parents=True, exist_ok=True)
    fine = Results(FINETUNED, split_rows(tuned))
    batch = max(task.batch_size for task in conditions.recipe.tasks.values())
    before = [INTRODUCTION, *tables(results, ("chance", "chance")), draw(folder, results)]
    before += ["## Loss in training (Figure 4)", draw_losses(folder, read_losses(runs))]
    before += finetuned_parts(fine) if tuned else []
    before += asked_parts(folder, asked, batch) if asked else []
    before += ["## Texts (Figures 5 and 6)", *text_tables(texts)] if texts else []
    before += ["## Reading"]
    points = [
        "Recipe: `recipes/m6/small.yaml`. Results are on the test split.",
        "Fine-tuning: `recipes/m6/finetuning.yaml`. Without it: `recipes/m6/zero_shot.yaml`.",
        (
            "The published sizes are `recipes/m6/base.yaml` (327M) and `recipes/m6/large.yaml` (10B)."
            " They are built and counted in the tests, and not trained."
        ),
    ]
    both = results.study._replace(
        findings=[*results.study.findings, *FINETUNED.findings],
        tasks={**results.study.tasks, **FINETUNED.tasks},
    )
    judged = Results(both, {**results.rows, **fine.rows})
    after = [*findings(judged), *parameters(results, PARAMETERS)]
    write_parts(folder, STUDY.name, before, [*after, *setup(results, conditions, *points)])
    return judged.figures()


def split_rows(rows: Rows) -> Rows:
    """The figures of fine-tuned tasks under the names of `FINETUNED`: those of each type of
    questions, and each metric."""
    found: Rows = {}
    for name in FINETUNED.tasks:
        task, _, part = name.partition(".")
        for (system, own), seeds in rows.items():
            if own == task:
                parts = {seed: row.get("subsets", {}).get(part, row) for seed, row in seeds.items()}
                found[system, name] = parts
    return found


def finetuned_parts(fine: Results) -> list[str]:
    """A table for each task that was fine-tuned."""
    parts = ["## With pretraining and without"]
    for title, note, tasks, references in (
        ("Questions", QUESTIONS_NOTE, QUESTIONS, [("chance", "chance"), ("blind", "baseline")]),
        ("Matching", MATCHING_NOTE, MATCHING, [("chance", "chance")]),
        ("Names of unseen pictures", NAMES_NOTE, NAMES, [("chance", "chance")]),
    ):
        own = FINETUNED._replace(tasks=tasks)
        if any(task in tasks for _, task in fine.rows):
            parts += [f"### {title}", note, table(Results(own, fine.rows), *references)]
            theirs = paper_table(own)
            parts += [f"In the paper:\n\n{theirs}"] if theirs else []
    return parts


def asked_parts(folder: Path, asked: Sequence[Asked], batch: int) -> list[str]:
    """What the checkpoints do without fine-tuning, and a figure of the cloze. `batch`: samples of a
    step."""
    ordered = sorted(asked, key=lambda one: ([*SYSTEMS].index(one.size), one.seed, one.step))
    rows = [
        [
            one.size,
            str(one.seed),
            f"{one.step:,}",
            f"{one.step * batch:,}",
            *(one.cell(task) for task in ASKED),
        ]
        for one in ordered
    ]
    last = ordered[0].tables
    for title, kind in (("chance", "chance"), ("baseline", "baseline")):
        rows.append([title, "", "", "", *(f"{100 * last[t][kind]['accuracy']:.1f}" for t in ASKED)])
    n = " and ".join(sorted({str(last[task]["n"]) for task in ASKED}))
    note = ASKED_NOTE.format(n=n, m=n)
    header = ["size", "seed", "steps", "samples seen", *ASKED.values()]
    shown = draw_cloze(folder, ordered, batch)
    return ["## Without fine-tuning (Table 8, Figure 7)", note, markdown(header, rows), shown]


@style()
def draw_cloze(folder: Path, asked: Sequence[Asked], batch: int) -> str:
    """m6_cloze.svg: accuracy of the cloze by samples seen, with intervals. Returns the link to
    it."""
    label = "The right idiom among ten, by samples seen"
    figure, (axes,) = new_figure(label, (420, 180), 1)
    for (size, seed), colour in zip(
        dict.fromkeys((one.size, one.seed) for one in asked), COLOURS[1:], strict=False
    ):
        own = [one for one in asked if (one.size, one.seed) == (size, seed)]
        rows = [one.tables["idiom_cloze"] for one in own]
        values = [100 * row["accuracy"] for row in rows]
        ends = [row["interval"]["accuracy"] for row in rows]
        spread = [
            [value - 100 * low for value, (low, _) in zip(values, ends, strict=True)],
            [100 * high - value for value, (_, high) in zip(values, ends, strict=True)],
        ]
        samples = [one.step * batch for one in own]
        axes.errorbar(
            samples, values, spread, color=colour, marker="o", capsize=4, label=f"{size}, {seed}"
        )
    axes.axhline(10, linestyle="--", color="0.5", linewidth=1)
    axes.set_xlabel("samples seen in pretraining")
    axes.set_ylabel("accuracy %")
    axes.grid(axis="y", alpha=0.3)
    axes.legend(title="size, seed")
    write_svg(figure, folder / "m6_cloze.svg")
    return f"![{label}](m6_cloze.svg)"


def read_losses(runs: Iterable[Path]) -> Losses:
    """The training losses of runs, from their metrics.jsonl."""
    found: Losses = defaultdict(lambda: defaultdict(list))
    for run in runs:
        system, _ = place(run)
        for line in map(json.loads, (run / "metrics.jsonl").read_text("utf-8").splitlines()):
            if line.get("kind") == "train" and line["task"] in TASKS:
                found[system, line["task"]][line["step"]].append(line["loss"])
    return found


@style()
def draw_losses(folder: Path, losses: Losses) -> str:
    """m6_loss.svg: a panel for each task, a line for each size, the mean over seeds. Returns the
    link to it."""
    label = "Loss in training of two sizes"
    figure, panels = new_figure(label, (230, 130), len(TASKS), columns=3, gap=(46, 62))
    for axes, (name, task) in zip(panels, TASKS.items(), strict=True):
        for system, colour in zip(SYSTEMS, COLOURS[1:], strict=False):
            points = sorted(losses.get((system, name), {}).items())
            means = [statistics.mean(values) for _, values in points]
            axes.plot([step for step, _ in points], means, color=colour, label=system)
        axes.set_title(task.short, fontsize=9, fontweight="normal")
        axes.grid(axis="y", alpha=0.3)
    panels[0].legend()
    panels[-2].set_xlabel("step")
    write_svg(figure, folder / "m6_loss.svg")
    return f"![{label}](m6_loss.svg)"
