"""Every family against Hugging Face: weights from and to, heads, errors of outputs and gradients,
and speed.

    python benchmarks/parity.py [--json FILE] [--docs DIR] [--no-speed] [--threads 2]

Errors are those of the tests' references: random models of odd sizes with the family's options, the
largest of all its architectures. An output's error is a share of the largest output, a gradient's
one of the largest gradient. From: a folder that transformers wrote in small shards reads as the
model in memory. To: the model of theirs made of ours has the weights it came from, bit for bit.
Speed: a forward pass of the family's packaged configuration with few layers, full lengths, steps
alternating in one process, the median ratio of theirs to ours; run it alone on the machine. Writes
the page parity.md. Under ten minutes on two cores.
"""

from __future__ import annotations

import argparse
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
    run_ours,
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
"""The most of these in a model that is timed."""
SAMPLES, LENGTH, ROUNDS = 4, 64, 7


class Result(NamedTuple):
    """Of one architecture: relative errors by precision, and whether weights come and go
    unchanged."""

    outputs: dict[torch.dtype, float]
    gradients: dict[torch.dtype, float]
    came: bool
    went: bool


def measure(reference: Reference) -> Result:
    errors = {dtype: compare(reference, dtype) for dtype in PRECISIONS}
    outputs = {dtype: max(found.outputs.values()) for dtype, found in errors.items()}
    gradients = {dtype: max(found.gradients.values()) for dtype, found in errors.items()}
    theirs = reference.build(torch.float32)
    model = from_hf(theirs)
    with tempfile.TemporaryDirectory() as folder:
        theirs.save_pretrained(folder, max_shard_size="20KB")
        came = same(from_hf(folder), model)
    return Result(outputs, gradients, came, same(to_hf(model, theirs.config.model_type), theirs))


def worst(results: list[Result]) -> Result:
    """Of an architecture's references, with whatever options."""
    outputs = {dtype: max(one.outputs[dtype] for one in results) for dtype in PRECISIONS}
    gradients = {dtype: max(one.gradients[dtype] for one in results) for dtype in PRECISIONS}
    return Result(
        outputs, gradients, all(one.came for one in results), all(one.went for one in results)
    )


def same(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    """Whether two models have the same weights, bit for bit."""
    expected, found = other.state_dict(), one.state_dict()
    return set(found) == set(expected) and all(
        torch.equal(found[name], x) for name, x in expected.items()
    )


def architectures(measured: dict[str, Result]) -> dict[str, list[str]]:
    """Family → its architectures that were measured."""
    found = {
        name: [one for one in family.heads if one in measured] for name, family in FAMILIES.items()
    }
    return {name: heads for name, heads in found.items() if heads}


def find_presets() -> dict[str, ModelConfig]:
    """Family → the first packaged configuration that it can express, with few layers."""
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
    """How many times as many tokens a second as theirs, in a forward pass."""
    model = Model(config).eval()
    theirs = to_hf(model, family)
    room = model.config.streams.text.max_length if model.config.streams.text else LENGTH
    batch = make_batch(model, torch.float32, [min(LENGTH, room)] * SAMPLES)
    sides = (lambda: run_theirs(theirs, batch), lambda: run_ours(model, batch))
    with torch.inference_mode():
        taken = [[seconds(side) for side in sides] for _ in range(ROUNDS + 1)][1:]
    return statistics.median(them / us for them, us in taken)


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
        unchanged = sum(one.came and one.went for one in results)
        yield Figure(
            f"{family}: weights",
            unchanged,
            "architectures, all of them",
            len(results),
            unchanged == len(results),
        )


def page(measured: dict[str, Result], ratios: dict[str, float] | None) -> str:
    """The table, a row a family."""
    columns = ["outputs, float32", "outputs, float64", "gradients, float32", "gradients, float64"]
    header = [
        "family",
        "from",
        "to",
        "heads",
        *columns,
        *(["tokens/s, × theirs"] if ratios is not None else []),
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
            for way in ((r.came for r in results), (r.went for r in results))
        ]
        row = [f"`{family}`", *ways, ", ".join(f"`{name}`" for name in heads), *errors]
        if ratios is not None:
            row.append(f"{ratios[family]:.2f}" if family in ratios else "—")
        rows.append(row)
    return (
        "\n\n".join([HEAD, markdown(header, rows), SPEED if ratios is not None else NO_SPEED])
        + "\n"
    )


HEAD = f"""# Parity with Hugging Face

Written by `make parity`, against Transformers {transformers.__version__}. Random models of odd sizes with the options that a
family has (`tests/interop/hf_references.py`); a row shows the largest error of its architectures, outputs as a share of the
largest output, gradients as a share of the largest gradient. They must be within 1e-5 in float32 and 1e-9 in float64. From: a
folder that Transformers wrote, in small shards, reads as the model in memory. To: the model of theirs that is made of ours has
the weights it came from, bit for bit. Heads are those that are measured; a family's other architectures share their rules with
another's."""
SPEED = f"""Speed: tokens a second of a forward pass with logits, as a multiple of theirs: the packaged configuration of the
family with {SMALL["layers"]} layers and experts at most, {SAMPLES} samples, texts of {LENGTH} tokens (of ViLT 40) without
padding, float32, the median of {ROUNDS} interleaved rounds. —: no packaged configuration."""
NO_SPEED = (
    "Speed was left out (`--no-speed`); `make parity` on a machine with nothing else to do"
    " measures it."
)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, help="write the figures there")
    parser.add_argument(
        "--docs", type=Path, default=Path("docs"), help="folder of the page (default docs)"
    )
    parser.add_argument(
        "--no-speed", action="store_true", help="leave out the ratio of tokens a second"
    )
    parser.add_argument("--threads", type=int, default=2, help="threads of both sides (default 2)")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    measured: dict[str, list[Result]] = {}
    for reference in track(REFERENCES, "architectures", transient=True):
        measured.setdefault(reference.architecture, []).append(measure(reference))
    results = {name: worst(found) for name, found in measured.items()}
    ratios = None
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
    (options.docs / "parity.md").write_text(page(results, ratios), "utf-8")
    return report("parity with Hugging Face", list(figures(results)), options.json)


if __name__ == "__main__":
    sys.exit(main())
