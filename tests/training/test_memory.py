"""Memory that is freed stays with the process: the second large tensor costs no new pages."""

import subprocess
import sys

import pytest

COUNT = """
import resource
import torch
from skillweave.training.memory import keep_freed_memory
assert keep_freed_memory() if {keep} else True
def pages():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.empty(30_000_000).fill_(1)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
pages()
print(pages())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's memory alone can be asked")
def test_freed_memory_is_used_again() -> None:
    given, kept = (int(subprocess.check_output([sys.executable, "-c", COUNT.format(keep=keep)])) for keep in (False, True))
    assert kept < 1_000 < given  # 120 MB are 29,297 pages of 4 KiB, or 58 of 2 MiB where the system gives such
