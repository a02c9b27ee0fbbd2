"""Two processes that share out a batch, and encode it in chunks, have the loss and the gradients of
one that encodes it at once."""

from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing
from tiny import make_batch, random_examples, tiny_model

from skillweave.batch import Batch, Example
from skillweave.model.model import Model

LENGTHS = [[5, 7], [3, 9], [8, 4], [2, 2]]


def shares(model: Model) -> tuple[list[Batch], Batch]:
    """Two halves of a batch with an equal caption in both, and the whole."""
    torch.manual_seed(1)
    examples = random_examples("to_code", LENGTHS, model.config)
    captions = [11, 12, 11, 13]
    examples = [
        Example(e.spans, {"caption": c}, e.key) for e, c in zip(examples, captions, strict=True)
    ]
    halves = [make_batch("to_code", part, model.config) for part in (examples[:2], examples[2:])]
    return halves, make_batch("to_code", examples, model.config)


def half(rank: int, folder: Path) -> None:
    """One of two processes: its half's loss, and gradients averaged over both."""
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder / 'meet'}", rank=rank, world_size=2
    )
    torch.manual_seed(0)
    model = tiny_model().train()
    out = model(shares(model)[0][rank], chunk_size=1)
    out.loss.backward()
    grads = {}
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            dist.all_reduce(parameter.grad)
            grads[name] = parameter.grad / 2
    loss, alone = out.loss.detach(), model.eval()(shares(model)[0][rank]).loss
    assert not torch.isclose(alone, loss)  # in validation each process stands alone
    dist.all_reduce(loss)
    if rank == 0:
        torch.save({"loss": loss / 2, "grads": grads}, folder / "result.pt")
    dist.destroy_process_group()


def test_two_processes_equal_one(tmp_path: Path) -> None:
    multiprocessing.spawn(half, (tmp_path,), nprocs=2)
    found = torch.load(tmp_path / "result.pt")
    torch.manual_seed(0)
    model = tiny_model().train()
    loss = model(shares(model)[1]).loss
    loss.backward()
    torch.testing.assert_close(found["loss"], loss.detach())
    for name, parameter in model.named_parameters():
        assert (parameter.grad is None) == (name not in found["grads"])
        if parameter.grad is not None:
            torch.testing.assert_close(
                found["grads"][name], parameter.grad, msg=lambda text, n=name: f"{n}: {text}"
            )
