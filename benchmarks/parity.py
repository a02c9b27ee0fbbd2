"""Every family against Hugging Face: conversion of weights, errors of outputs and gradients, and
speed.

    python benchmarks/parity.py [--json FILE] [--docs DIR] [--no-speed] [--threads 2]

Errors are measured on the reference models of the tests: random models with odd sizes and the
options of the family. A family has the largest error of its architectures, relative to the largest
output or gradient. Import: a folder that Transformers wrote in small shards gives the same weights
as the model in memory. Export: the exported model has the original weights, bit for bit. Speed: a
forward pass of the family's preset with few layers and full lengths; both libraries alternate in
one process, and the median ratio is reported. Run it on an idle machine. Writes the page parity.md.
Takes less than ten minutes on two cores.
"""

from __future__ import annotations

import argparse
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
import transformers
import yaml
from hugging_face import (
    PRECISIONS,
    PRESETS,
    REFERENCES,
    Reference,
    compare,
    make_batch,
    run_theirs,
    small,
)
from pages import markdown
from report import Figure, report
from rich.progress import track

from skillweave.config import ConfigError
from skillweave.interop.huggingface import from_hf, to_hf
from skillweave.interop.huggingface.export_checks import find_family
from skillweave.interop.huggingface.families import FAMILIES
from skillweave.model.config import ModelConfig
from skillweave.model.model import Model

SMALL = {"layers": 2, "experts": 2, "vocabulary": 1000}
"""Upper limits of these options in a model that is timed."""
SAMPLES, LENGTH, ROUNDS = 4, 64, 7


class Result(NamedTuple):
    """Relative errors of an architecture by precision, and whether import and export keep its
    weights."""

    outputs: dict[torch.dtype, float]
    gradients: dict[torch.dtype, float]
    imported: bool
    exported: bool


def measure(reference: Reference) -> Result:
    errors = {dtype: compare(reference, dtype) for dtype in PRECISIONS}
    outputs = {dtype: max(found.outputs.values()) for dtype, found in errors.items()}
    gradients = {dtype: max(found.gradients.values()) for dtype, found in errors.items()}
    theirs = reference.build(torch.float32)
    model = from_hf(theirs)
    with tempfile.TemporaryDirectory() as folder:
        theirs.save_pretrained(folder, max_shard_size="20KB")
        imported = same(from_hf(folder), model)
    exported = same(to_hf(model, theirs.config.model_type), theirs)
    return Result(outputs, gradients, imported, exported)


def worst(results: list[Result]) -> Result:
    """The largest errors of an architecture's reference models."""
    outputs = {dtype: max(one.outputs[dtype] for one in results) for dtype in PRECISIONS}
    gradients = {dtype: max(one.gradients[dtype] for one in results) for dtype in PRECISIONS}
    imported = all(one.imported for one in results)
    return Result(outputs, gradients, imported, all(one.exported for one in results))


def same(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    """Whether two models have the same weights, bit for bit."""
    expected, found = other.state_dict(), one.state_dict()
    return set(found) == set(expected) and all(
        torch.equal(found[name], x) for name, x in expected.items()
    )


def architectures(measured: dict[str, Result]) -> dict[str, list[str]]:
    """Family → those of its architectures that were measured."""
    found = {
        name: [one for one in family.heads if one in measured] for name, family in FAMILIES.items()
    }
    return {name: heads for name, heads in found.items() if heads}


def find_presets() -> dict[str, ModelConfig]:
    """Family → the first preset that it can express, with few layers."""
    found: dict[str, ModelConfig] = {}
    for file in sorted(PRESETS.glob("*.yaml")):
        config = small(yaml.safe_load(file.read_text("utf-8")), SMALL)
        for family in FAMILIES:
            if family not in found and expresses(family, config):
                found[family] = config
    return found


def expresses(family: str, config: ModelConfig) -> bool:
    try:
        find_family(config, family)
    except ConfigError:
        return False
    return True


def ratio(family: str, config: ModelConfig) -> float:
    """Tokens per second of a forward pass, relative to Hugging Face."""
    model = Model(config).eval()
    theirs = to_hf(model, family)
    room = model.config.streams.text.max_length if model.config.streams.text else LENGTH
    batch = make_batch(model, torch.float32, [min(LENGTH, room)] * SAMPLES)
    sides = (lambda: run_theirs(theirs, batch), lambda: model(batch))
    with torch.inference_mode():
        taken = [[seconds(side) for side in sides] for _ in range(ROUNDS + 1)][1:]
    return statistics.median(theirs / ours for theirs, ours in taken)


def seconds(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def most(results: list[Result], dtype: torch.dtype) -> tuple[float, float]:
    """The largest errors of outputs and gradients."""
    return max(one.outputs[dtype] for one in results), max(one.gradients[dtype] for one in results)


def figures(measured: dict[str, Result]) -> Iterator[Figure]:
    for family, heads in architectures(measured).items():
        results = [measured[name] for name in heads]
        for dtype, bound in PRECISIONS.items():
            for what, error in zip(("outputs", "gradients"), most(results, dtype), strict=True):
                name = f"{family}: {what}, {str(dtype).removeprefix('torch.')}"
                yield Figure(name, error, "relative error, at most", bound, error <= bound)
        unchanged = sum(one.imported and one.exported for one in results)
        yield Figure(
            f"{family}: weights",
            unchanged,
            "architectures, all of them",
            len(results),
            unchanged == len(results),
        )


def earlier_ratios(file: Path) -> dict[str, float]:
    """The speeds in the page as it is, by family."""
    if not file.is_file():
        return {}
    rows = [line.strip("| ").split(" | ") for line in file.read_text("utf-8").split("\n")]
    return {row[0].strip("`"): float(row[-1]) for row in rows if re.fullmatch(r"\d\.\d+", row[-1])}


def page(measured: dict[str, Result], ratios: dict[str, float], note: str = "") -> str:
    """The table, with a row for each family. `note`: behind what is said of the speeds."""
    columns = ["outputs, float32", "outputs, float64", "gradients, float32", "gradients, float64"]
    header = [
        "family",
        "import",
        "export",
        "architectures",
        *columns,
        "tokens/s, × Hugging Face",
    ]
    rows = []
    for family, heads in architectures(measured).items():
        results = [measured[name] for name in heads]
        errors = [
            f"{error:.0e}"
            for pair in zip(*(most(results, dtype) for dtype in PRECISIONS), strict=True)
            for error in pair
        ]
        ways = [
            "yes" if all(way) else "NO"
            for way in ((r.imported for r in results), (r.exported for r in results))
        ]
        speed = f"{ratios[family]:.2f}" if family in ratios else "—"
        names = ", ".join(f"`{name}`" for name in heads)
        rows.append([f"`{family}`", *ways, names, *errors, speed])
    return "\n\n".join([HEAD, markdown(header, rows), f"{SPEED} {note}".strip()]) + "\n"


HEAD = f"""# Parity with Hugging Face

Written by `make parity`, with Transformers {transformers.__version__}. The models are random, with odd sizes and the options of
their family (`tests/helpers/hf_references.py`). A row shows the largest error of its architectures, relative to the largest
output or gradient. The limit is 1e-5 in float32 and 1e-9 in float64. Import: a folder that Transformers wrote in small shards
gives the same weights as the model in memory. Export: the exported model has the original weights, bit for bit. Architectures
that are not listed share their rules with one that is."""
SPEED = f"""Speed: tokens per second of a forward pass with logits, relative to Hugging Face: the preset of the family with at
most {SMALL["layers"]} layers and experts, {SAMPLES} samples, texts of {LENGTH} tokens (ViLT: 40) without padding, float32, the
median of {ROUNDS} interleaved rounds. —: not measured."""
EARLIER = """The speeds are those of an earlier measurement (`--no-speed`)."""


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, help="write the results to this file")
    parser.add_argument(
        "--docs", type=Path, default=Path("docs"), help="folder of the page (default docs)"
    )
    parser.add_argument("--no-speed", action="store_true", help="keep the speeds of the page")
    parser.add_argument(
        "--threads", type=int, default=2, help="threads of both libraries (default 2)"
    )
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    measured: dict[str, list[Result]] = {}
    for reference in track(REFERENCES, "architectures", transient=True):
        measured.setdefault(reference.architecture, []).append(measure(reference))
    results = {name: worst(found) for name, found in measured.items()}
    file = options.docs / "parity.md"
    ratios, note = earlier_ratios(file), EARLIER
    if not options.no_speed:
        configs = {
            family: config
            for family, config in find_presets().items()
            if family in architectures(results)
        }
        ratios = {
            family: ratio(family, config)
            for family, config in track(configs.items(), "speed", transient=True)
        }
        note = ""
    file.write_text(page(results, ratios, note), "utf-8")
    return report("parity with Hugging Face", list(figures(results)), options.json)


if __name__ == "__main__":
    sys.exit(main())
