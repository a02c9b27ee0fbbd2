"""The time of constrained texts against that of free ones, with 32,000 tokens.

    python benchmarks/constrained.py [--json FILE] [--cells PART ...] [--steps 3] [--threads 2]
        [--quick]

A random GPT-2 of 8 × 512 writes equally long texts, free, and bound to a regular expression and a JSON
schema. Calls alternate. The constraint is built once, as for many inputs. `--json` keeps each cell,
and a second call measures those that it lacks.
"""

from __future__ import annotations

import random
import statistics
import string
import sys
import time

from generation import END, NEW, Setting, build, inputs
from report import Figure, report
from side_by_side import read_options
from stored_cells import add_options, measured
from tokenizers import Tokenizer, decoders, models

import skillweave as sw
from skillweave.config.decoding import DecodingConfig
from skillweave.config.streams import TextStream
from skillweave.data.processors.text import TextProcessor
from skillweave.generation import generate
from skillweave.generation.constraint import Constraint, build_constraint
from skillweave.weights.memory_layout import lay_out

VOCABULARY, BOUND = 32000, 1.1
QUICK, SMALL = 4, (1, 64)
"""Tokens and size of a model that shows in seconds that it runs."""


def processor() -> TextProcessor:
    """Bytes and random words with and without a space before them, as LLaMA has them."""
    rng = random.Random(0)
    names = dict.fromkeys(["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))])
    while len(names) < VOCABULARY:
        word = "".join(rng.choices(string.ascii_lowercase, k=rng.randint(1, 7)))
        names[rng.choice(["", "▁"]) + word] = None
    model = models.WordLevel({name: i for i, name in enumerate(names)}, "<unk>")
    tokenizer = Tokenizer(model)
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    tokenizer.add_special_tokens(["<unk>", "<s>", "</s>"])
    return TextProcessor(TextStream.parse({"vocabulary": VOCABULARY}), tokenizer)


def constraints(words: TextProcessor, new: int) -> dict[str, Constraint | None]:
    """By name; none has a text of fewer than `new` tokens."""
    least = 10 * new
    given = {
        "regex": {"regex": f"[a-z ]{{{least},}}"},
        "json_schema": {"json_schema": {"type": "string", "minLength": least}},
    }
    built = {
        name: build_constraint(DecodingConfig.parse(one), words, [END])
        for name, one in given.items()
    }
    return {"free": None, **built}


def measure(
    count: int, beams: int, bound: dict[str, Constraint | None], size: tuple[int, int], rounds: int
) -> dict[str, float]:
    """The median ratio of the time of each kind of constrained texts to that of free ones."""
    setting = Setting("GPT-2", *size, count, beams, 0)
    new = QUICK if size == SMALL else NEW
    model = sw.from_hf(build(setting).eval())
    (task,) = model.config.tasks
    batch, _ = inputs(setting, model.config.tasks[task].layout(task))
    lay_out(model.writing_weights(task), count * beams)
    search = DecodingConfig(num_beams=beams, min_new_tokens=new)
    times: dict[str, list[float]] = {name: [] for name in bound}
    for _ in range(rounds + 1):
        for name, constraint in bound.items():
            begin = time.perf_counter()
            generate(model, batch, [END], new + 1, search, None, constraint)
            times[name].append(time.perf_counter() - begin)
    return {
        name: statistics.median(
            one / free for one, free in zip(times[name][1:], times["free"][1:], strict=True)
        )
        for name in list(bound)[1:]
    }


def main() -> int:
    options = read_options(__doc__, add_options)
    new, size = (QUICK, SMALL) if options.quick else (NEW, (8, 512))
    bound, figures = constraints(processor(), new), []
    every = {
        f"{count} at once, {beams} beams": (count, beams)
        for count, beams in [(1, 1), (1, 5), (16, 1), (16, 5)][: 2 if options.quick else None]
    }

    def one(name: str) -> dict[str, float]:
        return measure(*every[name], bound, size, options.steps)

    for name, found in measured([*every], one, options):
        for kind, ratio in found.items():
            holds = options.quick or ratio <= BOUND
            unit = "× the time of free texts, at most"
            figures.append(Figure(f"{kind}: {name}", ratio, unit, BOUND, holds))
    return report("constrained texts, 32,000 tokens", figures)


if __name__ == "__main__":
    sys.exit(main())
