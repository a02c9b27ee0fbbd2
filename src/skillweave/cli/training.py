"""Commands that train: `quickstart`, `init`, `train`, `cache`, and `schema` of their recipes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

import skillweave as sw
from skillweave.cli.shared import (
    Device,
    Engine,
    Results,
    Settings,
    is_first_process,
    open_recipe,
    require_writable,
    results_shown,
)

QUICKSTART = "quickstart"


def quickstart(
    resume: Annotated[bool, Option("--resume", help="Continue an interrupted quickstart.")] = False,
    settings: Settings = None,
) -> Results:
    """Train and evaluate a small model of five modalities.

    The data is part of the package. The last lines say what to try next.
    """
    from skillweave.cli.evaluation import evaluate_run
    from skillweave.reporting.logs import EVALUATION_FILE
    from skillweave.reporting.report import REPORT_FILE
    from skillweave.training.checkpoint import Checkpoints

    recipe = open_recipe(QUICKSTART, settings)
    folder = recipe.folder
    if (folder / EVALUATION_FILE).is_file():
        print(f"{folder} is complete; see {folder / REPORT_FILE}.")
        print(
            "To train again, remove the folder or choose another: skillweave quickstart"
            f" output={folder}-2"
        )
    else:
        begun = bool(Checkpoints(folder).steps())
        if begun and not resume:
            again = " ".join(["skillweave", QUICKSTART, *(settings or ()), "--resume"])
            raise sw.ConfigError(f"{folder} is incomplete; continue with: {again}")
        sw.train(recipe, resume=resume)
        evaluate_run(str(folder))
    print("\nNext:")
    print(f'  skillweave search {folder} "一个笑脸" --in image')
    print(f"  skillweave inspect {folder}")
    print(f"  skillweave evaluate {folder} --json figures.json")
    return {"run": str(folder), "report": str(folder / REPORT_FILE)}


def init(
    data: Annotated[
        Path, Argument(metavar="FOLDER", help="A folder of data, or a table such as reviews.csv.")
    ],
    *,
    out: Annotated[
        Path | None, Option(metavar="FILE", help="The recipe to write (default: FOLDER.yaml here).")
    ] = None,
    start_from: Annotated[
        str, Option(metavar="MODEL", help="The model that the recipe fine-tunes.")
    ] = "skillweave/tiny",
) -> Results:
    """Look at a folder of data and write a recipe that trains on it.

    Pictures, recordings, clips and texts with captions, transcripts or class folders; tables with
    columns of texts and labels; Python functions. It asks nothing, and says what it assumed.
    """
    from skillweave.storage import write_text
    from skillweave.tasks.draft import draft_recipe

    file = out or Path(f"{data.resolve().stem}.yaml")
    if file.suffix not in (".yaml", ".yml"):
        raise sw.ConfigError(f"{file}: a recipe is a .yaml file")
    if file.exists():
        raise sw.ConfigError(f"{file} already exists; choose another with --out, or remove it")
    require_writable(file)
    draft = draft_recipe(data, file.stem, start_from)
    write_text(file, draft.to_yaml(str(file)))
    print(f"wrote {file}. It assumes:")
    for line in draft.assumptions:
        print(f"  - {line}")
    print(f"Next:\n  skillweave train {file}")
    return {"recipe": str(file), "assumptions": draft.assumptions, **draft.recipe}


def train(
    recipe: Annotated[
        str,
        Argument(
            metavar="RECIPE",
            help="A YAML file, or the name of a recipe in the package, such as quickstart.",
        ),
    ],
    settings: Settings = None,
    resume: Annotated[
        bool, Option("--resume", help="Continue from the run's newest checkpoint.")
    ] = False,
    fraction: Annotated[
        float | None,
        Option(metavar="SHARE", help="Train on this share of all training samples, such as 0.01."),
    ] = None,
    folds: Annotated[
        int | None,
        Option(
            metavar="K",
            help="Cross-validate: train K times, each time evaluate on another K-th of the"
            " training data, and report mean and standard deviation.",
        ),
    ] = None,
    profile: Annotated[
        int,
        Option(
            metavar="STEPS",
            min=0,
            help="Record so many steps with PyTorch's profiler into the run folder.",
        ),
    ] = 0,
    engine: Engine = "native",
    print_config: Annotated[
        bool, Option("--print-config", help="Print the recipe with every setting, and exit.")
    ] = False,
) -> Results:
    """Train a recipe."""
    profiled = [f"training.profile={profile}"] if profile else []
    config = open_recipe(recipe, [*(settings or ()), *profiled], fraction)
    if resume and not any(one.startswith("output=") for one in settings or ()):
        config = _at_present_place(config, recipe)
    if print_config:
        import yaml

        content = config.model_dump(mode="json")
        with results_shown():
            print(yaml.safe_dump(content, allow_unicode=True, sort_keys=False), end="")
        return content
    if folds is not None and engine == "ray":
        raise sw.ConfigError("--folds trains here, one fold after another; leave --engine ray out")
    if folds is not None:
        from skillweave.reporting.console import cross_validation_table
        from skillweave.reporting.terminal import console
        from skillweave.training.cross_validation import cross_validate

        found = cross_validate(config, folds, resume=resume)
        console().print(cross_validation_table(found, f"{config.name} · {folds} folds"))
        return found
    if engine == "ray":
        from skillweave.training.ray_engine import train_on_ray

        folder = train_on_ray(config, resume=resume)
    else:
        folder = sw.train(config, resume=resume)
    if is_first_process():
        from skillweave.reporting.card import write_card

        write_card(folder)
        print(f"\n{folder} is trained. Next:\n  skillweave evaluate {folder}")
    return {"run": str(folder)}


def cache(
    recipe: Annotated[
        str, Argument(metavar="RECIPE", help="A recipe with training.feature_cache.")
    ],
    settings: Settings = None,
    *,
    batch_size: Annotated[
        int, Option(metavar="N", min=1, help="Pictures that go through the backbone at once.")
    ] = 64,
    device: Device = "auto",
) -> Results:
    """Store the features of a recipe's frozen backbones before training.

    Pictures whose features are stored are left out, so the same call continues after a stop.
    """
    from skillweave.inference.loading import choose_device
    from skillweave.reporting.terminal import progress
    from skillweave.training.feature_cache import Filled
    from skillweave.training.run import fill_feature_cache

    filled = Filled(0, 0, 0, 0)
    config = open_recipe(recipe, settings)
    with progress() as step:
        for filled in fill_feature_cache(config, choose_device(device), batch_size):
            step("samples", filled.done, filled.total)
    if filled.broken:
        print(f"{filled.broken:,} samples cannot be read; training skips and lists them")
    print(f"{filled.total:,} samples: {filled.computed:,} pictures are new in the cache")
    return filled._asdict()


def _at_present_place(config: sw.RecipeConfig, recipe: str) -> sw.RecipeConfig:
    """The recipe of a run with the folder in which the run is now, wherever it was trained."""
    from skillweave.recipe import find_recipe
    from skillweave.training.checkpoint import Checkpoints

    if config.store:
        return config
    folder = find_recipe(recipe).parent
    moved = bool(Checkpoints(folder).steps())
    return config.model_copy(update={"output": str(folder)}) if moved else config


def schema() -> Results:
    """Print the JSON schema of recipes, for editors."""
    import json

    found = sw.RecipeConfig.model_json_schema()
    with results_shown():
        print(json.dumps(found, indent=2, ensure_ascii=False))
    return found
