"""The model's configuration: streams, encoder, decoder and targets, picked by name (TencentPretrain
section 3)."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, PositiveFloat, field_serializer, field_validator, model_validator

from skillweave.batch import Attention, Layout, Modality, Role, Span
from skillweave.components.targets import TARGETS, TargetConfig
from skillweave.config.base import Config, ConfigError, Positive, choose, nearest
from skillweave.config.data import LimitsConfig
from skillweave.config.encoder import DecoderConfig, EncoderConfig, TransformerConfig
from skillweave.config.errors import reading
from skillweave.config.layering import load_yaml, merge
from skillweave.config.names import Name
from skillweave.config.reading import parse_json, parse_yaml
from skillweave.config.registry import OneOf
from skillweave.config.streams import (
    ImageStream,
    Streams,
    TargetStream,
    TextStream,
    VideoStream,
    tokenizer_asset,
)
from skillweave.config.task import TaskSettings
from skillweave.model.folders import begin_from, find_asset, is_hf_model, own_folder
from skillweave.model.formats import as_own
from skillweave.model.presets import find_model, presets


class SpanConfig(Config):
    """A span of a task's layout."""

    modality: Modality
    """Modality of the span."""
    role: Role = Role.INPUT
    """Whether the span is given (`input`) or predicted (`target`)."""
    encoder_pass: int = Field(default=0, ge=0)
    """Number of the pass that the span belongs to."""
    attention: Attention = Attention.FULL
    """Whether positions attend in both directions (`full`) or only backwards (`causal`)."""


class ModelTask(Config):
    """What the model knows about a task: its spans, its targets and its settings."""

    spans: list[SpanConfig] = Field(default=[], validate_default=True)
    """The spans in the order of the sequence; at least one."""
    targets: dict[str, float]
    """Name in `targets` → weight of its loss."""
    settings: TaskSettings = TaskSettings()
    """What its inputs and answers mean."""
    columns: dict[str, str | list[str]] = {}
    """Field of the task → column of the data that it was trained on."""

    @field_validator("spans")
    @classmethod
    def _some(cls, spans: list[SpanConfig]) -> list[SpanConfig]:
        if not spans:
            raise ValueError(
                "a task without a layout; name its spans, such as [{modality: image}, {modality:"
                " text, role: target}]"
            )
        return spans

    def check(self, name: str, model: ModelConfig) -> Iterator[str]:
        """What the task needs and the model lacks."""
        present, decoded = model.streams.present(), model.decoded(name)
        read = [span for span in self.layout(name).spans if span not in decoded]
        for modality in dict.fromkeys(span.modality for span in read):
            if modality not in present:
                yield f"task {name!r} needs a stream {modality.value!r}; add it under model.streams"
        for span in read:
            for encoder in model.encoders_of(span.modality):
                if span.causal and encoder.direction != "forward":
                    yield (
                        f"task {name!r}: the {encoder.name} reads both ways, so a causal span would"
                        " see what follows; attention: full"
                    )
        yield from self._check_encoders(name, read, model)
        for target in self.targets:
            if target not in model.targets:
                yield f"task {name!r} asks for target {target!r}{nearest(target, model.targets)}"
                continue
            faults = model.targets[target].check_task(model, name)
            yield from (f"target {target!r} {fault}" for fault in faults)

    def _check_encoders(self, name: str, read: Sequence[Span], model: ModelConfig) -> Iterator[str]:
        """Streams whose own encoder does not go together with what follows it."""
        remedy = "; give that stream a `projector`"
        own = {m for m, s in model.streams.present().items() if s.encoder and not s.projector}
        targets = [model.targets[target] for target in self.targets if target in model.targets]
        for modality in dict.fromkeys(span.modality for span in read):
            passes = {span.encoder_pass for span in read if span.modality is modality}
            others = {span.modality for span in read if span.encoder_pass in passes} - {modality}
            if modality in own and others:
                yield (
                    f"task {name!r}: the own encoder of stream {modality.value!r} cannot run on"
                    f" other spans of the same pass{remedy}"
                )
            width = model.widths.get(modality, model.width)
            if width != model.width and targets and not any(t.any_width for t in targets):
                yield (
                    f"task {name!r}: stream {modality.value!r} has vectors of width {width}, its"
                    f" targets read {model.width}{remedy}"
                )
        last = self.layout(name).spans[-1]
        writes = last.causal and any(target.writes_text for target in targets)
        if writes and last in read and model.projected(last.modality):
            yield (
                f"task {name!r}: a stream with a projector does not write text; leave `projector`"
                " out, or make its encoder the model's"
            )

    def layout(self, name: str) -> Layout:
        """The layout of the task under its name; lengths are not known yet."""
        return Layout(
            name, tuple(Span(s.modality, s.role, s.encoder_pass, s.attention) for s in self.spans)
        )


class ModelConfig(Config):
    """A model. What is declared once is shared. What is declared inside a stream is private to
    it."""

    preset: str | None = None
    """Start from another configuration: that of a published model by name, such as `bert-base`,
    that of a model folder or run, or a JSON file of TencentPretrain. The other settings are merged
    over it, and null removes a part."""
    width: Positive = 768
    """Size of the vectors between components."""
    streams: Streams
    """The streams, by modality."""
    shared: list[Literal["word"]] = []
    """Embedding modules that streams share. With `word`, code uses the tokens of text."""
    encoder: EncoderConfig = TransformerConfig()
    """The encoder that all streams share."""
    target_embedding: TargetStream | None = None
    """Embedding of what the decoder reads. It is required with a decoder, and only then."""
    decoder: DecoderConfig | None = None
    """The decoder. It runs the pass of the target spans, and attends to the first pass (T5,
    BART)."""
    targets: dict[Name, Annotated[TargetConfig, OneOf(TARGETS)]] = {}
    """The targets, by a name of your choice. `kind` defaults to this name."""
    tasks: dict[Name, ModelTask] = {}
    """The tasks. They are taken from the recipe's tasks."""
    sliced: bool = False
    """Whether the model has only the weights that its tasks activate. It is set when a slice is
    loaded or carved."""
    limits: LimitsConfig = LimitsConfig()
    """Limits of media files. They are taken from the recipe."""
    precision: Literal["float32", "bf16"] = "float32"
    """Precision of the forward pass in inference. It is taken from the recipe's training."""
    initializer_range: PositiveFloat | None = None
    """Standard deviation of the normal initialization. If absent, it is BERT's 0.02 at width 768,
    and proportional to 1 / √width elsewhere."""

    @model_validator(mode="before")
    @classmethod
    def _target_kinds(cls, data: Any) -> Any:
        targets = data.get("targets") if isinstance(data, dict) else None
        if isinstance(targets, dict):
            specs = {name: spec or {} for name, spec in targets.items()}
            kinds = {
                name: {"kind": name, **spec} if isinstance(spec, dict) else spec
                for name, spec in specs.items()
            }
            return {**data, "targets": kinds}
        return data

    @model_validator(mode="before")
    @classmethod
    def _read_causally(cls, data: Any) -> Any:
        if not isinstance(data, dict) or not isinstance(tasks := data.get("tasks"), dict):
            return data
        spans = [
            span
            for task in tasks.values()
            if isinstance(task, dict)
            for span in task.get("spans", [])
            if isinstance(span, dict)
        ]
        if not reads_causally(spans):
            return data
        return merge(data, {"streams": {"text": {"causal": True}}})

    @model_validator(mode="before")
    @classmethod
    def _begin_streams(cls, data: Any) -> Any:
        streams = data.get("streams") if isinstance(data, dict) else None
        if not isinstance(streams, dict):
            return data
        found = dict(streams)
        for modality, stream in streams.items():
            if isinstance(stream, dict) and isinstance(name := stream.get("preset"), str):
                try:
                    below = {"streams": {modality: cls._stream_of(name, modality)}}
                except ConfigError as error:
                    raise ValueError(f"streams.{modality}.preset: {error}") from None
                own = {key: value for key, value in stream.items() if key != "preset"}
                above = {"streams": {modality: own}}
                found[modality] = merge(below, above, cls)["streams"][modality]
        return {**data, "streams": found}

    @classmethod
    def _stream_of(cls, name: str, modality: str) -> dict[str, Any]:
        """The settings of a stream of another model, with the encoder that runs on it."""
        model = cls.parse(model_settings(name), name)
        held = {m.value: stream for m, stream in model.streams.present().items()}
        if modality not in held:
            raise ConfigError(f"{name} has no stream {modality!r}, only {', '.join(held)}")
        encoder = model.encoder_of(Modality(modality)).model_dump(mode="json")
        width = model.own_widths[Modality(modality)]
        stream = held[modality].model_dump(mode="json", exclude={"preset", "projector"})
        stream |= {"encoder": encoder, "width": width}
        asset = tokenizer_asset(min(model.sharers(Modality(modality)), key=list(Modality).index))
        if "tokenizer" in stream and (file := find_asset(name, asset)):
            special = stream["tokenizer"].get("special", {})
            stream["tokenizer"] = {"path": str(file), "special": special}
        return stream

    @model_validator(mode="before")
    @classmethod
    def _begin(cls, data: Any) -> Any:  # pydantic calls the last one first
        if not isinstance(data, dict) or not isinstance(name := data.get("preset"), str):
            return data
        own = {key: value for key, value in data.items() if key != "preset"}
        try:
            return merge(model_settings(name), own, cls)
        except ConfigError as error:
            raise ValueError(f"preset: {error}") from None

    @model_validator(mode="after")
    def _consistent(self) -> ModelConfig:
        if faults := self.faults():
            raise ValueError("; ".join(faults))
        return self

    def faults(self) -> list[str]:
        """What does not go together, each fault with its remedy."""
        found = [*self._own_faults(), *self.streams.check(self.width, self.encoder)]
        for name, target in self.targets.items():
            found += (f"target {name!r} {fault}" for fault in target.check(self))
        for name, task in self.tasks.items():
            found += task.check(name, self)
        return found

    def _own_faults(self) -> Iterator[str]:
        yield from self.encoder.check(self.width)
        if (self.decoder is None) != (self.target_embedding is None):
            yield "decoder and target_embedding go together; give both or neither"
        if self.decoder is not None:
            yield from self.decoder.check(self.width)
            own = self.target_embedding
            if own and own.tied and not self.vocabulary(Modality.TEXT):
                yield (
                    "target_embedding is tied to the words of a text stream; add one under"
                    " model.streams, or set `tied: false`"
                )
        both = {Modality.TEXT, Modality.CODE} <= self.streams.present().keys()
        if "word" in self.shared and not self.sliced and not both:
            yield "shared 'word' needs both a text and a code stream"
        sizes = {
            m.value: stream.embedding_width(self.input_size(m))
            for m, stream in self.token_streams(Modality.TEXT).items()
        }
        if "word" in self.shared and len({*sizes.values()}) > 1:
            told = " and ".join(f"{size} in {name}" for name, size in sizes.items())
            yield f"shared 'word' has one width, but it is {told}; give each stream its own words"
        if own := self.target_embedding:
            for setting in ("preset", "projector"):
                if getattr(own, setting) is not None:
                    yield f"target_embedding has no {setting}; its encoder is the decoder"

    def changed(self, **changes: Any) -> ModelConfig:
        """The configuration with some settings changed. Raises ConfigError with all faults."""
        model = self.model_copy(update=changes)
        spans = [span.model_dump() for task in model.tasks.values() for span in task.spans]
        if model.streams.text is not None and reads_causally(spans):
            text = model.streams.text.model_copy(update={"causal": True})
            streams = model.streams.model_copy(update={"text": text})
            model = model.model_copy(update={"streams": streams})
        if faults := model.faults():
            raise ConfigError(f"model: {'; '.join(faults)}")
        return model

    def sharers(self, modality: Modality) -> frozenset[Modality]:
        """The modalities that use the same tokens as `modality`."""
        words = frozenset({Modality.TEXT, Modality.CODE})
        return words if "word" in self.shared and modality in words else frozenset({modality})

    def token_streams(self, modality: Modality) -> dict[Modality, TextStream]:
        """The streams that use the tokens of `modality`, by modality."""
        return {
            m: stream
            for m, stream in self.streams.present().items()
            if m in self.sharers(modality) and isinstance(stream, TextStream)
        }

    def tokenizer_readers(self, modality: Modality) -> list[TextStream]:
        """All that reads the tokenizer of `modality`; the decoder reads that of text."""
        answers = [self.target_embedding] if modality is Modality.TEXT else []
        return [*self.token_streams(modality).values(), *filter(None, answers)]

    def vocabulary(self, modality: Modality) -> int:
        """How many tokens `modality` has, by itself or shared; 0 where no stream says."""
        streams = self.token_streams(modality).values()
        return next((stream.vocabulary for stream in streams), 0)

    def decoded(self, task: str) -> list[Span]:
        """The spans of a task that the decoder reads."""
        return (
            [span for span in self.tasks[task].layout(task).spans if span.written]
            if self.decoder
            else []
        )

    def word_size(self, modality: Modality) -> int:
        """The size of a modality's word embedding, by itself or shared; the model's width where no
        stream says."""
        streams = self.token_streams(modality).items()
        return next((s.embedding_width(self.input_size(m)) for m, s in streams), self.width)

    def input_size(self, modality: Modality) -> int:
        """The size of the vectors that a stream hands to its encoder."""
        return self.encoder_of(modality).input_size or self.own_widths[modality]

    def encoder_of(self, modality: Modality) -> EncoderConfig:
        """The encoder that runs first on a stream: its own, or the one that streams share."""
        return getattr(self.streams.present().get(modality), "encoder", None) or self.encoder

    def projected(self, modality: Modality) -> bool:
        """Whether a projector leads from a stream's own encoder into the shared one."""
        return getattr(self.streams.present().get(modality), "projector", None) is not None

    def encoders_of(self, modality: Modality) -> list[EncoderConfig]:
        """The encoders that run on a stream, in their order."""
        shared = [self.encoder] if self.projected(modality) else []
        return [self.encoder_of(modality), *shared]

    def answer_vocabulary(self, modality: Modality) -> int:
        """How many words are predicted: the decoder's, or those of a modality."""
        own = self.target_embedding
        return self.vocabulary(modality) if own is None or own.tied else own.vocabulary

    def answer_size(self, modality: Modality) -> int:
        """The size of the embedding of the words that are predicted: the decoder's, or those of a
        modality."""
        own, decoder = self.target_embedding, self.decoder
        if own is None or decoder is None or own.tied:
            return self.word_size(modality)
        return own.embedding_width(decoder.input_size or self.width)

    @property
    def picture(self) -> ImageStream:
        """The stream of images in patches. Raises ConfigError where there is none."""
        if not isinstance(self.streams.image, ImageStream):
            raise ConfigError(
                "the model has no pictures in patches; add a stream 'image' without a backbone"
                " under model.streams"
            )
        return self.streams.image

    def visual(self, modality: Modality) -> ImageStream | VideoStream:
        """The stream of images in patches or of videos in tubelets. Raises ConfigError where there
        is none."""
        if modality is not Modality.VIDEO:
            return self.picture
        if not isinstance(self.streams.video, VideoStream):
            raise ConfigError(
                "the model has no clips in tubelets; add a stream 'video' without a backbone under"
                " model.streams"
            )
        return self.streams.video

    @property
    def own_widths(self) -> dict[Modality, int]:
        """The size of each stream's vectors before a projector."""
        return {
            modality: stream.width or self.width
            for modality, stream in self.streams.present().items()
        }

    @property
    def widths(self) -> dict[Modality, int]:
        """The size of the vectors that each stream's tokens have in the end."""
        streams = self.streams.present()
        own = self.own_widths
        return {m: self.width if stream.projector else own[m] for m, stream in streams.items()}

    @property
    def asset_names(self) -> set[str]:
        """Names of the files that a model needs beside its weights to read raw inputs."""
        words = [
            m for m, stream in self.streams.present().items() if isinstance(stream, TextStream)
        ]
        words += [Modality.TEXT] if self.target_embedding else []
        names = {tokenizer_asset(Modality.TEXT if len(self.sharers(m)) > 1 else m) for m in words}
        return names.union(*(target.assets for target in self.targets.values()))

    def restricted(self, tasks: str | Collection[str]) -> ModelConfig:
        """A slice: these tasks, their streams (so their skills) and targets. Raises ConfigError for
        no task or an unknown one."""
        names = [tasks] if isinstance(tasks, str) else list(tasks)
        if not names:
            raise ConfigError(
                f"no task is named, so there is nothing to keep{nearest('', self.tasks)}"
            )
        kept = {name: choose(self.tasks, name, "task") for name in names}
        used = {span.modality.value for task in kept.values() for span in task.spans}
        learned = {target for task in kept.values() for target in task.targets}
        writes = any(self.decoded(name) for name in names)
        unused = {m.value: None for m in self.streams.present() if m.value not in used}
        return self.changed(
            decoder=self.decoder if writes else None,
            target_embedding=self.target_embedding if writes else None,
            streams=self.streams.model_copy(update=unused),
            targets={name: target for name, target in self.targets.items() if name in learned},
            tasks=kept,
            shared=self.shared if {"text", "code"} & used else [],
            sliced=True,
        )

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

    @property
    def active_skills(self) -> dict[Modality, str]:
        """Modality → skill where projections are routed by skill; one skill that is always active
        where they are dense."""
        if self.encoder.sparse.at(0)["qkv"].route == "skill":
            return self.skills
        return dict.fromkeys(self.skills, "shared")

    @classmethod
    def from_file(cls, path: str | Path) -> ModelConfig:
        """Read YAML or JSON, TencentPretrain's too (see `tencent`).

        Raises ConfigError when the file is absent or its contents are not valid.
        """
        file = Path(path)
        if not file.is_file():
            raise ConfigError(f"{file}: no such file; a model configuration is a YAML or JSON file")
        with reading(file, "a model configuration"):
            return cls.parse(as_own(_read(file)), str(file))


def model_settings(name: str) -> dict[str, Any]:
    """The settings of another model: a published one by name, that of a run, a model folder or one
    of Hugging Face (a folder or an id of the hub), or a JSON file of TencentPretrain.

    Raises ConfigError for a name that is none of these.
    """
    if Path(name).is_dir() or is_hf_model(name):
        return begin_from(own_folder(name))
    file = find_model(name)
    if file is None or not file.is_file():
        raise ConfigError(f"unknown model {name!r}{nearest(name, presets())}")
    return as_own(_read(file)) if file.suffix == ".json" else load_yaml(file)


def reads_causally(spans: Iterable[Mapping[str, Any]]) -> bool:
    """Whether the stream of texts is causal, as all texts of the tasks are and the stream reads
    some of them."""
    texts = [span for span in spans if span.get("modality") == Modality.TEXT]
    written = [span.get("role") == Role.TARGET and bool(span.get("encoder_pass")) for span in texts]
    return not all(written) and all(span.get("attention") == Attention.CAUSAL for span in texts)


def _read(file: Path) -> Any:
    parse = parse_json if file.suffix == ".json" else parse_yaml
    return parse(file.read_bytes(), file)
