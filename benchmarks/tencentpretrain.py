"""Every configuration of TencentPretrain against TencentPretrain's own forward pass.

    python benchmarks/tencentpretrain.py CHECKOUT [--json FILE] [--only TEXT]

CHECKOUT is a copy of https://github.com/Tencent/TencentPretrain, with the packages that it imports.
Each file of its `models` folder gets small sizes and a model of TencentPretrain with random
weights. The saved weights are converted, and both models read the same input in float64. The error
is the largest difference of hidden states and logits, relative to the largest value. It is measured
with TencentPretrain's layer norm, which divides by the standard deviation of n - 1 values, and with
that norm replaced by PyTorch's. The bound holds for the second one: TencentPretrain computes RMS
norms, rotations, softmax and sines in float32. Takes a minute.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from report import Figure, report
from torch import Tensor, nn

from skillweave.batch import Batch
from skillweave.config import ConfigError
from skillweave.interop.tencentpretrain.weights import from_tencent
from skillweave.model.config import ModelConfig
from skillweave.model.model import Model
from skillweave.weights.files import WeightsError

VOCABULARY, LENGTHS, FRAMES, TEXT_LENGTH = 53, ([5, 3], [4, 2]), 22, 9
BOUND = 1e-4
SIZES = {
    "layers_num": 3,
    "decoder_layers_num": 2,
    "feedforward_size": 37,
    "attention_head_size": 6,
    "feature_size": 11,
    "audio_feature_size": 10,
    "max_seq_length": 40,
    "max_audio_frames": 60,
    "image_height": 16,
    "image_width": 16,
    "patch_size": 8,
    "local_kv_heads_num": 2,
}
PATCHES = 4 + 1


def shrink(config: dict[str, Any]) -> dict[str, Any]:
    """The configuration with small sizes, a dropout of 0 and the options of its command line."""
    small = {key: SIZES.get(key, value) for key, value in config.items()}
    if "hidden_size" in config:
        small["hidden_size"] = 32
        small["emb_size"] = 32 if config["emb_size"] == config["hidden_size"] else 14
    if "heads_num" in config:
        small["heads_num"] = 4
    if "layers_num" in config and config.get("encoder") == "gatedcnn":
        small["layers_num"] = 6
    if "conv_channels" in config:
        small["conv_channels"] = [12, 64]
    for name in ("stream_0", "stream_1"):
        if name in config:
            small[name] = shrink(config[name])
    if "word_patch" in config.get("embedding", ()):
        small["seq_length"] = TEXT_LENGTH
    return {**small, "dropout": 0.0}


def precision(config: dict[str, Any]) -> torch.dtype:
    """Recurrent networks begin with float32 states there."""
    encoder = config.get("stream_0", config)["encoder"]
    return torch.float64 if encoder in ("transformer", "gatedcnn") else torch.float32


def their_arguments(config: dict[str, Any]) -> argparse.Namespace:
    """What TencentPretrain makes of a configuration."""
    from tencentpretrain.opts import model_opts, optimization_opts, training_opts

    parser = argparse.ArgumentParser()
    for add in (model_opts, optimization_opts, training_opts):
        add(parser)
    tokenizer = SimpleNamespace(vocab={"[PAD]": 0, **{str(i): i for i in range(1, VOCABULARY)}})
    other = SimpleNamespace(vocab={str(i): i for i in range(VOCABULARY - 6)})
    config = {"data_processor": "lm", **config}
    defaults = {"tokenizer": tokenizer, "tgt_tokenizer": other, "labels_num": 3}
    values = {**vars(parser.parse_args([])), **config, **defaults}
    if config.get("tokenizer") == "vqgan":
        values["image_tokenizer"] = config["image_tokenizer"]
    return argparse.Namespace(**values)


def their_model(config: dict[str, Any]) -> nn.Module:
    """TencentPretrain's model with random weights in float64."""
    arguments = their_arguments(config)
    if "target" in config:
        from tencentpretrain.model_builder import build_model

        model = build_model(arguments)
    else:
        from finetune.run_classifier_siamese import SiameseClassifier

        model = SiameseClassifier(arguments)
    torch.manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            is_scale = name.endswith(".gamma") or "norm" in name
            parameter.normal_(float(is_scale and not name.endswith(".beta")), 0.3)
    if config.get("tie_weights") and "stream_0" in config:
        dual = model.embedding.dual  # at the start of its training they are equal
        dual.stream_1_layer_norm.load_state_dict(dual.stream_0_layer_norm.state_dict())
    return model.to(precision(config)).eval()


class Impossible(Exception):
    """TencentPretrain itself fails with a configuration."""


class Sample:
    """The same random input for both libraries."""

    def __init__(self, model: Model) -> None:
        self.dtype = next(model.parameters()).dtype
        (name,) = model.config.tasks
        layout = model.config.tasks[name].layout(name)
        sequential = model.config.encoder.name != "transformer"
        self.inputs: list[Tensor] = []
        self.lengths: list[list[int]] = []
        self.masked: list[Tensor | None] = []
        texts = 0
        for span in layout.spans:
            masked = None
            if span.modality == "text":
                lengths = LENGTHS[texts % 2]
                texts += 1
                if sequential:
                    lengths = [max(lengths)] * 2
                x = torch.randint(1, VOCABULARY - 6, (2, max(lengths)))
            elif span.modality == "image":
                lengths = [PATCHES] * 2
                x = torch.randn(2, 3, 16, 16, dtype=self.dtype)
                if model.config.streams.image.learns_mask:
                    masked = torch.tensor([[0, 1, 0, 0, 1], [0, 0, 0, 1, 1]]).bool()
            else:
                x = torch.randn(2, FRAMES, 10, dtype=self.dtype)
                lengths = [model.config.streams.sound.output_length(FRAMES)] * 2
            self.inputs.append(x)
            self.lengths.append(lengths)
            self.masked.append(masked)
        self.batch = Batch(
            layout.with_lengths(tuple(max(lengths) for lengths in self.lengths)),
            tuple(self.inputs),
            torch.tensor(self.lengths).T,
            masked=tuple(self.masked) if any(m is not None for m in self.masked) else (),
        )

    def theirs(self, dual: bool, decodes: bool) -> dict[str, Any]:
        """Inputs of TencentPretrain's model."""
        passes = [self._sequence(spans) for spans in self.batch.layout.passes]
        (src, seg), *more = passes
        if dual:
            ((other, other_seg),) = more
            return {"src": (src, other), "seg": (seg, other_seg)}
        if decodes:
            ((tgt, tgt_seg),) = more
            return {"src": src, "seg": seg, "tgt_in": tgt, "tgt_seg": tgt_seg}
        return {"src": src, "seg": seg}

    def _sequence(self, spans: tuple[int, ...]) -> tuple[Any, Tensor]:
        """Source and segments of a pass: its spans one after the other, then padding."""
        first = self.inputs[spans[0]]
        if first.dtype != torch.int64:
            masked = self.masked[spans[0]]
            seg = torch.ones(2, self.lengths[spans[0]][0], dtype=torch.int64)
            if masked is None:
                return first, seg
            return (first, [row.nonzero().flatten().tolist() for row in masked]), seg
        ids, segments = [], []
        for n in range(2):
            row = [self.inputs[s][n, : self.lengths[s][n]] for s in spans if self._is_text(s)]
            ids.append(torch.cat(row))
            segments.append(torch.cat([torch.full_like(x, i + 1) for i, x in enumerate(row)]))
        src = nn.utils.rnn.pad_sequence(ids, batch_first=True)
        seg = nn.utils.rnn.pad_sequence(segments, batch_first=True)
        pictures = [self.inputs[s] for s in spans if not self._is_text(s)]
        if not pictures:
            return src, seg
        padding = (0, TEXT_LENGTH - src.shape[1])
        seg = torch.cat([F.pad(seg, padding), torch.full((2, PATCHES), 2)], dim=1)
        return (F.pad(src, padding), pictures[0]), seg

    def _is_text(self, span: int) -> bool:
        return self.inputs[span].dtype == torch.int64


@contextmanager
def their_norm_replaced() -> Iterator[None]:
    """TencentPretrain with PyTorch's layer norm."""
    from tencentpretrain.layers.layer_norm import LayerNorm

    def forward(self: Any, x: Tensor) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], self.gamma, self.beta, self.eps)

    before, LayerNorm.forward = LayerNorm.forward, forward
    try:
        yield
    finally:
        LayerNorm.forward = before


@torch.no_grad()
def run_theirs(model: nn.Module, sample: Sample, config: dict[str, Any]) -> list[Tensor]:
    """Hidden states of each pass at the true tokens, and logits by target."""
    dual, decodes = "stream_0" in config, bool(config.get("decoder"))
    given = sample.theirs(dual, decodes)
    seg = given["seg"]
    memory = model.encoder(model.embedding(given["src"], seg), seg)
    last, last_seg = memory, seg
    if decodes:
        tgt = model.tgt_embedding(given["tgt_in"], given["tgt_seg"])
        last = model.decoder(memory, tgt, (seg, given["tgt_seg"]))
        last_seg = given["tgt_seg"]
    hidden = [(memory, seg), (last, last_seg)] if decodes else [(memory, seg)]
    if dual:
        hidden = list(zip(memory, seg, strict=True))
    found = [x[place > 0] for x, place in hidden]
    if dual and "target" not in config:
        return [*found, model(given["src"], None, seg)[1]]
    for name in sorted(config["target"]):
        target = getattr(model.target, name)
        if name == "clr":
            found.append(target(memory, None, seg)[0])
            continue
        if name == "bilm":  # its own forward pass lacks an argument
            halves = [half[seg > 0] for half in memory.chunk(2, -1)]
            found.append(torch.cat([target.output_layer(half) for half in halves]))
            continue
        outputs: list[Tensor] = []
        layer = target.output_layer if name == "lm" else target.linear_2
        hook = layer.register_forward_hook(lambda _m, _i, x, outputs=outputs: outputs.append(x))
        labels = torch.ones_like(last_seg) if name in ("lm", "mlm") else torch.zeros(2).long()
        if name == "mlm" and "word_patch" in config["embedding"]:
            labels[:, -PATCHES:] = 0
        target(last, labels * (last_seg > 0) if name == "mlm" else labels, last_seg)
        hook.remove()
        found += outputs
    return found


@torch.no_grad()
def run_ours(model: Model, sample: Sample, config: dict[str, Any]) -> list[Tensor]:
    """The same of our model."""
    batch, (task,) = sample.batch, model.config.tasks.values()
    found = []
    for x, spans in zip(model.hidden(batch), batch.layout.passes, strict=True):
        places = [torch.arange(max(sample.lengths[s])) for s in spans]
        true = [
            place < torch.tensor(sample.lengths[s])[:, None]
            for place, s in zip(places, spans, strict=True)
        ]
        found.append(x[torch.cat(true, dim=1)])
    logits, positions = model(batch).logits, model(batch).positions
    if "target" not in config:
        return [*found, logits["classification"]] if "classification" in logits else found
    ours = {"cls": "classification", "clr": "contrastive"}
    for name in sorted(config["target"]):
        if name == "mlm" and "mlm" not in task.targets:
            x = logits["masked_image_token"]
        else:
            x = logits[ours.get(name, name)]
        if name == "clr":
            own = torch.arange(len(x))
            x = (F.cross_entropy(x, own) + F.cross_entropy(x.T, own)) / 2
        place = positions.get(ours.get(name, name))
        if place is not None:  # tokens in the order of the samples
            place = place[: len(place) // (2 if name == "bilm" else 1)]
            halves = x.split(len(place))
            order = (place[:, 0] * 1000 + place[:, 1]).argsort()
            x = torch.cat([half[order] for half in halves])
        found.append(x)
    return found


def compare(config: dict[str, Any], folder: Path) -> tuple[float, float] | str:
    """The errors without and with TencentPretrain's norm, or why the configuration is refused.
    Raises Impossible."""
    try:
        theirs = their_model(config)
    except Exception as error:
        raise Impossible(repr(error)) from None
    torch.save(theirs.state_dict(), folder / "model.bin")
    (folder / "config.json").write_text(json.dumps(config))
    try:
        ours = from_tencent(folder / "model.bin", ModelConfig.from_file(folder / "config.json"))
    except (ConfigError, WeightsError) as error:
        return " ".join(str(error).replace(str(folder), "").split())
    if config.get("alibi_position_embedding"):  # it has ALiBi and does not use it
        ours.encoder.position = None
    sample = Sample(ours)
    found = run_ours(ours, sample, config)
    errors = []
    for norm in (their_norm_replaced(), nullcontext()):
        with norm:
            try:
                expected = run_theirs(theirs, sample, config)
            except Exception as error:
                raise Impossible(repr(error)) from None
        pairs = zip(found, expected, strict=True)
        errors.append(max(float((a - b).abs().max() / b.abs().max()) for a, b in pairs))
    return errors[0], errors[1]


FLAGS = (
    "relative_position_embedding",
    "rotary_position_embedding",
    "remove_attention_scale",
    "remove_transformer_bias",
    "remove_embedding_layernorm",
    "parameter_sharing",
    "factorized_embedding_parameterization",
    "has_residual_attention",
    "has_lmtarget_bias",
    "share_embedding",
    "tie_weights",
)
CHANGES: dict[str, list[Any]] = {
    "layernorm": ["normal", "t5", "rms"],
    "layernorm_positioning": ["pre", "post"],
    "feed_forward": ["dense", "gated"],
    "hidden_act": ["gelu", "gelu_fast", "relu", "silu"],
    "mask": ["fully_visible", "causal", "causal_with_prefix"],
    "pooling": ["mean", "max", "first", "last"],
    "attention_head_size": [6, 8],
    "local_kv_heads_num": [1, 2, 4],
    "relative_attention_buckets_num": [8, 32],
    "embedding": [["word"], ["word", "pos"], ["word", "pos", "seg"], ["word", "sinusoidalpos"]],
    "tgt_embedding": [["word"], ["word", "pos"], ["word", "sinusoidalpos"]],
    "target": [["lm"], ["mlm"], ["cls"], ["mlm", "sp"], ["bilm"]],
    "emb_size": [14, 32],
    "bidirectional": [True, False],
    "heads_num": [1, 2, 4],
    "layers_num": [1, 2, 5],
    "kernel_size": [1, 3],
    "block_size": [1, 3],
    "encoder": ["transformer", "gru", "bilstm", "gatedcnn"],
}
CHANGES |= {option: [True, False] for option in FLAGS}
"""Values that `--random` gives to options."""


def change(config: dict[str, Any], random: Random) -> dict[str, Any]:
    """The configuration with a few other options."""
    changed = dict(config)
    for key in random.sample(sorted(CHANGES), random.randint(1, 5)):
        side = changed if "stream_0" not in changed or key in ("tie_weights", "pooling") else None
        if side is None:
            number = random.choice(["stream_0", "stream_1"])
            side = changed[number] = dict(changed[number])
        if key in ("embedding", "tgt_embedding", "target", "encoder", "mask") and (
            key not in side or "word" not in side.get("embedding", ())
        ):
            continue
        side[key] = random.choice(CHANGES[key])
    return changed


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkout", type=Path)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--only", default="", help="text in the names of configurations")
    parser.add_argument("--random", type=int, default=0, help="so many random changes of them")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    sys.path.insert(0, str(options.checkout))
    sys.argv = sys.argv[:1]
    files = sorted(options.checkout.resolve().glob("models/*/*config.json"))
    os.chdir(options.checkout)  # it reads files relative to its folder
    configs = {f"{file.parent.name}/{file.stem}": json.loads(file.read_text()) for file in files}
    configs = {name: shrink(data) for name, data in configs.items() if options.only in name}
    random = Random(options.seed)
    names = [random.choice(list(configs)) for _ in range(options.random)]
    cases = [(f"{n} {name}", change(configs[name], random)) for n, name in enumerate(names)]
    figures = []
    for name, config in cases or configs.items():
        with tempfile.TemporaryDirectory() as folder:
            try:
                result = compare(config, Path(folder))
            except Impossible as error:
                print(f"{name:32} impossible there: {error}")
                continue
        if isinstance(result, str):
            print(f"{name:32} refused: {result}")
            continue
        print(f"{name:32} {result[0]:.1e}   with its own norm {result[1]:.1e}")
        if options.random and result[0] > BOUND:
            print(json.dumps(config))
        figures.append(Figure(name, result[0], "relative error", BOUND, result[0] <= BOUND))
    return report("TencentPretrain's own forward pass", figures, options.json)


if __name__ == "__main__":
    sys.exit(main())
