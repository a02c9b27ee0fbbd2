"""Written tokens per second against Hugging Face Transformers' `generate`: GPT-2, T5, Whisper.

    python benchmarks/generation.py [--json FILE] [--cells PART ...] [--steps 3] [--threads 2]
        [--quick]

A random model of theirs and `sw.from_hf` of it write the same number of tokens after the same
inputs, greedily and with five beams, for one input and for 16. Calls alternate in one process, and
the texts must be equal. Times are those of whole calls, with the encoding of the inputs; memory is
what a call takes at most besides the weights. The weights are laid out as `sw.generate` does it.
The limit is the time in which the machine reads the decoder's weights and the cached keys and
values once for each token, by the speed at which it reads a large tensor; with many texts at once,
the products take longer than that.

`--json` keeps each cell, and a second call measures those that it lacks. About eight minutes on two
cores, alone on the machine; `--quick` shows in seconds that it runs, and measures nothing.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import transformers
from memory import forget_peak, status
from report import Figure, report
from rich.console import Console
from rich.table import Table
from side_by_side import OURS, THEIRS, read_options
from stored_cells import add_options, measured

import skillweave as sw
from skillweave.batch import Batch
from skillweave.config.decoding import DecodingConfig
from skillweave.generation import answered, generate
from skillweave.weights.memory_layout import lay_out

PROMPT, NEW, END = 32, 48, 2
NOISE = 2**24
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


def measure(setting: Setting, rounds: int, new: int) -> dict[str, Any]:
    """Alternate calls of both sides; the first pair warms up. By side: median seconds of a call
    (`seconds`) and of the first token (`first`), bytes besides the weights (`memory`). `speedup`:
    median ratio of theirs to ours. `equal`: whether the texts are. `weights`, `cache`: bytes that a
    step reads."""
    reference = build(setting).eval()
    model = sw.from_hf(reference)
    (task,) = model.config.tasks
    batch, given = inputs(setting, model.config.tasks[task].layout(task))
    lay_out(model.writing_weights(task), setting.inputs * setting.beams)

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
    memory: dict[str, int] = {}
    texts: dict[str, list[list[int]]] = {}
    for side, call in sides.items():
        call(1)
        forget_peak()
        before = status("VmRSS")
        texts[side] = call(new)
        memory[side] = status("VmHWM") - before
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
    return {
        "seconds": {side: statistics.median(times[1:]) for side, times in whole.items()},
        "speedup": statistics.median(them / us for them, us in pairs),
        "first": {side: statistics.median(times[1:]) for side, times in first.items()},
        "memory": memory,
        "equal": texts[OURS] == texts[THEIRS],
        "weights": sum(weights.values()),
        "cache": cached_bytes(setting, new),
    }


def cached_bytes(setting: Setting, new: int) -> int:
    """Bytes of the keys and values that a step reads, half way."""
    read = {"GPT-2": 0, "T5": PROMPT, "Whisper": FRAMES // 2}[setting.kind]
    own = new // 2 + (PROMPT if setting.kind == "GPT-2" else 0)
    texts = setting.inputs * setting.beams
    return 4 * texts * setting.layers * 2 * setting.width * (own + read)


def bandwidth() -> float:
    """Bytes a second at which a large tensor is read."""
    numbers = torch.ones(2**27)
    times = []
    for _ in range(5):
        begin = time.perf_counter()
        numbers.sum()
        times.append(time.perf_counter() - begin)
    return numbers.nbytes / min(times)


def details(found: list[tuple[Setting, dict[str, Any]]], new: int, speed: float) -> Table:
    """Tokens a second of both sides, and how near they come to the limit."""
    names = "setting", "side", "tokens/s", "first token, ms", "memory, MiB", "of the limit"
    title = f"medians; memory is read at {speed / 1e9:.1f} GB/s"
    table = Table(*names, title=title)
    for setting, one in found:
        limit = speed / (one["weights"] + one["cache"])  # steps a second
        for side, seconds in one["seconds"].items():
            steps = new / seconds
            table.add_row(
                setting.name,
                side,
                f"{steps * setting.inputs:,.0f}",
                f"{1000 * one['first'][side]:.0f}",
                f"{one['memory'][side] / 2**20:,.0f}",
                f"{steps / limit:.2f}",
                end_section=side == OURS,
            )
    return table


def figures_of(setting: Setting, one: dict[str, Any]) -> list[Figure]:
    """What must hold of a setting. `NOISE`: bytes by which the memory of a process varies."""
    name, bound = setting.name, setting.bound
    most = one["memory"][THEIRS] + NOISE
    memory = one["memory"][OURS]
    return [
        Figure(f"{name}: tokens/s", one["speedup"], "× theirs", bound, one["speedup"] >= bound),
        Figure(f"{name}: equal texts", one["equal"], "", 1, one["equal"]),
        Figure(f"{name}: memory", memory / 2**20, "MiB, at most", most / 2**20, memory <= most),
    ]


def main() -> int:
    options = read_options(__doc__, add_options)
    transformers.logging.set_verbosity_error()
    new = 4 if options.quick else NEW
    every = {setting.name: setting for setting in settings(options.quick)}
    cells = measured([*every], lambda name: measure(every[name], options.steps, new), options)
    found = [(every[name], one) for name, one in cells]
    Console().print(details(found, new, bandwidth()))
    figures = [figure for setting, one in found for figure in figures_of(setting, one)]
    title = f"{OURS} against {THEIRS}, float32, {options.threads} threads, {options.steps} rounds"
    return report(title, figures)


if __name__ == "__main__":
    sys.exit(main())
