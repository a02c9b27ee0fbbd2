"""The model's configuration: streams, encoder and targets, picked by name (TencentPretrain section 3)."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, Field, NonNegativeInt, PositiveFloat, field_serializer, field_validator, model_validator
from pydantic_core import PydanticKnownError

from skillweave.batch import SPAN_NAMES, Attention, Layout, Modality, Role, Span
from skillweave.config.base import Config, ConfigError, Positive, Share, choose, nearest
from skillweave.config.streams import Streams, TextStream, tokenizer_asset
from skillweave.config.targets import UNITS_ASSET, MaskedLanguageTarget, MaskedUnitTarget, PromptTarget, Target


def _span_name(name: str) -> str:
    if name not in SPAN_NAMES:
        raise PydanticKnownError("literal_error", {"expected": ", ".join(SPAN_NAMES)})
    return name


SpanName = Annotated[str, AfterValidator(_span_name)]


class RouteConfig(Config):
    """How the experts of one sparse place are mixed (Uni-Perceiver-MoE section 3.2; `skill`: SkillNet section 3.2)."""

    route: Literal["dense", "skill", "token", "context", "modality", "task", "attribute", "follow"] = "dense"
    """`dense`: one expert. `skill`: one expert per skill, picked by the table. In the others a learned gate picks: `token` from
    the token, `context` from the token and its sample's inputs, `modality` and `task` by a learned vector each, `attribute` from
    what the layout says. `follow`: the choice of the linear layer before it in the same part."""
    skills: dict[SpanName, str] | None = None
    """Route `skill`: modality → skill; absent, each is a skill of its own (SkillNet Table 1). Spans that are targets or
    causal may have their own, as in `text/target: read`, `text/target/causal: write`."""
    experts: Positive = 5
    """Learned gates: how many experts (SkillNet section 5.1: as many as there are skills; Uni-Perceiver-MoE: 8)."""
    active: Positive = 2
    """Learned gates: how many of them are used at once; as gates sum to 1, with 1 no task teaches the gate."""
    noise: float = Field(default=0.0, ge=0)
    """Learned gates: standard deviation of the normal noise on the logits in training, the same on all ranks (authors: 0.125)."""
    balance: float = Field(default=0.0, ge=0)
    """Routes `token` and `context`: weight of the loss that evens the experts' load; 0 for none."""
    attributes: Literal["paper", "authors", "extended"] = "paper"
    """Route `attribute`: the 8 bits of Uni-Perceiver-MoE Table 2; those of its authors' code, for their weights; or the 8 and 9
    more, which tell sound, video and code apart."""

    @property
    def learned(self) -> bool:
        """Whether a gate is learned."""
        return self.route not in ("dense", "skill", "follow")

    @model_validator(mode="after")
    def _consistent(self) -> RouteConfig:
        if self.learned and self.active > self.experts:
            raise ValueError(f"active {self.active} is more than the {self.experts} experts there are; lower it or add experts")
        if self.route == "follow" and self != RouteConfig.model_construct(route="follow"):
            raise ValueError("route 'follow' has no options of its own; set them where the choice is made")
        return self


DENSE, FOLLOW = RouteConfig(), RouteConfig(route="follow")
LEADERS = {"attention_output": "qkv", "feed_forward_out": "feed_forward_in"}
"""Linear layer that may follow → the one before it in the same part."""
PLACES = ("qkv", "attention_output", "feed_forward_in", "feed_forward_out", "feed_forward")
"""Where a layer can be sparse."""


class SparseConfig(Config):
    """Where the encoder is sparse; everything not named is dense and shared."""

    qkv: RouteConfig = DENSE
    """Query, key and value projections: `skill` makes SkillNet (section 3.2)."""
    attention_output: RouteConfig = DENSE
    """The projection after attention; `follow` takes the choice of `qkv`."""
    feed_forward_in: RouteConfig = DENSE
    """The feed-forward's first linear layer."""
    feed_forward_out: RouteConfig = DENSE
    """The feed-forward's second linear layer; `follow` takes the choice of `feed_forward_in`."""
    linears: RouteConfig = DENSE
    """All four at once, as in Uni-Perceiver-MoE: `qkv` and `feed_forward_in` with this route, the others follow."""
    feed_forward: RouteConfig = DENSE
    """Whole feed-forwards mixed after their nonlinearity: `token` makes the MoE baseline (SkillNet section 5.1)."""
    every: Positive = 1
    """Sparse in every so many layers, from the first on; the others are dense (Uni-Perceiver-MoE-B and -L: 2)."""

    @model_validator(mode="after")
    def _consistent(self) -> SparseConfig:
        faults = list(self._faults())
        if faults:
            raise ValueError("; ".join(faults))
        return self

    def _faults(self) -> Iterator[str]:
        named = [place for place in PLACES if getattr(self, place).route != "dense"]
        inside = [place for place in ("linears", "feed_forward_in", "feed_forward_out") if getattr(self, place).route != "dense"]
        for place in ("linears", *named):
            if getattr(self, place).route == "follow" and place not in LEADERS:
                yield f"{place} has nothing before it to follow; name the route itself"
        for place in named:
            if self.linears.route != "dense" and place != "feed_forward":
                yield f"linears sets {place} too; give one of them (in a recipe with a base, `{place}: null` takes it away)"
        if self.feed_forward.route != "dense" and inside:
            yield f"feed_forward mixes whole feed-forwards, {inside[0]} the layers inside them; give one of them"

    def at(self, layer: int) -> dict[str, RouteConfig]:
        """The route of each of `PLACES` in a layer, counted from 0: what follows a dense layer is dense."""
        if layer % self.every:
            return dict.fromkeys(PLACES, DENSE)
        routes = {place: getattr(self, place) for place in PLACES}
        if self.linears.route != "dense":
            routes |= dict.fromkeys(LEADERS.values(), self.linears) | dict.fromkeys(LEADERS, FOLLOW)
        behind_dense = [place for place, leader in LEADERS.items() if routes[leader].route == "dense"]
        return routes | {place: DENSE for place in behind_dense if routes[place].route == "follow"}


class EncoderConfig(Config):
    """The encoder all streams share."""

    name: Literal["transformer"] = "transformer"
    """Encoder module."""
    layers: Positive = 12
    """Number of blocks."""
    heads: Positive = 12
    """Attention heads; the model's width must be a multiple."""
    feed_forward: Positive = 3072
    """Width inside the feed-forward."""
    activation: Literal["gelu", "relu", "silu"] = "gelu"
    """The feed-forward's nonlinearity."""
    norm_position: Literal["pre", "post"] = "post"
    """Layer normalisation before each part (with a last one at the end) or after each residual sum (BERT)."""
    norm_epsilon: PositiveFloat = 1e-12
    """Added to the variance in layer normalisation."""
    dropout: Share = 0.1
    """Dropout of embeddings and of each part's output."""
    attention_dropout: Share = 0.1
    """Dropout of attention weights."""
    prompts: NonNegativeInt = 0
    """Learned vectors that stand before each layer's keys and values; set by the recipe's `tuning`."""
    sparse: SparseConfig = SparseConfig()
    """Where experts stand and which route mixes them."""


class SpanConfig(Config):
    """A span of a task's layout."""

    modality: Modality
    """What the span holds."""
    role: Role = Role.INPUT
    """Given or asked for."""
    encoder_pass: int = Field(default=0, ge=0)
    """Which pass of the encoder it belongs to."""
    attention: Attention = Attention.FULL
    """Both ways or causal."""


class ModelTask(Config):
    """What the model must know of a task: its spans and its targets."""

    spans: list[SpanConfig] = Field(default=[], validate_default=True)
    """In the order of the sequence; at least one."""
    targets: dict[str, float]
    """Names in `targets`, with the weight of each one's loss."""

    @field_validator("spans")
    @classmethod
    def _some(cls, spans: list[SpanConfig]) -> list[SpanConfig]:
        if not spans:
            raise ValueError(
                "a task without a layout; name its spans, such as [{modality: image}, {modality: text, role: target}]"
            )
        return spans

    def layout(self, name: str) -> Layout:
        """The layout of the task under its name; lengths are not known yet."""
        return Layout(name, tuple(Span(s.modality, s.role, s.encoder_pass, s.attention) for s in self.spans))


class ModelConfig(Config):
    """A model: what is declared once is shared, what stands inside a stream is private to it."""

    width: Positive = 768
    """Size of the vectors between components."""
    streams: Streams
    """Embeddings, by modality."""
    shared: list[Literal["word"]] = []
    """Embedding modules of the same name that streams share: with `word`, code uses text's wordpieces."""
    encoder: EncoderConfig = EncoderConfig()
    """The encoder."""
    targets: dict[str, Target] = {}
    """What is learned, by a name of your choice; `kind` defaults to that name."""
    tasks: dict[str, ModelTask] = {}
    """Filled in from the recipe's tasks."""
    sliced: bool = False
    """Whether the weights are no more than the tasks activate; set where a slice is loaded or carved."""
    initializer_range: PositiveFloat | None = None
    """Standard deviation of the normal initialisation; when absent BERT's 0.02 at width 768, and as 1 / √width elsewhere."""

    @model_validator(mode="before")
    @classmethod
    def _target_kinds(cls, data: Any) -> Any:
        targets = data.get("targets") if isinstance(data, dict) else None
        if isinstance(targets, dict):
            specs = {name: spec or {} for name, spec in targets.items()}
            kinds = {name: {"kind": name, **spec} if isinstance(spec, dict) else spec for name, spec in specs.items()}
            return {**data, "targets": kinds}
        return data

    @model_validator(mode="after")
    def _consistent(self) -> ModelConfig:
        faults = [*self._part_faults(), *(fault for name in self.tasks for fault in self._task_faults(name))]
        if faults:
            raise ValueError("; ".join(faults))
        return self

    def _part_faults(self) -> Iterator[str]:
        """What does not go together among width, streams and targets."""
        present = self.streams.present()
        if self.width % self.encoder.heads:
            yield f"width {self.width} is not a multiple of {self.encoder.heads} heads"
        if "word" in self.shared and not self.sliced and not (Modality.TEXT in present and Modality.CODE in present):
            yield "shared 'word' needs both a text and a code stream"
        for modality, stream in present.items():
            if not {"word", "patch", "waveform", "tubelet"}.intersection(stream.embedding):
                yield f"stream {modality.value!r}: embedding {stream.embedding} lacks the content that positions are added to"
        for name, target in self.targets.items():
            if isinstance(target, MaskedLanguageTarget | PromptTarget) and not self.vocabulary(target.modality):
                yield f"target {name!r} is tied to the words of a stream {target.modality.value!r}; add it under model.streams"

    def _task_faults(self, name: str) -> Iterator[str]:
        """What a task needs and the model lacks."""
        task, present = self.tasks[name], self.streams.present()
        modalities = dict.fromkeys(span.modality for span in task.spans)
        for modality in modalities:
            if modality not in present:
                yield f"task {name!r} needs a stream {modality.value!r}; add it under model.streams"
        for target in task.targets:
            if target not in self.targets:
                yield f"task {name!r} asks for target {target!r}{nearest(target, self.targets)}"
        tied = [spec.modality for t in task.targets if isinstance(spec := self.targets.get(t), MaskedLanguageTarget)]
        predicted = {sharer for modality in tied for sharer in self.sharers(modality)}
        for modality in modalities:
            if tied and modality not in predicted and isinstance(present.get(modality), TextStream):
                remedy = f"give it a target {{kind: mlm, modality: {modality.value}}} too, or add `shared: [word]`"
                yield f"task {name!r}: no target predicts the wordpieces of {modality.value!r}; {remedy}"

    def sharers(self, modality: Modality) -> frozenset[Modality]:
        """The modalities that use the same wordpieces as `modality`."""
        return frozenset({Modality.TEXT, Modality.CODE}) if "word" in self.shared else frozenset({modality})

    def vocabulary(self, modality: Modality) -> int:
        """How many wordpieces `modality` has, by itself or shared; 0 where no stream says."""
        sharers, streams = self.sharers(modality), self.streams.present()
        return next((s.vocabulary for m, s in streams.items() if m in sharers and isinstance(s, TextStream)), 0)

    @property
    def asset_names(self) -> set[str]:
        """Names of the files that a model needs beside its weights to read raw inputs."""
        words = [m for m, stream in self.streams.present().items() if isinstance(stream, TextStream)]
        names = {tokenizer_asset(Modality.TEXT if len(self.sharers(m)) > 1 else m) for m in words}
        return names | {UNITS_ASSET for target in self.targets.values() if isinstance(target, MaskedUnitTarget)}

    def restricted(self, tasks: str | Collection[str]) -> ModelConfig:
        """A slice: these tasks, their streams (so their skills) and targets. Raises ConfigError for no task or an unknown one."""
        names = [tasks] if isinstance(tasks, str) else list(tasks)
        if not names:
            raise ConfigError(f"no task is named, so there is nothing to keep{nearest('', self.tasks)}")
        kept = {name: choose(self.tasks, name, "task") for name in names}
        used = {span.modality.value for task in kept.values() for span in task.spans}
        learned = {target for task in kept.values() for target in task.targets}
        data = self.model_dump(mode="json")
        parts = {
            "streams": {name: stream for name, stream in data["streams"].items() if name in used},
            "targets": {name: target for name, target in data["targets"].items() if name in learned},
            "tasks": kept,
            "shared": self.shared if {"text", "code"} & used else [],
            "sliced": True,
        }
        return ModelConfig.parse(data | parts, f"the slice of {', '.join(names)}")

    @field_serializer("streams")
    def _only_present(self, streams: Streams) -> dict[str, Any]:
        return {m.value: s.model_dump(mode="json") for m, s in streams.present().items()}

    @property
    def initial_std(self) -> float:
        """The standard deviation that `initializer_range` means."""
        return self.initializer_range or 0.02 * (768 / self.width) ** 0.5

    @property
    def skills(self) -> dict[Modality, str]:
        """Modality → skill, for the modalities that have a stream."""
        table = self.encoder.sparse.at(0)["qkv"].skills or {}
        return {m: table.get(m, m.value) for m in self.streams.present()}

    @classmethod
    def from_file(cls, path: str | Path) -> ModelConfig:
        """Read YAML or JSON. Raises ConfigError when the file is absent or its contents are not valid."""
        file = Path(path)
        if not file.is_file():
            raise ConfigError(f"{file}: no such file; a model configuration is a YAML or JSON file")
        text = file.read_text("utf-8")
        try:
            data = json.loads(text) if file.suffix == ".json" else yaml.safe_load(text)
        except (json.JSONDecodeError, yaml.YAMLError) as error:
            raise ConfigError(f"{file}: not valid {'JSON' if file.suffix == '.json' else 'YAML'}: {error}") from None
        return cls.parse(data, str(file))
