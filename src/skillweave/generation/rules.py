"""Rules that change the scores of the next token, computed as Transformers does."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

RULES = {
    "repetition_penalty": ("RepetitionPenaltyLogitsProcessor", ["value"]),
    "no_repeat_ngram_size": ("NoRepeatNGramLogitsProcessor", ["value"]),
    "bad_words_ids": ("NoBadWordsLogitsProcessor", ["value", "eos"]),
    "min_length": ("MinLengthLogitsProcessor", ["value", "eos", "device"]),
    "min_new_tokens": ("MinNewTokensLengthLogitsProcessor", ["start", "value", "eos", "device"]),
    "forced_bos_token_id": ("ForcedBOSTokenLogitsProcessor", ["value"]),
    "forced_eos_token_id": ("ForcedEOSTokenLogitsProcessor", ["longest", "value", "device"]),
    "suppress_tokens": ("SuppressTokensLogitsProcessor", ["value", "device"]),
    "begin_suppress_tokens": ("SuppressTokensAtBeginLogitsProcessor", ["value", "first", "device"]),
    "renormalize_logits": ("LogitNormalization", []),
}
"""Option → class of Transformers, in its order, and its arguments: the option's value and what
`build_rules` knows."""
NEUTRAL = {
    "repetition_penalty": 1.0,
    "no_repeat_ngram_size": 0,
    "min_length": 0,
    "min_new_tokens": 0,
    "renormalize_logits": False,
}
"""Values without an effect, besides None."""


def build_rules(
    options: Mapping[str, Any], start: int, eos: int, most: int, device: str
) -> Callable[[Tensor, Tensor], Tensor]:
    """Tokens so far [N, L] and scores [N, V] → scores [N, V] by the rules that `options` name.

    `start`: number of tokens that answers begin with. `most`: most tokens that follow.
    """
    used = {n: options[n] for n in RULES if options.get(n) not in (None, [], NEUTRAL.get(n))}
    if not used:
        return lambda ids_NL, scores_NV: scores_NV
    import transformers

    first = start + (start == 1 and "forced_bos_token_id" in used)
    places = {"start": start, "eos": eos, "longest": start + most, "first": first, "device": device}
    rules: Any = transformers.LogitsProcessorList()
    for name, value in used.items():
        kind, arguments = RULES[name]
        given = {**places, "value": value}
        rules.append(getattr(transformers, kind)(*(given[one] for one in arguments)))
    return rules
