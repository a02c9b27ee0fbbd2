"""How training is spread over processes."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from skillweave.config.base import Positive
from skillweave.config.variants import Tagged, Variant


class ParallelSettings(Variant):
    """How the model is spread over the processes. `tensor` × `pipeline` processes are a replica:
    they share a model and train on the same samples. Replicas train on samples of their own."""

    divides_weights: ClassVar[bool] = False
    """Whether replicas have parts of parameters."""
    copies: ClassVar[bool] = False
    """Whether every replica has the gradients of all parameters."""
    needs_one_task: ClassVar[bool] = False
    """Whether all replicas must train the same task in a step."""
    combines: ClassVar[bool] = True
    """Whether a replica may be several processes."""

    kind: str
    """Name of the strategy."""
    tensor: Positive = 1
    """Processes that share every Transformer layer: its attention heads, and the inner vectors of
    its feed-forwards (Megatron-LM, arXiv 1909.08053). Both numbers must be multiples of it."""
    pipeline: Positive = 1
    """Stages that the layers of the encoder are cut into, each on processes of its own. The
    micro-batches of an update follow each other through them (GPipe, arXiv 1811.06965)."""
    schedule: Literal["1f1b", "gpipe", "interleaved"] = "1f1b"
    """Order of the micro-batches in a pipeline. `gpipe`: all forward passes, then all backward
    passes. `1f1b`: one of each in turn, so a stage keeps the activations of at most as many
    micro-batches as there are stages. `interleaved`: each process has two stages, and waits for
    half as long (arXiv 2104.04473, section 2.2)."""

    @property
    def replica_size(self) -> int:
        """Processes of a replica."""
        return self.tensor * self.pipeline

    @property
    def stages(self) -> int:
        """Stages of the pipeline."""
        return self.pipeline * (2 if self.schedule == "interleaved" and self.pipeline > 1 else 1)

    @property
    def in_parts(self) -> bool:
        """Whether the optimizer of a process has only a part of a parameter."""
        return self.divides_weights or self.tensor > 1

    @property
    def has_all_gradients(self) -> bool:
        """Whether every process has the gradients of all parameters."""
        return self.copies and self.replica_size == 1

    @property
    def one_task(self) -> bool:
        """Whether all replicas must train the same task in a step."""
        return self.needs_one_task


class ReplicatedConfig(ParallelSettings):
    """Every replica has the whole model and the whole state of the optimizer. Gradients are
    averaged, but only those that the task of some replica activates."""

    copies = True

    kind: Literal["replicated"] = "replicated"
    """Selects copies of the model, which is the default."""


class ShardedConfig(ParallelSettings):
    """Every replica has an equal part of each trained parameter, its gradient and its optimizer
    state (`fully_shard` of PyTorch). For a step, the parameters that the task of some replica
    activates are gathered on all of them; the others stay in parts. Frozen parameters are
    copied."""

    divides_weights = True

    kind: Literal["sharded"] = "sharded"
    """Selects parts of the model."""
    reshard: bool = False
    """Whether the layers of Transformers are gathered one by one, in the forward pass and again in
    the backward pass, instead of all for the step: ZeRO stage 3 instead of 2 (arXiv 1910.02054)."""
    offload: bool = False
    """Whether parts of parameters, gradients and optimizer state are in the memory of the host, and
    the host updates them."""

    @property
    def one_task(self) -> bool:
        """See `ParallelSettings`. Layers are gathered in the order in which they run."""
        return self.reshard


class ExpertConfig(ParallelSettings):
    """Every process has an equal share of the feed-forward experts among which each token chooses
    (routes `token` and `context`). Tokens travel to the process of their expert and back (GShard,
    arXiv 2006.16668). Everything else is copied. It cannot be combined with `tensor` or
    `pipeline`."""

    needs_one_task = True
    combines = False

    kind: Literal["expert"] = "expert"
    """Selects expert parallelism."""


ParallelConfig = Annotated[ReplicatedConfig | ShardedConfig | ExpertConfig, Tagged()]
