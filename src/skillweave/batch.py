"""What data hands to the model: modalities, spans, layouts, examples and batches.

A `Layout` is the one description of a batch from which masks, positions, segments, pooling, routing
conditions and the set of active parameters derive. It is plain data, known on the host before the
step, and imports no torch until a batch is made or moved.

Shape letters used across the package: N samples, S spans, L positions of a pass (padded), T tokens
(flat, without most of the padding), D width, H heads, C channels or classes, E experts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, device

IGNORE = -100
"""The label of a position or sample that no loss looks at (PyTorch's convention)."""


class Modality(StrEnum):
    """A kind of input; a skill's default name (SkillNet section 3.2)."""

    TEXT = "text"
    IMAGE = "image"
    SOUND = "sound"
    VIDEO = "video"
    CODE = "code"


class Role(StrEnum):
    """Whether a span is what a task is given or what it is asked for."""

    INPUT = "input"
    TARGET = "target"


class Attention(StrEnum):
    """Whether a span's positions see each other both ways or only what stands before them."""

    FULL = "full"
    CAUSAL = "causal"


def span_name(modality: Modality, role: Role, attention: Attention) -> str:
    """The modality, with `/target` and `/causal` behind it where they hold."""
    marks = (
        role.value if role is Role.TARGET else "",
        attention.value if attention is Attention.CAUSAL else "",
    )
    return "/".join([modality.value, *filter(None, marks)])


SPAN_NAMES = tuple(span_name(m, r, a) for m in Modality for r in Role for a in Attention)
"""`text`, `text/causal`, `text/target`, `text/target/causal`, `image`, ...: what may tell the spans
of a task apart."""


@dataclass(frozen=True)
class Condition:
    """All that a data-independent route may look at: hashable, equal for every token of a span.

    `inputs` and `targets`: the modalities of all of the task's input and target spans, whichever of
    them are in the batch.
    """

    task: str
    modality: Modality
    role: Role = Role.INPUT
    attention: Attention = Attention.FULL
    inputs: frozenset[Modality] = frozenset()
    targets: frozenset[Modality] = frozenset()

    @property
    def name(self) -> str:
        """One of `SPAN_NAMES`: different for any two conditions of a task."""
        return span_name(self.modality, self.role, self.attention)


@dataclass(frozen=True)
class Span:
    """A run of positions of one modality.

    `length` is the padded number of positions, special tokens included; 0 in a task's template,
    where it is not known yet. Spans of equal `encoder_pass` form one sequence; two passes make a
    siamese model (CLIP, SkillNet's retrieval).
    """

    modality: Modality
    role: Role = Role.INPUT
    encoder_pass: int = 0
    attention: Attention = Attention.FULL
    length: int = 0

    @property
    def written(self) -> bool:
        """Whether a decoder reads it, in a model that has one: a causal target in a pass of its
        own."""
        return self.role is Role.TARGET and self.causal and self.encoder_pass > 0

    @property
    def causal(self) -> bool:
        """Whether its positions see only what stands before them."""
        return self.attention is Attention.CAUSAL


@dataclass(frozen=True)
class Layout:
    """The task and the spans of a batch; all its samples share them.

    `others`: the task's spans that the batch leaves out (the other side of a siamese task); routes
    still know of them. `packed`: each span is a sample of its own, which shares its row with
    others: they do not see each other, and the positions and segments of each begin anew. Rows with
    fewer samples have spans of true length 0.
    """

    task: str
    spans: tuple[Span, ...]
    others: tuple[Span, ...] = ()
    packed: bool = False

    def __post_init__(self) -> None:
        if not self.spans:
            raise ValueError(f"task {self.task!r}: a layout needs at least one span")
        passes = [span.encoder_pass for span in self.spans]
        if passes != sorted(passes) or set(passes) != set(range(max(passes) + 1)):
            raise ValueError(
                f"task {self.task!r}: passes must be numbered 0, 1, ... in the order of the spans,"
                f" not {passes}"
            )
        if self.packed and len({replace(span, length=0) for span in self.spans}) > 1:
            raise ValueError(
                f"task {self.task!r}: packed samples must all have one span of the same kind"
            )

    @property
    def passes(self) -> tuple[tuple[int, ...], ...]:
        """The indices of the spans of each pass, in order."""
        count = self.spans[-1].encoder_pass + 1
        return tuple(
            tuple(i for i, span in enumerate(self.spans) if span.encoder_pass == p)
            for p in range(count)
        )

    @property
    def modalities(self) -> tuple[Modality, ...]:
        """The modalities in use, without repeats, in order: the task's skills (SkillNet Table
        1)."""
        return tuple(dict.fromkeys(span.modality for span in self.spans))

    def given(self, role: Role) -> frozenset[Modality]:
        """The modalities of the task's spans of a role."""
        return frozenset(span.modality for span in (*self.spans, *self.others) if span.role is role)

    def condition(self, span: int) -> Condition:
        """What the routes may know of a span's tokens."""
        it = self.spans[span]
        return Condition(
            self.task,
            it.modality,
            it.role,
            it.attention,
            self.given(Role.INPUT),
            self.given(Role.TARGET),
        )

    @property
    def conditions(self) -> tuple[Condition, ...]:
        """The distinct conditions of the batch; weights are resolved once for each."""
        return tuple(dict.fromkeys(self.condition(i) for i in range(len(self.spans))))

    def before(self, span: int, separate_parts: bool = False) -> list[int]:
        """The spans of its own modality that stand before it in its pass: it goes on where they
        end. `separate_parts`: only those of its own attention (see `TextStream`)."""
        it = self.spans[span]
        if self.packed:
            return []
        return [
            s
            for s in self.passes[it.encoder_pass]
            if s < span
            and self.spans[s].modality == it.modality
            and (not separate_parts or self.spans[s].attention == it.attention)
        ]

    def segment(self, span: int, separate_parts: bool = False) -> int:
        """The span's rank among the spans of its own modality in its pass (BERT's sentence A and
        B). `separate_parts`: 1 for a causal span, 0 for another (M6's complete and masked
        text)."""
        if separate_parts:
            return int(self.spans[span].causal)
        return len(self.before(span))

    def starts(self, span: int, lengths_NS: Tensor, separate_parts: bool = False) -> Tensor | None:
        """[N] the position with which each sample's span begins: positions run on among spans of a
        modality, as in BERT's pairs.

        `lengths_NS`: true positions of the batch's spans. `separate_parts`: see `before`. None
        where they all begin at 0.
        """
        before = self.before(span, separate_parts)
        return lengths_NS[:, before].sum(1) if before else None

    def with_lengths(self, lengths: tuple[int, ...]) -> Layout:
        """The same layout with the spans' padded lengths set."""
        if len(lengths) != len(self.spans):
            raise ValueError(
                f"task {self.task!r}: {len(lengths)} lengths for {len(self.spans)} spans"
            )
        return replace(
            self,
            spans=tuple(replace(s, length=n) for s, n in zip(self.spans, lengths, strict=True)),
        )

    def only(self, encoder_pass: int) -> Layout:
        """One pass alone, to encode one side of a siamese task; its conditions stay those of the
        whole task."""
        spans = tuple(
            replace(s, encoder_pass=0) for s in self.spans if s.encoder_pass == encoder_pass
        )
        others = (*self.others, *(s for s in self.spans if s.encoder_pass != encoder_pass))
        return replace(self, spans=spans, others=others)


@dataclass(frozen=True)
class Features:
    """One span of one sample, ready for the model.

    `data`: token ids [L] (int64), pixels [3, H, W], frames [3, T, H, W] a waveform [samples] or
    log-mel frames [F, M] (float32). `length`: the positions it takes in the encoder, special tokens
    included. `masked`: the positions [L] whose embedding gives way to the mask vector (masked-unit
    prediction), or that are left out and not counted in `length` (MAE); None for none. `truncated`:
    whether the text or recording was longer, and only its beginning is here.
    """

    data: Tensor
    length: int
    masked: Tensor | None = None
    truncated: bool = False


@dataclass(frozen=True)
class Example:
    """One sample of a task: the features of each span, and labels by name.

    `labels`: one value or list a sample. `token_labels`: [L] one value for each position of the
    last pass, padding excluded, IGNORE where there is none. `logits_to_keep`: [L] bool, the
    positions of the last pass for which logits are wanted; those that have a token label when
    None. `metadata`: what turns logits into an answer and no loss looks at, such as the text in
    which an answer is found.
    """

    spans: tuple[Features, ...]
    labels: Mapping[str, Tensor | float] = field(default_factory=dict)
    key: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    token_labels: Mapping[str, Tensor] = field(default_factory=dict)
    logits_to_keep: Tensor | None = None


@dataclass(frozen=True)
class SkippedSample:
    """A sample left out: where it came from and why, for `skipped.jsonl` and the counts on
    screen."""

    task: str
    key: str
    reason: str


@dataclass(frozen=True)
class Batch:
    """A micro-batch of one task.

    `inputs`: one tensor per span, stacked and padded (see `Features.data`), first dimension N.
    `lengths`: [N, S] int64 on the host, the true positions of each span. `labels`: by name;
    integers stack to [N], vectors pad with `IGNORE` to the padded length of their pass. `masked`:
    one [N, L] bool tensor per span, or None. `candidates`: the answers that the task chooses from,
    where it encodes them: a batch of the task's last pass, with rows of its own number and order.
    Its label `stands_for` [C] counts for how many answers each row stands, itself included;
    `numbers` [C] are the answers' own. `metadata`: that of each example. `logits_to_keep`: [N, L]
    bool, the positions of the last pass for which logits are wanted; None for all. `truncated`: how
    many samples had a text or a recording of which only the beginning is here.
    """

    layout: Layout
    inputs: tuple[Tensor, ...]
    lengths: Tensor
    labels: Mapping[str, Tensor] = field(default_factory=dict)
    masked: tuple[Tensor | None, ...] = ()
    keys: tuple[str, ...] = ()
    skipped: tuple[SkippedSample, ...] = ()
    candidates: Batch | None = None
    metadata: tuple[Mapping[str, Any], ...] = ()
    logits_to_keep: Tensor | None = None
    truncated: int = 0

    def __len__(self) -> int:
        return int((self.lengths > 0).sum()) if self.layout.packed else self.lengths.shape[0]

    def to(self, target: device | str) -> Batch:
        """The batch with its tensors on `target`; true lengths stay on the host, where the layout
        is decided."""
        return replace(
            self,
            inputs=tuple(x.to(target, non_blocking=True) for x in self.inputs),
            labels={name: x.to(target, non_blocking=True) for name, x in self.labels.items()},
            masked=tuple(
                None if x is None else x.to(target, non_blocking=True) for x in self.masked
            ),
            candidates=None if self.candidates is None else self.candidates.to(target),
            logits_to_keep=(
                None
                if self.logits_to_keep is None
                else self.logits_to_keep.to(target, non_blocking=True)
            ),
        )

    def pin_memory(self) -> Batch:
        """The batch with its tensors in pinned memory, from which they are copied to a GPU while
        the host goes on. Data loaders call it."""

        def pinned(x: Tensor | None) -> Tensor | None:
            return None if x is None else x.pin_memory()

        return replace(
            self,
            inputs=tuple(x.pin_memory() for x in self.inputs),
            labels={name: x.pin_memory() for name, x in self.labels.items()},
            masked=tuple(map(pinned, self.masked)),
            candidates=None if self.candidates is None else self.candidates.pin_memory(),
            logits_to_keep=pinned(self.logits_to_keep),
        )

    def split(self, size: int) -> list[Batch]:
        """The batch in parts of at most `size` samples, with the padded lengths of the whole. Only
        for a batch without candidates and packed rows."""

        def rows(x: Any, part: slice) -> Any:
            return None if x is None else x[part]

        parts = [slice(start, start + size) for start in range(0, len(self.lengths), size)]
        return [
            replace(
                self,
                inputs=tuple(x[part] for x in self.inputs),
                lengths=self.lengths[part],
                labels={name: x[part] for name, x in self.labels.items()},
                masked=tuple(rows(x, part) for x in self.masked),
                keys=self.keys[part],
                skipped=(),
                metadata=self.metadata[part],
                logits_to_keep=rows(self.logits_to_keep, part),
            )
            for part in parts
        ]

    @property
    def parts(self) -> tuple[Batch, ...]:
        """What the encoder runs on: the batch, and its candidates where it has them."""
        return (self,) if self.candidates is None else (self, self.candidates)

    @property
    def tokens(self) -> int:
        """True positions in the batch."""
        return int(self.lengths.sum())

    @property
    def condition_tokens(self) -> Mapping[Condition, int]:
        """The distinct conditions of the batch and its candidates, in order, with the true
        positions of each."""
        counts: dict[Condition, int] = {}
        for part in self.parts:
            for span, count in enumerate(part.lengths.sum(0).tolist()):
                condition = part.layout.condition(span)
                counts[condition] = counts.get(condition, 0) + count
        return counts

    @property
    def padding(self) -> float:
        """The share of the batch's positions that is padding."""
        return 1 - self.tokens / (
            self.lengths.shape[0] * sum(span.length for span in self.layout.spans)
        )
