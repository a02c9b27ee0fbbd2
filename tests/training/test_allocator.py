"""Memory that is freed stays with the process: large tensors after the first seldom cost new
pages."""

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
    """Each of 20 tensors of 120 MB costs new pages, or the first and a few more, in whose place
    what lies beside them took a little."""
    given, kept = (
        int(subprocess.check_output([sys.executable, "-c", COUNT.format(keep=keep)]))
        for keep in (False, True)
    )
    assert 2 * kept < given
