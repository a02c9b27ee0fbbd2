"""Random configurations of Hugging Face: each is converted exactly, or refused with a message.

    python benchmarks/parity_random.py [--count 300] [--seed 0] [--only NAME] [--json FILE]

Each configuration is that of a reference model of the tests with one to five of its options changed
at random: sizes, activations, switches, epsilons, labels and ids of special tokens, whatever the
class of the configuration has. Transformers builds the model and runs it in float64. A conversion
is right if all outputs agree within 1e-9 and the weights are the same after a conversion back. It
is a fault if the outputs differ, if weights change, or if an error is none of ConfigError and
WeightsError. Models that Transformers itself cannot build or run are drawn again. Takes two minutes
for 300 configurations on two cores.
"""

from __future__ import annotations

import argparse
import random
import sys
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import transformers
from hugging_face import REFERENCES, Reference
from report import Figure, report
from rich.progress import track

from skillweave.config import ConfigError
from skillweave.interop.huggingface import from_hf, to_hf
from skillweave.interop.huggingface.family import find_head
from skillweave.weights.files import WeightsError

TOLERANCE = 1e-9
ACTIVATIONS = ["gelu", "gelu_new", "gelu_pytorch_tanh", "quick_gelu", "relu", "silu", "mish"]
UNRELATED = {
    *("use_cache", "return_dict", "output_attentions", "output_hidden_states", "model_type"),
    *("torchscript", "chunk_size_feed_forward", "initializer_range", "dtype", "architectures"),
    *("transformers_version", "attn_implementation", "_name_or_path", "experts_implementation"),
    *("is_encoder_decoder", "decoder_start_token_id", "vocab_size", "label2id", "mask_ratio"),
    *("eos_token_id", "legacy", "use_mask_token"),
}
"""Options that are no property of the function, or without which no model can be compared."""
CHOICES: dict[str, list[Any]] = {
    "problem_type": [
        *(None, "regression", "single_label_classification", "multi_label_classification"),
    ],
    "feed_forward_proj": ["relu", "gated-gelu", "gated-silu", "gelu", "gated-relu"],
    "feat_extract_norm": ["group", "layer"],
    "position_embedding_type": ["absolute", "relative_key"],
    "sliding_window": [None, 1, 3, 50],
    "head_dim": [None, 4, 6, 10],
    "n_inner": [None, 19],
    "num_key_value_heads": [None, 1, 2],
    "use_sliding_window": [False, True],
    "projection_dim": [5, 16],
    "pooler_output_size": [None, 7],
    "layer_scale_init_value": [0.0, 0.3],
    "embedding_size": [5, 15],
    "conv_bias": [False, True],
    "do_stable_layer_norm": [False, True],
}
"""Option → values to choose among."""


def drawn(reference: Reference, chance: random.Random) -> tuple[Reference, dict[str, Any]]:
    """A reference with some options changed, and the changes."""
    kind = getattr(transformers, reference.config)
    options = {**reference.options}
    changes: dict[str, Any] = {}
    parts = [part for part in ("text_config", "vision_config") if part in options]
    for part in (chance.choice(parts), "") if parts else ("",):
        inside = dict(options[part]) if part else options
        described = kind(**reference.options).to_dict()
        described = described[part] if part else described
        left_out = {*UNRELATED, *parts}
        if reference.architecture.endswith("Model"):
            left_out.add("use_mean_pooling")  # a pooler without weights is no part of a file
        able = [name for name in described if name not in left_out]
        for name in chance.sample(able, len(able)):
            if len(changes) >= chance.randint(1, 5):
                break
            value = changed(name, described[name], described, chance)
            if value != described[name]:
                inside[name] = changes[f"{part}.{name}" if part else name] = value
        if part:
            options[part] = inside
    return replace(reference, options=options), changes


def changed(name: str, value: Any, all_options: Mapping[str, Any], chance: random.Random) -> Any:
    """Another value of an option, or the same if no other is known to be possible."""
    if name == "id2label":
        return {i: f"class {i}" for i in range(chance.randint(1, 4))}
    if name in CHOICES:
        return chance.choice(CHOICES[name])
    if isinstance(value, bool):
        return not value
    if isinstance(value, str):
        return chance.choice(ACTIVATIONS) if value in ACTIVATIONS else value
    if isinstance(value, float):
        if "eps" in name:
            return chance.choice([1e-12, 1e-6, 1e-5, 1e-3, 1e-2])
        return chance.choice([0.0, 0.1, value * 1.5])
    if isinstance(value, int):
        if name.endswith("token_id") or name.endswith("token_index"):
            return chance.choice([0, 1, 2, 3])
        if "heads" in name:
            return chance.choice([1, value, value + 1])
        return max(1, value + chance.choice([-2, -1, 1, 2, 3, value]))
    return value


def outcome(reference: Reference) -> str:
    """`converted`, `refused: ...`, `invalid` for one that Transformers cannot run, or
    `fault: ...`."""
    from hf_parity import outputs

    try:
        theirs = reference.build()
        if theirs.num_parameters() > 2_000_000:
            return "invalid"
    except Exception:
        return "invalid"
    try:
        model = from_hf(theirs)
    except (ConfigError, WeightsError) as error:
        return f"refused: {error}"
    except Exception as error:
        return f"fault: {type(error).__name__} in from_hf: {error}"
    try:
        pairs = outputs(theirs, model, torch.float64)
    except Exception as error:
        return "invalid" if not runs(theirs, model) else f"fault: {type(error).__name__}: {error}"
    for kind, (expected, found) in pairs.items():
        found = found.reshape(expected.shape) if found.numel() == expected.numel() else found
        if expected.shape != found.shape:
            return f"fault: {kind} has the shape {[*found.shape]}, not {[*expected.shape]}"
        scale = expected.abs().max().clamp(min=1e-30)
        error = float((found - expected).abs().max() / scale)
        if not error < TOLERANCE and expected.isfinite().all():
            return f"fault: {kind} differs by {error:.2g}"
    return exported(model, theirs)


def runs(theirs: Any, model: Any) -> bool:
    """Whether Transformers can run a model on the inputs of the comparison."""
    from hugging_face import make_batch, run_theirs

    try:
        run_theirs(theirs, make_batch(model, torch.float64))
    except Exception:
        return False
    return True


def exported(model: Any, theirs: Any) -> str:
    try:
        back = to_hf(model, theirs.config.model_type)
    except (ConfigError, WeightsError) as error:
        return f"refused back: {error}"
    except Exception as error:
        return f"fault: {type(error).__name__} in to_hf: {error}"
    expected, found = theirs.state_dict(), back.state_dict()
    family, head = find_head(theirs.config, type(theirs).__name__)
    computed = family.key_map(head).computed  # such as sines and cosines
    names = family.canonical_names(expected, head.prefix)
    differ = [
        stored
        for name, stored in names.items()
        if name not in computed
        and not (stored in found and torch.equal(found[stored], expected[stored]))
    ]
    return f"fault: {differ[:3]} changed on the way back" if differ else "converted"


def draw(count: int, seed: int, only: str) -> Iterator[tuple[str, dict[str, Any], str]]:
    """Architecture, changes and outcome of `count` configurations that Transformers can run."""
    chance = random.Random(seed)
    able = [one for one in REFERENCES if only in one.architecture]
    seen = 0
    while seen < count:
        reference, changes = drawn(chance.choice(able), chance)
        found = outcome(reference)
        if found != "invalid" and changes:
            seen += 1
            yield reference.architecture, changes, found


def figures(found: Counter[str]) -> Iterator[Figure]:
    for kind in ("converted", "refused", "refused back"):
        yield Figure(kind, found[kind], "configurations (no bound)", 0, True)
    yield Figure("fault", found["fault"], "configurations at most", 0, not found["fault"])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="part of an architecture's name")
    parser.add_argument("--verbose", action="store_true", help="print refusals too")
    parser.add_argument("--json")
    args = parser.parse_args()
    transformers.logging.set_verbosity_error()
    warnings.simplefilter("ignore")
    kinds: Counter[str] = Counter()
    rows = draw(args.count, args.seed, args.only)
    for name, changes, found in track(rows, total=args.count, disable=not sys.stderr.isatty()):
        kind = found.partition(":")[0]
        kinds[kind] += 1
        if kind == "fault" or (args.verbose and kind != "converted"):
            print(f"{name} {changes}\n    {found}")
    title = f"random configurations, seed {args.seed}"
    sys.exit(report(title, list(figures(kinds)), Path(args.json) if args.json else None))


if __name__ == "__main__":
    main()
