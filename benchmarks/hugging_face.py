"""The tests' random models of Hugging Face and inputs for both sides, for benchmarks too."""

import sys
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1] / "tests"
sys.path[:0] = [str(TESTS), str(TESTS / "interop")]

from hf_references import REFERENCES, KeepDouble, Reference, make_batch, run_ours, run_theirs, true_tokens  # noqa: E402

__all__ = ["REFERENCES", "KeepDouble", "Reference", "make_batch", "run_ours", "run_theirs", "true_tokens"]
