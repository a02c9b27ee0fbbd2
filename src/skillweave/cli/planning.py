"""Commands around training: `plan`, `lr-find`, `sweep`, `runs`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, Option

from skillweave.cli.shared import (
    Engine,
    Results,
    Seed,
    Settings,
    Tasks,
    open_recipe,
    require_writable,
)

if TYPE_CHECKING:
    from skillweave.recipe import RecipeConfig

Gpus = Annotated[int, Option(metavar="N", min=1, max=65_536, help="Number of GPUs.")]
GpuMemory = Annotated[
    float | None, Option(metavar="GB", help="Memory of a GPU (default: what the GPU has).")
]
GpuName = Annotated[
    str | None,
    Option(
        "--gpu",
        metavar="NAME",
        help="v100, a100, h100 or h200; its published speed is assumed (default: the first with"
        " that memory).",
    ),
]


def plan(
    recipe: Annotated[
        str, Argument(metavar="RECIPE", help="A YAML file, or the name of a recipe.")
    ],
    settings: Settings = None,
    *,
    gpus: Gpus = 1,
    gpu_memory: GpuMemory = None,
    gpu: GpuName = None,
    tasks: Tasks = None,
    every: Annotated[
        bool, Option("--all", help="Show all layouts, not only the best and what copies need.")
    ] = False,
    scaling: Annotated[
        Path | None,
        Option(
            metavar="FILE",
            help="Draw the time of a step for 1, 2, 4, ... 1,024 GPUs into this .svg file.",
        ),
    ] = None,
) -> Results:
    """Show what a recipe needs on so many GPUs, before anything is trained.

    Memory, communication and time of a step are estimated for each parallel layout. No data and
    no GPU are needed.
    """
    from skillweave.reporting.plan import plan_tables
    from skillweave.reporting.terminal import console, progress
    from skillweave.training.planning.hardware import find_gpu
    from skillweave.training.planning.plan import make_plan, scaling_of

    require_writable(scaling)
    hardware, config = find_gpu(gpu, gpu_memory), open_recipe(recipe, settings)
    with progress() as step:
        found = make_plan(config, hardware, gpus, tasks or (), step)
    content = found.to_json()
    if scaling is not None:
        content["scaling"] = scaling_of(found)
    for table in plan_tables(content, every):
        console().print(table)
    if scaling is not None:
        from skillweave.reporting.figure import write_svg
        from skillweave.reporting.plots import scaling_plot

        write_svg(scaling_plot(content), scaling)
        print(f"scaling: {scaling}")
    return content


def lr_find(
    recipe: Annotated[
        str, Argument(metavar="RECIPE", help="A YAML file, or the name of a recipe.")
    ],
    settings: Settings = None,
    *,
    least: Annotated[float, Option("--from", metavar="RATE", help="The first rate.")] = 1e-7,
    most: Annotated[float, Option("--to", metavar="RATE", help="The last rate.")] = 1.0,
    steps: Annotated[int, Option(metavar="N", min=10, help="Steps at most.")] = 100,
    out: Annotated[Path | None, Option(metavar="FILE", help="Draw an .svg file.")] = None,
) -> Results:
    """Find a learning rate: train some steps with growing rates, and store nothing."""
    from skillweave.reporting.terminal import progress
    from skillweave.training.learning_rates import find_learning_rate

    require_writable(out)
    config = open_recipe(recipe, settings)
    with progress() as step:
        found = find_learning_rate(config, least, most, steps, step).to_json()
    if out is not None:
        from skillweave.reporting.figure import write_svg
        from skillweave.reporting.plots import rate_plot

        write_svg(rate_plot(found), out)
        print(f"plot: {out}")
    points = found["points"]
    print(f"{len(points)} steps, rates from {least:.2g} to {points[-1]['learning_rate']:.2g}")
    print(f"suggestion: --training.optimizer.learning_rate {found['suggestion']:.2g}")
    return found


def sweep(
    recipe: Annotated[
        str, Argument(metavar="RECIPE", help="A YAML file, or the name of a recipe.")
    ],
    settings: Settings = None,
    *,
    vary: Annotated[
        list[str] | None,
        Option(
            metavar="KEY=RANGE",
            help="A setting that trials vary: KEY=LOW..HIGH, KEY=LOW..HIGH:log or KEY=[A, B].",
        ),
    ] = None,
    trials: Annotated[int, Option(metavar="N", min=1, help="Trials in all.")] = 20,
    seed: Seed = 0,
    engine: Engine = "native",
    out: Annotated[
        Path | None,
        Option(metavar="FOLDER", help="The folder (default: that of the run, with -sweep)."),
    ] = None,
) -> Results:
    """Search for the best settings of a recipe, with a run for each trial.

    The same call continues an interrupted sweep. FOLDER/sweep.html shows the trials.
    """
    from dataclasses import asdict

    from skillweave.reporting.comparison import cells_table, write_comparison
    from skillweave.reporting.plots import trial_plots
    from skillweave.reporting.terminal import console, progress
    from skillweave.training import sweep as search

    base = open_recipe(recipe, settings)
    folder = out or base.folder.with_name(f"{base.folder.name}-sweep")
    varied = [search.Varied.parse(one) for one in vary or ()]

    def read(changes: Sequence[str]) -> RecipeConfig:
        return open_recipe(recipe, [*(settings or ()), *changes])

    places: tuple[Any, ...] = ()
    if engine == "ray":
        from skillweave.training.ray_engine import RayTrials

        cluster = RayTrials(base.training)
        places = cluster.start, cluster.at_once
    with progress() as step:
        results = search.sweep(read, varied, folder, trials, seed, step, *places)
    found = [asdict(one) for one in results]
    keys = [one.key for one in varied]
    columns = ["trial", "score", *keys, ""]
    rows = [
        [
            str(one.number),
            "failed" if one.value is None else f"{one.value:.4f}",
            *(_shown(one.settings.get(key)) for key in keys),
            one.reason,
        ]
        for one in results
    ]
    console().print(cells_table(f"{base.name}: {len(results)} trials", columns, rows))
    page = folder / "sweep.html"
    logarithmic = [one.key for one in varied if one.log]
    write_comparison(
        page,
        f"{base.name}: sweep",
        columns,
        rows,
        trial_plots(found, logarithmic),
        remarks=[
            "The score is the best mean of the tasks' scores in a validation; higher is better."
        ],
        best=0 if results and results[0].value is not None else -1,
    )
    print(f"page: {page}")
    return found


def _shown(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def runs(
    folders: Annotated[
        list[Path],
        Argument(metavar="FOLDER...", help="Run folders, or folders that contain run folders."),
    ],
    *,
    out: Annotated[
        Path | None, Option(metavar="FILE", help="Write an .html page with curves as well.")
    ] = None,
) -> Results:
    """Compare runs: their speed, best validations and different settings, and their curves."""
    from skillweave.reporting.comparison import (
        cells_table,
        compare_runs,
        find_runs,
        read_run,
        runs_cells,
        write_comparison,
    )
    from skillweave.reporting.terminal import console

    require_writable(out)
    read = [read_run(folder) for folder in find_runs(folders)]
    found = compare_runs(read)
    columns, rows = runs_cells(found)
    console().print(cells_table(f"{len(read)} runs", columns, rows))
    if out is not None:
        from skillweave.reporting.plots import compared_curves

        figures = compared_curves({run.name: run.lines for run in read})
        names = [run.name for run in read]
        write_comparison(out, f"{len(read)} runs", columns, rows, figures, names)
        print(f"page: {out}")
    return found
