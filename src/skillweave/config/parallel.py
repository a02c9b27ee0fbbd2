"""How training is spread over processes."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from skillweave.config.variants import Tagged, Variant


class ParallelSettings(Variant):
    """How the model is spread over the processes. Every process trains on samples of its own."""

    in_parts: ClassVar[bool] = False
    """Whether the optimizer of a process has only a part of a parameter."""
    copies: ClassVar[bool] = False
    """Whether every process has the gradients of all parameters."""
    one_task: ClassVar[bool] = False
    """Whether all processes must train the same task in a step."""

    kind: str
    """Name of the strategy."""


class ReplicatedConfig(ParallelSettings):
    """Every process has the whole model and the whole state of the optimizer. Gradients are
    averaged, but only those that the task of some process activates."""

    copies = True

    kind: Literal["replicated"] = "replicated"
    """Selects copies of the model, which is the default."""


class ShardedConfig(ParallelSettings):
    """Every process has an equal part of each trained parameter and of its optimizer state
    (`fully_shard` of PyTorch, ZeRO stage 2). For a step, the parameters that the task of some
    process activates are gathered on all of them; the others stay in parts. Frozen parameters are
    copied."""

    in_parts = True

    kind: Literal["sharded"] = "sharded"
    """Selects parts of the model."""


class ExpertConfig(ParallelSettings):
    """Every process has an equal share of the feed-forward experts among which each token chooses
    (routes `token` and `context`). Tokens travel to the process of their expert and back (GShard,
    arXiv 2006.16668). Everything else is copied."""

    one_task = True

    kind: Literal["expert"] = "expert"
    """Selects expert parallelism."""


ParallelConfig = Annotated[ReplicatedConfig | ShardedConfig | ExpertConfig, Tagged()]
