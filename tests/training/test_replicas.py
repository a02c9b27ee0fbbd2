"""Replicas of several processes, and layers that are gathered one by one: a real sparse model and
a mixture of tasks on two and four processes, against one."""

import pytest
import torch
from processes import fabric_in_group, run_in_group
from safetensors.torch import load_file
from sparse_training import examples_of, recipe_of, update
from stand_ins import tiny_trainer
from tiny import make_batch, tiny_config, tiny_model

from skillweave.components.encoders.recurrent import RecurrentEncoder
from skillweave.config import ConfigError
from skillweave.config.encoder import LSTMConfig
from skillweave.config.training import TrainingConfig
from skillweave.layers.peers import peers
from skillweave.layers.recompute import Recompute
from skillweave.layers.sparse import Known
from skillweave.training.optimizer import optimizer_tensors, read_optimizer_tensors
from skillweave.training.parallel import gather_objects, make_fabric, with_started_processes
from skillweave.training.pipeline import require_layers
from skillweave.training.tensor_parallel import SharedLayers
from skillweave.training.tensor_parts import local_part

pytestmark = pytest.mark.filterwarnings("ignore")

MICRO_BATCHES = 2
TASKS = ["to_image", "masked_code"]
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


PARTS = {"devices": 4, "gradient_accumulation_steps": 4}


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"parallel": {"tensor": 3}}, "needs a multiple of 3 processes, and devices is 4"),
        ({"parallel": {"tensor": 2, "pipeline": 4}}, "needs a multiple of 8 processes"),
        ({"parallel": {"kind": "expert", "tensor": 2}}, "cannot be combined with tensor or pipe"),
        ({"parallel": {"kind": "sharded", "pipeline": 2}}, "cannot be combined with pipeline"),
        ({"parallel": {"tensor": 2}, "optimizer": {"kind": "muon"}}, "needs whole ones"),
        ({"parallel": {"pipeline": 2}, "interference": {}}, "compares all gradients"),
        ({"parallel": {"tensor": 2}, "compile": True}, "compile cannot be combined"),
        (
            {"parallel": {"pipeline": 4}, "gradient_accumulation_steps": 2},
            "1f1b needs at least 4 micro-batches",
        ),
        (
            {
                "parallel": {"pipeline": 4, "schedule": "interleaved"},
                "gradient_accumulation_steps": 6,
            },
            "interleaved needs a multiple of 4 micro-batches",
        ),
        (
            {"parallel": {"kind": "sharded", "reshard": True}, "task_sampling": "independent"},
            "needs the same task on all processes",
        ),
    ],
)
def test_what_cannot_be_combined_is_refused(settings, told):
    with pytest.raises(ConfigError, match=told):
        TrainingConfig.parse({"steps": 1, **PARTS, **settings})


def test_processes_that_torchrun_starts_are_checked(tmp_path, monkeypatch):
    recipe = recipe_of(tmp_path, parallel={"tensor": 2})
    with pytest.raises(ConfigError, match=r"training\.devices is 1"):
        make_fabric(recipe.training)
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert with_started_processes(recipe).training.replicas == 1
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(ConfigError, match="needs a multiple of 2 processes"):
        with_started_processes(recipe)


class Mesh:
    """As many processes as a model is divided among, before any has started."""

    def __init__(self, count):
        self.count = count

    def size(self):
        """Their number."""
        return self.count

    def get_local_rank(self):
        """That of the first one."""
        return 0


@pytest.mark.parametrize(
    ("changes", "count", "told"),
    [
        ({}, 2, "2 processes cannot share the 3 attention heads of encoder.blocks.0.attention"),
        ({"heads": 4, "feed_forward": 21}, 2, "cannot share the 21 outputs"),
        ({"heads": 4, "key_value_heads": 2}, 4, "4 attention heads with 2 heads of keys"),
        ({"heads": 4, "position": {"kind": "t5_bias", "gated": True}}, 2, "gated biases"),
    ],
)
def test_layers_that_cannot_be_shared_are_named(changes, count, told):
    with pytest.raises(ConfigError, match=told):
        SharedLayers(tiny_model(tiny_config(encoder=changes)), Mesh(count))


def test_a_model_that_cannot_be_cut_into_stages_is_refused():
    with pytest.raises(ConfigError, match="4 stages are more than the 2 layers"):
        require_layers(tiny_model(), 4)
    recurrent = tiny_model()
    recurrent.encoder = RecurrentEncoder(LSTMConfig(), 12, Known({}))
    with pytest.raises(ConfigError, match="only Transformers can be cut into stages"):
        require_layers(recurrent, 2)
    model = tiny_model(tiny_config(encoder={"residual_attention": True}))
    with pytest.raises(ConfigError, match="residual_attention"):
        require_layers(model, 2)
