"""A minimal model and mixture for tests of the trainer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.utils.data import Dataset

from skillweave.batch import Batch, Layout, Modality, Span
from skillweave.recipe import RecipeConfig
from skillweave.training.checkpoint import Checkpoints, TrainingState
from skillweave.training.parallel import make_fabric
from skillweave.training.progress import ProgressDisplay
from skillweave.training.run_logger import RunLogger
from skillweave.training.signals import handle_signals
from skillweave.training.trainer import Trainer

WIDTH = 8
SAMPLES = 4


def tiny_recipe(folder: Path, **training: Any) -> RecipeConfig:
    """Two tasks, twelve steps."""
    task = {"data": {"path": "none"}, "batch_size": SAMPLES}
    model = {"width": 4, "streams": {"text": {}}, "encoder": {"heads": 1}}
    settings = {"steps": 12, "threads": 1, "accelerator": "cpu", "log_every": 3, **training}
    data = {
        "output": str(folder),
        "model": model,
        "tasks": {"left": task, "right": task},
        "training": settings,
    }
    return RecipeConfig.parse(data)


@dataclass(frozen=True)
class TinyOutput:
    """The part of the model's output that the trainer uses."""

    loss: Tensor | None


class TinyModel(nn.Module):
    """A shared layer and one skill per task. Dropout and noise reveal a lost random state."""

    def __init__(self, dropout: float = 0.25, noise: float = 0.1) -> None:
        super().__init__()
        self.shared = nn.Linear(WIDTH, WIDTH)
        self.norm = nn.LayerNorm(WIDTH)
        self.skills = nn.ModuleDict({name: nn.Linear(WIDTH, 3) for name in ("left", "right")})
        self.dropout, self.noise = nn.Dropout(dropout), noise

    def loss_terms(self, batch: Batch) -> dict[str, int]:
        """The samples."""
        return {"class": len(batch)}

    def active_parameters(self, task: str) -> list[str]:
        """All but the other skill."""
        other = {"left": "right", "right": "left"}[task]
        return [name for name, _ in self.named_parameters() if other not in name]

    def forward(
        self,
        batch: Batch,
        generator: torch.Generator | None = None,
        loss_scales: Any = None,
        loss_only: bool = False,
        chunk_size: int | None = None,
    ) -> TinyOutput:
        """Cross-entropy of the active skill."""
        x = self.dropout(torch.tanh(self.shared(batch.inputs[0])))
        if self.training and self.noise:
            x = x + self.noise * torch.randn(x.shape[1], generator=generator)
        logits = self.skills[batch.layout.task](self.norm(x))
        return TinyOutput(nn.functional.cross_entropy(logits, batch.labels["class"]))

    def save_pretrained(self, folder: Path, state: dict[str, Tensor] | None = None) -> None:
        """Write the weights."""
        save_file(state or self.state_dict(), folder / "model.safetensors")


class TinyMixture(Dataset[Batch]):
    """Micro-batches that depend on their index only. Several processes divide the sequence of batches
    of one process."""

    def __init__(
        self,
        recipe: RecipeConfig,
        rank: int = 0,
        world: int = 1,
        spoil: Callable[[int, Tensor], None] | None = None,
    ) -> None:
        self.steps = recipe.training.steps or 0
        self.accumulation = recipe.training.gradient_accumulation_steps
        self.rank, self.world, self.spoil = rank, world, spoil
        self.independent = recipe.training.task_sampling == "independent"

    def __len__(self) -> int:
        return self.steps * self.accumulation

    def draw(self, index: int) -> int:
        """What a data worker is asked for."""
        return index

    def task_of(self, step: int, rank: int) -> str:
        """Three steps of each task in turn, so that a skill is inactive for some steps."""
        turn = step // 3 + (rank if self.independent else 0)
        return "left" if turn % 2 == 0 else "right"

    def __getitem__(self, index: int) -> Batch:
        number = index * self.world + self.rank
        random = torch.Generator().manual_seed(1000 + number)
        x = torch.randn(SAMPLES, WIDTH, generator=random)
        labels = torch.randint(3, (SAMPLES,), generator=random)
        if self.spoil:
            self.spoil(index, x)
        layout = Layout(
            self.task_of(index // self.accumulation, self.rank), (Span(Modality.TEXT, length=1),)
        )
        keys = tuple(f"{number}/{i}" for i in range(SAMPLES))
        return Batch(
            layout, (x,), torch.ones(SAMPLES, 1, dtype=torch.int64), {"class": labels}, keys=keys
        )


def no_validation(model: Any) -> Any:
    """A validation without data."""
    return {}, [], []


def validate_tiny(model: Any) -> Any:
    """Validate both tasks on other micro-batches than training. Draws random numbers on purpose."""
    torch.rand(3)
    mixture = TinyMixture(tiny_recipe(Path("unused")))
    batches = [mixture[900 + i] for i in (0, 3)]
    losses = {batch.layout.task: float(model(batch).loss) for batch in batches}
    return (
        {task: {"loss": loss, "accuracy": 1 / (1 + loss)} for task, loss in losses.items()},
        [],
        [],
    )


@contextmanager
def tiny_trainer(
    recipe: RecipeConfig,
    *,
    spoil: Any = None,
    validate: Any = no_validation,
    fabric: Any = None,
    model: Any = None,
) -> Iterator[Trainer]:
    """A trainer that continues from the newest checkpoint of the recipe's folder, if there is one."""
    fabric = fabric or make_fabric(recipe.training)
    recipe.folder.mkdir(parents=True, exist_ok=True)
    checkpoints = Checkpoints(recipe.folder, recipe.training.save_total_limit)
    newest = checkpoints.newest()
    state = TrainingState.read(newest) if newest else TrainingState(seed=recipe.training.seed)
    torch.manual_seed(recipe.training.seed)
    model = model or TinyModel()
    if newest:
        model.load_state_dict(load_file(newest / "model.safetensors"))
    first = fabric.is_global_zero
    if first:
        checkpoints.clean(state)
    mixture: Any = TinyMixture(recipe, fabric.global_rank, fabric.world_size, spoil)
    display = ProgressDisplay(mixture.steps, state.step, quiet=True)
    log_every, folder = recipe.training.log_every, recipe.folder if first else None
    with RunLogger(folder, display, log_every, state) as logger:
        trainer = Trainer(fabric, recipe, model, mixture, validate, checkpoints, logger, state)
        with handle_signals(trainer.stop):
            yield trainer


def fit_tiny(recipe: RecipeConfig, **settings: Any) -> dict[str, Tensor]:
    """Train to the end or until a signal. Returns the weights."""
    with tiny_trainer(recipe, **settings) as trainer:
        trainer.fit()
        return {name: tensor.clone() for name, tensor in trainer.model.state_dict().items()}
