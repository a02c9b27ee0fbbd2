"""The model's configuration: streams, encoder and targets, picked by name (TencentPretrain section 3)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, PositiveFloat, PositiveInt, field_serializer, model_validator

from skillweave.batch import Attention, Modality, Role
from skillweave.config.base import Config, ConfigError, nearest

Positive = PositiveInt
Share = Annotated[float, Field(ge=0, lt=1)]


class TokenizerConfig(Config):
    """Where a stream's tokeniser comes from."""

    path: str | None = None
    """A Hugging Face tokeniser folder or `tokenizer.json`; trained on the recipe's own training texts when absent."""
    kind: Literal["wordpiece", "bpe"] = "wordpiece"
    """The model to train when `path` is absent."""
    lowercase: bool = True
    """Fold case before training and use."""
    min_frequency: Positive = 2
    """How often a piece must occur to enter a trained vocabulary."""


class TextStream(Config):
    """Text: word, position and segment embeddings (SkillNet section 3.3, BERT)."""

    embedding: list[Literal["word", "position", "segment"]] = ["word", "position", "segment"]
    """Embedding modules, summed."""
    norm: bool = True
    """Layer normalisation after the sum (BERT)."""
    vocabulary: Positive = 21128
    """The most wordpieces a trained tokeniser may have; the loaded tokeniser's size replaces it."""
    max_length: Positive = 512
    """Most positions, special tokens included; longer texts are cut."""
    segments: Positive = 2
    """Rows of the segment embedding."""
    tokenizer: TokenizerConfig = TokenizerConfig()
    """How the tokeniser is made or loaded."""


class CodeStream(TextStream):
    """Code: as text, with its own wordpieces (SkillNet section 3.3, CodeBERT) unless `word` is shared."""

    tokenizer: TokenizerConfig = TokenizerConfig(lowercase=False)
    """How the tokeniser is made or loaded; case carries meaning in code."""


class ImageStream(Config):
    """Images cut into patches (SkillNet section 3.3, ViT)."""

    embedding: list[Literal["patch", "position"]] = ["patch", "position"]
    """Embedding modules, summed."""
    norm: bool = False
    """Layer normalisation after the sum."""
    size: Positive = 224
    """Side of the square picture, in pixels."""
    patch: Positive = 16
    """Side of a patch, in pixels."""
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    """Subtracted from each colour channel, which runs from 0 to 1."""
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)
    """Each colour channel is divided by it after the mean is taken off."""

    @model_validator(mode="after")
    def _whole_patches(self) -> ImageStream:
        if self.size % self.patch:
            raise ValueError(f"size {self.size} is not a multiple of patch {self.patch}")
        return self

    @property
    def max_length(self) -> int:
        """Positions of a picture, [CLS] included."""
        return (self.size // self.patch) ** 2 + 1


class SoundStream(Config):
    """Sound as a waveform through convolutions (SkillNet section 3.3, wav2vec)."""

    embedding: list[Literal["waveform", "position"]] = ["waveform", "position"]
    """Embedding modules, summed."""
    norm: bool = True
    """Layer normalisation after the sum."""
    rate: Positive = 16_000
    """Samples per second; every recording is resampled to it."""
    channels: Positive = 512
    """Width of the convolutions."""
    kernels: tuple[Positive, ...] = (10, 3, 3, 3, 3, 2, 2)
    """Kernel widths, in frames of the layer below."""
    strides: tuple[Positive, ...] = (5, 2, 2, 2, 2, 2, 2)
    """Strides, in frames of the layer below."""
    max_length: Positive = 1000
    """Most positions: 1,000 at 20 ms each are 20 s (the paper's "20ms" is a slip)."""

    @model_validator(mode="after")
    def _pairs(self) -> SoundStream:
        if len(self.kernels) != len(self.strides):
            raise ValueError(f"{len(self.kernels)} kernels but {len(self.strides)} strides")
        return self

    def positions(self, samples: int) -> int:
        """Frames that `samples` waveform samples give: only windows that lie wholly inside count."""
        for kernel, stride in zip(self.kernels, self.strides, strict=True):
            samples = (samples - kernel) // stride + 1
        return max(samples, 0)

    def samples(self, positions: int) -> int:
        """The most samples that give `positions` frames; a bucket's padded waveform has this size."""
        for kernel, stride in zip(reversed(self.kernels), reversed(self.strides), strict=True):
            positions = (positions - 1) * stride + kernel + stride - 1
        return positions


class VideoStream(Config):
    """Video cut into tubelets (SkillNet section 3.3, ViViT)."""

    embedding: list[Literal["tubelet", "factorised_position"]] = ["tubelet", "factorised_position"]
    """Embedding modules, summed; the positions are factorised into time, row and column."""
    norm: bool = False
    """Layer normalisation after the sum."""
    size: Positive = 224
    """Side of the square frames, in pixels."""
    frames: Positive = 6
    """Frames sampled from a clip."""
    tubelet: tuple[Positive, Positive, Positive] = (3, 16, 16)
    """Frames, rows and columns of a tubelet."""
    frames_per_second: PositiveFloat = 3.0
    """The rate at which a clip is read before `frames` of it are sampled."""
    max_seconds: PositiveFloat = 10.0
    """What lies beyond is cut."""
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    """Subtracted from each colour channel, which runs from 0 to 1."""
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)
    """Each colour channel is divided by it after the mean is taken off."""

    @model_validator(mode="after")
    def _whole_tubelets(self) -> VideoStream:
        t, h, w = self.tubelet
        if self.frames % t or self.size % h or self.size % w:
            raise ValueError(f"{self.frames} frames of {self.size} × {self.size} cannot be cut into tubelets {self.tubelet}")
        return self

    @property
    def grid(self) -> tuple[int, int, int]:
        """Tubelets along time, rows and columns."""
        t, h, w = self.tubelet
        return self.frames // t, self.size // h, self.size // w

    @property
    def max_length(self) -> int:
        """Positions of a clip, [CLS] included."""
        t, h, w = self.grid
        return t * h * w + 1


class Streams(Config):
    """One stream a modality; a modality without a stream cannot be used."""

    text: TextStream | None = None
    """Text, Chinese and English first."""
    image: ImageStream | None = None
    """Pictures."""
    sound: SoundStream | None = None
    """Recordings."""
    video: VideoStream | None = None
    """Clips."""
    code: CodeStream | None = None
    """Source code."""

    def present(self) -> dict[Modality, Stream]:
        """The streams that are configured, by modality."""
        return {m: stream for m in Modality if (stream := getattr(self, m.value)) is not None}


Stream = TextStream | CodeStream | ImageStream | SoundStream | VideoStream


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


Pooling = Literal["first", "mean"]


class ClassificationTarget(Config):
    """Cross-entropy over classes."""

    kind: Literal["classification"] = "classification"
    classes: list[str] = []
    """Label names in order; taken from the training data when empty."""
    hidden: bool = True
    """BERT's pooler (a dense layer and tanh) before the classifier."""
    pooling: Pooling = "first"
    """Which vector stands for a sample: that of its first token, or the mean of all its tokens."""


class ContrastiveTarget(Config):
    """In-batch contrastive loss between two passes, symmetric (SkillNet section 4.1, CLIP)."""

    kind: Literal["contrastive"] = "contrastive"
    temperature: PositiveFloat = 0.07
    """Where the learned temperature starts."""
    max_scale: PositiveFloat = 100.0
    """The most that cosines may be multiplied by (1 / temperature)."""
    pooling: Pooling = "first"
    """Which vector stands for a sample: that of its first token (the paper), or the mean of all (learns faster from nothing)."""


class CTCTarget(Config):
    """Connectionist temporal classification over characters (SkillNet section 4.1)."""

    kind: Literal["ctc"] = "ctc"
    characters: list[str] = []
    """The alphabet without the blank; taken from the training transcripts when empty."""


class MaskedLanguageTarget(Config):
    """Masked language modelling, logits only where masked, output tied to the word embedding (BERT)."""

    kind: Literal["mlm"] = "mlm"
    modality: Modality = Modality.TEXT
    """Whose word embedding the output layer is tied to, and whose words are predicted."""


class MaskedUnitTarget(Config):
    """The cluster of each masked frame (SkillNet section 4.2, HuBERT)."""

    kind: Literal["masked_unit"] = "masked_unit"
    clusters: Positive = 100
    """k of the k-means on MFCC."""


Target = Annotated[
    ClassificationTarget | ContrastiveTarget | CTCTarget | MaskedLanguageTarget | MaskedUnitTarget,
    Field(discriminator="kind"),
]


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
