"""Every architecture against Hugging Face on random weights: logits, gradients, and weights there and back bit for bit."""

from collections import Counter
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from hf_references import REFERENCES, KeepDouble, Reference, asked, make_batch, run_ours, run_theirs
from tiny import relative_error
from torch import Tensor

from skillweave.interop import from_hf, to_hf
from skillweave.interop.convert import correspondence
from skillweave.interop.engine import take

PRECISIONS = [(torch.float32, 1e-5), (torch.float64, 1e-9)]
PER_TOKEN = {"mlm", "lm", "replaced", "hidden", "token_labels", "span"}
_seen: Counter[str] = Counter()


def _name(reference: Reference) -> str:
    _seen[reference.architecture] += 1
    number = _seen[reference.architecture]
    return reference.architecture + (f"-{number}" if number > 1 else "")


NAMES = [_name(reference) for reference in REFERENCES]


def outputs(theirs: Any, model: Any, dtype: torch.dtype) -> list[tuple[Tensor, Tensor]]:
    """Pairs of theirs and ours at the true tokens, for each target."""
    batch = make_batch(model, dtype)
    with KeepDouble() if dtype is torch.float64 else nullcontext():
        expected = run_theirs(theirs, batch)
    found = run_ours(model, batch)
    assert set(found) == {kind for kind in expected if kind != "hidden" or "hidden" in found}
    return [(expected[kind][asked(batch, kind)] if kind in PER_TOKEN else expected[kind], found[kind]) for kind in found]


@pytest.mark.parametrize(("dtype", "tolerance"), PRECISIONS, ids=["float32", "float64"])
@pytest.mark.parametrize("reference", REFERENCES, ids=NAMES)
def test_same_function_and_gradients(reference: Reference, dtype: torch.dtype, tolerance: float) -> None:
    theirs = reference.build(dtype)
    model = from_hf(theirs)
    assert next(model.parameters()).dtype == dtype
    probed = []
    for expected, found in outputs(theirs, model, dtype):
        assert relative_error(found, expected) < tolerance
        probe = torch.randn(expected.shape, dtype=dtype)
        probed.append(((expected * probe).sum(), (found * probe).sum()))
    with KeepDouble() if dtype is torch.float64 else nullcontext():
        torch.stack([pair[0] for pair in probed]).sum().backward()
    torch.stack([pair[1] for pair in probed]).sum().backward()
    assert_same_gradients(model, theirs, tolerance)


def assert_same_gradients(model: Any, theirs: Any, tolerance: float) -> None:
    """Of every weight, as a share of the largest."""
    gradients = {name: p.grad if p.grad is not None else torch.zeros_like(p) for name, p in theirs.named_parameters()}
    steps, names = correspondence(model, theirs)
    own = dict(model.named_parameters())
    largest = max(float(grad.abs().max()) for grad in gradients.values())
    compared = 0
    for step in steps:
        if all(names[name] in gradients for name in step.theirs):  # BART's bias of the output is a buffer there
            expected = take(step, lambda name: gradients[names[name]], own[step.ours].shape)
            found = own[step.ours].grad
            found = torch.zeros_like(expected) if found is None else found
            assert (found - expected).abs().max() < 10 * tolerance * largest, step.ours
            compared += 1
    assert compared >= len(own) - 1


@pytest.mark.parametrize("reference", REFERENCES, ids=NAMES)
def test_there_and_back_bit_for_bit(reference: Reference) -> None:
    theirs = reference.build(torch.float32)
    model = from_hf(theirs)
    back = to_hf(model, theirs.config.model_type)
    assert type(back) is type(theirs)
    expected, found = theirs.state_dict(), back.state_dict()
    assert set(found) == set(expected)
    for name, x in expected.items():
        assert torch.equal(found[name], x), name
    again = from_hf(back)
    for name, x in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], x), name


@pytest.mark.parametrize("reference", REFERENCES, ids=NAMES)
def test_from_files(reference: Reference, tmp_path: Any) -> None:
    """The names in files are not always those in memory; shards are small."""
    theirs = reference.build(torch.float32)
    theirs.save_pretrained(tmp_path, max_shard_size="20KB")
    model, expected = from_hf(tmp_path), from_hf(theirs).state_dict()
    assert set(model.state_dict()) == set(expected)
    for name, x in model.state_dict().items():
        assert torch.equal(x, expected[name]), name
