"""Differences of outputs and gradients between a Hugging Face model and the model that is converted
from it."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any, NamedTuple

import torch
from hf_references import KeepDouble, Reference, asked, make_batch, run_ours, run_theirs
from tiny import relative_error
from torch import Tensor

from skillweave.interop.huggingface import from_hf
from skillweave.interop.huggingface.exporter import plan_export
from skillweave.interop.huggingface.family import find_head
from skillweave.interop.key_map import import_weight
from skillweave.model.model import Model

PRECISIONS = {torch.float32: 1e-5, torch.float64: 1e-9}
"""Precision → allowed relative error."""
PER_TOKEN = {"mlm", "lm", "replaced", "hidden", "token_labels", "span", "ctc"}


class Parity(NamedTuple):
    """Relative errors of the output of each target, and of the gradient of each weight as a share of
    the largest gradient."""

    outputs: dict[str, float]
    gradients: dict[str, float]


def compare(reference: Reference, dtype: torch.dtype) -> Parity:
    """Run both models on the same inputs, and back from the same random weighted sum."""
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
    """The outputs of both models at the true tokens, by target."""
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
    """The error of the gradient of each weight."""
    # The positions of Pegasus are not trained.
    learned = {name: p for name, p in theirs.named_parameters() if p.requires_grad}
    expected = {
        name: p.grad if p.grad is not None else torch.zeros_like(p) for name, p in learned.items()
    }
    family, head = find_head(theirs.config, type(theirs).__name__)
    plan = plan_export(family, head, model, theirs.state_dict())
    own = dict(model.named_parameters())
    largest = max(float(grad.abs().max()) for grad in expected.values())
    errors = {}
    for mapping in plan.mappings:
        # The bias of BART's output layer is a buffer in Transformers.
        if all(plan.names[name] in expected for name in mapping.source.names):
            weight = own[mapping.name]
            wanted = import_weight(mapping, lambda name: expected[plan.names[name]], weight.shape)
            found = torch.zeros_like(wanted) if weight.grad is None else weight.grad
            errors[mapping.name] = float((found - wanted).abs().max()) / largest
    assert len(errors) >= len(own) - 1 - sum(not p.requires_grad for p in theirs.parameters())
    return errors
