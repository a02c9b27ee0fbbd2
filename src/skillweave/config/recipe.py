"""The recipe: a model, its tasks with their data, and the training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, field_validator, model_validator

from skillweave.config.base import Config, ConfigError, Positive, choose, nearest
from skillweave.config.inputs import AugmentConfig, LimitsConfig, MaskingConfig
from skillweave.config.layering import load_yaml, merge, nest
from skillweave.config.model import ModelConfig
from skillweave.config.tuning import TuningConfig

Split = Literal["train", "validation", "test"]


class DataConfig(Config):
    """Where a task's samples come from."""

    path: str | dict[Split, str]
    """One source that is split here, or one per split: `pack:emoji`, `installed:reviews`, a .jsonl, .csv or .parquet
    file, a folder of files with captions, `hf:NAME` for a Hugging Face dataset, or .tar shards (WebDataset)."""
    columns: dict[str, str | list[str]] = {}
    """Field of the task → column of the source; several columns for captions, the first of which evaluation uses."""
    group: str | None = None
    """The column whose values never stand in two splits, also where the source has a split of its own; when absent, the
    source's `split` column counts, or else its `group` column, or else each sample alone."""
    fractions: tuple[float, float, float] = (0.8, 0.1, 0.1)
    """Shares of train, validation and test when the source has no `split` column."""
    limit: Positive | None = None
    """Use at most so many samples of each split."""
    fraction: float = Field(default=1.0, gt=0, le=1)
    """Train on this share of the training samples, drawn by hash: a smaller share lies within a larger one, and each label keeps
    its share. On the command line `--fraction` sets it for all tasks."""

    fold: tuple[NonNegativeInt, Positive] | None = None
    """`[i, k]`: training and validation samples are parted into k, of which part i validates and the others train; `skillweave
    train RECIPE --folds k` sets it, for each i in turn."""

    @field_validator("columns", mode="before")
    @classmethod
    def _known(cls, value: Any) -> Any:
        return value or {}

    @model_validator(mode="after")
    def _shares(self) -> DataConfig:
        if min(self.fractions) < 0 or abs(sum(self.fractions) - 1) > 1e-6:
            raise ValueError(f"fractions {self.fractions} must be at least 0 and sum to 1")
        if self.fold and (self.fold[0] >= self.fold[1] or isinstance(self.path, dict)):
            raise ValueError(f"fold {list(self.fold)} needs one path for all splits, and i below k")
        return self


class TaskConfig(Config):
    """One task of the mixture."""

    kind: str = ""
    """Entry of the task catalogue; the task's own name when absent."""
    target: str | None = None
    """Name in `model.targets`; the catalogue's default when absent."""
    data: DataConfig
    """Where its samples come from."""
    weight: PositiveFloat = 1.0
    """How often the task is drawn, relative to the others (SkillNet: 2/4/2/1/4)."""
    batch_size: Positive = 32
    """Samples per micro-batch and process."""
    together: str | None = None
    """Column whose equal values come in the same training batch, such as an album: what tells them apart is then learned."""
    augment: AugmentConfig = AugmentConfig()
    """Changes to training samples."""
    masking: MaskingConfig = MaskingConfig()
    """Masked text: what is hidden, anew each epoch."""
    pack: Positive | None = None
    """Masked text: training samples share rows of so many positions without seeing each other, so that rows are alike in length;
    a row each when absent."""
    classes: dict[str, str] = {}
    """Naming tasks and prompts: label in the data → its name as text, which the model encodes or finds at [MASK]; a list where
    both are the same. When empty, the labels of the training data."""
    decoder: bool = False
    """Classes, numbers and answers of texts: the decoder reads the text once more, one position later, and the target looks at
    what it makes of it, as a class by default at its last token (BART section 3.1)."""
    choices: Positive | None = None
    """Choices of a sample, at most; those of the task's entry when absent (multiple choice 4, idiom cloze 10)."""
    template: str = "{text} [MASK]"
    """Prompts: what the model reads; [MASK] stands where the class's word belongs."""
    stride: Positive = 128
    """Reading comprehension: a text that is too long is read in windows that begin so many pieces apart."""
    metrics: list[Literal["f1", "macro_f1", "matthews"]] = []
    """Classes: further figures. `f1` is that of the last class, such as 1 of 0 and 1 (GLUE)."""
    pool: Positive | None = None
    """Retrieval: size of the evaluation's candidate pool; the whole split when absent."""

    @field_validator("classes", mode="before")
    @classmethod
    def _named(cls, value: Any) -> Any:
        pairs = value.items() if isinstance(value, dict) else ((label, label) for label in value or [])
        classes = {str(label): str(name) for label, name in pairs}
        names = [name.strip() for name in classes.values()]
        if unclear := [name for name in names if not name or names.count(name) > 1]:
            raise ValueError(f"class name {unclear[0]!r} is empty or given twice; names must tell classes apart")
        return classes


class OptimizerConfig(Config):
    """AdamW with a linear schedule (SkillNet appendix)."""

    learning_rate: PositiveFloat = 1e-4
    """Peak rate."""
    weight_decay: NonNegativeFloat = 0.01
    """Decoupled decay; biases, norms and one-dimensional parameters are left out."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Decay of the running mean and mean square of the gradients."""
    epsilon: PositiveFloat = 1e-8
    """Added to the denominator."""
    warmup: NonNegativeFloat = 0.1
    """Warm-up: a share of all steps below 1, a number of steps from 1."""
    clip: PositiveFloat | None = 1.0
    """Largest norm of the gradient; none when null."""


class TrackingConfig(Config):
    """Interference of tasks followed while they train, on sketches of gradients (Uni-Perceiver-MoE eq. 1-2)."""

    every: Positive = 2
    """Steps between looks at the gradient."""
    dimension: Positive = 256
    """Numbers that a block's gradient is projected to; products of two directions err by about 1 / √dimension."""
    blocks: list[str] = []
    """As `--blocks` of `skillweave interference`: the feed-forwards of two layers when empty."""


class TrainingConfig(Config):
    """How long and how to train. Give one of `steps`, `epochs` or `samples`."""

    steps: Positive | None = None
    """Updates in all."""
    epochs: PositiveFloat | None = None
    """Passes over the largest task's data, counted by the mixture's weights."""
    samples: Positive | None = None
    """Samples in all, over all tasks and processes."""
    seed: NonNegativeInt = 0
    """Of weights, mixture, order, masking, augmentation and dropout."""
    optimizer: OptimizerConfig = OptimizerConfig()
    """Optimiser and schedule."""
    accumulate: Positive = 1
    """Micro-batches per update, all of one task."""
    precision: Literal["float32", "bf16"] = "float32"
    """bf16 runs the forward under autocast; weights and optimiser stay float32. CPUs without bf16 emulate it, slowly."""
    validate_every: NonNegativeInt = 0
    """Steps between validations of every task; 0 for only at the end."""
    validation_samples: Positive = 256
    """Most validation samples per task."""
    checkpoint_every: NonNegativeInt = 0
    """Steps between checkpoints; 0 for only at the end."""
    keep: Positive = 1
    """Checkpoints kept beside the best."""
    log_every: Positive = 10
    """Steps between lines of `metrics.jsonl` and TensorBoard."""
    interference: TrackingConfig | None = None
    """How tasks help or harm each other, logged as they train; not followed when absent."""
    workers: NonNegativeInt = 0
    """Processes that prepare batches; 0 prepares them in the training process."""
    bucket: Positive = 8
    """Lengths of text, code and sound are padded to a multiple of it."""
    window: Positive = 16
    """Batches sorted by length together, so that little is padding."""
    max_nonfinite: Positive = 5
    """Steps in a row with a loss that is not finite after which the run stops."""
    threads: Positive | None = None
    """CPU threads; PyTorch's own choice when absent."""
    devices: Positive = 1
    """Processes, one a device."""
    accelerator: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Where to run."""

    @model_validator(mode="after")
    def _one_length(self) -> TrainingConfig:
        given = [name for name in ("steps", "epochs", "samples") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"give exactly one of steps, epochs or samples, not {' and '.join(given) or 'none'}")
        return self


class RecipeConfig(Config):
    """All that a run needs; stored resolved in the run folder."""

    name: str = "run"
    """What the run is called on pages and plots."""
    output: str | None = None
    """The run's folder; `runs/NAME` when absent."""
    start_from: str | None = None
    """A run or checkpoint whose weights are taken where name and shape agree (pretraining, then fine-tuning)."""
    tuning: TuningConfig | None = None
    """Train a part of the model in `start_from` alone; everything when absent."""
    model: ModelConfig
    """The model; that of `start_from` when absent, and where it has no streams that of `start_from` with this on top."""
    tasks: dict[str, TaskConfig] = Field(min_length=1)
    """The mixture."""
    only: list[str] = []
    """Train these tasks alone, for the steps that the whole mixture would have given them: a modality-specific model."""
    limits: LimitsConfig = LimitsConfig()
    """What counts as broken media."""
    training: TrainingConfig
    """How to train."""

    @model_validator(mode="before")
    @classmethod
    def _model_there(cls, data: Any) -> Any:
        if not isinstance(data, dict) or not isinstance(start := data.get("start_from"), str):
            return data
        model = {} if data.get("model") is None else data["model"]
        if not isinstance(model, dict) or {"preset", "streams"} & model.keys():
            return data
        if not Path(start).is_dir():
            raise ValueError(f"start_from: {start}: no such folder; train a run first, or give the path of a run or model folder")
        return {**data, "model": {**model, "preset": start}}

    @model_validator(mode="after")
    def _known_only(self) -> RecipeConfig:
        for name in self.only:
            if name not in self.tasks:
                raise ValueError(f"only: unknown task {name!r}{nearest(name, self.tasks)}")
        if self.only and self.training.steps is None:
            raise ValueError("only: a share of the mixture's steps needs training.steps")
        return self

    @model_validator(mode="after")
    def _tunes_something(self) -> RecipeConfig:
        if self.partial and not self.start_from:
            raise ValueError(f"tuning: method {self.partial.method!r} trains a part of a model; name that model in start_from")
        return self

    @property
    def partial(self) -> TuningConfig | None:
        """How a part of another model is trained; None where everything is."""
        return None if self.tuning is None or self.tuning.method == "full" else self.tuning

    @property
    def folder(self) -> Path:
        """The run folder."""
        return Path(self.output or f"runs/{self.name}")

    def restricted(self) -> RecipeConfig:
        """The recipe of the tasks in `only`, with their share of the steps; the recipe itself when `only` is empty."""
        if not self.only:
            return self
        tasks = {name: task for name, task in self.tasks.items() if name in self.only}
        share = sum(t.weight for t in tasks.values()) / sum(t.weight for t in self.tasks.values())
        steps = max(1, round((self.training.steps or 1) * share))
        training = self.training.model_copy(update={"steps": steps})
        return self.model_copy(update={"tasks": tasks, "training": training, "only": []})


def read_recipe(path: str | Path, overrides: Sequence[str] = (), fraction: float | None = None) -> RecipeConfig:
    """Read a YAML recipe, apply `a.b=value` overrides and validate.

    A recipe may begin from others: `base: other.yaml` (or a list, relative to the recipe's folder); mappings merge, later values
    win, and null takes a mapping away. Tasks outside `only` are left out. `fraction`: of every task's data.
    Raises ConfigError with every fault at once.
    """
    file = Path(path)
    data = load_yaml(file)
    for override in overrides:
        key, separator, value = override.partition("=")
        if not separator:
            raise ConfigError(f"override {override!r}: write it as path.to.key=value")
        try:
            data = merge(data, nest(key.split("."), yaml.safe_load(value)))
        except yaml.YAMLError as error:
            raise ConfigError(f"override {override!r}: not valid YAML: {error}") from None
    if fraction is not None and isinstance(data.get("tasks"), dict):
        data = merge(data, {"tasks": {name: {"data": {"fraction": fraction}} for name in data["tasks"]}})
    return RecipeConfig.parse(data, str(file)).restricted()


def find_recipe(name: str | Path, others: Mapping[str, Path] | None = None) -> Path:
    """A recipe's file: a path, or the name of a recipe in the package or of `others`. Raises ConfigError with the nearest."""
    path = Path(name)
    if path.suffix or path.exists():
        return path
    folder = Path(str(files("skillweave") / "recipes"))
    packaged = {file.relative_to(folder).with_suffix("").as_posix(): file for file in sorted(folder.rglob("*.yaml"))}
    return choose({**packaged, **(others or {})}, str(name), "recipe" if others is None else "recipe or preset")
