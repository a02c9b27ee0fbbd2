"""Lines of code that each additional model needs, here and in Hugging Face Transformers
(TencentPretrain, Table 2).

    python benchmarks/implementation_cost.py [--json FILE] [--docs DIR]

The paper counts the lines of classes that inherit from nn.Module, without comments, docstrings and
blank lines, that a model needs and no model above it in the table does. Here a script counts the
classes, with their bases, of a model of each preset. The first row is the Transformer of arXiv
1706.03762 with all options of its layers, used or not. Two other counts show that nothing is hidden:
the same without those unused options, and all code of the package that runs while the model is
built and run forward, with functions and configuration. Models have one layer and few words, which
does not change the count. Takes a minute or two.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
import transformers
import yaml
from code_lines import Definition, count, count_files, define, modules, reached
from hugging_face import PRESETS, make_batch, run_ours, run_theirs, small
from pages import markdown, write_parts
from report import Figure, report
from rich.progress import track
from torch import nn

import skillweave
from skillweave.batch import Batch
from skillweave.config import ConfigError
from skillweave.interop.huggingface import to_hf
from skillweave.model.config import ModelConfig
from skillweave.model.model import Model

OURS, HUGGING_FACE = Path(skillweave.__file__).parent, Path(transformers.__file__).parent
SMALL = {"layers": 1, "experts": 2, "vocabulary": 64}
"""Upper limits of these options in a model that is built."""
WORDS = {"embedding": ["word", "sinusoidal"], "norm": False, "vocabulary": 64}
BASE = {
    "streams": {"text": WORDS},
    "encoder": {},
    "target_embedding": WORDS,
    "decoder": {},
    "targets": {"lm": {}},
    "tasks": {
        "lm": {
            "spans": [
                {"modality": "text"},
                {"modality": "text", "role": "target", "attention": "causal", "encoder_pass": 1},
            ],
            "targets": {"lm": 1.0},
        }
    },
}
"""The first Transformer: words, sinusoidal positions, an encoder, a decoder, language modelling."""
HF_BASE = "MarianMTModel"
"""The first Transformer in Hugging Face."""
PAIRS = {
    "targets": {"mlm": {}, "classification": {"classes": ["next", "random"]}},
    "tasks": {
        "pretraining": {
            "spans": [{"modality": "text"}],
            "targets": {"mlm": 1.0, "classification": 1.0},
        }
    },
}
"""The two targets of BERT, which the paper counts."""


class Paper(NamedTuple):
    """A row of the paper's Table 2: the preset of its model, and the lines of both toolkits."""

    preset: str
    tencent: int
    theirs: int
    changes: dict[str, Any] = {}


PAPER = {
    "Transformer": Paper("", 795, 1135),
    "BERT": Paper("bert", 149, 822, PAIRS),
    "RoBERTa": Paper("roberta", 0, 696),
    "GPT-2": Paper("gpt2", 0, 688),
    "T5": Paper("t5", 0, 1008),
    "ViT": Paper("vit", 59, 493),
    "S2T": Paper("s2t", 51, 824),
    "ViLT": Paper("vilt", 15, 618),
}
OURS_ALONE = ("sparse", "low_rank")
"""Modules of `layers/` without a counterpart in TencentPretrain: experts and low-rank changes."""
FREE = ("deit",)
"""Models that must not need any lines, besides Transformers of text."""


class Cost(NamedTuple):
    """The classes of a model, and the code of the package that runs."""

    classes: set[Definition]
    reached: set[Definition]


class Row(NamedTuple):
    """A model and its cost; `theirs` is None if Hugging Face has no such model. `bound`: the lines
    that it may add."""

    name: str
    bound: int | None
    ours: Cost
    theirs: Cost | None


class Added(NamedTuple):
    """Lines that a row adds to those above it: by the paper's rule, by this rule without unused
    options in the first row, and of all that runs."""

    rule: int
    strict: int
    reached: int


def configurations() -> Iterator[tuple[str, int | None, ModelConfig]]:
    """Name, bound and configuration: the rows of the paper in its order, then all other presets."""
    files = {file.stem: file for file in sorted(PRESETS.glob("*.yaml"))}
    yield "Transformer", PAPER["Transformer"].tencent, small(BASE, SMALL)
    for name, row in list(PAPER.items())[1:]:
        preset = next(
            (stem for stem in files if stem == row.preset or stem.startswith(f"{row.preset}-")),
            None,
        )
        if preset:
            yield (
                name,
                row.tencent,
                small(
                    {**yaml.safe_load(files.pop(preset).read_text("utf-8")), **row.changes}, SMALL
                ),
            )
    for stem, file in files.items():
        config = small(yaml.safe_load(file.read_text("utf-8")), SMALL)
        text = {m.value for m in config.streams.present()} == {
            "text"
        } and config.encoder.name == "transformer"
        yield stem, 0 if text or stem.startswith(FREE) else None, config


def measure(name: str, bound: int | None, config: ModelConfig) -> Row:
    """Build and run the models of both libraries on random inputs, without labels."""
    written = config.model_dump(mode="json")
    model = Model(config).eval()
    batch = make_batch(model, torch.float32)

    def run() -> None:
        run_ours(Model(ModelConfig.parse(written)).eval(), batch)

    ours = Cost(modules(model, "skillweave."), reached(run, OURS))
    theirs, forward = (
        (hf_base(), run_base) if name == "Transformer" else (hf_model(model), run_theirs)
    )
    if theirs is None:
        return Row(name, bound, ours, None)
    kind, options = type(theirs), theirs.config.to_dict()

    def run_hf() -> None:
        forward(kind(kind.config_class.from_dict(options)).eval(), batch)

    return Row(
        name,
        bound,
        ours,
        Cost(modules(theirs, "transformers.models."), reached(run_hf, HUGGING_FACE)),
    )


def hf_base() -> Any:
    sizes = {"vocab_size": 64, "d_model": 64, "pad_token_id": 1, "decoder_start_token_id": 1}
    kind = getattr(transformers, HF_BASE)
    return kind(kind.config_class(**sizes, encoder_layers=2, decoder_layers=2))


def run_base(theirs: Any, batch: Batch) -> Any:
    return theirs(input_ids=batch.inputs[0], decoder_input_ids=batch.inputs[1])


def hf_model(model: Model) -> Any:
    try:
        return to_hf(model)
    except ConfigError:
        return None


def in_layers(without: tuple[str, ...] = ()) -> set[Definition]:
    """Every loaded nn.Module of `layers/`, whether or not a model uses it; `without`: modules that
    do not count."""
    loaded = [
        module for name, module in sys.modules.items() if name.startswith("skillweave.layers")
    ]
    kinds = [
        kind
        for module in loaded
        for kind in vars(module).values()
        if isinstance(kind, type) and issubclass(kind, nn.Module)
    ]
    absent = tuple(f"skillweave.layers.{name}" for name in without)
    inside = [kind for kind in kinds if kind.__module__.startswith("skillweave.layers")]
    return {define(kind) for kind in inside if not kind.__module__.startswith(absent)}


def added(costs: Iterable[Cost | None], start: set[Definition]) -> list[Added | None]:
    """The lines that each model adds. `start`: classes that count with the first model."""
    known, strict, ran = set(), set(), set()
    found: list[Added | None] = []
    for cost in costs:
        if cost is None:
            found.append(None)
            continue
        classes = cost.classes | start if not known else cost.classes
        found.append(
            Added(count(classes - known), count(cost.classes - strict), count(cost.reached - ran))
        )
        known, strict, ran = known | classes, strict | cost.classes, ran | cost.reached
    return found


def figures(rows: list[Row], ours: list[Added | None]) -> list[Figure]:
    return [
        Figure(row.name, one.rule, "lines of classes, at most", row.bound, one.rule <= row.bound)
        for row, one in zip(rows, ours, strict=True)
        if one and row.bound is not None
    ]


def page(rows: list[Row], ours: list[Added | None], theirs: list[Added | None]) -> list[str]:
    """The two tables."""

    def plus(row: Row, value: int) -> str:
        return f"{value:,}" if row is rows[0] else f"+{value:,}"

    first, second = [], []
    for row, one, other in zip(rows, ours, theirs, strict=True):
        assert one is not None
        printed = PAPER.get(row.name)
        paper = [plus(row, printed.tencent), plus(row, printed.theirs)] if printed else ["", ""]
        first.append(
            [row.name, plus(row, one.rule), plus(row, other.rule) if other else "—", *paper]
        )
        them = ["—"] * 3
        if other and row.theirs:
            them = [
                f"{count(row.theirs.classes):,}",
                f"{count(row.theirs.reached):,}",
                plus(row, other.reached),
            ]
        whole = [
            f"{count(row.ours.classes):,}",
            plus(row, one.strict),
            f"{count(row.ours.reached):,}",
            plus(row, one.reached),
        ]
        second.append([row.name, *whole, f"{count_files(row.ours.reached):,}", *them])
    titles = (
        "skillweave",
        f"Transformers {transformers.__version__}",
        "paper: TencentPretrain",
        "paper: Transformers",
    )
    whole = ("classes", "new classes", "all that runs", "new of it", "files")
    return [
        "## By the paper's rule",
        markdown(["model", *titles], first),
        "## Nothing hidden",
        markdown(["model", *whole, "Transformers: classes", "all that runs", "new of it"], second),
    ]


RULE = """# Cost of an additional model

Written by `python benchmarks/implementation_cost.py`. Lines of code without comments, docstrings and blank lines, counted by
parsing both packages. A row shows the lines that its model needs and no model above it does."""
METHOD = """## How it is counted

- By the paper's rule (TencentPretrain, section 5.1): classes that inherit from `nn.Module`. The classes of a model are those of
  its modules and their bases; none is selected by hand. The first row includes the classes of `layers/` that the first
  Transformer does not use, because TencentPretrain's 795 lines include all options of its layers. Experts and low-rank changes,
  which TencentPretrain does not have, count for the first model that uses them. With them the first row has {whole:,} lines, and
  Mixtral +{mixtral:,}. For Transformers, the classes in `transformers/models` count, and not those that all models share, such
  as `PreTrainedModel`. Its first Transformer is `MarianMTModel`.
- "New classes" does not include unused layers in the first row: a layer counts for the first model that uses it.
- "All that runs" counts every function, class and table of functions of the package that runs, even in part, while the
  configuration is validated and the model is built and run forward to its logits. "Files" counts all lines of their files, also
  those that never run.
- Code of PyTorch does not count. Nor do the configurations, which are data: one file for each model in
  `src/skillweave/presets`."""


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, help="write the results to this file")
    parser.add_argument(
        "--docs", type=Path, default=Path("docs"), help="folder of the page (default docs)"
    )
    options = parser.parse_args()
    transformers.logging.set_verbosity_error()
    rows = [measure(*one) for one in track(list(configurations()), "models", transient=True)]
    costs = [row.ours for row in rows]
    ours, theirs = added(costs, in_layers(OURS_ALONE)), added([row.theirs for row in rows], set())
    whole = {
        row.name: one.rule for row, one in zip(rows, added(costs, in_layers()), strict=True) if one
    }
    method = METHOD.format(whole=whole["Transformer"], mixtral=whole["mixtral-8x7b"])
    write_parts(options.docs, "implementation_cost", [RULE], [*page(rows, ours, theirs), method])
    status = report("lines that each further model adds", figures(rows, ours), options.json)
    if absent := [name for name in PAPER if name not in {row.name for row in rows}]:
        print(f"no configuration of {', '.join(absent)}")
    return 1 if absent else status


if __name__ == "__main__":
    sys.exit(main())
