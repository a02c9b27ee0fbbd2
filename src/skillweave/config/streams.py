"""Streams: for each modality, the options of its preprocessing and of its embedding."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import PositiveFloat, model_validator

from skillweave.batch import Modality
from skillweave.config.backbone import ResNetRegions, TransformersBackbone, with_checkpoint
from skillweave.config.base import Config, ConfigError, Positive, Whole
from skillweave.config.encoder import EncoderConfig
from skillweave.config.position import Relative2DConfig, Rotary2DConfig
from skillweave.config.variants import Tagged, Variant

ASSETS_FOLDER = "assets"
"""Folder of a saved model that holds its assets."""
CHAT_TEMPLATE = "chat_template.jinja"
"""The asset that says how a chat is written as a text, as Transformers names it."""


def tokenizer_asset(modality: Modality) -> str:
    """The name of a modality's tokenizer among the model's assets."""
    return f"{modality.value}_tokenizer.json"


SpecialToken = Literal["pad", "unknown", "cls", "separator", "mask"]


class Tokenizer(Variant):
    """Where a tokenizer comes from."""

    @classmethod
    def named_in(cls, settings: Mapping[str, Any]) -> str | None:
        """The `kind`, or what the options tell of it."""
        loaded = LoadedTokenizerConfig.model_fields.keys() & settings.keys()
        return settings.get("kind") or ("loaded" if loaded else "wordpiece" if settings else None)


class TrainedTokenizerConfig(Tokenizer):
    """A tokenizer that is trained on the texts of the training data."""

    kind: Literal["wordpiece", "bpe"] = "wordpiece"
    """`wordpiece`: WordPiece after the normalisation of BERT. `bpe`: byte-level BPE (GPT-2)."""
    lowercase: bool = True
    """Whether texts are lowercased before training and use."""
    min_frequency: Positive = 2
    """Number of times that a pair of tokens must occur to be merged."""

    # what a loaded tokenizer has in addition, for whoever reads a configuration of either kind
    path: ClassVar[None] = None
    parse_special: ClassVar[bool] = False
    special: ClassVar[Mapping[str, str]] = MappingProxyType({})

    def with_special_tokens(self, special: Mapping[str, str]) -> TokenizerConfig:
        """The tokenizer after training. The names of its special tokens are those of BERT unless
        `special` has others, which belong to a tokenizer that existed."""
        return LoadedTokenizerConfig.parse({"special": special}) if special else self


class LoadedTokenizerConfig(Tokenizer):
    """A tokenizer that exists: a file, or the one that is saved with the model."""

    kind: Literal["loaded"] = "loaded"
    """Selects a tokenizer that exists; `path` or `special` selects it too."""
    path: str | None = None
    """A folder of Hugging Face with `tokenizer.json`, `vocab.txt`, or `vocab.json` and
    `merges.txt`, one of these files, or a model folder. Default: the tokenizer saved with the model
    that training starts from."""
    special: dict[SpecialToken, str] = {}
    """Special tokens whose names differ from those of BERT ([PAD], [UNK], [CLS], [SEP], [MASK]).
    Default: as in `special_tokens_map.json` and `tokenizer_config.json` beside the tokenizer."""
    parse_special: bool = False
    """Whether special tokens that are spelt out in a text stand for themselves, as in texts that a
    chat template wrote (`<|im_start|>`). By default they are plain text, so that no text can
    contain a mark of another role."""

    def with_special_tokens(self, special: Mapping[str, str]) -> LoadedTokenizerConfig:
        """The tokenizer with the names of its special tokens."""
        return self.model_copy(update={"special": {**special}})


TokenizerConfig = Annotated[TrainedTokenizerConfig | LoadedTokenizerConfig, Tagged()]


class StreamConfig(Config):
    """Options of all streams."""

    content: ClassVar[tuple[str, ...]] = ()
    """Embedding modules that turn the input into vectors; the others add something to these."""

    preset: str | None = None
    """Start from the stream of another model, with the encoder that runs on it: a published model
    by name, such as `bert-base`, a run, a model folder, or a model of Hugging Face (a folder or an
    id of the hub). The other settings are merged over it. Its weights come with `skillweave
    weave`."""
    width: Positive | None = None
    """Width of the stream's vectors, if it has an encoder of its own. Default: the model's."""
    encoder: EncoderConfig | None = None
    """An encoder for this stream alone. Without `projector` it takes the place of the shared one
    (CLIP)."""
    projector: Literal["linear", "mlp"] | None = None
    """Leads from the stream's own encoder, of any width, into the shared encoder, which then runs
    on its outputs as on the embeddings of other streams. `linear`: a layer norm and a linear layer
    (the feature projection of wav2vec 2.0). `mlp`: a second linear layer after a GELU (LLaVA 1.5,
    arXiv 2310.03744 section 3.3). Default: the shared encoder does not run on the stream."""
    embedding: Sequence[str]
    """Embedding modules."""
    norm: bool
    """Whether the sum of the modules is normalised."""
    second_norm: bool = False
    """Whether a second normalisation follows (pairs of streams in TencentPretrain)."""

    @property
    def learns_mask(self) -> bool:
        """Whether a learned vector takes the place of masked positions."""
        return "masked_patch" in self.embedding

    @property
    def leaves_out_masked(self) -> bool:
        """Whether masked positions are left out of the encoder's input."""
        return any(name.startswith("visible_") for name in self.embedding)

    def embedding_width(self, width: int) -> int:
        """Width of the sum of the modules. `width`: of the encoder's input."""
        return width

    def saved(self) -> Self:
        """The stream of a model whose weights are saved beside its configuration."""
        return self

    def check(self, name: str, width: int, encoder: EncoderConfig) -> Iterator[str]:
        """What does not fit together, for the stream of this name. `width`, `encoder`: the
        model's."""
        if self.encoder is not None:
            yield from self.encoder.check(self.width or width)
        elif self.projector:
            yield (
                f"stream {name!r}: a projector leads from the stream's own encoder into the shared"
                " one; give the stream an `encoder` or a `preset`, or leave projector out"
            )
        elif self.width not in (None, width):
            yield (
                f"stream {name!r} has width {self.width}, the encoder {width}; give it an encoder"
                " of its own"
            )
        if not set(self.content) & set(self.embedding):
            yield (
                f"stream {name!r}: embedding {self.embedding} lacks the content that positions are"
                " added to"
            )


class TextStream(StreamConfig):
    """Text: token, position and segment embeddings (BERT; SkillNet section 3.3)."""

    content = ("word",)
    embedding: list[
        Literal[
            "word",
            "position",
            "sinusoidal",
            "timing",
            "interleaved_timing",
            "segment",
            "modality",
        ]
    ] = [
        "word",
        "position",
        "segment",
    ]
    """Embedding modules, whose outputs are added. `word`: a learned vector for each token.
    `position`: one for each position. `segment`: one for each segment. `sinusoidal`: fixed sines
    and cosines (Transformer, arXiv 1706.03762 section 3.5). `timing`: those of tensor2tensor and
    fairseq. `interleaved_timing`: the same, but sines and cosines alternate (TencentPretrain).
    `modality`: a learned vector of the stream, added after the normalisation (ViLT)."""
    norm: bool = True
    """Whether the sum of the modules is normalised (BERT)."""
    embedding_size: Positive | None = None
    """Width of the embeddings. If it differs from the stream's width, a linear layer follows their
    normalisation (ALBERT, ELECTRA). Default: the stream's width."""
    scale_embedding: bool = False
    """Whether token embeddings are multiplied by the square root of their width (Transformer, arXiv
    1706.03762 section 3.4)."""
    vocabulary: Positive = 21128
    """Largest number of tokens of a trained tokenizer; a loaded one replaces it by its own
    number."""
    max_length: Positive = 512
    """Largest number of tokens in a text, special tokens included. Longer texts are cut."""
    max_tokens: Positive | None = None
    """Largest number of tokens that are read of a text, if that is less than `max_length`
    (sentence-transformers)."""
    position_offset: Whole = 0
    """Number of rows in the position table before that of the first token (RoBERTa, BART: 2)."""
    segments: Positive = 2
    """Number of segments; with 1 all texts of a sample are in the same segment."""
    separate_parts: bool = False
    """Whether the causal text of a sample is a part of its own (M6's complete text): its positions
    begin at 0 and its segment is 1, whichever texts stand before it, and the segment of texts that
    attend both ways (M6's masked text) is 0. By default the texts of a sample are one sequence, in
    which positions run on, and the segment is the rank of the text (BERT)."""
    pad_to_max_length: bool = False
    """Whether a text alone in its span is filled up with [PAD] to `max_length`, which the encoder
    sees like other tokens (SigLIP)."""
    causal: bool = False
    """Whether attention in texts is causal in every task: each token sees the tokens before it
    (GPT-2, LLaMA, CLIP). It is set where all tasks of a given configuration are causal."""
    tokenizer: TokenizerConfig = TrainedTokenizerConfig()
    """Where the tokenizer comes from."""
    special_ids: dict[SpecialToken, int | list[int]] = {}
    """Ids of special tokens, for a converted model that came without a tokenizer."""

    def embedding_width(self, width: int) -> int:
        """`embedding_size`, or else the stream's width."""
        return self.embedding_size or width


class CodeStream(TextStream):
    """Source code: as text (CodeBERT; SkillNet section 3.3), with a tokenizer of its own unless the
    model shares `word`."""

    tokenizer: TokenizerConfig = TrainedTokenizerConfig(lowercase=False)
    """Where the tokenizer comes from. Default: trained without lowercasing, since case has a
    meaning in code."""


class TargetStream(TextStream):
    """Input of the decoder: the tokens of the answer so far."""

    tied: bool = True
    """Whether the token embedding is that of the text stream."""


class MediaStream(StreamConfig):
    """Options of images, videos and sound."""

    segments: ClassVar[int] = 1
    """Number of segments: all spans of the stream are in the same one."""
    separate_parts: ClassVar[bool] = False
    """See `TextStream`."""


Colour = tuple[float, float, float]


class VisualStream(MediaStream, Variant):
    """Options of images and videos.

    The module in `embedding` that makes the vectors tells the kinds of streams apart.
    """

    norm: bool = False
    """Whether the sum of the modules is normalised."""
    size: Positive = 224
    """Height and width of the input in pixels; it is square."""
    resize: Literal["crop", "stretch", "shorter_side"] = "crop"
    """How a picture of any shape is brought to that size. `crop`: its largest centred square is cut
    out and resized in one step. `stretch`: it is resized to a square of `resize_to` pixels (ViT).
    `shorter_side`: it is resized so that its shorter side has `resize_to` pixels (CLIP). The last
    two are computed exactly as in Transformers, and the centre of `size` is then cut out."""
    resize_to: Positive | None = None
    """See `resize`; at least `size`, which is the default (DeiT: 256 for 224)."""
    resize_filter: Literal["nearest", "lanczos", "bilinear", "bicubic", "box", "hamming"] = (
        "bicubic"
    )
    """Pillow's filter with which pictures are resized."""
    mean: Colour = (0.5, 0.5, 0.5)
    """Mean of each colour channel, which is subtracted; channels have values from 0 to 1."""
    std: Colour = (0.5, 0.5, 0.5)
    """Standard deviation of each colour channel, by which it is divided."""
    cls_token: bool = True
    """Whether a [CLS] token stands before the patches (VideoMAE, SigLIP: no)."""

    position_offset: ClassVar[int] = 0

    parts: ClassVar[str] = ""
    """What the input is cut into."""

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """What the input is cut into."""
        return (cls.parts,)

    @classmethod
    def named_in(cls, settings: Mapping[str, Any]) -> str | None:
        """What the module in `embedding` cuts the input into; `features` with a backbone."""
        if "backbone" in settings:
            return BackboneImageStream.parts
        modules = settings.get("embedding")
        kinds = ImageStream, VideoStream, BackboneImageStream
        found = {name: kind.parts for kind in kinds for name in kind.content}
        named = modules if isinstance(modules, list) else []
        return next((found[name] for name in named if name in found), None)

    @property
    def pixels(self) -> tuple[int, ...]:
        """Shape of the input: colours, rows and columns of pixels."""
        return 3, self.size, self.size

    @property
    def max_length(self) -> int:
        """Number of positions: what the content is cut into, and the tokens before it."""
        raise NotImplementedError

    @model_validator(mode="after")
    def _as_large_as_its_centre(self) -> VisualStream:
        if self.resize_to and (self.resize == "crop" or self.resize_to < self.size):
            raise ValueError(
                f"resize_to {self.resize_to} needs `resize: stretch` or `resize: shorter_side`, and"
                f" at least size {self.size}"
            )
        return self

    @property
    def exact(self) -> bool:
        """Whether pixels are exactly those of Transformers, without shortcuts."""
        return self.resize != "crop"

    def resized(self, width: int, height: int) -> tuple[int, int]:
        """Width and height to which a picture is resized before its centre is cut out."""
        side, shorter = self.resize_to or self.size, min(width, height)
        if self.resize == "stretch":
            return side, side
        return int(side * width / shorter), int(side * height / shorter)

    def source(self, width: int, height: int) -> tuple[float, float, float, float]:
        """Left, top, width and height of the part of a picture that becomes the input."""
        if self.resize == "crop":
            side = min(width, height)
            return (width - side) / 2, (height - side) / 2, side, side
        columns, rows = self.resized(width, height)
        across, down = width / columns, height / rows
        left, top = (columns - self.size) // 2 * across, (rows - self.size) // 2 * down
        return left, top, self.size * across, self.size * down


class ImageStream(VisualStream):
    """Images, cut into patches (ViT; SkillNet section 3.3)."""

    content = ("patch", "masked_patch", "visible_patch")
    parts = "patches"
    embedding: list[
        Literal[
            "patch",
            "masked_patch",
            "visible_patch",
            "position",
            "grid_position",
            "segment",
            "modality",
        ]
    ] = ["patch", "position"]
    """Embedding modules, whose outputs are added. `patch`: a convolution makes a vector of each
    patch. `masked_patch`: as `patch`, and a learned vector replaces those of masked patches (BEiT).
    `visible_patch`: as `patch`, and masked patches are left out (MAE). `position`: a learned vector
    for each position. `grid_position`: a table for pictures of `position_size` pixels, which is
    interpolated for others, with no vectors for registers (DINOv2). `segment`: a learned vector of
    the stream (M6). `modality`: the same, added after the normalisation (ViLT)."""
    patch: Positive = 16
    """Height and width of a patch in pixels. What is left of `size` at the right and at the bottom
    is not read (SigLIP: 384 pixels in patches of 14)."""
    patch_bias: bool = True
    """Whether the convolution that makes the patches' vectors has a bias (CLIP: no)."""
    distilled: bool = False
    """Whether a second learned token, which learns from a teacher, follows [CLS] (DeiT, arXiv
    2012.12877)."""
    registers: Whole = 0
    """Number of learned tokens between [CLS] and the patches, in which the encoder keeps what
    belongs to no patch (arXiv 2309.16588; DINOv2, DINOv3). The pooling `rest` leaves them out."""
    position_size: Positive | None = None
    """`grid_position`: height and width in pixels of the pictures that the table is for (DINOv2:
    518). Default: `size`."""
    position_antialias: bool = False
    """`grid_position`: whether interpolation to fewer patches smooths the table before (DINOv2 with
    registers)."""

    @model_validator(mode="after")
    def _possible(self) -> ImageStream:
        for name, size in (("size", self.size), ("position_size", self.position_size)):
            if size and size < self.patch:
                raise ValueError(f"{name} {size} is smaller than patch {self.patch}")
        if self.distilled and (self.registers or not self.cls_token):
            raise ValueError("a distilled stream has a [CLS] token and no registers")
        return self

    @property
    def tubelet(self) -> tuple[int, int, int]:
        """Number of frames, rows and columns of pixels in a patch, as for a video of one frame."""
        return 1, self.patch, self.patch

    @property
    def grid(self) -> tuple[int, int, int]:
        """Number of patches along time, rows and columns, as for a video of one frame."""
        return 1, self.size // self.patch, self.size // self.patch

    @property
    def num_prefix_tokens(self) -> int:
        """Number of learned tokens before the patches."""
        return self.cls_token + self.distilled + self.registers

    @property
    def max_length(self) -> int:
        """Number of positions: the patches and the tokens before them."""
        return math.prod(self.grid) + self.num_prefix_tokens

    def check(self, name: str, width: int, encoder: EncoderConfig) -> Iterator[str]:
        """Relative positions in two dimensions need the grid of the patches."""
        position = (self.encoder or encoder).position
        flat = Relative2DConfig | Rotary2DConfig
        if isinstance(position, flat) and position.grid != self.grid[1:]:
            yield (
                f"position.grid is {position.grid}, but a picture has {self.grid[1]} ×"
                f" {self.grid[2]} patches; make them the same"
            )
        if isinstance(position, flat) and self.leaves_out_masked:
            yield (
                f"{position.kind} needs the places of all patches, and visible_patch leaves some"
                " out; take patch or masked_patch"
            )
        if isinstance(position, Relative2DConfig) and self.num_prefix_tokens != 1:
            yield (
                f"relative_2d counts [CLS] and patches, and a picture has {self.num_prefix_tokens}"
                " learned tokens; leave distilled and registers out, or take another position"
            )
        yield from super().check(name, width, encoder)


class ClipStream(VisualStream):
    """Options of videos."""

    frames: Positive = 6
    """Number of frames sampled from a video."""
    frames_per_second: PositiveFloat = 3.0
    """Rate at which a video is read before `frames` frames are sampled from it."""
    max_seconds: PositiveFloat = 10.0
    """Length in seconds from which on a video is cut."""

    @property
    def pixels(self) -> tuple[int, ...]:
        """Shape of the input: colours, frames, rows and columns of pixels."""
        return 3, self.frames, self.size, self.size


class VideoStream(ClipStream):
    """Videos, cut into tubelets: patches of several frames (ViViT; SkillNet section 3.3)."""

    content = ("tubelet", "visible_tubelet")
    parts = "tubelets"
    embedding: list[
        Literal[
            "tubelet",
            "visible_tubelet",
            "factorised_position",
            "position",
            "interleaved_sinusoidal",
            "segment",
        ]
    ] = [
        "tubelet",
        "factorised_position",
    ]
    """Embedding modules, whose outputs are added. `tubelet`: a convolution makes a vector of each
    tubelet. `visible_tubelet`: as `tubelet`, and masked tubelets are left out (VideoMAE).
    `factorised_position`: a learned vector for each time, row and column. `position`: one for each
    position. `interleaved_sinusoidal`: fixed sines and cosines, which alternate (VideoMAE).
    `segment`: a learned vector of the stream (M6)."""
    tubelet: tuple[Positive, Positive, Positive] = (3, 16, 16)
    """Number of frames, rows and columns of pixels in a tubelet."""

    @model_validator(mode="after")
    def _whole_tubelets(self) -> VideoStream:
        t, h, w = self.tubelet
        if self.frames % t or self.size % h or self.size % w:
            raise ValueError(
                f"{self.frames} frames of {self.size} × {self.size} cannot be cut into tubelets"
                f" {self.tubelet}"
            )
        return self

    @property
    def grid(self) -> tuple[int, int, int]:
        """Number of tubelets along time, rows and columns."""
        t, h, w = self.tubelet
        return self.frames // t, self.size // h, self.size // w

    @property
    def num_prefix_tokens(self) -> int:
        """Number of learned tokens before the tubelets."""
        return int(self.cls_token)

    @property
    def max_length(self) -> int:
        """Number of positions: the tubelets and the tokens before them."""
        return math.prod(self.grid) + self.num_prefix_tokens


class BackboneImageStream(VisualStream):
    """Images as the features of a vision model of Transformers, each projected to the stream's
    width (M6 section 3.2)."""

    content = ("features",)
    parts = "features"
    embedding: list[Literal["features", "position", "segment", "modality"]] = [
        "features",
        "position",
    ]
    """Embedding modules, whose outputs are added. `features`: the features of a vision model, each
    projected by a linear layer. `position`: a learned vector for each position. `segment`: a
    learned vector of the stream (M6). `modality`: the same, added after the normalisation
    (ViLT)."""
    backbone: Annotated[TransformersBackbone | ResNetRegions, Tagged()]
    """The model that gives the features."""

    registers: ClassVar[int] = 0

    @model_validator(mode="before")
    @classmethod
    def _as_the_checkpoint_says(cls, settings: Any) -> Any:
        if not isinstance(settings, Mapping):
            return settings
        try:
            return with_checkpoint(settings)
        except ConfigError as error:
            raise ValueError(str(error)) from None

    def saved(self) -> Self:
        """Without the path of the backbone's initial weights."""
        return self.model_copy(update={"backbone": self.backbone.without_path()})

    @property
    def num_prefix_tokens(self) -> int:
        """Number of learned tokens before the features."""
        return int(self.cls_token)

    @property
    def images(self) -> int:
        """Number of pictures that go through the backbone."""
        return 1

    @property
    def max_length(self) -> int:
        """Number of positions: the features and the tokens before them."""
        return self.images * self.backbone.shape(self.size)[0] + self.num_prefix_tokens

    def check(self, name: str, width: int, encoder: EncoderConfig) -> Iterator[str]:
        """The backbone takes such pictures."""
        faults = list(self.backbone.check(self.size))
        yield from (f"stream {name!r}: its backbone {fault}" for fault in faults)
        yield from super().check(name, width, encoder)


class BackboneVideoStream(BackboneImageStream, ClipStream):
    """Videos, of which each frame goes through a vision model of Transformers by itself."""

    @property
    def images(self) -> int:
        """As many as frames."""
        return self.frames


WHISPER_RATE = 16_000
"""Samples per second of the log-mel frames of Whisper."""


class SoundStream(MediaStream, Variant):
    """Options of sound, which goes through convolutions over time.

    The module in `embedding` that makes the vectors tells the kinds of streams apart.
    """

    norm: bool = True
    """Whether the sum of the modules is normalised."""
    sample_rate: Positive = 16_000
    """Samples per second. Recordings with another rate are resampled."""
    max_length: Positive = 1000
    """Largest number of positions: by default 1,000 of 20 ms each, which are 20 s (the "20ms" in
    SkillNet section 3.3 is a slip)."""
    channels: Positive = 512
    """Number of channels of the convolutions."""
    kernels: tuple[Positive, ...] = (10, 3, 3, 3, 3, 2, 2)
    """Kernel size of each convolution, in steps of its input."""
    strides: tuple[Positive, ...] = (5, 2, 2, 2, 2, 2, 2)
    """Stride of each convolution, in steps of its input."""
    position_offset: Whole = 0
    """`position`: number of rows in the table before that of the first position. `timing`: number
    of the first position (S2T: 2)."""
    position_kernel: Positive = 128
    """`convolution`, `convolution_stack`: kernel size in positions (wav2vec 2.0: 128; data2vec:
    19)."""
    position_groups: Positive = 16
    """`convolution`, `convolution_stack`: number of groups of channels; the stream's width must be
    a multiple of it."""
    position_layers: Positive = 5
    """`convolution_stack`: number of convolutions (data2vec)."""
    mask_vector: bool = True
    """Whether there is a learned vector that takes the place of masked positions (wav2vec 2.0)."""

    padding: ClassVar[float] = math.nan
    """Value of the input behind the end of a recording, which is no sound."""

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """The module that makes the vectors."""
        return cls.content

    @classmethod
    def named_in(cls, settings: Mapping[str, Any]) -> str | None:
        """The module in `embedding` that makes the vectors."""
        modules = settings.get("embedding")
        kinds = WaveformStream, FilterbankStream, StemStream
        names = [name for kind in kinds for name in kind.content]
        return next((name for name in names if isinstance(modules, list) and name in modules), None)

    @model_validator(mode="after")
    def _as_many_strides(self) -> SoundStream:
        if len(self.kernels) != len(self.strides):
            raise ValueError(f"{len(self.kernels)} kernels but {len(self.strides)} strides")
        return self

    @property
    def learns_mask(self) -> bool:
        """As `mask_vector` says."""
        return self.mask_vector

    @property
    def keeps_loudness(self) -> bool:
        """Whether recordings are not scaled to mean 0 and variance 1."""
        return False

    @property
    def frame(self) -> tuple[int, int]:
        """Number of samples in a step of the input, and from one step to the next."""
        return 1, 1

    @property
    def windows(self) -> tuple[int, ...]:
        """Number of input steps that each convolution needs for an output, padding not counted."""
        return self.kernels

    def input_shape(self, positions: int) -> tuple[int, ...]:
        """The shape of the longest input that gives so many positions, steps first."""
        return (self.input_length(positions),)

    def input_length(self, positions: int) -> int:
        """The largest number of input steps that give so many positions."""
        for window, stride in zip(reversed(self.windows), reversed(self.strides), strict=True):
            positions = positions * stride + window - 1
        return positions

    def output_length(self, steps: int) -> int:
        """The number of positions that so many input steps give."""
        for window, stride in zip(self.windows, self.strides, strict=True):
            steps = (steps - window) // stride + 1
        return max(steps, 0)

    def positions(self, samples: int) -> int:
        """The number of positions that so many samples of a recording give."""
        size, step = self.frame
        return self.output_length((samples - size) // step + 1)

    def samples(self, positions: int) -> int:
        """The largest number of samples that give so many positions."""
        size, step = self.frame
        return self.input_length(positions) * step + size - 1

    def check(self, name: str, width: int, encoder: EncoderConfig) -> Iterator[str]:
        """The groups of the convolution over positions share the width."""
        own = self.width or width
        grouped = {"convolution", "convolution_stack"}.intersection(self.embedding)
        if grouped and own % self.position_groups:
            yield f"width {own} is not a multiple of {self.position_groups} position_groups"
        yield from super().check(name, width, encoder)


class SamplesStream(SoundStream):
    """Options of sound whose input are the samples of a recording."""

    normalised: bool = True
    """Whether each recording is scaled to mean 0 and variance 1 (wav2vec 2.0), rather than keeping
    its loudness (WavLM base, Moonshine)."""

    @property
    def keeps_loudness(self) -> bool:
        """Unless it is `normalised`."""
        return not self.normalised


class WaveformStream(SamplesStream):
    """Sound as a waveform, through convolutions without padding (wav2vec 2.0, arXiv 2006.11477;
    SkillNet section 3.3)."""

    content = ("waveform",)
    embedding: list[
        Literal[
            "waveform",
            "position",
            "sinusoidal",
            "timing",
            "convolution",
            "convolution_stack",
            "segment",
        ]
    ] = ["waveform", "position"]
    """Embedding modules, whose outputs are added. `waveform`: convolutions over the samples.
    `position`: a learned vector for each position. `sinusoidal`, `timing`: fixed sines and cosines,
    as in text streams. `convolution`: a convolution over the neighbouring positions (wav2vec 2.0).
    `convolution_stack`: several, each normalised (data2vec). `segment`: a learned vector of the
    stream (M6)."""
    convolution_norm: Literal["group", "layer"] = "group"
    """`group`: the first convolution is normalised per channel over time (wav2vec 2.0 base).
    `layer`: all convolutions are normalised per position (large)."""
    convolution_bias: bool = False
    """Whether the convolutions have a bias (wav2vec 2.0 large)."""

    features: ClassVar[None] = None


class FilterbankStream(SoundStream):
    """Sound as log-mel frames, through convolutions that are padded at both ends (S2T, arXiv
    2010.05171; Whisper, arXiv 2212.04356)."""

    content = ("filterbank",)
    embedding: list[
        Literal["filterbank", "position", "sinusoidal", "timing", "convolution", "segment"]
    ] = ["filterbank", "position"]
    """Embedding modules, whose outputs are added. `filterbank`: convolutions over log-mel frames.
    The others as for a waveform: `position`, `sinusoidal`, `timing`, `convolution`, `segment`."""
    kernels: tuple[Positive, ...] = (5, 5)
    """Kernel size of each convolution, in steps of its input; odd numbers."""
    strides: tuple[Positive, ...] = (2, 2)
    """Stride of each convolution, in steps of its input."""
    mel_bins: Positive = 80
    """Number of bins on the mel scale. A frame comes every 10 ms and covers 25 ms."""
    features: Literal["kaldi", "whisper"] = "kaldi"
    """How frames are computed. `kaldi`: each bin has mean 0 and variance 1 over a recording (S2T).
    `whisper`: the range is limited to 80 dB below the maximum, and silence follows a recording up
    to `max_length`, which the encoder sees too (Whisper)."""
    gated: bool = True
    """Whether a gated linear unit follows each convolution (S2T), rather than GELU (Whisper)."""
    scale_embedding: bool = False
    """Whether the vectors are multiplied by √width before positions are added (S2T)."""

    @property
    def keeps_loudness(self) -> bool:
        """Whisper does."""
        return self.features == "whisper"

    @model_validator(mode="after")
    def _possible(self) -> FilterbankStream:
        if not all(kernel % 2 for kernel in self.kernels):
            raise ValueError(
                "a filterbank has odd kernels, such as [5, 5] with strides [2, 2]; these are"
                f" {list(self.kernels)}"
            )
        if self.features == "whisper" and self.sample_rate != WHISPER_RATE:
            raise ValueError(
                f"features 'whisper' need sample_rate {WHISPER_RATE}, not {self.sample_rate}"
            )
        return self

    @property
    def frame(self) -> tuple[int, int]:
        """25 ms every 10 ms; the frames of Whisper extend beyond the ends of a recording."""
        step = self.sample_rate // 100
        return (step if self.features == "whisper" else self.sample_rate // 40), step

    @property
    def windows(self) -> tuple[int, ...]:
        """A convolution with padding needs one frame."""
        return (1,) * len(self.kernels)

    def input_shape(self, positions: int) -> tuple[int, ...]:
        """[frames, mel bins]."""
        return (*super().input_shape(positions), self.mel_bins)


class StemStream(SamplesStream):
    """Sound as a waveform, through a short stem of convolutions with large strides, the last of
    which makes the vectors (Moonshine, arXiv 2410.15608 section 3.1).

    A tanh and a norm over all samples follow the first convolution, a GELU each of the others.
    Those between the first and the last have twice as many channels as the first.
    """

    content = ("stem",)
    embedding: list[
        Literal["stem", "position", "sinusoidal", "timing", "convolution", "segment"]
    ] = ["stem"]
    """Embedding modules, whose outputs are added. `stem`: convolutions over the samples. The others
    as for a waveform: `position`, `sinusoidal`, `timing`, `convolution`, `segment`."""
    norm: bool = False
    """Whether the sum of the modules is normalised."""
    channels: Positive = 288
    """Number of channels of the first convolution."""
    kernels: tuple[Positive, ...] = (127, 7, 3)
    """Kernel size of each convolution, in steps of its input."""
    strides: tuple[Positive, ...] = (64, 3, 2)
    """Stride of each convolution, in steps of its input."""

    features: ClassVar[None] = None


class Streams(Config):
    """The streams of a model, at most one for each modality. A modality without a stream cannot be
    used."""

    text: TextStream | None = None
    """Text; the defaults suit Chinese and English."""
    image: Annotated[ImageStream | BackboneImageStream, Tagged()] | None = None
    """Images, cut into patches or, with `backbone`, as the features of a vision model."""
    sound: Annotated[WaveformStream | FilterbankStream | StemStream, Tagged()] | None = None
    """Recordings, as waveforms or, with `filterbank` in `embedding`, as log-mel frames."""
    video: Annotated[VideoStream | BackboneVideoStream, Tagged()] | None = None
    """Videos, cut into tubelets or, with `backbone`, as the features of a vision model."""
    code: CodeStream | None = None
    """Source code."""

    def present(self) -> dict[Modality, Stream]:
        """The streams that are configured, by modality."""
        return {m: stream for m in Modality if (stream := getattr(self, m.value)) is not None}

    def saved(self) -> Self:
        """The streams of a model whose weights are saved beside its configuration."""
        return self.model_copy(update={m.value: s.saved() for m, s in self.present().items()})

    def check(self, width: int, encoder: EncoderConfig) -> Iterator[str]:
        """What does not fit together in each stream. `width`, `encoder`: the model's."""
        for modality, stream in self.present().items():
            yield from stream.check(modality.value, width, encoder)


Stream = (
    TextStream
    | CodeStream
    | ImageStream
    | BackboneImageStream
    | WaveformStream
    | FilterbankStream
    | StemStream
    | VideoStream
    | BackboneVideoStream
)
