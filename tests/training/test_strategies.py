"""Parts of parameters and shares of experts: a real sparse model and a mixture of tasks on two
processes, against one."""

import errno
from contextlib import nullcontext
from unittest.mock import patch

import numpy as np
import pytest
import torch
from processes import fabric_in_group, run_in_group
from safetensors.torch import load_file
from stand_ins import tiny_recipe, tiny_trainer
from tiny import labelled, make_batch, random_examples, tiny_config, tiny_model

from skillweave.config import ConfigError
from skillweave.config.training import TrainingConfig
from skillweave.layers.peers import peers
from skillweave.training.errors import TrainingError
from skillweave.training.optimizer import (
    load_optimizer_tensors,
    make_optimizer,
    optimizer_tensors,
    read_optimizer_tensors,
)
from skillweave.training.parallel import gather_objects
from skillweave.training.tensor_parts import is_divided
from skillweave.training.trainer import LossModule

pytestmark = pytest.mark.filterwarnings("ignore")

LENGTHS = {
    "classify": ((3,), (7,)),
    "transcribe": ((4,), (9,)),
    "to_image": ((5, 5), (3, 5)),
    "masked_code": ((4, 2), (9, 5)),
    "denoising": ((8, 3, 5), (8, 4, 6)),
}
PROCESSES, STEPS = 2, 5
TOGETHER = ["classify", "to_image", "masked_code", "to_image", "classify"]
"""The task of each step."""
MODES = [
    ("sharded", "synchronised"),
    ("sharded", "independent"),
    ("expert", "synchronised"),
]
APART = ["transcribe", "transcribe", "to_image", "denoising", "classify"]
"""The task of the second process, where each has one of its own."""


def whole_tensor(x):
    """Gathered from all processes, which all call it."""
    return x.full_tensor() if is_divided(x) else x


def recipe_of(folder, **training):
    recipe = tiny_recipe(folder, **training)
    tasks = dict.fromkeys(LENGTHS, next(iter(recipe.tasks.values())))
    return recipe.model_copy(update={"tasks": tasks})


def sparse_model():
    """Skills, and experts that each token chooses. Some of it is frozen."""
    torch.manual_seed(0)
    experts = {"route": "token", "experts": 4, "active": 1, "noise": 0, "balance": 0}
    model = tiny_model(tiny_config(feed_forward=experts)).train()
    model.embeddings["image"].requires_grad_(False)
    return model


def drawn(step, names, model):
    """The task and the examples of each process in a step."""
    found = []
    for rank, name in enumerate(names):
        torch.manual_seed(100 * step + rank)
        rng = np.random.default_rng([step, rank])
        examples = random_examples(name, LENGTHS[name], model.config)
        found.append((name, labelled(name, examples, rng)))
    return found


def names_of(step, independent):
    return TOGETHER[step], (APART if independent else TOGETHER)[step]


def update(trainer, batch):
    """One update; its loss, and the parameters that had a gradient."""
    loss, norm, _ = trainer.backward(iter([batch]))
    active = {name for name, p in trainer.model.named_parameters() if p.grad is not None}
    trainer.optimizer.step()
    trainer.schedule.step()
    trainer.optimizer.zero_grad(set_to_none=True)
    return float(loss), float(norm), active


def alone(folder, independent):
    """What one process does with the samples of both: a batch of each task."""
    model = sparse_model()
    found = []
    with tiny_trainer(recipe_of(folder), model=model) as trainer:
        for step in range(STEPS):
            batches = drawn(step, names_of(step, independent), model)
            names = [name for name, _ in batches]
            for name in dict.fromkeys(names):
                both = [example for task, own in batches if task == name for example in own]
                share = names.count(name) / PROCESSES
                (model(make_batch(name, both, model.config)).loss * share).backward()
            norm = trainer.strategy.clip(trainer.config.optimizer.max_grad_norm)
            found.append(
                (float(norm), {n for n, p in model.named_parameters() if p.grad is not None})
            )
            trainer.optimizer.step()
            trainer.schedule.step()
            trainer.optimizer.zero_grad(set_to_none=True)
        return found, model.state_dict()


def train_in_parts(rank, world, folder):
    """Every check of this file on one process of the group; returns what is wrong."""
    fabric, wrong = fabric_in_group(), []
    for kind, sampling in MODES:
        independent = sampling == "independent"
        with peers([rank]):
            expected, weights = alone(folder / f"alone-{rank}", independent)
        recipe = recipe_of(
            folder / kind / sampling,
            devices=PROCESSES,
            task_sampling=sampling,
            parallel={"kind": kind},
        )
        model = sparse_model()
        with tiny_trainer(recipe, fabric=fabric, model=model) as trainer:
            if kind == "expert":
                wrong += divided_experts(model)
            parts = [name for name, p in model.named_parameters() if is_divided(p)]
            if any(name.startswith("embeddings.image") for name in parts):
                wrong.append("a frozen parameter is in parts")
            if kind == "sharded" and not any("experts" in name for name in parts):
                wrong.append("no expert is in parts")
            for step in range(STEPS):
                batches = drawn(step, names_of(step, independent), model)
                name, examples = batches[rank]
                _, norm, active = update(trainer, make_batch(name, examples, model.config))
                active = set().union(*gather_objects(fabric, active))
                if active != expected[step][1]:
                    wrong.append((kind, sampling, step, sorted(active ^ expected[step][1])[:5]))
                if abs(norm - expected[step][0]) > 1e-9 * norm:
                    wrong.append((kind, sampling, step, norm, expected[step][0]))
            found = everything(fabric, model)
            wrong += [
                (kind, sampling, name)
                for name, weight in weights.items()
                if not torch.allclose(found[name], weight, rtol=1e-7, atol=1e-9)
            ]
            trainer.state.step = STEPS
            trainer._save_checkpoint()
            stored = load_file(trainer.checkpoints.path(STEPS) / "model.safetensors")
            if stored.keys() != found.keys() or any(
                not torch.equal(stored[name], x) for name, x in found.items()
            ):
                wrong.append((kind, "the checkpoint has other weights"))
            before = optimizer_tensors(trainer.bare_optimizer, model)
            trainer.bare_optimizer.state.clear()
            trainer._restore(trainer.checkpoints.path(STEPS))
            after = optimizer_tensors(trainer.bare_optimizer, model)
            if before.keys() != after.keys() or any(
                not torch.equal(whole_tensor(x), whole_tensor(after[name]))
                for name, x in before.items()
            ):
                wrong.append((kind, "the checkpoint has another state of the optimizer"))
            # one process alone continues from it
            single = sparse_model()
            tensors = read_optimizer_tensors(trainer.checkpoints.path(STEPS), single)
            optimizer = make_optimizer(single, trainer.config.optimizer)
            load_optimizer_tensors(optimizer, single, tensors)
            if tensors.keys() != set().union(*gather_objects(fabric, set(before))):
                wrong.append((kind, "the state for one process is not that of all"))
            with trainer.strategy.whole():
                name, examples = drawn(0, ["classify"], model)[0]
                loss = model(make_batch(name, examples, model.config)).loss
            if not torch.isfinite(loss):
                wrong.append((kind, "loss"))
            if parts != [name for name, p in model.named_parameters() if is_divided(p)]:
                wrong.append((kind, "what is gathered for a validation stays whole"))
    return wrong + no_update_on_one(rank, fabric, folder) + full_disk_on_one(rank, fabric, folder)


def everything(fabric, model):
    """The weights of all processes, whole."""
    own = {name: whole_tensor(x) for name, x in model.state_dict().items()}
    return {name: x for found in gather_objects(fabric, own) for name, x in found.items()}


def divided_experts(model):
    """Each process has half of the experts of each layer."""
    names = [name for name, _ in model.named_parameters() if ".feed_forward.experts." in name]
    here = {name.split(".experts.")[1].split(".")[0] for name in names}
    return [] if len(here) == 2 and len(names) == 2 * 4 * 2 else [f"experts {sorted(here)}"]


def no_update_on_one(rank, fabric, folder):
    """A loss of one process is not finite: no process changes anything, and all of them count."""
    recipe = recipe_of(folder / "nan", devices=PROCESSES, parallel={"kind": "sharded"})
    model, wrong = sparse_model(), []
    with tiny_trainer(recipe, fabric=fabric, model=model) as trainer:
        before = {name: whole_tensor(x).clone() for name, x in model.state_dict().items()}
        batch = make_batch("transcribe", drawn(0, ["transcribe"], model)[0][1], model.config)
        forward = LossModule.forward

        def spoiled(self, *args):
            return forward(self, *args) * (torch.nan if rank == 1 else 1)

        with patch.object(LossModule, "forward", spoiled):
            trainer.update(iter([batch]))
        after = {name: whole_tensor(x) for name, x in model.state_dict().items()}
        wrong += [name for name, x in before.items() if not torch.equal(x, after[name])]
        if (trainer.state.nonfinite, trainer.state.without_update) != (1, 1):
            wrong.append("not counted")
    return wrong


def full_disk_on_one(rank, fabric, folder):
    """One process cannot write its part: all of them say so, and the earlier checkpoint stays."""
    recipe = recipe_of(folder / "full", devices=PROCESSES, parallel={"kind": "sharded"})
    wrong = []
    with tiny_trainer(recipe, fabric=fabric, model=sparse_model()) as trainer:
        trainer.state.step = 1
        trainer._save_checkpoint()
        trainer.state.step = 2
        writer = "torch.distributed.checkpoint.hf_storage.HuggingFaceStorageWriter.write_data"
        full = OSError(errno.ENOSPC, "No space left on device")
        with patch(writer, side_effect=full) if rank == 1 else nullcontext():
            try:
                trainer._save_checkpoint()
                wrong.append("written")
            except TrainingError as error:
                if "no space left" not in str(error) or "step-00000001 is complete" not in str(
                    error
                ):
                    wrong.append(str(error))
        steps = trainer.checkpoints.steps()
        if steps != [1] or list(folder.rglob("*.partial")):
            wrong.append(steps)
    return wrong


def test_two_processes_train_as_one(tmp_path):
    assert run_in_group(PROCESSES, train_in_parts, tmp_path) == [[], []]


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"optimizer": {"kind": "muon"}}, "needs whole ones; use optimizer: adamw"),
        ({"interference": {}}, "compares all gradients"),
        (
            {"parallel": {"kind": "expert"}, "task_sampling": "independent"},
            "needs the same task on all processes",
        ),
    ],
)
def test_what_needs_whole_parameters_is_refused(settings, told):
    with pytest.raises(ConfigError, match=told):
        TrainingConfig.parse(
            {"steps": 1, "devices": 2, "parallel": {"kind": "sharded"}, **settings}
        )
