"""One thread and fixed seeds for every test; property tests are the same on every run."""

import pytest
import torch
from hypothesis import settings

torch.set_num_threads(1)
settings.register_profile(
    "skillweave", deadline=None, derandomize=True, database=None, max_examples=25
)
settings.load_profile("skillweave")


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)
