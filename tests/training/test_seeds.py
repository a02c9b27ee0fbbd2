"""Seeds of steps."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from skillweave.training.seeds import derive_seed, route_noise, seed_dropout


@given(st.tuples(*[st.integers(0, 2**31)] * 4), st.tuples(*[st.integers(0, 2**31)] * 4))
def test_seeds_differ_where_their_numbers_do(one, other):
    assert (derive_seed(*one) == derive_seed(*other)) == (one == other)
    assert 0 <= derive_seed(*one) < 2**63


def test_noise_is_equal_on_all_processes_and_dropout_is_not():
    def dropout(step, rank):
        seed_dropout(0, step, rank)
        return torch.rand(4)

    draws = [torch.rand(4, generator=route_noise(0, step)) for step in (0, 0, 1)]
    assert torch.equal(draws[0], draws[1]) and not torch.equal(draws[0], draws[2])
    assert torch.equal(dropout(3, 0), dropout(3, 0))
    assert not torch.equal(dropout(3, 0), dropout(3, 1)) and not torch.equal(
        dropout(3, 0), dropout(4, 0)
    )
