"""The components, skills and experts of a model, without running it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from skillweave.analysis.experts import data_choices, uses_by_layout
from skillweave.model.config import ModelConfig
from skillweave.model.model import Model
from skillweave.recipe import RecipeConfig
from skillweave.tasks.resolve import model_with_tasks
from skillweave.weights.adapters import weights_file
from skillweave.weights.meta import meta_device


def inspect_folder(folder: Path) -> dict[str, Any]:
    """As `inspect_model`, with `bytes`, `routing` and `data_dependent`.

    `bytes`: size on disk of the weights and of the whole model folder. `routing`: a row for each
    use of experts that the layout decides (see `skillweave.analysis.experts.Use`).
    `data_dependent`: the sites whose route looks at the data, such as `decoder.feed_forward`.
    """
    sizes = {file: file.stat().st_size for file in folder.rglob("*") if file.is_file()}
    model = Model.from_pretrained(folder)
    return inspect_model(model) | {
        "bytes": {"weights": sizes[weights_file(folder)], "folder": sum(sizes.values())},
        "routing": [use._asdict() for use in uses_by_layout(model)],
        "data_dependent": list(dict.fromkeys(f"{c.part}.{c.site}" for c in data_choices(model))),
    }


def inspect_recipe(recipe: RecipeConfig) -> dict[str, Any]:
    """As `inspect_model`, without reading data: vocabularies have their largest size, class lists
    and alphabets are those of the recipe."""
    return inspect_config(model_with_tasks(recipe))


def inspect_config(config: ModelConfig) -> dict[str, Any]:
    """As `inspect_model`, for a configuration."""
    with meta_device():
        return inspect_model(Model(config))


def inspect_model(model: Model) -> dict[str, Any]:
    """Parameters of each component, in total and of frozen backbones, the skills, and for each task
    its skills and activated parameters."""
    components: dict[str, int] = {}
    for name, parameter in model.named_parameters():
        first, second = name.split(".")[:2]
        path = first if first in model.parts else f"{first}.{second}"
        components[path] = components.get(path, 0) + parameter.numel()
    skills = model.config.active_skills
    tasks = {
        name: {
            # a decoder's texts may have no stream, and so no skill (Whisper)
            "skills": list(
                dict.fromkeys(skills[s.modality] for s in task.spans if s.modality in skills)
            ),
            "activated_parameters": model.count_parameters(name),
        }
        for name, task in model.config.tasks.items()
    }
    total = model.count_parameters()
    return {
        "components": components,
        "total_parameters": total,
        "frozen_parameters": sum(p.numel() for p in model.parameters() if not p.requires_grad),
        "skills": list(dict.fromkeys(skills.values())),
        "tasks": tasks,
    }
