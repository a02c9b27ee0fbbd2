"""The model card: README.md of a model folder, from its configuration, its recipe and its figures.

What only a person knows is marked TODO.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from skillweave.analysis.inspection import inspect_folder
from skillweave.config import ConfigError
from skillweave.config.data import DataConfig
from skillweave.inference.loading import run_recipe
from skillweave.model.config import ModelConfig
from skillweave.model.folders import CONFIG_FILE, model_folder
from skillweave.recipe import RecipeConfig
from skillweave.reporting.formatting import format_count, metric_rows
from skillweave.reporting.logs import EVALUATION_FILE
from skillweave.storage import checksums, read_json, write_text
from skillweave.tasks.resolve import resolved_task
from skillweave.weights.adapters import weights_file

CARD_FILE = "README.md"
MARK = "<!-- Written by skillweave card; remove this line to keep your changes. -->"


def model_card(path: str | Path, name: str | None = None) -> str:
    """The card of a run, a checkpoint or a model folder, as Markdown.

    `name`: its title, by default that of the folder. Raises ConfigError where there is no model.
    """
    folder = model_folder(path)
    about = inspect_folder(folder)
    config = ModelConfig.from_file(folder / CONFIG_FILE)
    recipe = _recipe(path)
    environment = Environment(
        loader=PackageLoader("skillweave", "reporting"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    weights = weights_file(folder)
    (digest,) = checksums(weights.parent, [weights.name]).values()
    title = name or (recipe.name if recipe else Path(path).resolve().name)
    return environment.get_template("card.md.j2").render(
        mark=MARK,
        name=title,
        modalities=[modality.value for modality in config.streams.present()],
        start_from=recipe and recipe.start_from and _public(recipe.start_from),
        tasks=list(_tasks(config, about["tasks"])),
        total=format_count(about["total_parameters"]),
        megabytes=f"{about['bytes']['folder'] / 1e6:,.1f}",
        skills=about["skills"] if len(about["skills"]) > 1 else [],
        use=list(_use(config, title)),
        figures=list(_figures(path)),
        data=[
            {"task": task, "source": _source(one.data)}
            for task, one in (recipe.tasks if recipe else {}).items()
        ],
        training=_training(recipe),
        sha256=digest,
    )


def write_card(path: str | Path, folder: Path | None = None, name: str | None = None) -> Path:
    """Write the card of a model into its folder, or into another; a README.md that a person wrote
    or changed stays. Returns its path."""
    file = (folder or Path(path)) / CARD_FILE
    if not file.is_file() or MARK in file.read_text("utf-8", "replace"):
        write_text(file, model_card(path, name))
    return file


def _recipe(path: str | Path) -> RecipeConfig | None:
    try:
        return run_recipe(path)
    except ConfigError:
        return None  # a model without a run


def _tasks(config: ModelConfig, about: Mapping[str, Any]) -> Iterator[dict[str, str]]:
    for name in config.tasks:
        try:
            summary = resolved_task(config, name).entry.summary
        except ConfigError:
            summary = "vectors of its inputs"
        yield {
            "name": name,
            "summary": summary.replace("|", "\\|"),
            "activated": format_count(about[name]["activated_parameters"]),
        }


def _use(config: ModelConfig, name: str) -> Iterator[str]:
    """A line of Python for each task."""
    for task, described in config.tasks.items():
        first = described.spans[0].modality.value
        example = '"a text"' if first in ("text", "code") else f'"{first}-file"'
        try:
            found = resolved_task(config, task)
        except ConfigError:
            found = None
        call = f'"{name}", task="{task}"'
        if found is None or found.compares_samples or not found.entry.answers:
            yield f"vectors = sw.encode({call}, {first}=[{example}])"
        elif found.target.writes_text:
            yield f"texts = sw.generate({call}, inputs=[{example}])"
        elif len(found.entry.given) == 1:
            yield f"answers = sw.predict({call}, inputs=[{example}])"
        else:
            row = ", ".join(f'"{field}": "..."' for field in found.entry.given)
            yield f"answers = sw.predict({call}, inputs=[{{{row}}}])"


def _figures(path: str | Path) -> Iterator[dict[str, Any]]:
    for task, table in read_json(Path(path) / EVALUATION_FILE).items():
        for row in metric_rows(table):
            figures = {key: getattr(row, key) for key in ("metric", "value", "interval")}
            further = {"chance": row.chance, "baseline": row.baseline}
            yield {"task": task, **figures, **further, "samples": f"{table['n']:,}"}


def _source(data: DataConfig) -> str:
    paths = data.path.values() if isinstance(data.path, dict) else [data.path]
    return ", ".join(dict.fromkeys(f"`{_public(path)}`" for path in paths))


def _public(path: str) -> str:
    """A source without the folders of the machine on which it was."""
    kind, separator, name = path.partition(":")
    if separator and "/" not in kind:
        return f"{kind}:{Path(name).name}" if Path(name).is_absolute() else path
    return Path(path).name if Path(path).is_absolute() else path


def _training(recipe: RecipeConfig | None) -> str:
    if recipe is None:
        return ""
    training = recipe.training
    length = (
        (training.steps, "updates"),
        (training.epochs, "passes over the data"),
        (training.samples, "samples"),
    )
    told = next(f"{count:,} {what}" for count, what in length if count is not None)
    shares = ", ".join(
        f"{name} {task.batch_size} samples a batch" for name, task in recipe.tasks.items()
    )
    return f"{told}, {training.precision}, seed {training.seed}; {shares}."
