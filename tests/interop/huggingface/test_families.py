"""Every architecture against Hugging Face with random weights: the same outputs and gradients, and
the same weights, bit for bit, after a conversion in both directions."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from hf_parity import PRECISIONS, compare
from hf_references import REFERENCES, Reference

from skillweave.interop.checkpoints import Checkpoint
from skillweave.interop.huggingface import from_hf, to_hf
from skillweave.interop.huggingface.exporter import export_folder

_seen: Counter[str] = Counter()


def _name(reference: Reference) -> str:
    _seen[reference.architecture] += 1
    number = _seen[reference.architecture]
    return reference.architecture + (f"-{number}" if number > 1 else "")


NAMES = [_name(reference) for reference in REFERENCES]


@pytest.mark.parametrize(("dtype", "tolerance"), PRECISIONS.items(), ids=["float32", "float64"])
@pytest.mark.parametrize("reference", REFERENCES, ids=NAMES)
def test_same_function_and_gradients(
    reference: Reference, dtype: torch.dtype, tolerance: float
) -> None:
    errors = compare(reference, dtype)
    for kind, error in errors.outputs.items():
        assert error < tolerance, kind
    for name, error in errors.gradients.items():
        assert error < tolerance, name


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
    """Names in files can differ from those in memory."""
    theirs = reference.build(torch.float32)
    theirs.save_pretrained(tmp_path, max_shard_size="20KB")
    model, expected = from_hf(tmp_path), from_hf(theirs).state_dict()
    assert set(model.state_dict()) == set(expected)
    for name, x in model.state_dict().items():
        assert torch.equal(x, expected[name]), name


@pytest.mark.parametrize("reference", REFERENCES, ids=NAMES)
def test_files_are_those_that_transformers_writes(reference: Reference, tmp_path: Path) -> None:
    """The same tensors with the same names, here in several files."""
    theirs = reference.build(torch.float32)
    theirs.save_pretrained(tmp_path / "theirs")
    from_hf(theirs).save_pretrained(tmp_path / "ours")
    export_folder(tmp_path / "ours", tmp_path / "back", theirs.config.model_type, 2_000)
    expected, found = (Checkpoint(tmp_path / name) for name in ("theirs", "back"))
    assert set(found) == set(expected)
    for name in expected:
        assert torch.equal(found[name], expected[name]), name
    assert len({*found.files.values()}) > 1
    loaded = [
        type(theirs).from_pretrained(tmp_path / name, **reference.flags).state_dict()
        for name in ("theirs", "back")
    ]
    # Transformers changes some tensors when it reads them: the row of padding, norms.
    for name, x in theirs.state_dict().items():
        assert torch.equal(loaded[1][name], x) or not torch.equal(loaded[0][name], x), name
