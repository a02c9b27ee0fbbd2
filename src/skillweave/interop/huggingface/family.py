"""Families of Hugging Face models: data that relates their configurations and weights to ours, in
both directions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from importlib import import_module
from pathlib import Path
from re import escape
from typing import Any, NamedTuple, TypeVar

from torch import Size, Tensor

from skillweave.config import ConfigError, choose
from skillweave.config.registry import Registry
from skillweave.interop.checkpoints import without_wrappers
from skillweave.interop.key_map import KeyMap
from skillweave.interop.rules import Rules, with_prefix
from skillweave.model.config import ModelConfig

T = TypeVar("T")
LEGACY = {"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"}
"""Names in the first BERT checkpoints → later ones."""


def unchanged(value: Any) -> Any:
    """The value itself."""
    return value


class Field(NamedTuple):
    """An option of a Hugging Face configuration, and how its value is converted."""

    name: str
    """The dotted path of the option."""
    read: Callable[[Any], Any] = unchanged
    """Their value → ours."""
    write: Callable[[Any], Any] = unchanged
    """Our value → theirs."""
    compare: Callable[[Any], Any] = unchanged
    """The part of our value that must survive an export."""


Fields = Mapping[str, str | Field]
"""Dotted path of an option of ours → option of theirs."""
ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "quick_gelu": "quick_gelu",
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
    "tanh": "tanh",
}
"""Hugging Face's names of nonlinearities → ours."""


def read_activation(name: str) -> str:
    """Our name of a nonlinearity. Raises ConfigError for one without a counterpart."""
    if name not in ACTIVATIONS:
        raise ConfigError(
            f"activation {name!r} has no counterpart; there are {', '.join(ACTIVATIONS)}"
        )
    return ACTIVATIONS[name]


def write_activation(name: str) -> str:
    """The first of Hugging Face's names for a nonlinearity."""
    return next(theirs for theirs, ours in ACTIVATIONS.items() if ours == name)


def activation(name: str) -> Field:
    """An option that names a nonlinearity."""
    return Field(name, read_activation, write_activation)


NOTHING: Mapping[str, Any] = {}
SEARCH = {"beams": "num_beams", "length_penalty": "length_penalty"}
"""Options of the target `lm` that say how a decoder writes, and those of
`generation_config.json`."""
PROBLEMS = {"regression": "regression", "multi_label_classification": "multi_label"}
"""`problem_type` of a classifier → kind of the target that learns it."""
CLASSES = Field(
    "id2label",
    lambda labels: [labels[i] for i in sorted(labels)],
    lambda names: dict(enumerate(names)),
)
"""The names of classes."""

TIED_UNLESS_STORED = Field(
    "tie_word_embeddings", lambda tied: True, lambda tied: True, lambda tied: None
)
"""An output layer that the configuration ties, and that weights of its own untie."""


class ProcessorFile(NamedTuple):
    """A file of a model folder that says how inputs are prepared."""

    read: Callable[[Path, dict[str, Any]], None]
    """Updates settings of our model with what the file of a folder says, if it has the file."""
    write: Callable[[Path, ModelConfig], None]
    """Writes the file of our model into a folder."""


@dataclass(frozen=True, kw_only=True)
class Head:
    """What an architecture adds to the base model of its family."""

    targets: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Kind of a target → options that the architecture fixes."""
    rules: Rules = field(default_factory=dict)
    """For the weights of the targets."""
    fields: Fields = field(default_factory=dict)
    constants: Mapping[str, Any] = field(default_factory=dict)
    """Options of ours that the architecture fixes, by dotted path."""
    required: Mapping[str, Any] = field(default_factory=dict)
    """Options of theirs that must have this value."""
    kind: str = "classification"
    """Kind of the target in whose place stands what belongs to `targets.classification`."""
    tied: Mapping[str, str] = field(default_factory=dict)
    """Name of a tensor → name of the tensor that it must be equal to."""
    unused: tuple[str, ...] = ()
    """Prefixes of tensors that a checkpoint may hold and that the architecture does not use."""
    omitted_by: str = ""
    """Argument of the class that leaves the targets out when it is False."""
    generation: Mapping[str, str] = field(default_factory=dict)
    """Option of the target → option of `generation_config.json`."""
    ends_text: bool | None = None
    """Whether the tokenizer ends a single text with [SEP]; None: if our own processor does."""
    prefix: str = ""
    """Replaces the prefix of the family if it is not empty."""
    family: Family | None = None
    """Replaces the family, for an architecture that has only a part of its base model."""

    def solving(self, problem: str) -> Head:
        """The same head for another `problem_type`, which is that of the configuration."""
        kind, options = PROBLEMS[problem], dict(self.targets["classification"])
        targets = {one: fixed for one, fixed in self.targets.items() if one != "classification"}
        head = replace(self, kind=kind)
        rules = {
            head.renamed(name).replace(f"{kind}.classifier", f"{kind}.output"): sources
            for name, sources in self.rules.items()
        }
        fields = {head.renamed(path): option for path, option in self.fields.items()}
        required = {**self.required, "problem_type": problem}
        if kind == "regression":
            options |= {"mean": 0.0, "deviation": 1.0}
            del fields[f"targets.{kind}.classes"]
            required["num_labels"] = 1
        return replace(
            head, targets={kind: options, **targets}, rules=rules, fields=fields, required=required
        )

    def for_problem(self, config: Any) -> Head:
        """The head for the `problem_type` of a configuration; one label is a regression unless the
        configuration says otherwise."""
        if "problem_type" not in self.required:
            return self
        default = "regression" if config.num_labels == 1 else None
        problem = config.problem_type or default
        return self.solving(problem) if problem in PROBLEMS else self

    def renamed(self, path: str, back: bool = False) -> str:
        """A dotted path that belongs to `targets.classification`, as one of `kind`; or `back`."""
        ours, theirs = "targets.classification.", f"targets.{self.kind}."
        return path.replace(theirs, ours) if back else path.replace(ours, theirs)

    def without_targets(self) -> Head:
        """The same for a model that `omitted_by` left without targets."""
        return replace(self, targets={}, rules={}, fields={})

    @staticmethod
    def pooled(pooler: str, *unused: str) -> Head:
        """The base model with the pooler of its first token, which may be left out."""
        return Head(
            targets={"pooled": {}},
            rules={"targets.pooled.pooler": pooler},
            unused=unused,
            omitted_by="add_pooling_layer",
        )

    @staticmethod
    def masked_language_model(
        transform: str,
        norm: str,
        bias: str,
        output: str,
        words: str,
        *unused: str,
        activation_option: str | None = None,
    ) -> Head:
        """Masked language modelling. The output layer is tied to the word embedding `words`.

        `transform`, `norm`: the dense layer before the output layer, and its norm.

        `activation_option`: gives the nonlinearity of the dense layer; None: it is a GELU.
        """
        tied = {f"{output}.weight": f"{words}.weight"}
        if bias != f"{output}.bias":
            tied[f"{output}.bias"] = bias
        return Head(
            targets={"mlm": {}},
            rules={
                "targets.mlm.transform": transform,
                "targets.mlm.norm": norm,
                "targets.mlm.bias": bias,
            },
            fields=(
                {"targets.mlm.activation": activation(activation_option)}
                if activation_option
                else {}
            ),
            tied=tied,
            unused=unused,
        )

    @staticmethod
    def language_model(words: str, output: str = "lm_head", **options: Any) -> Head:
        """Language modelling. The output layer is tied to the word embedding `words` if
        `tie_word_embeddings` says so. `options`: of the head."""
        return Head(
            targets={"lm": {}},
            rules={"targets.lm.output": output},
            fields={"targets.lm.tied": "tie_word_embeddings"},
            tied={f"{output}.weight": f"{words}.weight"},
            **options,
        )

    @staticmethod
    def written_text(
        tied: Mapping[str, str],
        output: str,
        *,
        options: Mapping[str, Any] = NOTHING,
        rules: Rules | None = None,
        fields: Fields = NOTHING,
        **others: Any,
    ) -> Head:
        """Language modelling by a decoder whose output layer is tied unless the weights differ
        (T5, BART). `options`: of the target. `others`: of the head."""
        return Head(
            targets={"lm": dict(options)},
            rules={"targets.lm.output": output, **(rules or {})},
            fields={"targets.lm.tied": TIED_UNLESS_STORED, **fields},
            tied=tied,
            **others,
        )

    @staticmethod
    def classification(
        classifier: str = "classifier",
        pooler: str | None = None,
        norm: str | None = None,
        *,
        options: Mapping[str, Any] = NOTHING,
        fields: Fields = NOTHING,
        required: Mapping[str, Any] = NOTHING,
        **others: Any,
    ) -> Head:
        """One class of several. `options`: of the target. `others`: of the head."""
        modules = {"classifier": classifier, "pooler": pooler, "norm": norm}
        return Head(
            targets={"classification": {**({} if pooler else {"hidden": False}), **options}},
            rules={
                f"targets.classification.{name}": module
                for name, module in modules.items()
                if module
            },
            fields={"targets.classification.classes": CLASSES, **fields},
            required={"problem_type": "single_label_classification", **required},
            **others,
        )

    @staticmethod
    def token_classification(classifier: str = "classifier", **others: Any) -> Head:
        """A class of each token. `others`: of the head."""
        return Head(
            targets={"token_labels": {}},
            rules={"targets.token_labels.classifier": classifier},
            fields={"targets.token_labels.classes": CLASSES},
            **others,
        )

    @staticmethod
    def question_answering(**others: Any) -> Head:
        """The first and last token of an answer in a text. `others`: of the head."""
        return Head(
            targets={"span": {}},
            rules={"targets.span.classifier": "qa_outputs"},
            **others,
        )

    @staticmethod
    def token_heads(name: str, *unused: str) -> dict[str, Head]:
        """Token classification and question answering for a family whose architectures begin with
        `name`."""
        return {
            f"{name}ForTokenClassification": Head.token_classification(unused=unused),
            f"{name}ForQuestionAnswering": Head.question_answering(unused=unused),
        }


@dataclass(frozen=True, kw_only=True)
class Family:
    """The models of one `model_type`."""

    model_type: str
    fields: Fields
    rules: Rules
    """For the weights of the base model, without the prefix."""
    heads: Mapping[str, Head] = field(default_factory=dict)
    """Architecture, which is the name of its class → what it adds to the base model."""
    prefix: str = ""
    """Begins the names of the base model's weights if there is a head (`base_model_prefix`)."""
    constants: Mapping[str, Any] = field(default_factory=dict)
    """Options of ours that the family fixes, by dotted path."""
    required: Mapping[str, Any] = field(default_factory=dict)
    """Options of theirs that must have this value, by dotted path."""
    read_options: Callable[[Any], Mapping[str, Any]] = lambda config: {}
    """Their configuration → options of ours that depend on several of theirs, by dotted path; those
    of targets that the head does not have are ignored."""
    write_options: Callable[[Mapping[str, Any]], Mapping[str, Any]] = lambda options: {}
    """Our options → options of theirs that depend on several of ours, both by dotted path."""
    spans: tuple[Mapping[str, Any], ...] = ({"modality": "text"},)
    """Of the layout of the converted model's task."""
    bidirectional: str = ""
    """Option of theirs that lets causal spans attend in both directions."""
    ignored: tuple[str, ...] = ()
    """Regular expressions of tensors that hold no weight."""
    computed: Mapping[str, Callable[[Size], Tensor]] = field(default_factory=dict)
    """Tensors that are not learned, without the prefix → how they are made from their shape. A
    checkpoint may lack them."""
    processor_files: tuple[ProcessorFile, ...] = ()
    tokenizer_class: str | None = None
    """The class that reads an exported tokenizer; None: the one that reads any tokenizer."""
    text_config: str = ""
    """The part of their configuration that holds the ids of special tokens."""
    module: str = "transformers"
    """The Python module that has the architectures."""
    refused: str = ""
    """Why no model of the family has a counterpart here, and what to do, if that is so."""

    def register(self) -> None:
        """Add to `FAMILIES`. Raises ValueError if the `model_type` is taken."""
        FAMILIES.register(self.model_type)(self)

    def architecture(self, name: str) -> Any:
        """The class of an architecture."""
        return getattr(import_module(self.module), name)

    def all_fields(self, head: Head) -> dict[str, Field]:
        """Those of the base model and of the head."""
        both = {**self.fields, **head.fields}
        return {
            path: Field(option) if isinstance(option, str) else option
            for path, option in both.items()
        }

    def key_map(self, head: Head) -> KeyMap:
        """The key map of an architecture."""
        unused = tuple(f"^{escape(prefix)}" for prefix in head.unused)
        rules = {**with_prefix(self.prefix, self.rules), **head.rules}
        computed = {self.prefix + name: make for name, make in self.computed.items()}
        return KeyMap(rules, head.tied, (*self.ignored, *unused), computed)

    def canonical_names(self, stored: Iterable[str], prefix: str = "") -> dict[str, str]:
        """Name of each tensor as in the rules → its name in a checkpoint or model.

        `prefix`: that of the head. The names of a base model without a head have no prefix.
        """
        names = {}
        for name, original in without_wrappers(stored).items():
            own = bool(prefix) and name.startswith(prefix)
            names[self.prefix + name.removeprefix(prefix) if own else name] = original
        added = "" if any(name.startswith(self.prefix) for name in names) else self.prefix
        return {added + _modern(name): original for name, original in names.items()}

    def read_config(self, config: Any, head: Head) -> ModelConfig:
        """Our configuration of one of theirs. Raises ConfigError for an option that has no
        counterpart here."""
        spans = self.spans
        if self.bidirectional and look_up(config, self.bidirectional):
            spans = tuple(without(span, "attention") for span in spans)
        required = {**self.required, **head.required}
        if any(span.get("attention") == "causal" for span in spans):
            required["is_causal"] = True  # Transformers reads this option of any model
        for option, expected in required.items():
            value = look_up(config, option)
            if value not in (expected, None):
                raise ConfigError(
                    f"{self.model_type}: {option}={value!r} has no counterpart here; it must be"
                    f" {expected!r}"
                )
        options = {**self.constants, **head.constants}
        options |= {head.renamed(path): x for path, x in self.read_options(config).items()}
        for path, option in self.all_fields(head).items():
            options[path] = option.read(look_up(config, option.name))
        task = {"spans": list(spans), "targets": dict.fromkeys(head.targets, 1.0)}
        settings: dict[str, Any] = {
            "targets": {kind: dict(fixed) for kind, fixed in head.targets.items()},
            "tasks": {"_".join(head.targets) or "encode": task},
        }
        for path, value in options.items():
            if not path.startswith("targets.") or path.split(".")[1] in head.targets:
                put(settings, path, value)
        return ModelConfig.parse(settings, f"Hugging Face {self.model_type}")

    def write_config(self, options: Mapping[str, Any], head: Head) -> dict[str, Any]:
        """The options of their configuration, from ours by dotted path."""
        found: dict[str, Any] = {}
        for path, option in self.all_fields(head).items():
            if path in options:
                put(found, option.name, option.write(options[path]))
        options = {head.renamed(path, back=True): value for path, value in options.items()}
        for path, value in self.write_options(options).items():
            put(found, path, value)
        if head.kind != "classification":
            found |= {o: x for o, x in head.required.items() if o in ("problem_type", "num_labels")}
        return found


FAMILIES: Registry[Family] = Registry("family")
"""`model_type` → family. Of several families that can express a model the first is chosen."""


def find_head(config: Any, architecture: str | None = None) -> tuple[Family, Head]:
    """The family and head of a Hugging Face configuration.

    `architecture`: None for the first one that the configuration names. Raises ConfigError for one
    that is not known.
    """
    family = FAMILIES.find(config.model_type)
    if family.refused:
        raise ConfigError(f"{family.model_type}: {family.refused}")
    name = architecture or next(iter(config.architectures or []), "")
    if not name:
        raise ConfigError(
            'the configuration names no architecture; add "architectures": [one of'
            f" {', '.join(family.heads)}] to it"
        )
    head = choose(family.heads, name, f"architecture of family {family.model_type!r}")
    head = head.for_problem(config)
    return head.family or family, head


def _modern(name: str) -> str:
    for old, new in LEGACY.items():
        name = name.replace(old, new)
    return name


def look_up(config: Any, path: str) -> Any:
    """An option of theirs by dotted path; None if it is not set."""
    for name in path.split("."):
        config = getattr(config, name, None)
    return config


def put(settings: dict[str, Any], path: str, value: Any) -> None:
    """Set `settings[a][b]` for the path `a.b`."""
    *parents, name = path.split(".")
    for parent in parents:
        settings = settings.setdefault(parent, {})
    settings[name] = value


def prefixed(prefix: str, **options: T) -> dict[str, T]:
    """The options of one part of a configuration, such as `encoder`, by dotted path."""
    return {f"{prefix}.{name}": value for name, value in options.items()}


def without(options: Mapping[str, T], *names: str) -> dict[str, T]:
    """All options but those named."""
    return {name: value for name, value in options.items() if name not in names}
