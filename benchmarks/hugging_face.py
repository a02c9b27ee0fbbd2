"""For benchmarks against Hugging Face: the tests' random models, their inputs and comparison, and
small presets."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import skillweave
from skillweave.model.config import ModelConfig

TESTS = Path(__file__).resolve().parents[1] / "tests"
sys.path.insert(0, str(TESTS / "helpers"))

from hf_parity import PRECISIONS, compare  # noqa: E402
from hf_references import REFERENCES, Reference, make_batch, run_ours, run_theirs  # noqa: E402

PRESETS = Path(skillweave.__file__).parent / "presets"


def small(data: dict[str, Any], most: Mapping[str, int]) -> ModelConfig:
    """A configuration whose keys of `most` are no larger than it says, with two classes where it
    leaves them open."""

    def capped(value: Any) -> Any:
        # a dense layer has no experts to be fewer
        if not isinstance(value, dict) or value.get("route") == "dense":
            return value
        return {
            k: min(v, most[k]) if k in most and isinstance(v, int) else capped(v)
            for k, v in value.items()
        }

    data = capped(ModelConfig.parse(data).model_dump(mode="json"))  # with its defaults
    for target in data["targets"].values():
        if target["kind"] == "classification":
            target["classes"] = target["classes"] or ["a", "b"]
    return ModelConfig.parse(data)


__all__ = [
    "PRECISIONS",
    "PRESETS",
    "REFERENCES",
    "Reference",
    "compare",
    "make_batch",
    "run_ours",
    "run_theirs",
    "small",
]
