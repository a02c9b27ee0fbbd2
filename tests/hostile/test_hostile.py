"""Damaged inputs give errors of this package: no stack trace, crash, hang or use of much memory."""

import hostile
from loaders import LOADERS


def test_damaged_inputs_are_told():
    weights = {name: loader.weight for name, loader in LOADERS.items()}
    found = list(hostile.run(weights, 3000, 2))
    assert len(found) >= 2900
    assert not [case for case in found if case["fault"]]
