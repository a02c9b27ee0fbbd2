"""Recipes of complete runs on the packed poems and emoji, with models of a few thousand weights."""

from skillweave.recipe import RecipeConfig

DATA = {
    "text_classification": {"path": "pack:poems", "columns": {"label": "dynasty"}, "limit": 200},
    "text_to_image": {
        "path": "pack:emoji",
        "columns": {"text": ["name_zh", "name_en"]},
        "limit": 100,
    },
}


def recipe(folder, tasks=("text_classification",), start_from=None, **training):
    """Text classification, or other tasks of `DATA`, for four steps."""
    return RecipeConfig.parse({
        "output": str(folder),
        "start_from": start_from and str(start_from),
        "model": {
            "width": 8,
            "streams": {"text": {"vocabulary": 200, "max_length": 16}, "image": {"size": 32, "patch": 16}},
            "encoder": {"layers": 1, "heads": 2, "feed_forward": 16, "sparse": {"qkv": {"route": "skill"}}},
        },
        "tasks": {name: {"data": DATA[name], "batch_size": 4} for name in tasks},
        "training": {"steps": 4, "threads": 1, "validation_samples": 8, "accelerator": "cpu", **training},
    })  # fmt: skip


def tuning_recipe(
    folder, tasks=tuple(DATA), start_from=None, tuning=None, route="skill", target=None, **training
):
    """Both tasks of `DATA` or some of them; `tuning`: the method, of the model `start_from`."""
    chosen = {name: {"data": DATA[name], "batch_size": 4} for name in tasks}
    if target:
        chosen["text_classification"]["target"] = target
    return RecipeConfig.parse({
        "output": str(folder),
        "start_from": start_from and str(start_from),
        "tuning": tuning and {"method": tuning, "rank": 2, "prompts": 3},
        "model": {
            "width": 8,
            "streams": {"text": {"vocabulary": 200, "max_length": 16}, "image": {"size": 32, "patch": 16}},
            "encoder": {"layers": 2, "heads": 2, "feed_forward": 16, "sparse": {"qkv": {"route": route}}},
            "targets": {target: {"kind": "classification"}} if target else {},
        },
        "tasks": chosen,
        "training": {"steps": 4, "threads": 1, "validation_samples": 8, "accelerator": "cpu", "log_every": 1, **training},
    })  # fmt: skip
