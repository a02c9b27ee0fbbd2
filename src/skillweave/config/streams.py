"""Streams: one per modality, with the settings of its processor and of its embedding modules."""

from __future__ import annotations

from typing import Literal

from pydantic import NonNegativeInt, PositiveFloat, model_validator

from skillweave.batch import Modality
from skillweave.config.base import Config, Positive
from skillweave.config.encoder import EncoderConfig

ASSETS_FOLDER = "assets"
"""Where a model's folder holds its assets."""


def tokenizer_asset(modality: Modality) -> str:
    """The name of a modality's tokeniser among the model's assets."""
    return f"{modality.value}_tokenizer.json"


SpecialToken = Literal["pad", "unknown", "cls", "separator", "mask"]


class TokenizerConfig(Config):
    """Where a stream's tokeniser comes from."""

    path: str | None = None
    """A tokeniser folder of Hugging Face's, its `tokenizer.json`, or a model folder; when absent,
    trained on training texts."""
    kind: Literal["wordpiece", "bpe"] = "wordpiece"
    """The model to train when `path` is absent."""
    lowercase: bool = True
    """Fold case before training and use."""
    min_frequency: Positive = 2
    """How often a piece must occur to enter a trained vocabulary."""
    special: dict[SpecialToken, str] = {}
    """What special tokens are called where it is not as in BERT ([PAD], [UNK], [CLS], [SEP],
    [MASK]); when empty, as the tokeniser's own folder says (`special_tokens_map.json`,
    `tokenizer_config.json`)."""


class StreamConfig(Config):
    """What all streams have in common."""

    width: Positive | None = None
    """Size of the stream's vectors, where it has an encoder of its own; absent, the model's."""
    encoder: EncoderConfig | None = None
    """An encoder of its own, instead of the one that streams share (CLIP)."""


class TextStream(StreamConfig):
    """Text: word, position and segment embeddings (SkillNet section 3.3, BERT)."""

    embedding: list[Literal["word", "position", "sinusoidal", "timing", "segment", "modality"]] = [
        "word",
        "position",
        "segment",
    ]
    """Embedding modules, summed; `position` is learned, `sinusoidal` computed, `timing` as in
    tensor2tensor; `modality` is a vector of the stream's own that is added after the norm
    (ViLT)."""
    size: Positive | None = None
    """Size of the embeddings, projected to the stream's width after their norm (ALBERT, ELECTRA);
    absent, that width."""
    scaled: bool = False
    """Word embeddings multiplied by √size (Transformer, arXiv 1706.03762 section 3.4)."""
    norm: bool = True
    """Layer normalisation after the sum (BERT)."""
    vocabulary: Positive = 21128
    """The most wordpieces a trained tokeniser may have; the loaded tokeniser's size replaces it."""
    max_length: Positive = 512
    """Most positions, special tokens included; longer texts are cut."""
    position_offset: NonNegativeInt = 0
    """Rows of the position table before that of the first position (RoBERTa, BART: 2)."""
    segments: Positive = 2
    """Rows of the segment embedding; with 1 all segments are the same."""
    causal: bool = False
    """Whether texts are read from left to right by every task, each position seeing what stands
    before it (GPT-2, LLaMA, CLIP); so it is as well where all tasks that a configuration has
    already read them so."""
    tokenizer: TokenizerConfig = TokenizerConfig()
    """How the tokeniser is made or loaded."""


class CodeStream(TextStream):
    """Code: as text, with its own wordpieces (SkillNet section 3.3, CodeBERT) unless `word` is
    shared."""

    tokenizer: TokenizerConfig = TokenizerConfig(lowercase=False)
    """How the tokeniser is made or loaded; case carries meaning in code."""


class TargetStream(TextStream):
    """What a decoder reads: the words of the answer so far."""

    tied: bool = True
    """Whether its word embedding is that of the text stream."""


VISIBLE = frozenset({"visible_patch", "visible_tubelet"})
"""Embedding modules that leave out what is masked (MAE, VideoMAE)."""


class ImageStream(StreamConfig):
    """Images cut into patches (SkillNet section 3.3, ViT)."""

    embedding: list[Literal["patch", "masked_patch", "visible_patch", "position", "modality"]] = [
        "patch",
        "position",
    ]
    """Embedding modules, summed. With `masked_patch` a learned vector takes the place of masked
    patches (BEiT), with `visible_patch` they are left out (MAE); `modality` is a vector of the
    stream's own that is added after the norm (ViLT)."""
    norm: bool = False
    """Layer normalisation after the sum."""
    size: Positive = 224
    """Side of the square picture, in pixels."""
    patch: Positive = 16
    """Side of a patch, in pixels."""
    patch_bias: bool = True
    """Whether the convolution that makes patches adds a bias (CLIP: none)."""
    distilled: bool = False
    """Whether a second learned token stands behind [CLS], which learns from a teacher (DeiT)."""
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
        """Positions of a picture, [CLS] and what stands beside it included."""
        return (self.size // self.patch) ** 2 + self.specials

    @property
    def grid(self) -> tuple[int, int, int]:
        """Patches along time, rows and columns, as of a clip of one frame."""
        return 1, self.size // self.patch, self.size // self.patch

    @property
    def tubelet(self) -> tuple[int, int, int]:
        """Frames, rows and columns of a patch."""
        return 1, self.patch, self.patch

    @property
    def specials(self) -> int:
        """Positions before the patches."""
        return 1 + self.distilled


WHISPER_RATE = 16_000
"""Samples per second of Whisper's frames."""


class SoundStream(StreamConfig):
    """Sound through convolutions: of a waveform (SkillNet section 3.3, wav2vec) or of log-mel
    frames (S2T, Whisper)."""

    embedding: list[
        Literal["waveform", "filterbank", "position", "sinusoidal", "timing", "convolution"]
    ] = [
        "waveform",
        "position",
    ]
    """Embedding modules, summed: one of `waveform` and `filterbank`, and positions. `position` is
    learned, `sinusoidal` and `timing` are computed, `convolution` sees a frame's neighbourhood
    (wav2vec 2.0)."""
    mels: Positive = 80
    """`filterbank`: bins of the mel scale, in frames of 25 ms every 10 ms."""
    frames: Literal["kaldi", "whisper"] = "kaldi"
    """`filterbank`: how frames are made. `kaldi`: each bin has mean 0 and variance 1 over a
    recording (S2T). `whisper`: the loudest 80 dB, with silence behind a recording up to
    `max_length`, which the encoder sees too (arXiv 2212.04356)."""
    gated: bool = True
    """`filterbank`: its convolutions end in gated linear units (S2T), and otherwise in GELU
    (Whisper)."""
    scaled: bool = False
    """`filterbank`: vectors multiplied by √width before positions are added (S2T)."""
    position_offset: NonNegativeInt = 0
    """Positions before that of the first frame (S2T: 2)."""
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
    convolution_norm: Literal["group", "layer"] = "group"
    """`group`: each channel of the first convolution over time (wav2vec 2.0 base). `layer`: each
    frame of all (large)."""
    convolution_bias: bool = False
    """Whether the convolutions add a bias (wav2vec 2.0 large)."""
    position_kernel: Positive = 128
    """`convolution`: how many frames it sees at once."""
    position_groups: Positive = 16
    """`convolution`: groups of numbers that do not mix; the width must be a multiple."""
    mask_vector: bool = True
    """Whether there is a learned vector that masked frames give way to."""
    max_length: Positive = 1000
    """Most positions: 1,000 at 20 ms each are 20 s (the paper's "20ms" is a slip)."""

    @model_validator(mode="after")
    def _pairs(self) -> SoundStream:
        if len(self.kernels) != len(self.strides):
            raise ValueError(f"{len(self.kernels)} kernels but {len(self.strides)} strides")
        if self.filterbank and (
            "waveform" in self.embedding or not all(kernel % 2 for kernel in self.kernels)
        ):
            raise ValueError(
                "filterbank stands without waveform and has odd kernels, such as [5, 5] with"
                " strides [2, 2]"
            )
        if self.frames == "whisper" and (not self.filterbank or self.rate != WHISPER_RATE):
            raise ValueError(
                f"whisper's frames are those of a filterbank at a rate of {WHISPER_RATE}"
            )
        return self

    @property
    def filterbank(self) -> bool:
        """Whether the model is given log-mel frames, and not a waveform."""
        return "filterbank" in self.embedding

    @property
    def frame(self) -> tuple[int, int]:
        """Samples that a log-mel frame needs, and from one to the next; Whisper's reach over a
        recording's ends."""
        step = self.rate // 100
        return (step if self.frames == "whisper" else self.rate // 40), step

    def length(self, entries: int) -> int:
        """Positions that so many samples, or log-mel frames, give: of a waveform only windows that
        lie wholly inside count."""
        for kernel, stride in zip(self.kernels, self.strides, strict=True):
            # a filterbank's windows are padded
            entries = (entries - (1 if self.filterbank else kernel)) // stride + 1
        return max(entries, 0)

    def entries(self, positions: int) -> int:
        """The most samples, or log-mel frames, that give so many positions; what a bucket is padded
        to."""
        for kernel, stride in zip(reversed(self.kernels), reversed(self.strides), strict=True):
            positions = positions * stride + (0 if self.filterbank else kernel - 1)
        return positions

    def positions(self, samples: int) -> int:
        """Positions that `samples` samples of a waveform give."""
        size, step = self.frame if self.filterbank else (1, 1)
        return self.length((samples - size) // step + 1)

    def samples(self, positions: int) -> int:
        """The most samples that give `positions` positions."""
        size, step = self.frame if self.filterbank else (1, 1)
        return (self.entries(positions) - 1) * step + size + step - 1


class VideoStream(StreamConfig):
    """Video cut into tubelets (SkillNet section 3.3, ViViT)."""

    embedding: list[
        Literal[
            "tubelet",
            "visible_tubelet",
            "factorised_position",
            "position",
            "interleaved_sinusoidal",
        ]
    ] = [
        "tubelet",
        "factorised_position",
    ]
    """Embedding modules, summed; positions are factorised into time, row and column, or one for
    each tubelet: learned (`position`), or computed, sines and cosines in turns (VideoMAE). With
    `visible_tubelet` masked tubelets are left out."""
    first: bool = True
    """Whether a [CLS] stands before the tubelets."""
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
            raise ValueError(
                f"{self.frames} frames of {self.size} × {self.size} cannot be cut into tubelets"
                f" {self.tubelet}"
            )
        return self

    @property
    def specials(self) -> int:
        """Positions before the tubelets."""
        return int(self.first)

    @property
    def grid(self) -> tuple[int, int, int]:
        """Tubelets along time, rows and columns."""
        t, h, w = self.tubelet
        return self.frames // t, self.size // h, self.size // w

    @property
    def max_length(self) -> int:
        """Positions of a clip, [CLS] included."""
        t, h, w = self.grid
        return t * h * w + self.specials


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
