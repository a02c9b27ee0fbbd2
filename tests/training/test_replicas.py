"""Replicas of several processes, and layers that are gathered one by one: a real sparse model and
a mixture of tasks on two and four processes, against one."""

import pytest
import torch
from processes import fabric_in_group, run_in_group
from safetensors.torch import load_file
from sparse_training import examples_of, recipe_of, update
from stand_ins import tiny_trainer
from tiny import make_batch, tiny_config, tiny_model

from skillweave.layers.peers import peers
from skillweave.layers.recompute import Recompute
from skillweave.training.optimizer import optimizer_tensors, read_optimizer_tensors
from skillweave.training.parallel import gather_objects
from skillweave.training.tensor_parts import local_part

pytestmark = pytest.mark.filterwarnings("ignore")

MICRO_BATCHES = 2
TASKS = ["to_image", "masked_code", "classify"]
"""The task of each step."""
MODES = {
    2: [
        {"tensor": 2},
        {"pipeline": 2},
        {"pipeline": 2, "schedule": "interleaved"},
        {"kind": "sharded", "reshard": True},
        {"kind": "sharded", "reshard": True, "offload": True},
    ],
    4: [
        {"kind": "sharded", "reshard": True, "tensor": 2},
        {"pipeline": 2, "schedule": "gpipe"},
        {"pipeline": 2, "tensor": 2},
    ],
}


def sparse_model():
    """Skills; experts that a condition mixes; and experts that each token chooses, with a balance
    loss. A word embedding is an output layer, too, and heads share keys."""
    torch.manual_seed(0)
    encoder = {
        "layers": 4,
        "heads": 4,
        "key_value_heads": 2,
        "gated": True,
        "sparse": {
            "qkv": {"route": "attribute", "experts": 3, "active": 2, "noise": 0},
            "attention_output": {"route": "skill"},
            "feed_forward": {"route": "token", "experts": 2, "active": 1, "noise": 0},
        },
    }
    return tiny_model(tiny_config(encoder=encoder)).train()


def batches_of(step, replicas, model):
    """The micro-batches of a step with the samples of these replicas."""
    name, found = TASKS[step], []
    for number in range(MICRO_BATCHES):
        parts = [examples_of(name, model, step, number, replica) for replica in replicas]
        found.append(make_batch(name, [one for part in parts for one in part], model.config))
    return found


def settings(**parallel):
    return {"gradient_accumulation_steps": MICRO_BATCHES, "parallel": parallel}


def alone(folder, replicas):
    """What one process does with the samples of all replicas: loss, norm and active parameters of
    each step, the weights, and the state of the optimizer."""
    model = sparse_model()
    with tiny_trainer(recipe_of(folder, **settings()), model=model) as trainer:
        steps = [
            update(trainer, batches_of(step, range(replicas), model)) for step in range(len(TASKS))
        ]
        return steps, model.state_dict(), optimizer_tensors(trainer.bare_optimizer, model)


def differing(found, expected):
    """Names of tensors that are not there in both, or not close."""
    return sorted(found.keys() ^ expected.keys()) + [
        name
        for name, x in expected.items()
        if name in found and not torch.allclose(found[name], x, rtol=1e-6, atol=1e-9)
    ]


def train_as_replicas(rank, world, folder, known):
    """Every mode on one process of the group; returns what is wrong. `known`: number of replicas →
    what `alone` gave for them."""
    fabric, wrong = fabric_in_group(), []
    for number, mode in enumerate(MODES[world]):
        recipe = recipe_of(folder / str(number), devices=world, **settings(**mode))
        expected, weights, state = known[recipe.training.replicas]
        model = sparse_model()
        if mode.get("offload"):
            model.recompute_activations(Recompute())
        with tiny_trainer(recipe, fabric=fabric, model=model) as trainer:
            for step, (loss, norm, active) in enumerate(expected):
                batches = batches_of(step, [trainer.place.replica], model)
                own_loss, own_norm, own = update(trainer, batches)
                found = gather_objects(fabric, (own_loss, own))
                mean = sum(one for one, _ in found) / world
                if abs(mean - loss) > 1e-9 * abs(loss) or abs(own_norm - norm) > 1e-9 * norm:
                    wrong.append((mode, step, mean, loss, own_norm, norm))
                if differ := set().union(*(names for _, names in found)) ^ active:
                    wrong.append((mode, step, sorted(differ)[:5]))
            trainer.state.step = len(TASKS)
            trainer._save_checkpoint()
            path = trainer.checkpoints.path(len(TASKS))
            if differ := differing(load_file(path / "model.safetensors"), weights):
                wrong.append((mode, "the checkpoint has other weights", differ[:5]))
            # one process alone continues from it
            if differ := differing(read_optimizer_tensors(path, sparse_model()), state):
                wrong.append((mode, "the checkpoint has another optimizer", differ[:5]))
            before = {**optimizer_tensors(trainer.bare_optimizer, model), **model.state_dict()}
            before = {name: local_part(x).detach().clone() for name, x in before.items()}
            trainer._restore(path)
            after = {**optimizer_tensors(trainer.bare_optimizer, model), **model.state_dict()}
            if any(not torch.equal(x, local_part(after[name])) for name, x in before.items()):
                wrong.append((mode, "what is restored is not what was saved"))
            whole = sparse_model().eval()
            whole.load_state_dict(load_file(path / "model.safetensors"))
            batch = batches_of(0, [0], model)[0]
            with peers([rank]), torch.no_grad(), trainer.strategy.whole():
                model.eval()
                if not torch.allclose(model(batch).loss, whole(batch).loss, rtol=1e-6):
                    wrong.append((mode, "validation"))
            names = {name for name, _ in model.named_parameters()}
            if names & trainer.strategy.elsewhere:
                wrong.append((mode, "what is gathered for a validation stays"))
    return wrong


@pytest.fixture(scope="module")
def known(tmp_path_factory):
    folder = tmp_path_factory.mktemp("alone")
    return {replicas: alone(folder / str(replicas), replicas) for replicas in (1, 2)}


@pytest.mark.parametrize("processes", MODES)
def test_replicas_train_as_one_process(tmp_path, known, processes):
    found = run_in_group(processes, train_as_replicas, tmp_path, known)
    assert found == [[]] * processes
