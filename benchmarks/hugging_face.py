"""For benchmarks against Hugging Face: the reference models of the tests, their inputs and
comparison, and small presets."""

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


def small(data: dict[str, Any], limits: Mapping[str, int]) -> ModelConfig:
    """A configuration with options of at most these values, and two classes if it has none."""

    def limited(value: Any) -> Any:
        # Dense layers have no experts to limit.
        if not isinstance(value, dict) or value.get("route") == "dense":
            return value
        return {
            key: min(x, limits[key]) if key in limits and isinstance(x, int) else limited(x)
            for key, x in value.items()
        }

    settings = limited(ModelConfig.parse(data).model_dump(mode="json"))
    for target in settings["targets"].values():
        if target["kind"] == "classification":
            target["classes"] = target["classes"] or ["a", "b"]
    return ModelConfig.parse(settings)


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
