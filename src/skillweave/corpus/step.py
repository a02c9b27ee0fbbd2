"""Steps of the corpus pipeline: what one does to a row, and how one is registered.

A step is a configuration class with a `kind` and a method `change`: a pure function from a row to
the fields that change, to a `Drop` with a reason, or to several rows. `@step` makes such a class of
a function. A `CorpusStep` decides about a row after it has seen all of them, such as duplicates.
"""

from __future__ import annotations

import inspect
from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, NamedTuple

from pydantic import create_model

from skillweave.config.base import Config, ConfigError
from skillweave.config.registry import OneOf, Registry

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Row = dict[str, Any]
"""Field → value. A field that a row does not have is None or absent."""


class Drop(NamedTuple):
    """What a step returns for a row that leaves the corpus. `reason`: the rule, the same text for
    all rows to which it applies, so that they are counted together; `detail`: what was found."""

    reason: str
    detail: str = ""


Result = Mapping[str, Any] | Drop | Sequence[Mapping[str, Any]] | None
"""What a step says about a row: the fields that change, a `Drop`, several rows that replace it
(each as the fields that differ from it), or None for a row that stays as it is."""


class Step(Config):
    """A step of the pipeline. Steps run in the order in which they are listed."""

    kind: str
    name: str | None = None
    """What the step is called in the report. The default is its kind."""
    reads: ClassVar[tuple[str, ...]] = ("text",)
    """The fields that a row must have; the step leaves rows without them as they are."""
    writes: ClassVar[Mapping[str, str]] = {}
    """Field that the step adds to rows → its Arrow type."""

    def __getstate__(self) -> dict[Any, Any]:
        """Pickle the options alone: what was loaded for them is loaded again elsewhere."""
        state = super().__getstate__()
        options = {name: state["__dict__"][name] for name in type(self).model_fields}
        return {**state, "__dict__": options}

    expands: ClassVar[bool] = False
    """Whether it makes rows that are much larger than those that it is given."""

    @property
    def title(self) -> str:
        """What the step is called in the report."""
        return self.name or self.kind

    def prepare(self) -> None:
        """Load what the step needs, before work begins. Raises ConfigError for what is missing."""

    def notes(self) -> list[str]:
        """What a reader of the report should know about how the step was set up."""
        return []

    def change(self, row: Row) -> Result:
        """What becomes of a row. It must not depend on anything but the row and the options."""
        raise NotImplementedError

    def run(self, rows: Sequence[Row]) -> Iterable[Result]:
        """What becomes of each row. A step that is faster on many rows at once overrides it."""
        return [
            self.change(row) if all(row.get(name) is not None for name in self.reads) else None
            for row in rows
        ]


class CorpusStep(Step):
    """A step that must see all rows before it decides about one.

    For each row that reaches it, `collect` gives what must be known of it. Many rows make a block,
    which `pack` can bring into another form before it is stored. Then `decide` reads all blocks, in
    constant memory, and gives one record for each row. `judge` turns a row and its record into the
    result of the step.
    """

    @abstractmethod
    def collect(self, rows: Sequence[Row]) -> NDArray[Any]:
        """What `decide` must know about rows. [rows, ...]."""

    def pack(self, collected: NDArray[Any]) -> NDArray[Any]:
        """What is stored of a block of rows."""
        return collected

    @abstractmethod
    def decide(self, blocks: Blocks, folder: Path) -> Iterable[NDArray[Any]]:
        """The records of the rows of each block, in order. `folder`: where to put large tables."""

    @abstractmethod
    def judge(self, row: Row, number: int, record: np.void) -> Result:
        """What becomes of a row with the record that `decide` made. `number`: its place, from 0, in
        the order of `decide`."""

    def summary(self, records: Iterable[NDArray[Any]]) -> Mapping[str, Any]:
        """What the report shows about the decisions, as plain data."""
        return {}


class Blocks(Sequence["NDArray[Any]"]):
    """The arrays that `collect` stored, read when asked for. `counts`: rows of each block."""

    def __init__(self, files: Sequence[Path], counts: Sequence[int]) -> None:
        self.files, self.counts = list(files), list(counts)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: Any) -> Any:
        """The array of a block, mapped from its file."""
        import numpy as np

        return np.load(self.files[index], mmap_mode="r")

    @property
    def rows(self) -> int:
        """The number of all rows."""
        return sum(self.counts)


STEPS: Registry[type[Step]] = Registry("step")
"""Kind → class of a step."""
AnyStep = Annotated[Step, OneOf(STEPS)]
"""A step of any registered kind, told apart by `kind`."""


class FunctionStep(Step):
    """A step that was made of a function."""

    function: ClassVar[Callable[..., Result]]

    def change(self, row: Row) -> Result:
        """What the function says."""
        options = {name: getattr(self, name) for name in self.model_fields_of_options()}
        return type(self).function(row, **options)

    @classmethod
    def model_fields_of_options(cls) -> list[str]:
        """The options of the function."""
        return [name for name in cls.model_fields if name not in Step.model_fields]

    def __reduce__(self) -> Any:
        """Pickle the function rather than the class, which other processes do not have."""
        kind = type(self)
        fields = kind.model_fields
        options = {n: (fields[n].annotation, fields[n]) for n in kind.model_fields_of_options()}
        described = (kind.function, self.kind, kind.reads, dict(kind.writes), options)
        return _restore, (described, self.model_dump(exclude_unset=True))


def step(
    kind: str, *, reads: Sequence[str] = ("text",), writes: Mapping[str, str] | None = None
) -> Callable[[Callable[..., Result]], type[FunctionStep]]:
    """Decorator that makes a step of a function `(row, *, option=default, ...)`.

    `reads`, `writes`: as in `Step`. The function returns what `Step.change` returns. The class that
    takes its place is registered under `kind`; its options are the keyword-only parameters of the
    function, whose annotations and defaults are theirs. Raises ConfigError for a function of
    another form, and ValueError for a kind that is taken."""

    def make(function: Callable[..., Result]) -> type[FunctionStep]:
        options = _options_of(function, kind)
        made = _as_class(function, kind, tuple(reads), dict(writes or {}), options)
        return STEPS.register(kind)(made)

    return make


def _options_of(function: Callable[..., Result], kind: str) -> dict[str, tuple[Any, Any]]:
    """Option of a function → its type and default."""
    first, *options = inspect.signature(function, eval_str=True).parameters.values()
    if first.kind is inspect.Parameter.KEYWORD_ONLY or any(
        option.kind is not inspect.Parameter.KEYWORD_ONLY for option in options
    ):
        raise ConfigError(
            f"step {kind!r}: write its function as (row, *, option=default, ...): a row, and"
            " options after *"
        )
    return {
        option.name: (
            Any if option.annotation is option.empty else option.annotation,
            ... if option.default is option.empty else option.default,
        )
        for option in options
    }


def _as_class(
    function: Callable[..., Result],
    kind: str,
    reads: tuple[str, ...],
    writes: dict[str, str],
    options: Mapping[str, Any],
) -> type[FunctionStep]:
    made = create_model(
        f"{kind.title().replace('_', '')}Step",
        __base__=FunctionStep,
        __doc__=function.__doc__,
        kind=(Literal[kind], kind),  # ty: ignore[invalid-type-form]
        **options,
    )
    made.function, made.reads, made.writes = staticmethod(function), reads, writes
    return made


def _restore(described: tuple[Any, ...], given: dict[str, Any]) -> FunctionStep:
    kind = described[1]
    if kind not in STEPS:
        STEPS.register(kind)(_as_class(*described))
    # ty: ignore[invalid-explicit-return] it was registered above
    return STEPS[kind].model_validate(given)
