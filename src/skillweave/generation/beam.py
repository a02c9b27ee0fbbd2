"""Beam search over words, whatever gives their probabilities.

Shape letters: N samples, K beams, L words so far, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Step = Callable[[Tensor], Tensor]
"""Words so far [N·K, L], in the samples' order → logarithms of the next word's probabilities [N·K,
V]."""


def beam_search(
    step: Step,
    begin_NL: Tensor,
    end: int,
    most: int,
    beams: int = 1,
    length_penalty: float = 1.0,
) -> list[list[int]]:
    """The likeliest answer of each sample that the search finds, without `begin_NL` and `end`.

    `begin_NL`: [N, L] the words that answers begin with. `most`: words an answer may have at most,
    `end` included. An answer's score is the sum of its words' logarithms divided by their number
    (`end` included) to the power `length_penalty` (arXiv 1609.08144, section 7, without its
    constant). A sample's search ends when nothing that goes on could still win; with one beam,
    which is greedy search, at the first end.
    """
    samples, start = begin_NL.shape
    device = begin_NL.device
    rows_NK = torch.arange(samples, device=device).unsqueeze(1) * beams
    ids = begin_NL.repeat_interleave(beams, 0).view(samples, beams, start)
    scores_NK = torch.full((samples, beams), -torch.inf, device=device)
    scores_NK[:, 0] = 0  # the beams are still alike
    done_NK = torch.full((samples, beams), -torch.inf, device=device)
    done = torch.full((samples, beams, start + most), end, device=device)
    for length in range(1, most + 1):
        words = step(ids.flatten(0, 1)).float().view(samples, beams, -1)
        total = (scores_NK.unsqueeze(2) + words).flatten(1)
        # so many that K go on even if all others end
        best, chosen = total.topk(min(2 * beams, total.shape[1]))
        word = chosen % words.shape[2]
        candidates = torch.cat(
            [ids.flatten(0, 1)[rows_NK + chosen // words.shape[2]], word.unsqueeze(2)], dim=2
        )
        ends = (word == end) | (length == most)
        counted = ends & (torch.arange(best.shape[1], device=device) < beams)
        done_NK, kept = torch.cat(
            [done_NK, (best / length**length_penalty).where(counted, -torch.inf)], dim=1
        ).topk(beams)
        padded = torch.nn.functional.pad(candidates, (0, most - length), value=end)
        done = torch.cat([done, padded], dim=1)[
            torch.arange(samples, device=device).unsqueeze(1), kept
        ]
        scores_NK, kept = best.masked_fill(ends, -torch.inf).topk(beams)
        ids = candidates[torch.arange(samples, device=device).unsqueeze(1), kept]
        could_reach_N = scores_NK[:, 0] / most**length_penalty
        settled_N = done_NK[:, -1].isfinite() & ((done_NK[:, -1] >= could_reach_N) | (beams == 1))
        if settled_N.all():
            break
        scores_NK = scores_NK.masked_fill(settled_N.unsqueeze(1), -torch.inf)
    answers = [row[start:].tolist() for row in done[:, 0].cpu()]
    return [row[: row.index(end)] if end in row else row for row in answers]
