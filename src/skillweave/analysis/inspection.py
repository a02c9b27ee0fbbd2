"""What a model is made of, without running it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from skillweave.analysis.experts import decided, looking_at_data
from skillweave.model.config import ModelConfig
from skillweave.model.model import Model
from skillweave.recipe import RecipeConfig
from skillweave.tasks.resolve import model_with_tasks
from skillweave.weights.adapters import weights_file
from skillweave.weights.meta import meta_device


def inspect_folder(folder: Path) -> dict[str, Any]:
    """As `inspect_model`, with `bytes` on disk: of the weights, and of the model folder as a whole;
    and `routing`.

    `routing`: a row for each use of experts that the layout decides (see
    `skillweave.analysis.experts.Use`). `undecided`: the places where the data decide.
    """
    sizes = {file: file.stat().st_size for file in folder.rglob("*") if file.is_file()}
    model = Model.from_pretrained(folder)
    return inspect_model(model) | {
        "bytes": {"weights": sizes[weights_file(folder)], "folder": sum(sizes.values())},
        "routing": [use._asdict() for use in decided(model)],
        "undecided": list(dict.fromkeys(choice.place for choice in looking_at_data(model))),
    }


def inspect_recipe(recipe: RecipeConfig) -> dict[str, Any]:
    """As `inspect_model`, without reading data: vocabularies count at their largest, class lists
    and alphabets as written."""
    return inspect_config(model_with_tasks(recipe))


def inspect_config(config: ModelConfig) -> dict[str, Any]:
    """As `inspect_model`, of a configuration alone."""
    with meta_device():
        return inspect_model(Model(config))


def inspect_model(model: Model) -> dict[str, Any]:
    """Parameters of each component and in all, the skills, and per task its skills and activated
    parameters."""
    parts: dict[str, int] = {}
    for name, parameter in model.named_parameters():
        first, second = name.split(".")[:2]
        part = first if first == "encoder" else f"{first}.{second}"
        parts[part] = parts.get(part, 0) + parameter.numel()
    skills = model.config.active_skills
    tasks = {
        name: {
            "skills": list(dict.fromkeys(skills[span.modality] for span in task.spans)),
            "activated_parameters": model.count_parameters(name),
        }
        for name, task in model.config.tasks.items()
    }
    total = model.count_parameters()
    return {
        "components": parts,
        "total_parameters": total,
        "skills": list(dict.fromkeys(skills.values())),
        "tasks": tasks,
    }
