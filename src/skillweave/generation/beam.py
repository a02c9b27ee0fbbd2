"""Beam search over tokens.

Shape letters: N samples, K beams, L tokens so far, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

Step = Callable[[Tensor], Tensor]
"""Tokens so far [N·K, L], beams of a sample next to each other → log probabilities of the next
token [N·K, V]."""


def beam_search(
    step: Step,
    start_NL: Tensor,
    eos: int,
    max_new_tokens: int,
    beams: int = 1,
    length_penalty: float = 1.0,
) -> list[list[int]]:
    """The most probable answer of each sample that the search finds, without `start_NL` and `eos`.

    `start_NL`: the tokens that answers begin with. `max_new_tokens`: most tokens of an answer,
    `eos` included. The score of an answer is the sum of its tokens' log probabilities divided by
    their number (`eos` included) to the power `length_penalty` (arXiv 1609.08144, section 7,
    without its constant). The search of a sample ends when no unfinished answer can still win; with
    one beam, which is greedy search, at the first `eos`.
    """
    (samples, start), device = start_NL.shape, start_NL.device
    row_N1 = torch.arange(samples, device=device).unsqueeze(1)
    ids_NKL = start_NL.repeat_interleave(beams, 0).view(samples, beams, start)
    done_NKL = torch.full((samples, beams, start + max_new_tokens), eos, device=device)
    done_scores_NK = torch.full((samples, beams), -torch.inf, device=device)
    scores_NK = done_scores_NK.clone()
    scores_NK[:, 0] = 0  # the beams are still the same
    for length in range(1, max_new_tokens + 1):
        next_NKV = step(ids_NKL.flatten(0, 1)).float().view(samples, beams, -1)
        totals = (scores_NK.unsqueeze(2) + next_NKV).flatten(1)
        # so many that K continue even if all others end
        best, chosen = totals.topk(min(2 * beams, totals.shape[1]))
        parents, tokens = chosen // next_NKV.shape[2], chosen % next_NKV.shape[2]
        candidates = torch.cat([ids_NKL[row_N1, parents], tokens.unsqueeze(2)], dim=2)
        ends = (tokens == eos) | (length == max_new_tokens)

        finished = ends & (torch.arange(best.shape[1], device=device) < beams)
        finished_scores = (best / length**length_penalty).where(finished, -torch.inf)
        padded = F.pad(candidates, (0, max_new_tokens - length), value=eos)
        done_scores_NK, kept = torch.cat([done_scores_NK, finished_scores], dim=1).topk(beams)
        done_NKL = torch.cat([done_NKL, padded], dim=1)[row_N1, kept]

        scores_NK, kept = best.masked_fill(ends, -torch.inf).topk(beams)
        ids_NKL = candidates[row_N1, kept]
        reachable_N = scores_NK[:, 0] / max_new_tokens**length_penalty
        worst_N = done_scores_NK[:, -1]
        settled_N = worst_N.isfinite() & ((worst_N >= reachable_N) | (beams == 1))
        if settled_N.all():
            break
        scores_NK = scores_NK.masked_fill(settled_N.unsqueeze(1), -torch.inf)
    answers = [row[start:].tolist() for row in done_NKL[:, 0].cpu()]
    return [row[: row.index(eos)] if eos in row else row for row in answers]
