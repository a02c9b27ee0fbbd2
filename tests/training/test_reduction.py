"""Gradients of several processes, each of which activates another part of the model."""

import os
import signal
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from processes import run_in_group
from safetensors.torch import load_file
from stand_ins import TinyModel, fit_tiny, tiny_recipe, tiny_trainer
from tiny import labelled, make_batch, random_examples, tiny_config, tiny_model
from torch import nn

from skillweave.layers.peers import peers
from skillweave.training.checkpoint import TrainingState
from skillweave.training.parallel import launch, make_fabric
from skillweave.training.reduction import GradientReducer

pytestmark = pytest.mark.filterwarnings("ignore")

SKILLS = ("text", "image", "sound", "video", "code")
PROCESSES = 3


class Skills(nn.Module):
    """A shared layer, a layer of each skill, and experts of which the data choose one."""

    def __init__(self) -> None:
        super().__init__()
        self.shared = nn.Linear(4, 4)
        self.skills = nn.ModuleDict({name: nn.Linear(4, 4) for name in SKILLS})
        self.experts = nn.ModuleList(nn.Linear(4, 2, bias=False) for _ in range(6))

    def active_parameters(self, skills):
        """The experts may all be active."""
        never = tuple(f"skills.{name}." for name in SKILLS if name not in skills)
        return [name for name, _ in self.named_parameters() if not name.startswith(never)]

    def forward(self, x, skills):
        """A loss that uses one expert."""
        x = torch.tanh(self.shared(x))
        for name in skills:
            x = x + torch.tanh(self.skills[name](x))
        return self.experts[int(x.sum().abs() * 100) % len(self.experts)](x).square().mean()


def draw(schedule, rank):
    """What a process computes: inputs and skills; None where it has nothing to do."""
    rng = np.random.default_rng([schedule, rank])
    if rng.random() < 0.1:
        return None
    skills = [str(name) for name in rng.choice(SKILLS, rng.integers(1, 3), replace=False)]
    return torch.tensor(rng.normal(size=(2, 4)), dtype=torch.float64), skills


def expected_gradients(model, schedule, world):
    """The mean over the processes, computed by one: None where no process has a gradient."""
    found = {}
    for drawn in filter(None, (draw(schedule, rank) for rank in range(world))):
        model.zero_grad()
        model(*drawn).backward()
        for name, parameter in model.named_parameters():
            if parameter.grad is not None:
                found[name] = found.get(name, 0) + parameter.grad / world
    model.zero_grad()
    return found


def run_schedules(rank, world, count):
    """Random schedules; returns what differs."""
    torch.manual_seed(0)
    model = Skills().double()
    reducer = GradientReducer(dict(model.named_parameters()), bucket_bytes=200)
    wrong = []
    for schedule in range(count):
        expected = expected_gradients(model, schedule, world)
        drawn = draw(schedule, rank)
        reducer.begin(model.active_parameters(drawn[1]) if drawn else [])
        reducer.overlap = schedule % 5 > 0
        if drawn:
            model(*drawn).backward()
        reducer.finish()
        found = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
        same = found.keys() == expected.keys() and all(
            torch.allclose(found[name], gradient, rtol=1e-9, atol=1e-12)
            for name, gradient in expected.items()
        )
        if not same:
            wrong.append((schedule, sorted(found.keys() ^ expected.keys())))
    return wrong


@pytest.mark.parametrize(("processes", "count"), [(2, 1000), (4, 200)])
def test_random_schedules_give_the_gradients_of_one_process(processes, count):
    assert run_in_group(processes, run_schedules, count) == [[]] * processes


def reduce_what_is_not_active(rank, world):
    """The first process computes a skill that it did not announce."""
    model = Skills().double()
    reducer = GradientReducer(dict(model.named_parameters()))
    reducer.begin(model.active_parameters(["text"]))
    skills = ["text", "code"] if rank == 0 else ["text"]
    model(torch.ones(2, 4, dtype=torch.float64), skills).backward()
    with pytest.raises(RuntimeError) as error:
        reducer.finish()
    return str(error.value)


def test_a_gradient_that_no_process_announced_ends_all_processes():
    first, second = run_in_group(2, reduce_what_is_not_active)
    assert "not active in this step: skills.code.weight, skills.code.bias" in first
    assert "not active in this step" in second


def count_bytes(rank, world):
    """A model whose layers are large enough that the number behind each gradient is nothing."""
    model = nn.ModuleDict({name: nn.Linear(100, 100) for name in SKILLS})
    reducer = GradientReducer(dict(model.named_parameters()))
    reducer.begin([f"{SKILLS[rank]}.weight"])
    model[SKILLS[rank]].weight.sum().backward()
    reducer.finish()
    return reducer.bytes_sent


def test_only_the_union_of_the_active_parameters_is_sent():
    active = 2 * 100 * 100 * 4  # the weight of either process
    for sent in run_in_group(2, count_bytes):
        assert active <= sent <= 1.01 * active


LENGTHS = {
    "classify": ((3,), (7,)),
    "transcribe": ((4,), (9,)),
    "to_image": ((5, 5), (3, 5)),
    "to_video": ((4, 9), (6, 9)),
    "masked_code": ((4, 2), (9, 5)),
    "denoising": ((8, 3, 5), (8, 4, 6)),
}
ROUNDS = 12


def sparse_model():
    """Skills, and experts that each token chooses."""
    torch.manual_seed(0)
    experts = {"route": "token", "experts": 3, "active": 1, "noise": 0, "balance": 0}
    return tiny_model(tiny_config(feed_forward=experts))


def batches_of(turn, model):
    """The task and the batch of each process."""
    found = []
    for rank in range(PROCESSES):
        rng = np.random.default_rng([turn, rank])
        name = str(rng.choice(list(LENGTHS)[: 2 + turn % 5]))
        torch.manual_seed(100 * turn + rank)
        examples = labelled(name, random_examples(name, LENGTHS[name], model.config), rng)
        found.append((name, examples))
    return found


def one_large_batch(model, drawn):
    """The mean over the processes of the loss of one batch with all samples of a task."""
    model.zero_grad()
    counts = Counter(name for name, _ in drawn)
    for name, count in counts.items():
        examples = [one for task, own in drawn if task == name for one in own]
        batch = make_batch(name, examples, model.config)
        (model(batch).loss * count / len(drawn)).backward()
    gradients = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    return gradients


def train_independently(fabric, folder):
    """Every process trains tasks of its own; returns what differs from one large batch."""
    torch.set_num_threads(1)
    settings = {"devices": PROCESSES, "task_sampling": "independent"}
    recipe = tiny_recipe(Path(folder), optimizer={"max_grad_norm": None}, **settings)
    model = sparse_model().train()
    wrong = []
    with tiny_trainer(recipe, fabric=fabric, model=model) as trainer:
        for turn in range(ROUNDS):
            drawn = batches_of(turn, model)
            name, examples = drawn[fabric.global_rank]
            trainer.backward(iter([make_batch(name, examples, model.config)]))
            found = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
            alone = sparse_model().train()
            with peers([fabric.global_rank]):
                expected = one_large_batch(alone, drawn)
            wrong += [
                (turn, [task for task, _ in drawn], name)
                for name in found.keys() | expected.keys()
                if name not in found
                or name not in expected
                or not torch.allclose(found[name], expected[name], rtol=1e-7, atol=1e-10)
            ]
            model.zero_grad(set_to_none=True)
    return wrong


def test_tasks_of_their_own_are_the_same_as_one_large_batch_of_each_task(tmp_path):
    fabric = make_fabric(tiny_recipe(tmp_path, devices=PROCESSES).training)
    assert launch(fabric, train_independently, str(tmp_path / "run")) == []


def stop_one(fabric, folder):
    """The last process is told to stop in the middle of its fourth step."""
    torch.set_num_threads(1)

    def spoil(index, x):
        if index == 3 and fabric.global_rank == PROCESSES - 1:
            os.kill(os.getpid(), signal.SIGTERM)

    settings = {"devices": PROCESSES, "task_sampling": "independent"}
    recipe = tiny_recipe(Path(folder), **settings)
    model = TinyModel(dropout=0, noise=0)
    fit_tiny(recipe, fabric=fabric, spoil=spoil, model=model)
    return True


def test_one_interrupted_process_stops_all_at_the_same_step(tmp_path):
    fabric = make_fabric(tiny_recipe(tmp_path, devices=PROCESSES).training)
    assert launch(fabric, stop_one, str(tmp_path))
    state = TrainingState.read(tmp_path / "last")
    assert state.step == 4
    # three steps of `left` on the ranks 0 and 2, then one of `right`; rank 1 the other way round
    assert state.samples == {"left": 4 * (3 + 3 + 1), "right": 4 * (1 + 1 + 3)}
    assert load_file(tmp_path / "last" / "model.safetensors")
