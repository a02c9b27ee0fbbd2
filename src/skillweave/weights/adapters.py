"""What tuning changed of a model, stored without the model: a small file, and a reference to the
base that it changes.

Names and file are those of peft's adapters, so that peft can read what LoRA learned.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from skillweave.config.errors import reading
from skillweave.layers.low_rank import add_low_rank
from skillweave.storage import write_json
from skillweave.weights.files import FILE, WeightsError, fingerprint, read_weights, write_weights

ADAPTER_FILE = "adapter_model.safetensors"
REFERENCE_FILE = "tuning.json"
PREFIX = "base_model.model."
LOW_RANK = re.compile(r"(.+)\.lora_([AB])\.weight")


@dataclass(frozen=True)
class Adapter:
    """`base`: folder of the model that was tuned. `frozen`: fingerprint of its weights that tuning
    left alone.

    `tensors`: by name, they replace the base's or are new; `X.lora_A.weight` and `X.lora_B.weight`
    are instead multiplied, times `scale`, and added to `X.weight`.
    """

    base: str
    frozen: str
    tensors: Mapping[str, Tensor]
    scale: float = 1.0

    @classmethod
    def read(cls, folder: Path) -> Adapter:
        """What a tuned model's folder holds. Raises WeightsError when it is not one, or not
        whole."""
        if not is_tuned(folder):
            raise WeightsError(f"{folder}: not a tuned model (it has no {REFERENCE_FILE})")
        stored = read_weights(folder / ADAPTER_FILE)
        tensors = {name.removeprefix(PREFIX): x for name, x in stored.items()}
        file = folder / REFERENCE_FILE
        with reading(file, "JSON with base, frozen, scale and tensors; restore it", WeightsError):
            told = json.loads(file.read_bytes())
            lost = sorted({*told["tensors"]} ^ tensors.keys())
            found = cls(str(told["base"]), str(told["frozen"]), tensors, float(told["scale"]))
        if lost:
            raise WeightsError(
                f"{folder / ADAPTER_FILE}: not the tensors that {REFERENCE_FILE} lists; they differ"
                f" in {', '.join(lost[:5])} ({len(lost)} in all); restore both files"
            )
        return found

    def write(self, folder: Path) -> None:
        """Write both files into a folder. Raises OSError when it cannot be written."""
        write_weights(
            {PREFIX + name: x for name, x in self.tensors.items()},
            folder / ADAPTER_FILE,
            {"format": "pt"},
        )
        told = {
            "base": self.base,
            "frozen": self.frozen,
            "scale": self.scale,
            "tensors": sorted(self.tensors),
        }
        write_json(folder / REFERENCE_FILE, told)

    def apply(self, base: Mapping[str, Tensor], wanted: Collection[str]) -> dict[str, Tensor]:
        """The `wanted` weights of the tuned model; those that tuning left alone are the base's own
        tensors."""
        result = {name: base[name] for name in wanted if name in base}
        device = next((x.device for x in base.values()), None)
        own = {name: x.to(device) for name, x in self.tensors.items()}
        result |= {name: x for name, x in own.items() if name in wanted}
        for name, down in own.items():
            pair = LOW_RANK.fullmatch(name)
            if pair and pair[2] == "A" and (weight := f"{pair[1]}.weight") in wanted:
                result[weight] = add_low_rank(
                    base[weight].to(down.dtype), down, own[f"{pair[1]}.lora_B.weight"], self.scale
                )
        return result

    def require(self, base: Mapping[str, Tensor], wanted: Collection[str]) -> None:
        """Raise WeightsError when the base has other weights than the model that was tuned."""
        if frozen_part(base, wanted, self.tensors) != self.frozen:
            raise WeightsError(
                "the model was tuned on other weights than these, or in another precision: on"
                f" those that {self.base} held then; give that model (`base` in {REFERENCE_FILE}"
                " says where it is)"
            )


def frozen_part(
    base: Mapping[str, Tensor], wanted: Collection[str], changed: Collection[str]
) -> str:
    """The fingerprint of the base's weights that a tuned model stands on: the `wanted` ones that
    are not `changed`."""
    return fingerprint(
        {name: base[name] for name in wanted if name in base and name not in changed}
    )


def is_tuned(folder: Path) -> bool:
    """Whether a model folder holds a tuned model."""
    return (folder / REFERENCE_FILE).is_file()


def weights_file(folder: Path) -> Path:
    """The file of a model folder that holds weights."""
    return folder / (ADAPTER_FILE if is_tuned(folder) else FILE)


def read_state(
    folder: Path, wanted: Collection[str], only: Collection[str] | None = None
) -> dict[str, Tensor]:
    """The weights of a model folder: all of its file's, or, of a tuned model, the `wanted` ones,
    put together with its base's.

    `only`: read no more than these. Then the base, most of which is not read, is not checked to be
    the one that was tuned. Raises WeightsError for a file or base that is absent, damaged or
    another one.
    """
    if not is_tuned(folder):
        return read_weights(folder / FILE, only)
    adapter = Adapter.read(folder)
    base = Path(adapter.base)
    if not base.is_dir():
        raise WeightsError(
            f"{folder}: a tuned model, whose base {base} is not there; correct `base` in"
            f" {folder / REFERENCE_FILE}, or load the base where it is and give it to"
            " skillweave.with_tuning"
        )
    if only is not None:
        return adapter.apply(
            read_state(base, wanted, [name for name in only if name not in adapter.tensors]), only
        )
    state = read_state(base, wanted)
    adapter.require(state, wanted)
    return adapter.apply(state, wanted)
