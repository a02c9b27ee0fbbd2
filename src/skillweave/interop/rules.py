"""The rules of key maps: which tensors of another library each weight of a model is made of.

A rule maps our name of a weight or module to its source, or to several possible sources, of which
the first one whose tensors all exist is used. In names `{i}` stands for the number of a layer and
`{e}` for that of an expert. A name without an ending holds for `.weight` and `.bias`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

Operation = Literal["joined", "transposed", "stacked", "reshaped", "interleaved", "swapped"]


class Source(NamedTuple):
    """The external tensors that a weight is made of, and how.

    `joined`: they are concatenated along the first dimension. The other operations take one tensor.
    `transposed`: its dimensions are swapped (GPT-2). `stacked`: the weight is its entry `index`, or
    the one that `{e}` counts. `reshaped`: it has the same values in another shape. `interleaved`:
    it has the query, key and value of each attention head one after the other (BLOOM). `swapped`:
    its halves change places along the first dimension (the gate behind the value; Moonshine).
    """

    names: tuple[str, ...]
    operation: Operation = "joined"
    index: int = 0

    def renamed(self, rename: Callable[[str], str]) -> Source:
        """The same with other names."""
        return self._replace(names=tuple(rename(name) for name in self.names))


AnySource = str | Source
"""A string stands for one tensor or module that is used as it is."""
Sources = AnySource | Sequence[AnySource]
Rules = dict[str, Sources]


def joined(*names: str) -> Source:
    """Tensors that are concatenated, such as gate and value."""
    return Source(names)


def qkv(pattern: str) -> Source:
    """Query, key and value, which replace `{}` by q, k and v."""
    return joined(*(pattern.replace("{}", letter) for letter in "qkv"))


def transposed(name: str) -> Source:
    """A tensor that is stored as [inputs, outputs]."""
    return Source((name,), "transposed")


def stacked(name: str, index: int = 0) -> Source:
    """One expert of a tensor that holds all experts, or row `index` of a tensor."""
    return Source((name,), "stacked", index)


def reshaped(name: str) -> Source:
    """A tensor with the same values in another shape."""
    return Source((name,), "reshaped")


def interleaved(name: str) -> Source:
    """A tensor with the query, key and value of each head one after the other."""
    return Source((name,), "interleaved")


def swapped(name: str) -> Source:
    """A tensor whose halves change places."""
    return Source((name,), "swapped")


def list_sources(sources: Sources) -> list[Source]:
    """The possible sources of a rule."""
    given = [sources] if isinstance(sources, str | Source) else sources
    return [joined(source) if isinstance(source, str) else source for source in given]


def with_prefix(prefix: str, rules: Rules) -> Rules:
    """The rules with a prefix before all external names."""
    return {
        name: [source.renamed(lambda external: prefix + external) for source in list_sources(found)]
        for name, found in rules.items()
    }


def alternatives(*maps: Rules) -> Rules:
    """One rule for each name, with the sources of all `maps` in this order."""
    found: Rules = {}
    for rules in maps:
        for name, sources in rules.items():
            found[name] = [*list_sources(found.get(name, ())), *list_sources(sources)]
    return found


def block_rules(
    name: str,
    external: str,
    *,
    qkv: Sources,
    attention_output: Sources,
    attention_norm: Sources,
    inner: Sources,
    outer: Sources,
    feed_forward_norm: Sources,
) -> Rules:
    """Rules for the Transformer block `name`, which the other library calls `external`.

    `inner`, `outer`: the layers of the feed-forward. All sources are relative to the block.
    """
    parts = {
        "attention.qkv.experts.shared": qkv,
        "attention.output": attention_output,
        "attention_norm": attention_norm,
        "feed_forward.experts.shared.inner": inner,
        "feed_forward.experts.shared.outer": outer,
        "feed_forward_norm": feed_forward_norm,
    }
    return _inside(name, external, parts)


def cross_attention_rules(
    external: str, *, query: str, key: str, value: str, output: str, norm: str
) -> Rules:
    """Rules for the cross-attention of a decoder, in blocks that the other library calls
    `external`."""
    parts = {
        "attention.query": query,
        "attention.key_value": joined(key, value),
        "attention.output": output,
        "norm": norm,
    }
    return _inside("decoder.blocks.{i}.cross", external, parts)


def _inside(name: str, external: str, parts: Rules) -> Rules:
    parts = with_prefix(f"{external}.", parts)
    return {f"{name}.{part}": sources for part, sources in parts.items()}
