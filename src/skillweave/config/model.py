"""The model's configuration: streams, encoder and targets, picked by name (TencentPretrain section 3)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, PositiveFloat, field_serializer, model_validator

from skillweave.batch import Attention, Modality, Role
from skillweave.config.base import Config, ConfigError, Positive, Share, nearest
from skillweave.config.streams import Streams, TextStream
from skillweave.config.targets import MaskedLanguageTarget, Target


class RouteConfig(Config):
    """How the experts of one sparse place are mixed."""

    route: Literal["dense", "skill", "token"] = "dense"
    """`dense`: one expert. `skill`: one expert per skill, picked by the table. `token`: a gate picks for each token."""
    skills: dict[Modality, str] | None = None
    """Route `skill`: modality → skill. Absent: each modality is a skill of its own (SkillNet Table 1)."""
    experts: Positive = 5
    """Route `token`: how many experts (SkillNet section 5.1: as many as there are skills)."""
    active: Positive = 2
    """Route `token`: how many of them each token uses."""
    noise: float = Field(default=0.0, ge=0)
    """Route `token`: standard deviation of the normal noise on the gate's logits in training, the same on all ranks."""
    balance: float = Field(default=0.0, ge=0)
    """Route `token`: weight of the loss that evens the experts' load; 0 for none."""

    @model_validator(mode="after")
    def _enough_experts(self) -> RouteConfig:
        if self.route == "token" and self.active > self.experts:
            raise ValueError(f"active {self.active} is more than the {self.experts} experts there are")
        return self


class SparseConfig(Config):
    """Where the encoder is sparse; everything not named is dense and shared."""

    qkv: RouteConfig = RouteConfig()
    """Query, key and value projections: `skill` makes SkillNet (section 3.2)."""
    feed_forward: RouteConfig = RouteConfig()
    """Whole feed-forwards mixed after their nonlinearity: `token` makes the MoE baseline (section 5.1)."""

    @model_validator(mode="after")
    def _supported(self) -> SparseConfig:
        if self.qkv.route == "token":
            raise ValueError("qkv: route 'token' is not available here; use 'dense' or 'skill'")
        return self


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

    spans: list[SpanConfig]
    """In the order of the sequence."""
    targets: dict[str, float]
    """Names in `targets`, with the weight of each one's loss."""


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
        if "word" in self.shared and not (Modality.TEXT in present and Modality.CODE in present):
            yield "shared 'word' needs both a text and a code stream"
        for modality, stream in present.items():
            if not {"word", "patch", "waveform", "tubelet"}.intersection(stream.embedding):
                yield f"stream {modality.value!r}: embedding {stream.embedding} lacks the content that positions are added to"
        for name, target in self.targets.items():
            if isinstance(target, MaskedLanguageTarget) and not isinstance(present.get(target.modality), TextStream):
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
        table = self.encoder.sparse.qkv.skills or {}
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
