"""Pipeline parallelism: the layers of the encoder are cut into stages, each on a process of its
own, through which the micro-batches of an update follow each other.

PyTorch's stages and schedules (`torch.distributed.pipelining`) move the activations. Their shapes
differ from task to task and from batch to batch, but every process of a replica has the batches, so
it knows the shapes before the step, as it knows the routes: nothing but activations and gradients
is sent. The first stage embeds, and runs the encoders of streams; the last one has the targets and
the decoder.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, NamedTuple, cast

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed.pipelining import (
    PipelineStage,
    Schedule1F1B,
    ScheduleGPipe,
    ScheduleInterleaved1F1B,
)

from skillweave.batch import Batch, Modality
from skillweave.components.encoders.base import LayerStatistics, Resolved
from skillweave.components.encoders.transformer import TransformerEncoder
from skillweave.components.targets import Encoded
from skillweave.config import ConfigError
from skillweave.config.parallel import ParallelSettings
from skillweave.layers.attention import Memory
from skillweave.layers.block import Block
from skillweave.layers.peers import peers
from skillweave.layers.sparse import RouteStatistics
from skillweave.layers.tokens import TokenMap, map_tokens
from skillweave.model.model import Model, passes_of
from skillweave.training.mesh import Place
from skillweave.training.micro_batch import MicroBatch
from skillweave.training.tensor_parts import as_part, local_part

SHARED = "encoder"
"""The part of the model whose layers are cut into stages."""
FIRST = ("embeddings.", "stream_encoders.", "projectors.", "shared.")
LAST = ("targets.", "decoder.", "target_embedding.", f"{SHARED}.last_norm.")
SCHEDULES: dict[str, Any] = {
    "1f1b": Schedule1F1B,
    "gpipe": ScheduleGPipe,
    "interleaved": ScheduleInterleaved1F1B,
}
OF_A_BLOCK = re.compile(rf"{SHARED}\.(?:blocks|positions)\.(\d+)\.")


class Pass(NamedTuple):
    """A pass of a micro-batch: `batch` and its `number` there, its positions, and the path of the
    encoder or decoder that runs on it."""

    batch: Batch
    number: int
    tokens: TokenMap
    path: str


class Stages:
    """The stages that this process has, one or two of `config.stages`.

    `elsewhere`: names of the parameters that other stages have. `shared`: of those that several
    processes have, such as a word embedding that is an output layer, too. `sizes`: the numbers of
    elements of the shared ones. `autocast`: precision of the forward pass.

    Raises ConfigError for a model that cannot be cut.
    """

    def __init__(
        self,
        model: Model,
        place: Place,
        config: ParallelSettings,
        autocast: Callable[[], AbstractContextManager[None]],
    ) -> None:
        self.model, self.place, self.config, self.autocast = model, place, config, autocast
        encoder = self._encoder = require_layers(model, config.stages)
        self.group, self.device = place.group("pipeline"), next(model.parameters()).device
        cuts = torch.arange(len(encoder.order)).tensor_split(config.stages)
        self.layers = [range(int(part[0]), int(part[-1]) + 1) for part in cuts]
        self.own = range(place.stage, config.stages, place.pipeline)
        outputs = output_paths(model)
        self._owners: dict[str, list[int]] = {}
        """Name → positions in the pipeline of the processes that have the parameter."""
        for name, _ in model.named_parameters():
            used = [s for s in range(config.stages) if self._uses(s, name, outputs)]
            self._owners[name] = list(dict.fromkeys(s % place.pipeline for s in used))
        parameters = dict(model.named_parameters())
        self.shared = [
            name
            for name, owners in self._owners.items()
            if len(owners) > 1 and parameters[name].requires_grad
        ]
        self.sizes = {name: local_part(parameters[name]).numel() for name in self.shared}
        self._absent: dict[str, Tensor] = {}
        """Name → a tensor without numbers of the shape that the parameter has on other stages."""
        for name, owners in self._owners.items():
            if place.stage not in owners:
                like = torch.empty_like(local_part(parameters[name].detach()), device="meta")
                self._absent[name] = as_part(like, parameters[name])
                self._set(name, None)
        self.elsewhere = self._absent.keys()
        self._late(True)
        self._micro_batches: Sequence[MicroBatch] = ()
        self._dtype = next(iter(parameters.values())).dtype
        self._rows: list[int] = []
        """Most tokens of the micro-batches in each pass."""

    def _uses(self, stage: int, name: str, outputs: set[str]) -> bool:
        """Whether a stage computes with a parameter. `outputs`: those that the last stage has for
        output layers and the decoder."""
        block = OF_A_BLOCK.match(name)
        if block:
            used = {self._encoder.order[layer] for layer in self.layers[stage]}
            return int(block[1]) in used
        if name.startswith(FIRST):
            return stage == 0 or (name in outputs and stage == self.config.stages - 1)
        return not name.startswith(LAST) or stage == self.config.stages - 1

    def is_first_with(self, name: str) -> bool:
        """Whether no stage before this process's has the parameter."""
        return self._owners[name][0] == self.place.stage

    def _late(self, late: bool) -> None:
        for block in (one for one in self.model.modules() if isinstance(one, Block)):
            block.resolves_late = late

    def _set(self, name: str, parameter: nn.Parameter | None) -> None:
        path, _, own = name.rpartition(".")
        self.model.get_submodule(path).register_parameter(own, parameter)

    @contextmanager
    def whole(self) -> Generator[None]:
        """Within it, every process has the whole model. All processes enter it together."""
        parameters = dict(self.model.named_parameters())
        line = dist.get_process_group_ranks(self.group)
        for name, owners in self._owners.items():
            if len(owners) == self.place.pipeline:
                continue
            like = self._absent.get(name)
            if like is None:
                own = local_part(parameters[name].detach())
            else:
                own = torch.empty_like(local_part(like), device=self.device)
            dist.broadcast(own, line[owners[0]], self.group)
            if like is not None:
                self._set(name, nn.Parameter(as_part(own, like), requires_grad=False))
        self._late(False)
        try:
            yield
        finally:
            self._late(True)
            for name in self._absent:
                self._set(name, None)

    def run(self, micro_batches: Sequence[MicroBatch]) -> Tensor:
        """The mean loss of the micro-batches of an update, whose gradients are then there."""
        self._micro_batches, losses = micro_batches, cast(list[Tensor], [])
        count, numbers = len(micro_batches), torch.arange(len(micro_batches))
        between = self._between(micro_batches)
        stages = [
            PipelineStage(
                Stage(self, number),
                number,
                self.config.stages,
                self.device,
                input_args=between if number else (),
                output_args=between if number < self.config.stages - 1 else between[-1][:1],
                group=self.group,
            )
            for number in self.own
        ]
        options: dict[str, Any] = {
            "n_microbatches": count,
            "loss_fn": lambda loss, _: loss,
            "scale_grads": False,
        }
        chosen = SCHEDULES[self.config.schedule]
        several = chosen is ScheduleInterleaved1F1B
        schedule = chosen(stages if several else stages[0], **options)
        schedule.step(number=numbers, target=numbers, losses=losses, return_outputs=False)
        self._micro_batches = ()
        total = torch.zeros((), device=self.device, dtype=between[-1].dtype)
        if losses:
            total = torch.stack([loss.detach() for loss in losses]).sum()
        dist.broadcast(total, dist.get_process_group_ranks(self.group)[-1], self.group)
        return total

    def _between(self, micro_batches: Sequence[MicroBatch]) -> tuple[Tensor, ...]:
        """What a stage gives to the next one, without numbers: the tokens [T, D] of each pass that
        is no decoder's, T being the most of all micro-batches; and [2] the sum and the number of
        the balance losses."""
        config = self.model.config
        longest: dict[int, tuple[int, int]] = {}
        for micro_batch in micro_batches:
            for i, one in enumerate(self._passes(micro_batch.batch)):
                modality = one.tokens.conditions[0].modality
                own = one.path.startswith("stream_encoders.")
                width = config.own_widths[modality] if own else config.width
                longest[i] = max(longest.get(i, (0, 0)), (sum(one.tokens.sizes), width))
        self._rows = [rows for rows, _ in longest.values()]
        shapes = [*longest.values(), (2,)]
        return tuple(
            torch.empty(shape, dtype=self._dtype, device="meta", requires_grad=True)
            for shape in shapes
        )

    def _passes(self, batch: Batch) -> list[Pass]:
        """The passes of a batch but those of the decoder."""
        found = []
        for one, number in passes_of(batch):
            tokens = map_tokens(one.layout, number, one.lengths, self.device)
            path = self.model.part_of(tokens.conditions[0])
            if path != "decoder":
                found.append(Pass(one, number, tokens, path))
        return found

    def forward(self, stage: int, number: int, received: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """A stage on a micro-batch: what it gives to the next one, or the loss [1]."""
        batch, noise, scales, ranks = self._micro_batches[number]
        model, balances = self.model, cast(list[Tensor], [])
        hidden: list[Tensor] = []
        last = stage == self.config.stages - 1
        with peers(ranks), self.autocast():
            resolved = model.resolve_conditions(batch.condition_tokens, noise)
            passes = self._passes(batch)
            for i, one in enumerate(passes):
                statistics: list[RouteStatistics] = []
                if stage:
                    x_TD = received[i][: sum(one.tokens.sizes)]
                else:
                    x_TD, _, made = model.embed_tokens(one.batch, one.number, resolved, noise)
                    statistics += [decision[-1] for decision in made]
                found: LayerStatistics = {}
                if one.path == SHARED:
                    weights = [model.weights_of(SHARED, c, resolved) for c in one.tokens.conditions]
                    layers = self.layers[stage]
                    x_TD, found = self._encoder(x_TD, one.tokens, weights, noise, layers=layers)
                elif not stage:
                    x_TD, found = model.run_part(one.path, x_TD, one.tokens, resolved, noise)
                statistics += found.values()
                balances += [one.balance for one in statistics if one.balance is not None]
                hidden.append(x_TD)
            encoded = [
                model.encoded(one.batch, one.number, x_TD, one.tokens)
                for one, x_TD in zip(passes, hidden, strict=True)
            ]
            if last:
                encoded = self._with_decoder(batch, encoded, resolved, noise, balances)
            balance_2 = received[-1] if stage else hidden[0].new_zeros(2, dtype=self._dtype)
            if balances:
                total = torch.stack(balances).sum()
                balance_2 = balance_2 + torch.stack([total, total.new_tensor(len(balances))])
            if last:
                balance = balance_2[0] / balance_2[1].detach().clamp(min=1)
                loss = model.output(batch, encoded, balance, {}, None, scales, loss_only=True).loss
                assert loss is not None
                return (loss.view(1) / len(self._micro_batches),)
        padded = [
            F.pad(x.to(self._dtype), (0, 0, 0, rows - len(x)))
            for x, rows in zip(hidden, self._rows, strict=True)
        ]
        return (*padded, balance_2)

    def _with_decoder(
        self,
        batch: Batch,
        encoded: list[Encoded],
        resolved: Resolved,
        noise: torch.Generator,
        balances: list[Tensor],
    ) -> list[Encoded]:
        """All passes, with those of the decoder in their places. Its balance losses are added to
        `balances`."""
        memory, rest = Memory(encoded[0].hidden_TD, encoded[0].tokens), iter(encoded)
        found = []
        for one, number in passes_of(batch):
            if self.model.part_of(one.layout.condition(one.layout.passes[number][0])) != "decoder":
                found.append(next(rest))
                continue
            x_TD, tokens, _ = self.model.embed_tokens(one, number, resolved, noise)
            x_TD, own = self.model.run_part("decoder", x_TD, tokens, resolved, noise, memory)
            balances += [one.balance for one in own.values() if one.balance is not None]
            found.append(self.model.encoded(one, number, x_TD, tokens))
        return found


class Stage(nn.Module):
    """A stage, as PyTorch's schedules call it. It has no parameters of its own."""

    def __init__(self, stages: Stages, number: int) -> None:
        super().__init__()
        self.stages, self.number = stages, number

    def forward(self, *received: Tensor, number: Tensor) -> Tensor | tuple[Tensor, ...]:
        """See `Stages.forward`. `number`: [1] that of the micro-batch."""
        found = self.stages.forward(self.number, int(number), received)
        return found if len(found) > 1 else found[0]


def require_layers(model: Model, stages: int) -> TransformerEncoder:
    """The encoder that is cut into stages. Raises ConfigError if it cannot be."""
    encoder = model.encoder
    if not isinstance(encoder, TransformerEncoder):
        raise ConfigError(
            f"training.parallel.pipeline: the encoder is a {type(encoder).__name__}, and only"
            " Transformers can be cut into stages; leave it out"
        )
    if stages > len(encoder.order):
        raise ConfigError(
            f"training.parallel.pipeline: {stages} stages are more than the {len(encoder.order)}"
            " layers of the encoder; use fewer stages"
        )
    if any(block.attention.residual for block in encoder.blocks):
        raise ConfigError(
            "training.parallel.pipeline: layers with residual_attention need the scores of the"
            " layer before, which stages do not send; leave one of them out"
        )
    return encoder


def output_paths(model: Model) -> set[str]:
    """Names of the embeddings that the last stage needs: of tied output layers, and of a decoder
    that shares those of the encoder."""
    paths = {
        path
        for task, config in model.config.tasks.items()
        for target in config.targets
        if (path := model.output_path(task, target))
    }
    target = model.config.target_embedding
    if target is not None and target.tied:
        words = model.word_embedding(Modality.TEXT).weight
        paths |= {name for name, p in model.named_parameters() if p is words}
    return paths
