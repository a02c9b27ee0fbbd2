"""Written tokens per second against Hugging Face Transformers' `generate`: GPT-2, T5, Whisper.

    python benchmarks/generation.py [--json FILE] [--steps 5] [--threads 2] [--quick]

A random model of theirs and `sw.from_hf` of it write the same number of tokens after the same
inputs, greedily and with five beams, for one input and for 16. Calls alternate in one process, and
the texts must be equal. Times are those of whole calls, with the encoding of the inputs. The limit
is the time in which the machine reads the decoder's weights once for each token, by the speed at
which it reads a large tensor. About ten minutes on two cores, alone on the machine; `--quick` shows
in seconds that it runs, and measures nothing.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import transformers
from report import Figure, report
from rich.console import Console
from rich.table import Table
from side_by_side import OURS, THEIRS, read_options

import skillweave as sw
from skillweave.batch import Batch
from skillweave.config.decoding import DecodingConfig
from skillweave.generation import answered, generate

PROMPT, NEW, END = 32, 48, 2
FRAMES = 3000
"""Log-mel frames of half a minute, which Whisper always reads."""


class Setting(NamedTuple):
    """A kind of model with its layers and width, inputs at once, and the least speed-up."""

    kind: str
    layers: int
    width: int
    inputs: int
    beams: int
    bound: float

    @property
    def name(self) -> str:
        """As the tables have it."""
        search = f"{self.beams} beams" if self.beams > 1 else "greedy"
        return f"{self.kind}, {self.layers} × {self.width}, {self.inputs} at once, {search}"


class Measured(NamedTuple):
    """Median seconds of a call, by side, and the ratio of theirs to ours; seconds until the first
    token; whether the texts are equal; bytes that each token has to read."""

    seconds: dict[str, float]
    speedup: float
    first: dict[str, float]
    equal: bool
    weights: int


def settings(quick: bool) -> list[Setting]:
    """All settings, or one tiny one of each kind."""
    kinds = [("GPT-2", 8, 512, 1.15), ("GPT-2", 12, 768, 1.15), ("T5", 6, 512, 1.1)]
    kinds.append(("Whisper", 4, 384, 1.1))
    if quick:
        return [Setting(kind, 1, 64, 2, beams, 0) for kind, *_ in kinds[1:] for beams in (1, 5)]
    searches = [(inputs, beams) for inputs in (1, 16) for beams in (1, 5)]
    return [Setting(*kind[:3], *search, kind[3]) for kind in kinds for search in searches]


def build(setting: Setting) -> Any:
    """A random model of Transformers."""
    torch.manual_seed(0)
    layers, width, heads = setting.layers, setting.width, max(setting.width // 64, 1)
    tokens = {"eos_token_id": END, "pad_token_id": END, "bos_token_id": END}
    if setting.kind == "GPT-2":
        sizes = {"n_layer": layers, "n_embd": width, "n_head": heads, "vocab_size": 32000}
        return transformers.GPT2LMHeadModel(transformers.GPT2Config(**sizes, **tokens))
    if setting.kind == "T5":
        sizes = {"num_layers": layers, "d_model": width, "num_heads": heads, "d_ff": 4 * width}
        config = transformers.T5Config(**sizes, vocab_size=32128, **tokens)
        config.decoder_start_token_id = END
        return transformers.T5ForConditionalGeneration(config)
    sizes = {"layers": layers, "attention_heads": heads, "ffn_dim": 4 * width}
    sides = {f"{side}_{name}": n for side in ("encoder", "decoder") for name, n in sizes.items()}
    config = transformers.WhisperConfig(d_model=width, **sides, **tokens)
    config.decoder_start_token_id = END
    config.begin_suppress_tokens = config.suppress_tokens = None
    return transformers.WhisperForConditionalGeneration(config)


def inputs(setting: Setting, layout: Any) -> tuple[Batch, dict[str, torch.Tensor]]:
    """The same inputs as each side wants them."""
    count = setting.inputs
    if setting.kind == "Whisper":
        frames = torch.randn(count, FRAMES, 80)
        begin = torch.full((count, 1), END)
        padded = layout.with_lengths((FRAMES // 2, 1))
        lengths = torch.tensor([[FRAMES // 2, 1]] * count)
        return Batch(padded, (frames, begin), lengths), {"input_features": frames.mT}
    ids = torch.randint(3, 32000, (count, PROMPT))
    theirs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    if setting.kind == "GPT-2":
        lengths = torch.full((count, 1), PROMPT)
        return Batch(layout.with_lengths((PROMPT,)), (ids,), lengths), theirs
    begin = torch.full((count, 1), END)
    lengths = torch.tensor([[PROMPT, 1]] * count)
    return answered(Batch(layout.with_lengths((PROMPT, 1)), (ids, begin), lengths), begin), theirs


def measure(setting: Setting, rounds: int, new: int) -> Measured:
    """Alternate calls of both sides; the first pair warms up."""
    reference = build(setting).eval()
    model = sw.from_hf(reference)
    (task,) = model.config.tasks
    batch, given = inputs(setting, model.config.tasks[task].layout(task))

    def ours(count: int) -> list[list[int]]:
        search = DecodingConfig(num_beams=setting.beams, min_new_tokens=count)
        return [row[0].ids for row in generate(model, batch, [END], count, search)]

    def theirs(count: int) -> list[list[int]]:
        options = {"max_new_tokens": count, "min_new_tokens": count, "do_sample": False}
        found = reference.generate(**given, **options, num_beams=setting.beams)
        return found[:, -count:].tolist()

    sides: dict[str, Callable[[int], list[list[int]]]] = {THEIRS: theirs, OURS: ours}
    whole: dict[str, list[float]] = {side: [] for side in sides}
    first: dict[str, list[float]] = {side: [] for side in sides}
    texts: dict[str, list[list[int]]] = {}
    for _ in range(rounds + 1):
        for side, call in sides.items():
            begin = time.perf_counter()
            texts[side] = call(new)
            whole[side].append(time.perf_counter() - begin)
            begin = time.perf_counter()
            call(1)
            first[side].append(time.perf_counter() - begin)
    pairs = zip(whole[THEIRS][1:], whole[OURS][1:], strict=True)
    part = reference if setting.kind == "GPT-2" else reference.get_decoder()
    output = reference.get_output_embeddings()
    weights = {id(p): p.nbytes for p in (*part.parameters(), *output.parameters())}
    return Measured(
        {side: statistics.median(times[1:]) for side, times in whole.items()},
        statistics.median(them / us for them, us in pairs),
        {side: statistics.median(times[1:]) for side, times in first.items()},
        texts[OURS] == texts[THEIRS],
        sum(weights.values()),
    )


def bandwidth() -> float:
    """Bytes a second at which a large tensor is read."""
    numbers = torch.ones(2**27)
    times = []
    for _ in range(5):
        begin = time.perf_counter()
        numbers.sum()
        times.append(time.perf_counter() - begin)
    return numbers.nbytes / min(times)


def details(found: list[tuple[Setting, Measured]], new: int, speed: float) -> Table:
    """Tokens a second of both sides, and how near they come to the limit."""
    table = Table("setting", "side", "tokens/s", "first token, ms", "of the limit", title="medians")
    for setting, one in found:
        limit = speed / one.weights  # steps a second
        for side, seconds in one.seconds.items():
            steps = new / seconds
            table.add_row(
                setting.name,
                side,
                f"{steps * setting.inputs:,.0f}",
                f"{1000 * one.first[side]:.0f}",
                f"{steps / limit:.2f}",
                end_section=side == OURS,
            )
    return table


def main() -> int:
    options = read_options(__doc__)
    new = 4 if options.quick else NEW
    found = [(s, measure(s, options.steps, new)) for s in settings(options.quick)]
    Console().print(details(found, new, bandwidth()))
    figures = []
    for setting, one in found:
        holds = one.speedup >= setting.bound
        figures.append(
            Figure(f"{setting.name}: tokens/s", one.speedup, "× theirs", setting.bound, holds)
        )
        figures.append(Figure(f"{setting.name}: equal texts", one.equal, "", 1, one.equal))
    title = f"{OURS} against {THEIRS}, float32, {options.threads} threads, {options.steps} rounds"
    return report(title, figures, options.json)


if __name__ == "__main__":
    sys.exit(main())
