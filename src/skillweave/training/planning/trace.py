"""One training step without numbers: what it keeps in memory, and what it computes.

The model, the loss, the backward pass and the optimizer run as they are, on PyTorch's fake tensors,
which have a shape and no content. Every operation passes through `_Recorder`, which counts the
bytes of all tensors that are alive, the floating-point operations, and the bytes that are read and
written. Integers and booleans stay real: lengths, labels, indices and masks decide shapes.

What an operation allocates and frees inside is not seen, but for those of `_INSIDE`.
"""

from __future__ import annotations

import copy
import weakref
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry, sdpa_backward_flop_count, sdpa_flop_count

import skillweave.layers.sparse.mixture  # noqa: F401 defines its operators
from skillweave.batch import Batch
from skillweave.config import ConfigError
from skillweave.config.training import OptimizerConfig
from skillweave.layers.block import Block
from skillweave.model.model import Model
from skillweave.training.optimizer import make_optimizer

Phase = Literal["forward", "backward", "optimizer"]
aten = torch.ops.aten


class Operation(NamedTuple):
    """A kind of operation of a step: its floating-point operations, the bytes that it reads and
    writes, and whether it is part of a Transformer block's forward pass."""

    phase: Phase
    flops: int
    bytes: int
    in_block: bool


@dataclass(frozen=True)
class StepTrace:
    """What one micro-batch of a task and the update after it need. Memory is in bytes of tensors.

    `samples`, `tokens`: of the micro-batch. `parameters`: all weights and buffers. `gradients`: of
    the active, trained weights. `state`: of the optimizer, for these weights. `inputs`: the batch.
    `kept`: what the forward pass leaves for the backward pass. `kept_by_blocks`: the part of it
    that was made in Transformer blocks. `activations`: the most that is alive at once without
    weights, copies of them, gradients and inputs. `peak`: the most that forward and backward pass
    need at once beside weights, inputs and state; gradients of this micro-batch count.
    `update_peak`: the most that the update needs beside weights and gradients, with its state.
    `operations`: how many there are of each kind.
    """

    task: str
    samples: int
    tokens: int
    parameters: int
    gradients: int
    state: int
    inputs: int
    kept: int
    kept_by_blocks: int
    activations: int
    peak: int
    update_peak: int
    operations: Mapping[Operation, float] = field(repr=False)

    @property
    def flops(self) -> float:
        """Floating-point operations of the forward and backward pass."""
        return sum(n * one.flops for one, n in self.operations.items() if one.phase != "optimizer")

    def of_samples(self, samples: int) -> StepTrace:
        """The trace of a smaller or larger micro-batch, as if all but the update grew with its
        samples. Weights are then read more often than that says."""
        if samples == self.samples:
            return self
        share = samples / self.samples
        names = ("tokens", "inputs", "kept", "kept_by_blocks", "activations")
        sizes: dict[str, int] = {name: round(share * getattr(self, name)) for name in names}
        operations: dict[Operation, float] = {}
        for one, count in self.operations.items():
            if one.phase != "optimizer":
                one = one._replace(flops=round(share * one.flops), bytes=round(share * one.bytes))
            operations[one] = operations.get(one, 0) + count
        peak = self.gradients + round(share * max(0, self.peak - self.gradients))
        return replace(self, samples=samples, peak=peak, operations=operations, **sizes)

    def memory(self, state: int, accumulates: bool = False) -> int:
        """The most bytes at once on one process. `state`: of the optimizer, for all weights that
        any task trains. `accumulates`: whether gradients of an earlier micro-batch are there."""
        earlier = self.gradients if accumulates else 0
        step = self.peak + earlier + state
        update = self.gradients + self.update_peak + max(0, state - self.state)
        return self.parameters + self.inputs + max(step, update)


def deeper(first: StepTrace, second: StepTrace, share: float) -> StepTrace:
    """The trace of a model of which `first` and `second` have fewer equal layers: what `second` has
    more is there `share` times. Only for models whose layers are all alike."""

    def extended(a: int, b: int) -> int:
        return round(a + (b - a) * share)

    names = [f.name for f in fields(StepTrace) if f.name not in ("task", "operations")]
    sizes = {name: extended(getattr(first, name), getattr(second, name)) for name in names}
    counts = dict(first.operations)
    for one, count in second.operations.items():
        before = first.operations.get(one, 0)
        counts[one] = before + (count - before) * share
    return replace(first, **sizes, operations=counts)


def trace_step(
    model: Model,
    batch: Batch,
    optimizer: OptimizerConfig | None = None,
    *,
    precision: str = "float32",
    fused_attention: bool = False,
    chunk_size: int | None = None,
) -> StepTrace:
    """Trace a micro-batch and its update. The model and its weights are left as they are.

    `model`: on any device, the meta device included. `optimizer`: None for no update.
    `fused_attention`: whether attention never stores its probabilities, as the kernels of GPUs do;
    otherwise it is what PyTorch chooses on a CPU. `chunk_size`: see `Model.forward`.
    """
    fake = FakeTensorMode(allow_non_fake_inputs=True)
    own = _fake_model(model, fake)
    with _fake_batch(batch, fake) as given:
        return _trace(own, given, fake, optimizer, precision, fused_attention, chunk_size)


def _trace(
    model: Model,
    batch: Batch,
    fake: FakeTensorMode,
    optimizer: OptimizerConfig | None,
    precision: str,
    fused_attention: bool,
    chunk_size: int | None,
) -> StepTrace:
    tensors = [*model.parameters(), *model.buffers()]
    recorder = _Recorder(tensors, tree_leaves([part.inputs for part in batch.parts]))
    attention = _fused_kernel() if fused_attention else nullcontext()
    with fake, attention, recorder, _watched(model, recorder):
        before = recorder.now
        with autocast(precision):
            out = model(
                batch,
                generator=torch.Generator(),
                loss_only=True,
                chunk_size=chunk_size,
            )
        if out.loss is None:
            raise ConfigError(f"task {batch.layout.task!r}: its batch has no labels")
        kept, by_blocks = recorder.now - before, recorder.kept_by_blocks
        recorder.phase = "backward"
        loss = out.loss
        del out
        loss.backward()
        del loss
        peak, activation_peak = recorder.peak - before, recorder.activation_peak
        gradients = {p: p.grad for p in model.parameters() if p.grad is not None}
        size = sum(map(_bytes, gradients.values()))
        recorder.phase, recorder.peak = "optimizer", recorder.now
        state = update = 0
        if optimizer is not None:
            start = recorder.now
            made = make_optimizer(model, optimizer)
            nn.utils.clip_grad_norm_(model.parameters(), optimizer.max_grad_norm or 1.0)
            made.step()
            state = sum(
                _bytes(x)
                for entry in made.state.values()
                for x in entry.values()
                if isinstance(x, Tensor)
            )
            update = recorder.peak - start
    return StepTrace(
        task=batch.layout.task,
        samples=len(batch),
        tokens=sum(part.tokens for part in batch.parts),
        parameters=sum(map(_bytes, tensors)),
        gradients=size,
        state=state,
        inputs=sum(_bytes(x) for part in batch.parts for x in part.inputs),
        kept=kept,
        kept_by_blocks=by_blocks,
        activations=activation_peak,
        peak=peak,
        update_peak=update,
        operations=dict(recorder.operations),
    )


def autocast(precision: str) -> AbstractContextManager[Any]:
    """What a precision means for the forward pass: the 16 bits of the CPU, whose list of
    operations is nearly that of GPUs."""
    if precision == "float32":
        return nullcontext()
    return torch.autocast("cpu", torch.bfloat16)


def _fake_model(model: Model, fake: FakeTensorMode) -> Model:
    """A copy of a model with fake weights."""
    copies: dict[int, Any] = {}
    with fake:
        for tensor in model.buffers():
            copies[id(tensor)] = torch.empty_like(tensor, device="cpu")
        for weight in model.parameters():
            empty = torch.empty_like(weight, device="cpu")
            copies[id(weight)] = nn.Parameter(empty, weight.requires_grad)
    return copy.deepcopy(model, copies).train()


@contextmanager
def _fake_batch(batch: Batch, fake: FakeTensorMode) -> Generator[Batch]:
    """The batch with fake pixels and sound."""

    def converted(part: Batch) -> Batch:
        inputs = tuple(
            cast(Tensor, fake.from_tensor(x)) if x.is_floating_point() else x for x in part.inputs
        )
        labels = {
            name: cast(Tensor, fake.from_tensor(x)) if x.is_floating_point() else x
            for name, x in part.labels.items()
        }
        candidates = None if part.candidates is None else converted(part.candidates)
        return replace(part, inputs=inputs, labels=labels, candidates=candidates)

    yield converted(batch)


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


@dataclass
class _Storage:
    """The memory of a tensor. `reference`: tells when it is freed."""

    size: int
    activation: bool
    in_block: bool
    reference: Any


class _Recorder(TorchDispatchMode):
    """Counts what operations keep, compute and move.

    `known`: tensors that exist before and do not count; `inputs`: those that count from the
    beginning.
    """

    def __init__(self, known: Iterable[Tensor], inputs: Iterable[Tensor]) -> None:
        super().__init__()
        self.phase: Phase = "forward"
        self.operations: Counter[Operation] = Counter()
        self.depth = 0
        self.now = self.peak = 0
        self.activations = self.activation_peak = 0
        self._known = {x.untyped_storage()._cdata: x.untyped_storage() for x in known}
        self._alive: dict[int, _Storage] = {}
        for tensor in inputs:
            self._add(tensor, activation=False)

    @property
    def kept_by_blocks(self) -> int:
        """Bytes that are alive now, are neither weights nor gradients, and were made in blocks."""
        alive = self._alive.values()
        return sum(one.size for one in alive if one.in_block and one.activation)

    def set_apart(self, tensor: Tensor) -> None:
        """Count a tensor as a gradient or a copy of a weight, not as an activation."""
        one = self._alive.get(tensor.untyped_storage()._cdata)
        if one is not None and one.activation:
            one.activation = False
            self.activations -= one.size

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # its wrapper imports torch._dynamo, which takes seconds

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        given = dict(kwargs or {})
        tensors = [x for x in tree_leaves((args, given)) if isinstance(x, Tensor)]
        out = self._run(func, args, given, tensors)
        made = [x for x in tree_leaves(out) if isinstance(x, Tensor)]
        # a copy of a weight in 16 bits
        copies = func is aten._to_copy.default and self._is_weight(tensors[0])
        for tensor in made:
            self._add(tensor, activation=not copies)
        if inside := _INSIDE.get(func._overloadpacket):
            more = inside(*args, **given, out=made)
            self.peak = max(self.peak, self.now + more)
            self.activation_peak = max(self.activation_peak, self.activations + more)
        self._count(func, args, given, tensors, made, out)
        return out

    def _run(
        self, func: Any, args: Sequence[Any], kwargs: dict[str, Any], tensors: list[Tensor]
    ) -> Any:
        fake = any(isinstance(x, FakeTensor) for x in tensors)
        if fake and func is aten._local_scalar_dense.default:
            return _one(tensors[0].dtype)
        if not fake:
            with _disable_current_modes():
                out = func(*args, **kwargs)
            floats = any(isinstance(x, Tensor) and x.is_floating_point() for x in tree_leaves(out))
            if tensors or not floats:
                return out
        if func is aten._ctc_loss.Tensor:
            return _ctc(*args)
        if func in (aten.index.Tensor, aten.index_put.default, aten.index_put_.default):
            args = [args[0], _numbers(args[1]), *args[2:]]
        out = func(*args, **kwargs)
        if func is aten.topk.default:
            return out[0], _balanced(out[1], tensors[0].shape[-1])
        return out

    def _is_weight(self, tensor: Tensor) -> bool:
        return tensor.untyped_storage()._cdata in self._known

    def _add(self, tensor: Tensor, activation: bool = True) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._known or key in self._alive:
            return
        size = storage.nbytes()
        reference = weakref.ref(storage, lambda _: self._remove(key))
        self._alive[key] = _Storage(size, activation, self.depth > 0, reference)
        self.now += size
        self.activations += size * activation
        self.peak = max(self.peak, self.now)
        self.activation_peak = max(self.activation_peak, self.activations)

    def _remove(self, key: int) -> None:
        one = self._alive.pop(key)
        self.now -= one.size
        self.activations -= one.size * one.activation

    def _count(
        self,
        func: Any,
        args: Sequence[Any],
        kwargs: dict[str, Any],
        read: list[Tensor],
        written: list[Tensor],
        out: Any,
    ) -> None:
        storages = {x.untyped_storage()._cdata for x in read}
        new = [x for x in written if x.untyped_storage()._cdata not in storages]
        if not new and not func._schema.is_mutable:
            return  # a view
        count = _FLOPS.get(func._overloadpacket)
        flops = count(*args, **kwargs, out_val=out) if count else 0
        moved = sum(map(_bytes, read)) + sum(map(_bytes, written))
        self.operations[Operation(self.phase, flops, moved, self.depth > 0)] += 1


def _one(dtype: torch.dtype) -> Any:
    return True if dtype == torch.bool else 1.0 if dtype.is_floating_point else 1


def _ctc(log_probs_LNC: Tensor, targets_NK: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    """The losses [N] and the table [N, L, 2 K + 1] that the kernel keeps for the backward pass."""
    length, samples = log_probs_LNC.shape[:2]
    states = 2 * targets_NK.shape[-1] + 1
    empty = log_probs_LNC.new_empty
    return empty(samples), empty(samples, length, states)


def _numbers(indices: Sequence[Tensor | None]) -> list[Tensor | None]:
    """Indices in which numbers stand for real masks."""
    found: list[Tensor | None] = []
    with _disable_current_modes():
        for index in indices:
            masks = index is not None and index.dtype == torch.bool
            real = masks and not isinstance(index, FakeTensor)
            found += index.nonzero().unbind(1) if real and index is not None else [index]
    return found


def _balanced(indices: Tensor, experts: int) -> Tensor:
    """Choices among experts that give each of them as many tokens, since gates have no values."""
    with _disable_current_modes():
        return (torch.arange(indices.numel()) % experts).reshape(indices.shape)


@contextmanager
def _watched(model: Model, recorder: _Recorder) -> Generator[None]:
    """Tell the recorder when the forward pass is inside of a Transformer block, and what is a
    gradient."""

    def enter(*_: Any) -> None:
        recorder.depth += 1

    def leave(*_: Any) -> None:
        recorder.depth -= 1

    def arrived(weight: Tensor) -> None:
        recorder.set_apart(cast(Tensor, weight.grad))

    blocks = [module for module in model.modules() if isinstance(module, Block)]
    hooks = [block.register_forward_pre_hook(enter) for block in blocks]
    hooks += [block.register_forward_hook(leave) for block in blocks]
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    hooks += [weight.register_post_accumulate_grad_hook(arrived) for weight in trained]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def _fused_kernel() -> Generator[None]:
    """Attention by the kernel of GPUs that stores no probabilities, with dropout or without. The
    function is replaced, since PyTorch's function modes do not reach into the backward pass, where
    layers are computed again."""
    name = "scaled_dot_product_attention"
    usual = getattr(nn.functional, name)
    setattr(nn.functional, name, _fused_attention)
    try:
        yield
    finally:
        setattr(nn.functional, name, usual)


def _fused_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    if enable_gqa:
        shared = query.shape[1] // key.shape[1]
        key, value = key.repeat_interleave(shared, 1), value.repeat_interleave(shared, 1)
    if torch.is_autocast_enabled("cpu"):
        query, key, value = (x.to(torch.bfloat16) for x in (query, key, value))
    bias = None
    if attn_mask is not None:
        bias = attn_mask.to(query.dtype) if attn_mask.dtype == torch.bool else attn_mask
        bias = bias.to(query.dtype).expand(*query.shape[:3], key.shape[2])
    out, *_ = aten._scaled_dot_product_efficient_attention(
        query, key, value, bias, True, dropout_p, is_causal, scale=scale
    )
    return out


def _attention_forward(query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any) -> int:
    return sdpa_flop_count(query.shape, key.shape, value.shape)


def _attention_backward(
    grad: Tensor, query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any
) -> int:
    return sdpa_backward_flop_count(grad.shape, query.shape, key.shape, value.shape)


def _mixture(x: Tensor, gates: Tensor, *_: Any, out_val: Tensor, **__: Any) -> int:
    return 2 * gates.numel() * x.shape[-1] * out_val.shape[-1]


def _mixture_backward(grad: Tensor, x: Tensor, gates: Tensor, *_: Any, **__: Any) -> int:
    return 4 * gates.numel() * x.shape[-1] * grad.shape[-1]


_FLOPS: dict[Any, Callable[..., int]] = {
    **flop_registry,
    aten._scaled_dot_product_flash_attention_for_cpu: _attention_forward,
    aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
    torch.ops.skillweave.mixture_linear: _mixture,
    torch.ops.skillweave.mixture_linear_backward: _mixture_backward,
}
"""Operation → its floating-point operations; operations without products count as none."""


def _inside_mixture(x: Tensor, gates: Tensor, *_: Any, out: Sequence[Tensor], **__: Any) -> int:
    """The rows of all assignments, sorted by expert, and their results."""
    rows, size = gates.numel(), x.element_size()
    results = rows * out[0].shape[-1] * size
    return max(results, rows * x.shape[-1] * size + results - _bytes(out[0]))


def _inside_mixture_backward(
    grad: Tensor, x: Tensor, gates: Tensor, *_: Any, out: Sequence[Tensor], **__: Any
) -> int:
    """Inputs, scaled inputs, their gradients, and the gradients of the results."""
    return gates.numel() * (3 * x.shape[-1] + grad.shape[-1]) * x.element_size()


def _inside_ctc_backward(*args: Any, out: Sequence[Tensor], **_: Any) -> int:
    """A second table such as that of the forward pass, the seventh argument."""
    return _bytes(args[6])


_INSIDE: dict[Any, Callable[..., int]] = {
    torch.ops.skillweave.mixture_linear: _inside_mixture,
    torch.ops.skillweave.mixture_linear_backward: _inside_mixture_backward,
    aten._ctc_loss_backward: _inside_ctc_backward,
}
"""Operation → bytes that it allocates besides its results (`out`) and frees."""
