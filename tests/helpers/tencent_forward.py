"""TencentPretrain's forward pass in plain steps, for one sample, and random weights with its names.

A weight is drawn when a step asks for it, so a forward pass also gives the checkpoint. It follows
https://github.com/Tencent/TencentPretrain; but layer norms are PyTorch's, as they divide by the
standard deviation of n - 1 values there.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": lambda x: x * 0.5 * (1 + torch.erf(x / math.sqrt(2))),
    "gelu_fast": lambda x: (
        0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    ),
    "relu": lambda x: x.clamp(min=0),
}
Options = dict[str, Any]


class Theirs:
    """A model of a configuration. `state`: the weights that were used so far."""

    def __init__(self, config: Options) -> None:
        self.config = config
        self.state: dict[str, Tensor] = {}
        self.generator = torch.Generator().manual_seed(0)

    def weight(self, name: str, *shape: int) -> Tensor:
        """A weight, which is random at first. Scales of norms are around 1."""
        if name not in self.state:
            x = torch.randn(shape, generator=self.generator, dtype=torch.float64) * 0.3
            is_scale = name.endswith(".gamma") or ("norm" in name and name.endswith(".weight"))
            self.state[name] = x + is_scale
        return self.state[name]

    def linear(self, name: str, x: Tensor, outputs: int, bias: bool = True) -> Tensor:
        y = x @ self.weight(f"{name}.weight", outputs, x.shape[-1]).T
        return y + self.weight(f"{name}.bias", outputs) if bias else y

    def norm(self, name: str, x: Tensor, kind: str = "normal", epsilon: float = 1e-6) -> Tensor:
        width = x.shape[-1]
        if kind == "normal":
            gamma, beta = self.weight(f"{name}.gamma", width), self.weight(f"{name}.beta", width)
            centred = x - x.mean(-1, keepdim=True)
            return gamma * centred / (centred.pow(2).mean(-1, keepdim=True) + epsilon).sqrt() + beta
        scale = self.weight(f"{name}.weight", width)
        return scale * x / (x.pow(2).mean(-1, keepdim=True) + epsilon).sqrt()

    def embed(self, name: str, options: Options, data: Any, length: int, seg: list[int]) -> Tensor:
        """[L, D]. `data`: ids, pixels, frames, or ids and pixels."""
        size, x = options["emb_size"], None
        encoder_side = self.config.get("embedding", []) + options["embedding"]
        scaled, spoken = "sinusoidalpos" in encoder_side, "speech" in encoder_side
        for module in options["embedding"]:
            own = f"{name}.{module}"
            if module == "word":
                part = self.words(own, data, options) * (math.sqrt(size) if scaled else 1)
            elif module == "pos":
                rows = options.get("max_seq_length", 512)
                part = self.weight(f"{own}.embedding.weight", rows, size)[:length]
            elif module == "seg":
                part = self.weight(f"{own}.embedding.weight", 3, size)[seg]
            elif module == "sinusoidalpos":
                part = sinusoids(length, size, alternate=not spoken)
            elif module == "word_patch":
                ids, pixels = data
                words = self.words(f"{own}.language_embedding", ids, options)
                part = torch.cat([words, self.patches(f"{own}.vision_embedding", pixels, options)])
            elif module == "speech":
                part = self.frames(own, data, options) * (math.sqrt(size) if scaled else 1)
            else:
                pixels, masked = data if module == "masked_patch" else (data, [])
                part = self.patches(own, pixels, options)
                for place in masked:
                    part[place] = self.weight(f"{own}.mask_emb", 1, size)[0]
            x = part if x is None else x + part
        if not options.get("remove_embedding_layernorm"):
            x = self.norm(f"{name}.layer_norm", x)
        return x

    def words(self, name: str, ids: list[int], options: Options) -> Tensor:
        return self.weight(f"{name}.embedding.weight", options["words"], options["emb_size"])[ids]

    def patches(self, name: str, pixels: Tensor, options: Options) -> Tensor:
        size, patch = options["emb_size"], options["patch_size"]
        kernel = self.weight(f"{name}.projection.weight", size, 3, patch, patch)
        rows = [self.weight(f"{name}.cls_emb", 1, 1, size)[0, 0]]
        for top in range(0, pixels.shape[1], patch):
            for left in range(0, pixels.shape[2], patch):
                piece = pixels[:, top : top + patch, left : left + patch]
                rows.append((kernel * piece).sum((1, 2, 3)))
        return torch.stack(rows)

    def frames(self, name: str, x: Tensor, options: Options) -> Tensor:
        for i, channels in enumerate(options["conv_channels"]):
            own, size = f"{name}.conv.conv_layers.{i}.0", options["conv_kernel_sizes"][i]
            kernel = self.weight(f"{own}.weight", channels, x.shape[1], size)
            padded = F.pad(x, (0, 0, size // 2, size // 2))
            steps = range(0, len(padded) - size + 1, 2)
            y = torch.stack([(kernel * padded[t : t + size].T).sum((1, 2)) for t in steps])
            value, gate = (y + self.weight(f"{own}.bias", channels)).chunk(2, dim=1)
            x = value * torch.sigmoid(gate)
        return x

    def attend(
        self, name: str, x: Tensor, memory: Tensor, options: Options, extra: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Attention with `extra` added to the scores as it is, and the scores [H, L, L']."""
        heads, bias = options["heads_num"], not options.get("remove_transformer_bias")
        size = options.get("attention_head_size", options["hidden_size"] // heads)
        q, k, v = (
            self.linear(f"{name}.linear_layers.{i}", given, heads * size, bias)
            for i, given in enumerate((x, memory, memory))
        )
        outputs, scores = [], []
        for h in range(heads):
            own = slice(h * size, (h + 1) * size)
            score = q[:, own] @ k[:, own].T
            if f"{name}.bias" in self.biases:
                score = score + self.biases[f"{name}.bias"][h]
            if not options.get("remove_attention_scale"):
                score = score / math.sqrt(size)
            score = score + (extra[h] if extra.dim() == 3 else extra)
            scores.append(score)
            outputs.append(torch.softmax(score, dim=-1) @ v[:, own])
        y = torch.cat(outputs, dim=1)
        return self.linear(f"{name}.final_linear", y, options["hidden_size"], bias), torch.stack(
            scores
        )

    biases: dict[str, Tensor] = {}

    def feed_forward(self, name: str, x: Tensor, options: Options) -> Tensor:
        size, bias = options["feedforward_size"], not options.get("remove_transformer_bias")
        act = ACTIVATIONS[options["hidden_act"]]
        if options.get("feed_forward") == "gated":
            inner = act(self.linear(f"{name}.linear_gate", x, size, bias))
            inner = inner * self.linear(f"{name}.linear_1", x, size, bias)
        else:
            inner = act(self.linear(f"{name}.linear_1", x, size, bias))
        return self.linear(f"{name}.linear_2", inner, x.shape[-1], bias)

    def transformer(
        self,
        name: str,
        x: Tensor,
        mask: Tensor,
        options: Options,
        memory: Tensor | None = None,
    ) -> Tensor:
        """An encoder, or with a memory the decoder. `mask`: [L, L] 0 or -10,000."""
        decodes = memory is not None
        pre = options.get("layernorm_positioning") == "pre"
        kind = options.get("layernorm", "normal")
        count = options["decoder_layers_num" if decodes else "layers_num"]
        heads, scores = options["heads_num"], mask
        for i in range(count):
            block = f"{name}.{'transformer_decoder' if decodes else 'transformer'}.{i}"
            sublayers = ["self_attn", *(["context_attn"] if decodes else []), "feed_forward"]
            self.biases = {}
            if options.get("relative_position_embedding"):
                # all layers of an encoder have the same table, and store it
                table = f"{name}.self_pos_emb" if decodes else f"{block}.relative_pos_emb"
                first = f"{name}.transformer.0.relative_pos_emb.relative_attention_bias.weight"
                weight = f"{table}.relative_attention_bias.weight"
                if not decodes and i:
                    self.state[weight] = self.state[first].clone()
                bias = relative(self.weight(weight, 32, heads), len(x), both=not decodes)
                self.biases = {f"{block}.self_attn.bias": bias}
            for j, sublayer in enumerate(sublayers, start=1):
                given = self.norm(f"{block}.layer_norm_{j}", x, kind) if pre else x
                if sublayer == "feed_forward":
                    y = self.feed_forward(f"{block}.feed_forward", given, options)
                elif sublayer == "context_attn":
                    none = torch.zeros(len(x), len(memory), dtype=x.dtype)
                    y, _ = self.attend(f"{block}.context_attn", given, memory, options, none)
                else:
                    residual = options.get("has_residual_attention") and not decodes
                    extra = mask + scores if residual and i else mask
                    y, scores = self.attend(f"{block}.self_attn", given, given, options, extra)
                x = x + y if pre else self.norm(f"{block}.layer_norm_{j}", x + y, kind)
        if options.get("relative_position_embedding") and not decodes:
            unused = f"{name}.relative_pos_emb.relative_attention_bias.weight"
            self.weight(unused, 32, heads)
        return self.norm(f"{name}.layer_norm", x, kind) if pre else x

    def gated_cnn(self, name: str, x: Tensor, options: Options) -> Tensor:
        size, width = options["hidden_size"], options["kernel_size"]
        block_input = None
        for i in range(options["layers_num"]):
            halves = []
            for kind in ("conv", "gate"):
                own = f"{name}.{kind}_1" if i == 0 else f"{name}.{kind}.{i - 1}"
                extra = f"{name}.{kind}_b1" if i == 0 else f"{name}.{kind}_b.{i - 1}"
                shape = (1, width, x.shape[1]) if i == 0 else (x.shape[1], width, 1)
                kernel = self.weight(f"{own}.weight", size, *shape)
                kernel = kernel[:, 0] if i == 0 else kernel[..., 0].transpose(1, 2)
                padded = F.pad(x, (0, 0, width - 1, 0))
                y = torch.stack(
                    [(kernel * padded[t : t + width]).sum((1, 2)) for t in range(len(x))]
                )
                bias = self.weight(f"{own}.bias", size)
                halves.append(y + bias + self.weight(extra, 1, size, 1, 1).flatten())
            x = halves[0] * torch.sigmoid(halves[1])
            if i == 0:
                block_input = x
            elif i % options["block_size"] == 0:
                x = block_input = x + block_input
        return x

    def masked_words(self, x: Tensor, outputs: int) -> Tensor:
        act = ACTIVATIONS[self.config["hidden_act"]]
        x = self.norm(
            "target.mlm.layer_norm", act(self.linear("target.mlm.linear_1", x, x.shape[1]))
        )
        return self.linear("target.mlm.linear_2", x, outputs)


def sinusoids(length: int, size: int, alternate: bool) -> Tensor:
    """Sines and cosines from position 2 on."""
    half, x = size // 2, torch.zeros(length, size, dtype=torch.float64)
    for place in range(length):
        for i in range(half):
            angle = (place + 2) * math.exp(-i * math.log(10000) / (half - 1))
            x[place, 2 * i if alternate else i] = math.sin(angle)
            x[place, 2 * i + 1 if alternate else half + i] = math.cos(angle)
    return x


def relative(table: Tensor, length: int, both: bool) -> Tensor:
    """[H, L, L] the bias of T5 (arXiv 1910.10683), for distances below 8 as far as both go."""
    buckets = len(table) // 2 if both else len(table)
    near = buckets // 2
    bias = torch.zeros(table.shape[1], length, length, dtype=table.dtype)
    for query in range(length):
        for key in range(length):
            steps = abs(key - query) if both else max(query - key, 0)
            if steps >= near:
                far = math.log(steps / near) / math.log(128 / near) * (buckets - near)
                bucket = min(near + int(far), buckets - 1)
            else:
                bucket = steps
            bias[:, query, key] = table[bucket + (buckets if both and key > query else 0)]
    return bias


def causal(length: int) -> Tensor:
    return torch.full((length, length), -10000.0, dtype=torch.float64).triu(1)


def visible(length: int) -> Tensor:
    return torch.zeros(length, length, dtype=torch.float64)
