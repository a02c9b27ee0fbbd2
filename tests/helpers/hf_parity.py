"""How far a model of ours is from the one of Hugging Face that it is converted from: outputs and
gradients."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any, NamedTuple

import torch
from hf_references import KeepDouble, Reference, asked, make_batch, run_ours, run_theirs
from tiny import relative_error
from torch import Tensor

from skillweave.interop.huggingface import from_hf
from skillweave.interop.huggingface.convert import correspondence
from skillweave.interop.huggingface.engine import take
from skillweave.model.model import Model

PRECISIONS = {torch.float32: 1e-5, torch.float64: 1e-9}
"""The relative error that each allows."""
PER_TOKEN = {"mlm", "lm", "replaced", "hidden", "token_labels", "span", "ctc"}


class Parity(NamedTuple):
    """Relative errors: of each output by its target, and of each gradient by our weight's name, as
    a share of the largest one."""

    outputs: dict[str, float]
    gradients: dict[str, float]


def compare(reference: Reference, dtype: torch.dtype) -> Parity:
    """Both models on the same inputs, and back from the same random weighting of their outputs."""
    theirs = reference.build(dtype)
    model = from_hf(theirs)
    assert next(model.parameters()).dtype == dtype
    pairs = outputs(theirs, model, dtype)
    probes = {
        kind: torch.randn(expected.shape, dtype=dtype) for kind, (expected, _) in pairs.items()
    }
    with KeepDouble() if dtype is torch.float64 else nullcontext():
        torch.stack(
            [(pairs[kind][0] * probe).sum() for kind, probe in probes.items()]
        ).sum().backward()
    torch.stack([(pairs[kind][1] * probe).sum() for kind, probe in probes.items()]).sum().backward()
    return Parity(
        {kind: relative_error(found, expected) for kind, (expected, found) in pairs.items()},
        gradients(model, theirs),
    )


def outputs(theirs: Any, model: Model, dtype: torch.dtype) -> dict[str, tuple[Tensor, Tensor]]:
    """Theirs and ours at the true tokens, by target."""
    batch = make_batch(model, dtype)
    with KeepDouble() if dtype is torch.float64 else nullcontext():
        expected = run_theirs(theirs, batch)
    found = run_ours(model, batch)
    assert set(found) == {kind for kind in expected if kind != "hidden" or "hidden" in found}
    return {
        kind: (
            expected[kind][asked(batch, kind)] if kind in PER_TOKEN else expected[kind],
            found[kind],
        )
        for kind in found
    }


def gradients(model: Model, theirs: Any) -> dict[str, float]:
    """The difference of every weight's gradient."""
    # not Pegasus' positions
    learned = {name: p for name, p in theirs.named_parameters() if p.requires_grad}
    expected = {
        name: p.grad if p.grad is not None else torch.zeros_like(p) for name, p in learned.items()
    }
    steps, names = correspondence(model, theirs)
    own = dict(model.named_parameters())
    largest = max(float(grad.abs().max()) for grad in expected.values())
    errors = {}
    for step in steps:
        # BART's bias of the output is a buffer there
        if all(names[name] in expected for name in step.theirs):
            wanted = take(step, lambda name: expected[names[name]], own[step.ours].shape)
            found = own[step.ours].grad
            found = torch.zeros_like(wanted) if found is None else found
            errors[step.ours] = float((found - wanted).abs().max()) / largest
    assert len(errors) >= len(own) - 1 - sum(not p.requires_grad for p in theirs.parameters())
    return errors
