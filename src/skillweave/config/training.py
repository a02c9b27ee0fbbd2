"""Settings of training: length, optimizer, schedule, precision, devices, and the tuned part."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, model_validator

from skillweave.batch import Modality
from skillweave.config.base import Config, Positive, Whole
from skillweave.config.parallel import ParallelConfig, ReplicatedConfig
from skillweave.config.variants import Tagged, Variant

PREFETCH = 2
"""Micro-batches that each data worker prepares ahead."""


class OptimizerSettings(Variant):
    """An optimizer, and its learning rate: linear warm-up, a constant part, and a decay. By default
    the decay is linear and follows the warm-up at once (SkillNet appendix).

    A parameter without a gradient in a step is neither updated nor decayed.
    """

    state_bytes: ClassVar[int] = 8
    """Bytes of the state of each parameter, at least."""
    elementwise: ClassVar[bool] = False
    """Whether the update of a number depends on its own gradient and state alone."""

    kind: str
    """Name of the optimizer."""
    learning_rate: PositiveFloat = 1e-4
    """Peak learning rate."""
    weight_decay: NonNegativeFloat = 0.01
    """Decoupled weight decay. It does not apply to biases, norms and embeddings."""
    warmup: NonNegativeFloat = 0.1
    """Warm-up: a share of all steps if below 1, else a number of steps."""
    decay: float = Field(default=1.0, ge=0, le=1)
    """Decay: the share of the steps after the warm-up in which the learning rate falls to 0.
    Before, it is constant: 0 is a constant schedule, and a small share is WSD (warm-up, stable,
    decay). A run of unknown length can so be ended by another that starts from it and decays (arXiv
    2405.18392)."""
    schedule: Literal["linear", "cosine", "1-sqrt"] = "linear"
    """Shape of the decay: `linear` (SkillNet); `cosine`, half a period of it (M6); `1-sqrt`, one
    minus the square root of the share that is done, which suits WSD (arXiv 2405.18392, section
    3.1)."""
    max_grad_norm: PositiveFloat | None = 1.0
    """Gradients are clipped to this norm; null disables clipping."""


class AdamWConfig(OptimizerSettings):
    """AdamW (arXiv 1711.05101), in PyTorch's fused implementation."""

    elementwise = True

    kind: Literal["adamw"] = "adamw"
    """Selects AdamW, which is the default."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Decay of the running mean and mean square of the gradients."""
    epsilon: PositiveFloat = 1e-8
    """Added to the denominator."""


class AdafactorConfig(OptimizerSettings):
    """Adafactor (arXiv 1804.04235): the mean squares of a matrix are kept as one number for each
    row and column, and there are no running means. Updates are as large as the learning rate times
    the root mean square of the parameter."""

    state_bytes = 0

    kind: Literal["adafactor"] = "adafactor"
    """Selects Adafactor."""
    clipping: PositiveFloat = 1.0
    """Largest root mean square of an update before it is multiplied by the learning rate."""


class MuonConfig(OptimizerSettings):
    """Muon (Jordan et al. 2024): the running mean of a matrix's gradients, orthogonalised. Updates
    are as large as those of AdamW, so that learning rate and weight decay are too (arXiv
    2502.16982).

    It applies to the matrices of Transformer blocks. Queries, keys and values are orthogonalised
    apart, and so are both halves of a gated feed-forward. AdamW updates everything else:
    embeddings, norms, biases, the gates of routes, targets.
    """

    state_bytes = 4

    kind: Literal["muon"] = "muon"
    """Selects Muon."""
    momentum: float = Field(default=0.95, ge=0, lt=1)
    """Decay of the running mean of the gradients."""
    betas: tuple[float, float] = (0.9, 0.95)
    """AdamW's, for the other parameters."""
    epsilon: PositiveFloat = 1e-8
    """AdamW's, for the other parameters."""


class AdamW8bitConfig(OptimizerSettings):
    """AdamW whose state has 8 bits a number (arXiv 2110.02861), by bitsandbytes: pip install
    'skillweave[8bit]'. The state of parameters with less than 4,096 numbers, and of embeddings,
    has 32."""

    state_bytes = 2

    kind: Literal["adamw_8bit"] = "adamw_8bit"
    """Selects AdamW with 8 bits."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Decay of the running mean and mean square of the gradients."""
    epsilon: PositiveFloat = 1e-8
    """Added to the denominator."""


OptimizerConfig = Annotated[AdamWConfig | AdafactorConfig | MuonConfig | AdamW8bitConfig, Tagged()]


class InterferenceConfig(Config):
    """Estimate the interference between tasks during training, from sketches of the gradients
    (Uni-Perceiver-MoE eq. 1-2)."""

    every: Positive = 2
    """Steps between two sketches."""
    dimension: Positive = 256
    """Size of the sketch of a block's gradient. The error of a product of two directions is about
    1 / √dimension."""
    blocks: list[str] = []
    """As `--blocks` of `skillweave interference`. When empty, the feed-forward blocks of two
    layers."""


class LossSpikeConfig(Config):
    """What to do when the loss of a step is far above the earlier ones of its task."""

    deviations: PositiveFloat = 6.0
    """A loss is a spike if it is so many standard deviations above the mean."""
    window: Positive = 50
    """Number of the task's last losses, roughly, that mean and deviation are of. Before there are
    as many, no loss is a spike."""
    action: Literal["skip", "roll_back"] = "skip"
    """`skip`: the step changes nothing. `roll_back`: weights and optimizer state are also those of
    the newest checkpoint again, and training goes on with the next samples (PaLM, arXiv 2204.02311,
    section 5.1)."""
    limit: Positive = 10
    """The run stops after this many spikes."""


class SteeringConfig(Config):
    """Multiply the weights of the tasks during the run. Each change is logged."""

    by: Literal["validation", "interference"] = "validation"
    """`validation`: after each validation, more steps for tasks whose validation loss falls faster
    than that of the others (arXiv 1704.03003). `interference`: more steps for tasks whose steps
    lower the losses of the others, and fewer for those that harm them, as
    `training.interference` estimates it."""
    strength: PositiveFloat = 1.0
    """How strongly. By validation, a task whose loss fell by 10 % more than the mean is multiplied
    by 1.1 to this power. By interference, a task that gives all others as much as their own steps
    is multiplied by e to this power."""
    most: float = Field(default=4.0, ge=1)
    """Weights are multiplied by at most this number, and divided by at most this number."""
    every: Positive = 100
    """By interference: steps between two changes."""
    delay: Whole = 16
    """Steps until a change takes effect, since data workers prepare batches ahead."""


class MixtureConfig(Config):
    """Which task a step trains, besides the weights of the tasks."""

    temperature: PositiveFloat | None = None
    """Weights are multiplied by the number of training samples of the task to the power of
    1 / temperature: 1 draws tasks by the size of their data, and a larger number more evenly. If
    absent, the number of samples does not count."""
    steering: SteeringConfig | None = None
    """Change the weights during the run; they stay as they are when absent."""


class FeatureCacheConfig(Config):
    """Features of frozen backbones on disk, so that a picture goes through its backbone once. They
    are the features without augmentation, so the tasks have none for images and videos."""

    path: str
    """Folder of the features, made if absent; several runs may share it. It belongs on a local
    disk. Its file has 4 bytes for each number: 131 kB for a picture of 16 regions of a
    ResNet-50."""
    max_bytes: Positive = 64 * 2**30
    """Largest size of the file. When it is reached, nothing more is stored, with a warning."""


class TrainingConfig(Config):
    """How long and how to train. Exactly one of `steps`, `epochs` and `samples` is required."""

    steps: Positive | None = None
    """Number of updates."""
    epochs: PositiveFloat | None = None
    """Passes over the data of the task that needs the most steps for one pass, given the tasks'
    weights."""
    samples: Positive | None = None
    """Number of samples over all tasks and processes."""
    seed: Whole = 0
    """Seed of weights, mixture, order, masking, augmentation and dropout."""
    optimizer: OptimizerConfig = AdamWConfig()
    """Optimizer and learning rate schedule."""
    gradient_accumulation_steps: Positive = 1
    """Micro-batches per update. All of them belong to one task. The gradient is that of one batch
    of all their samples, except for contrastive losses: see the page on devices."""
    precision: Literal["float32", "bf16"] = "float32"
    """`bf16` runs the forward pass under autocast; weights and optimizer state stay float32. CPUs
    without bf16 instructions emulate it, which is slow."""
    compile: bool = False
    """Compile the blocks of Transformers with `torch.compile`. They are compiled when a task is
    trained first, which takes a minute or more, and then serve batches of any length. Worth it in
    long runs, on a GPU above all."""
    activation_checkpointing: Literal["none", "selective"] | Positive = "none"
    """Memory for time: layers of Transformers keep only their input, and compute the rest again in
    the backward pass. A number n: every n-th layer; 1: all. `selective`: all layers, but they keep
    the results of matrix products and of attention. The result is the same."""
    validate_every: Whole = 0
    """Steps between validations of all tasks; 0 validates only at the end."""
    validation_samples: Positive = 256
    """Maximum number of validation samples per task."""
    checkpoint_every: Whole = 0
    """Steps between checkpoints; 0 saves only at the end."""
    asynchronous_checkpoints: bool = False
    """Write checkpoints while training goes on. They are copied first, so the host needs memory for
    weights and optimizer state once more."""
    save_total_limit: Positive = 2
    """Number of checkpoints to keep, besides the best one. Training resumes from the newest that is
    not damaged."""
    log_every: Positive = 10
    """Steps between lines of `metrics.jsonl` and figures of trackers."""
    track: list[Literal["tensorboard", "trackio", "wandb", "mlflow"]] | None = None
    """Where figures go besides `metrics.jsonl`. `tensorboard`: files in the run folder. `trackio`:
    a local database. `wandb`: Weights & Biases, or its files with WANDB_MODE=offline. `mlflow`: a
    database in the run folder, or the server of MLFLOW_TRACKING_URI. Their packages must be
    installed. Default: TensorBoard if it is installed; an empty list is none."""
    profile: Whole = 0
    """Number of steps, after the first three, that PyTorch's profiler records into `profile` of the
    run folder, for Perfetto or chrome://tracing; 0 for none. `--profile N` sets it."""
    feature_cache: FeatureCacheConfig | None = None
    """Store the features of frozen backbones; disabled when absent. `skillweave cache RECIPE` fills
    it before training, on an accelerator and in batches; training adds what is missing."""
    mixture: MixtureConfig = MixtureConfig()
    """Temperature of the mixture, and weights that change by themselves."""
    interference: InterferenceConfig | None = None
    """Log how tasks help or harm each other during training; disabled when absent."""
    workers: Whole = 0
    """Processes that prepare batches; 0 prepares them in the training process."""
    pad_to_multiple_of: Positive = 8
    """Lengths of text, code and sound are padded to a multiple of this number."""
    bucket_batches: Positive = 16
    """Number of consecutive batches whose samples are sorted by length, which reduces padding."""
    max_nonfinite_steps: Positive = 5
    """The run stops after this many consecutive steps without a finite loss and gradient."""
    loss_spikes: LossSpikeConfig | None = None
    """Look for steps whose loss is far above the earlier ones; disabled when absent."""
    reader_timeout: PositiveFloat = 600.0
    """The run stops if one sample is not read within this many seconds. The message names the
    sample and its files."""
    threads: Positive | None = None
    """CPU threads; PyTorch's default when absent."""
    devices: Positive = 1
    """Number of processes, one per device."""
    parallel: ParallelConfig = ReplicatedConfig()
    """How the model is spread over several processes."""
    task_sampling: Literal["synchronised", "independent"] = "synchronised"
    """With several processes: whether all of them train the same task in a step, or each draws its
    own (Uni-Perceiver-MoE). Contrastive losses compare the samples of the processes that have the
    same task."""
    accelerator: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Kind of device."""

    @model_validator(mode="after")
    def _one_length(self) -> TrainingConfig:
        given = [name for name in ("steps", "epochs", "samples") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(
                f"give exactly one of steps, epochs or samples, not {' and '.join(given) or 'none'}"
            )
        return self

    @model_validator(mode="after")
    def _steers_in_time(self) -> TrainingConfig:
        steering = self.mixture.steering
        if steering is None:
            return self
        if steering.by == "interference" and not self.interference:
            raise ValueError(
                "mixture.steering by interference needs training.interference; set it, such as"
                " interference: {}"
            )
        ahead = -(-PREFETCH * self.workers // self.gradient_accumulation_steps)
        if steering.delay < ahead:
            raise ValueError(
                f"mixture.steering.delay: {self.workers} workers prepare {ahead} steps ahead; give"
                f" at least {ahead}"
            )
        return self

    @model_validator(mode="after")
    def _gradient_of_one_task(self) -> TrainingConfig:
        if self.interference and self.devices > 1 and self.task_sampling == "independent":
            raise ValueError(
                "interference needs the gradient of one task in each step; set task_sampling:"
                " synchronised"
            )
        return self

    @property
    def replicas(self) -> int:
        """Number of replicas of the model, each with samples of its own."""
        return self.devices // self.parallel.replica_size

    @model_validator(mode="after")
    def _parts_of_parameters(self) -> TrainingConfig:
        if self.devices == 1:  # torchrun may start more
            return self
        self._require_mesh()
        if self.parallel.has_all_gradients:
            return self
        if self.parallel.one_task and self.task_sampling == "independent":
            raise ValueError(
                f"parallel: {self._layout} needs the same task on all processes in a step; set"
                " task_sampling: synchronised"
            )
        if self.parallel.in_parts and not self.optimizer.elementwise:
            raise ValueError(
                f"parallel: {self._layout} gives the optimizer parts of parameters, and"
                f" {self.optimizer.kind} needs whole ones; use optimizer: adamw, or parallel:"
                " replicated"
            )
        if self.interference:
            raise ValueError(
                f"interference compares all gradients, and with parallel: {self._layout} no"
                " process has them; use parallel: replicated"
            )
        return self

    @property
    def _layout(self) -> str:
        """The strategy in an error, such as `replicated with tensor: 2`."""
        one = self.parallel
        axes = [f"{n}: {getattr(one, n)}" for n in ("tensor", "pipeline") if getattr(one, n) > 1]
        return f"{one.kind} with {', '.join(axes)}" if axes else one.kind

    def _require_mesh(self) -> None:
        """Raise ValueError if the processes cannot be arranged as `parallel` says."""
        one = self.parallel
        if self.devices % one.replica_size:
            raise ValueError(
                f"parallel: tensor {one.tensor} × pipeline {one.pipeline} needs a multiple of"
                f" {one.replica_size} processes, and devices is {self.devices}; change one of them"
            )
        if one.replica_size > 1 and not one.combines:
            raise ValueError(
                f"parallel: {one.kind} cannot be combined with tensor or pipeline; leave them out,"
                " or use kind: replicated or sharded"
            )
        if one.pipeline > 1 and one.divides_weights:
            raise ValueError(
                f"parallel: {one.kind} cannot be combined with pipeline; use kind: replicated, or"
                " tensor in place of pipeline"
            )
        if self.compile and one.replica_size > 1:
            raise ValueError(
                "compile cannot be combined with parallel.tensor or parallel.pipeline; leave one"
                " of them out"
            )
        count = self.gradient_accumulation_steps
        if one.pipeline == 1 or one.schedule == "gpipe":
            return
        multiple = one.schedule == "interleaved"
        if count < one.pipeline or (multiple and count % one.pipeline):
            wanted = "a multiple of" if multiple else "at least"
            raise ValueError(
                f"parallel.schedule: {one.schedule} needs {wanted} {one.pipeline} micro-batches in"
                f" an update, and gradient_accumulation_steps is {count}; change it, or use"
                " schedule: gpipe"
            )


class TuningConfig(Config):
    """Which part of the model in `start_from` is trained. Unless that is all of it, the checkpoints
    contain only that part."""

    method: Literal["prompt", "lora", "full"] = "prompt"
    """`prompt`: learned vectors before the keys and values of each layer, the norms, the similarity
    scale, and for classification the last layer of the classifier or a linear layer added to the
    similarities (Uni-Perceiver-MoE). `lora`: a low-rank change of each linear layer of the
    encoders. `full`: all parameters."""
    streams: dict[Modality, Literal["frozen", "lora", "full"]] = {}
    """Modality → how its embedding and its own encoder are trained, if not as `method` says.
    `frozen`: not at all. `lora`: a low-rank change of each linear layer of its own encoder. `full`:
    all their parameters. Projectors belong to no stream."""
    prompts: Positive = 10
    """Method `prompt`: number of vectors per layer."""
    rank: Positive = 8
    """`lora`: rank of the changes."""
    alpha: PositiveFloat = 16.0
    """`lora`: the changes are multiplied by alpha / rank."""

    @property
    def partial(self) -> bool:
        """Whether it leaves a part of the model as it is."""
        return self.method != "full" or any(way != "full" for way in self.streams.values())
