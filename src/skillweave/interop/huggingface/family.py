"""What a family is: data that maps its configurations and its weights, in both directions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from skillweave.config import ConfigError
from skillweave.interop.huggingface.engine import Rule
from skillweave.model.config import ModelConfig


def _same(value: Any) -> Any:
    return value


OTHER_PROBLEMS = ("regression", "multi_label_classification")
"""What their classifiers may learn beside one class of several."""


class Field(NamedTuple):
    """An option of theirs, by its dotted path, and what it means here."""

    theirs: str
    to_ours: Callable[[Any], Any] = _same
    to_theirs: Callable[[Any], Any] = _same


ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "quick_gelu": "quick_gelu",
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
}
"""Their names of nonlinearities → ours."""


def _activation(name: str) -> str:
    if name not in ACTIVATIONS:
        raise ConfigError(
            f"activation {name!r} has no counterpart; there are {', '.join(ACTIVATIONS)}"
        )
    return ACTIVATIONS[name]


def activation(theirs: str) -> Field:
    """The nonlinearity."""
    return Field(
        theirs,
        _activation,
        lambda ours: next(name for name, own in ACTIVATIONS.items() if own == ours),
    )


CLASSES = Field(
    "id2label",
    lambda labels: [labels[i] for i in sorted(labels)],
    lambda names: dict(enumerate(names)),
)
"""The names of classes."""


@dataclass(frozen=True)
class Head:
    """What an architecture puts on the family's encoder.

    `targets`: their kinds → options that the architecture fixes. `rules`, `fields`, `constants`: as
    of the family, beside its own. `tied`: a tensor of theirs that is another one. `unused`:
    beginnings of names that its checkpoints may hold and it does not read. `optional`: the option
    by which theirs is made without the targets, where they are left out. `family`: what stands in
    place of the family that the architecture belongs to, where it has a part of it alone. `base`:
    what it writes for the family's base, if that is another.
    """

    targets: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    rules: tuple[Rule, ...] = ()
    fields: Mapping[str, str | Field] = field(default_factory=dict)
    tied: Mapping[str, str] = field(default_factory=dict)
    unused: tuple[str, ...] = ()
    optional: str = ""
    constants: Mapping[str, Any] = field(default_factory=dict)
    family: Family | None = None
    base: str = ""

    def bare(self) -> Head:
        """Without its targets."""
        return replace(self, targets={}, rules=(), fields={})


@dataclass(frozen=True)
class Family:
    """A kind of model, by their `model_type`.

    `base`: what stands before the names of the encoder's weights where there is a head. `fields`:
    path of an option of ours → theirs. `constants`: options of ours that the family fixes.
    `required`: options of theirs that must have this value. `ours`, `theirs`: options that more
    than one field decides, from their configuration and from ours (by dotted path); those of
    targets count where the head has them. `spans`: of the layout. `ignored`: patterns of names that
    hold no weight.
    """

    model_type: str
    fields: Mapping[str, str | Field]
    rules: tuple[Rule, ...]
    heads: Mapping[str, Head]
    base: str = ""
    constants: Mapping[str, Any] = field(default_factory=dict)
    required: Mapping[str, Any] = field(default_factory=dict)
    ours: Callable[[Any], Mapping[str, Any]] = lambda config: {}
    theirs: Callable[[Mapping[str, Any]], Mapping[str, Any]] = lambda ours: {}
    spans: tuple[Mapping[str, Any], ...] = ({"modality": "text"},)
    ignored: tuple[str, ...] = ()

    def all_fields(self, head: Head) -> dict[str, Field]:
        """Of the encoder and of the head."""
        both = {**self.fields, **head.fields}
        return {
            ours: Field(theirs) if isinstance(theirs, str) else theirs
            for ours, theirs in both.items()
        }

    def all_rules(self, head: Head) -> tuple[Rule, ...]:
        """Of the encoder and of the head."""
        return (*self.rules, *head.rules)

    def read(self, config: Any, head: Head) -> ModelConfig:
        """Our configuration of theirs. Raises ConfigError for an option that has no counterpart
        here."""
        for option, expected in self.required.items():
            if (value := look_up(config, option)) not in (expected, None):
                raise ConfigError(
                    f"{self.model_type}: {option}={value!r} has no counterpart here; it must be"
                    f" {expected!r}"
                )
        problem = look_up(config, "problem_type")
        if "classification" in head.targets and problem in OTHER_PROBLEMS:
            raise ConfigError(
                f"{self.model_type}: problem_type={problem!r} has no counterpart here; its head"
                " tells one class"
            )
        flat = {**self.constants, **head.constants, **self.ours(config)}
        flat |= {
            path: one.to_ours(look_up(config, one.theirs))
            for path, one in self.all_fields(head).items()
        }
        data: dict[str, Any] = {
            "targets": {kind: dict(options) for kind, options in head.targets.items()}
        }
        for path, value in flat.items():
            if not path.startswith("targets.") or path.split(".")[1] in head.targets:
                put(data, path, value)
        task = {
            "spans": [dict(span) for span in self.spans],
            "targets": dict.fromkeys(head.targets, 1.0),
        }
        data["tasks"] = {"_".join(head.targets) or "encode": task}
        return ModelConfig.parse(data, f"Hugging Face {self.model_type}")

    def write(self, ours: Mapping[str, Any], head: Head) -> dict[str, Any]:
        """The options of their configuration, from ours by dotted path."""
        found: dict[str, Any] = {}
        given = {
            one.theirs: one.to_theirs(ours[path])
            for path, one in self.all_fields(head).items()
            if path in ours
        }
        for path, value in (given | dict(self.theirs(ours))).items():
            put(found, path, value)
        return found


def look_up(config: Any, path: str) -> Any:
    """An option of theirs by dotted path; None where it is not set."""
    for step in path.split("."):
        config = getattr(config, step, None)
    return config


def put(data: dict[str, Any], path: str, value: Any) -> None:
    """Set `data[a][b]` for the path `a.b`."""
    *above, last = path.split(".")
    for step in above:
        data = data.setdefault(step, {})
    data[last] = value


__all__ = ["ACTIVATIONS", "CLASSES", "Family", "Field", "Head", "activation", "look_up", "put"]
