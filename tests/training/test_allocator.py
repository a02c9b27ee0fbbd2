"""The process keeps freed memory: large tensors after the first rarely need new pages."""

import subprocess
import sys

import pytest

COUNT = """
import resource
import torch
from skillweave.training.allocator import keep_freed_memory
assert keep_freed_memory() if {keep} else True
def pages():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.empty(30_000_000).fill_(1)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
print(sum(pages() for _ in range(20)))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's memory alone can be asked")
def test_freed_memory_is_used_again() -> None:
    """By default each of 20 tensors of 120 MB needs new pages. With kept memory, the first one does,
    and a few more where another object took a part of the place."""
    given, kept = (
        int(subprocess.check_output([sys.executable, "-c", COUNT.format(keep=keep)]))
        for keep in (False, True)
    )
    assert 2 * kept < given
