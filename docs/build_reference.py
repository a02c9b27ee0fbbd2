"""Write docs/recipe.md from the configuration classes, the registered targets, the catalogue of
tasks and the metrics, docs/corpus_reference.md from the sources and steps of the corpus pipeline,
docs/recipes.md from the heads of the packaged recipes, and docs/api.md from the public names.

python docs/build_reference.py [--check]

`--check` writes nothing and exits with an error when a page is not up to date.
"""

from __future__ import annotations

import enum
import itertools
import json
import sys
import types
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from pydantic.fields import FieldInfo

import skillweave
from skillweave.components.targets import TARGETS
from skillweave.config.base import Config, members_of
from skillweave.config.task import TaskConfig
from skillweave.config.training import TrainingConfig, TuningConfig
from skillweave.corpus import SOURCES, STEPS, CleanConfig, CorpusStep, Step
from skillweave.metrics import METRICS
from skillweave.model.config import ModelConfig
from skillweave.recipe import RecipeConfig
from skillweave.tasks import TASKS, Task

LONGEST_DEFAULT = 60
RECIPES = Path(__file__).parents[1] / "recipes"
PARTS: dict[str, tuple[type[Config], ...]] = {
    "Recipe": (RecipeConfig,),
    "Tasks and data": (TaskConfig,),
    "Training": (TrainingConfig, TuningConfig),
    "Model": (ModelConfig,),
}
"""Part of the page → the classes that it begins with. The classes of their fields follow."""

HEAD = """\
# Recipe reference

This page lists every setting of a recipe, every target, every task and every metric. `make docs` generates it from the
code; do not edit it.

A recipe is a YAML mapping. This is a small one:

```yaml
name: photos
model:
  streams: {text: {}, image: {}}
tasks:
  text_to_image: {data: {path: captions.jsonl}}
training: {steps: 2000}
```

- **On the command line** any setting can follow `skillweave train RECIPE`: `--training.steps 100`, `training.steps=100` and
  `--set training.steps=100` mean the same.
- **`base: other.yaml`** starts from another recipe, or from a list of recipes. Mappings are merged, the later value of a
  setting wins, and null removes a mapping.
- **`skillweave train RECIPE --print-config`** prints a recipe with every setting. **`skillweave schema`** prints a JSON
  schema for editors.
- **Unknown keys and values** are errors that name the nearest valid one.
- In the tables, "required" means that the setting has no default.
- If the type of a setting lists several classes, its own settings choose one of them, for example by `kind` or `name`. The
  first class is the default.

[Your data](data.md) explains sources, columns and splits. [The glossary](glossary.md) explains the terms.
"""
TARGETS_HEAD = """\
## Targets

A target turns the encoder's output into logits and a loss. Entries of `model.targets` have a name of your choice; `kind`
chooses the class and defaults to the name. A task that needs a target which the recipe does not list gets one with default
settings. Settings in the column "taken from the data" are computed from the training data when the recipe leaves them open.
Other packages can [add targets](extending.md#a-target).
"""
TASKS_HEAD = """\
## Catalogue of tasks

The name of a task in a recipe chooses its entry in this catalogue. `kind` chooses another entry, so that a recipe can use one
entry for several tasks. An arrow separates the fields that the model is given from those that it predicts or finds. Prediction
needs only the fields before the arrow. Where several targets are listed, the first one is the default, and `target` chooses
another. The metrics are those with the default target; captions that a decoder writes (`target: lm`) have the metrics of
`text_to_text`. Other packages can [add task families](extending.md#a-task-family).
"""
METRICS_HEAD = """\
## Metrics

`skillweave evaluate` reports every metric with its 95 % bootstrap interval over samples and with the chance level. The
metrics marked "on request" are computed for classification tasks if `tasks.NAME.metrics` lists them. Other packages can
[add metrics](extending.md#a-metric).
"""
CORPUS_HEAD = """\
# Corpus reference

This page lists every setting of a configuration of `skillweave clean`, every source and every step. `make docs` generates it from
the code; do not edit it. [A clean corpus](corpus.md) explains how they work together.

"required" means that a setting has no default. `kind` chooses a source or a step. `reads`: the fields that a row must have; a step
leaves rows without them as they are. `adds`: the fields that a step adds to rows.
"""
RECIPES_HEAD = """\
# Packaged recipes

Every recipe of the package, by the comment at its head. `make docs` generates this page; do not edit it. The file itself says
the command, the hardware, the time, and what to expect.

A recipe is trained by its name, from any folder: `skillweave train scratch`. To change one, write a recipe that begins with
`base: scratch` and holds what differs, or set single values on the command line ([Recipe reference](recipe.md)).

"""
API_HEAD = """\
# Python API

The public names of `skillweave`. `make docs` generates this page from `skillweave.__all__`; do not edit it. In the repository it
only lists the names; the site shows the docstrings. `import skillweave as sw` is quick: a name is loaded when it is first used.

"""
API = {
    "Use a model": ("load", "predict", "encode", "generate", "Predictor", "Index"),
    "Train": ("train", "read_recipe", "RecipeConfig", "ConfigError"),
    "Make models from models": ("carve", "upcycle", "with_tuning", "from_hf", "to_hf"),
    "Look inside": ("interference", "Interference"),
    "The model": ("Model", "ModelConfig", "Output"),
    "What a model is given": (
        "Batch",
        "Layout",
        "Span",
        "Features",
        "Example",
        "Modality",
        "Role",
        "Attention",
    ),
}
"""Part of the page → public names."""


def children(kind: object) -> list[type[Config]]:
    """The configuration classes named in an annotation, in order."""
    if isinstance(kind, type) and issubclass(kind, Config):
        return [kind]
    members = members_of(kind)
    parts = typing.get_args(kind) if members == [kind] else members
    return [child for part in parts for child in children(part)]


def link(kind: type) -> str:
    """A link to the section of a class."""
    return f"[{kind.__name__}](#{kind.__name__.lower()})"


def describe(kind: object) -> str:
    """An annotation as a person would write it, with links to configuration classes."""
    members = members_of(kind)
    for registry, link_to in UNIONS:
        if {*registry.values()} <= {*members}:
            others = [member for member in members if member not in registry.values()]
            return " or ".join([link_to, *map(describe, others)])
    if members != [kind]:
        return " or ".join(dict.fromkeys(describe(member) for member in members))
    origin, parts = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Literal:
        return " or ".join(f"`{getattr(value, 'value', value)}`" for value in parts)
    if origin is dict:
        return f"mapping of {describe(parts[0])} to {describe(parts[1])}"
    if origin is tuple and Ellipsis not in parts:
        return f"[{', '.join(describe(part) for part in parts)}]"
    if origin in (list, tuple):
        return f"list of {describe(parts[0])}"
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return " or ".join(f"`{member.value}`" for member in kind)
    if kind is types.NoneType:
        return "null"
    return link(kind) if children(kind) else getattr(kind, "__name__", str(kind))


UNIONS = (
    (TARGETS, "a [target](#targets)"),
    (SOURCES, "a [source](#sources)"),
    (STEPS, "a [step](#steps)"),
)
"""Registry → how a field with any of its classes is described."""


def default_of(field: FieldInfo) -> str:
    """The default value of a field."""
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if isinstance(value, Config):
        changed = value.model_dump(mode="json", exclude_defaults=True)
        return type(value).__name__ + (f" with {code(changed)}" if changed else "")
    return code(value.value if isinstance(value, enum.Enum) else value)


def code(value: object) -> str:
    """A value as JSON; long ones are cut."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return f"`{text}`" if len(text) <= LONGEST_DEFAULT else f"`{text[: LONGEST_DEFAULT - 1]}…`"


def prose(text: str | None) -> str:
    """A docstring as one line of a table."""
    return " ".join((text or "").split()).replace("|", "\\|")


def listed(names: Iterable[str]) -> str:
    """Names, separated by commas."""
    return ", ".join(f"`{name}`" for name in names)


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def section(kind: type[Config]) -> str:
    """One class: its meaning and a table of its fields."""
    rows = []
    docstrings = kind.docstrings()
    for name, field in kind.model_fields.items():
        chooses = "Chooses this class." if name == "kind" else ""
        meaning = prose(docstrings.get(name)) or chooses
        rows.append((f"`{name}`", describe(field.annotation), default_of(field), meaning))
    fields = table(("key", "type", "default", "meaning"), rows)
    return f"### {kind.__name__}\n\n{prose(kind.__doc__)}\n\n{fields}\n"


def classes(begin: Sequence[type[Config]], taken: set[type[Config]]) -> list[type[Config]]:
    """The classes reachable from `begin`, breadth first, without those that are taken, to which
    they are added."""
    queue = list(begin)
    for kind in queue:
        for field in kind.model_fields.values():
            new = [one for one in children(field.annotation) if one not in taken | {*queue}]
            queue += dict.fromkeys(new)
    taken.update(queue)
    return queue


def settings() -> Iterator[str]:
    """The settings of a recipe, by part."""
    taken = {kind for begin in PARTS.values() for kind in begin} | {*TARGETS.values()}
    for title, begin in PARTS.items():
        yield f"## {title}\n"
        yield from (section(kind) for kind in classes(begin, taken))


def targets() -> Iterator[str]:
    """A table of the registered targets, and a section for each."""
    rows = []
    for kind, config in TARGETS.items():
        fitted = listed(config.fitted)
        label = f"`{config.label_field}`" if config.label_field else ""
        meaning = prose(config.__doc__)
        rows.append((f"`{kind}`", link(config), meaning, label, fitted))
    header = ("kind", "class", "meaning", "field with the label", "taken from the data")
    yield TARGETS_HEAD
    yield table(header, rows) + "\n"
    own = {*TARGETS.values()}
    shown = {kind for begin in PARTS.values() for kind in classes(begin, {*own})}
    yield from (section(kind) for kind in classes(list(TARGETS.values()), shown))


def task_row(task: Task) -> tuple[str, ...]:
    """The row of a task."""
    given = task.query_fields
    asked = [name for name in task.fields if name not in given]
    fields = " → ".join(map(listed, (given, asked) if asked else (given,)))
    able = [kind for kind, config in TARGETS.items() if task.learns_by(config)]
    targets = dict.fromkeys((*task.targets, *able))
    return (
        f"`{task.name}`",
        prose(task.summary),
        fields,
        listed(targets),
        listed(task.metrics),
    )


def tasks() -> Iterator[str]:
    """The catalogue of tasks."""
    header = ("task", "what it learns", "fields", "targets", "metrics")
    yield TASKS_HEAD
    yield table(header, map(task_row, TASKS.values())) + "\n"


def metrics() -> Iterator[str]:
    """The metrics."""
    rows = []
    for name, metric in METRICS.items():
        better = "lower" if metric.lower else "higher"
        rows.append((f"`{name}`", metric.title, better, "on request" if metric.compute else ""))
    yield METRICS_HEAD
    yield table(("metric", "title in tables", "better", ""), rows) + "\n"


def build() -> str:
    """The page."""
    return "\n".join([HEAD, *settings(), *targets(), *tasks(), *metrics()])


def of_kinds(title: str, registry: Mapping[str, type[Config]]) -> Iterator[str]:
    """A section for each class of a registry, under its kind."""
    yield f"## {title}\n"
    for kind, config in registry.items():
        yield section(config).replace(f"### {config.__name__}", f"### {kind}", 1)
        if issubclass(config, Step):
            found = [f"Reads {listed(config.reads)}."]
            found += [f"Adds {listed(config.writes)}."] if config.writes else []
            found += ["Must see all rows."] if issubclass(config, CorpusStep) else []
            yield " ".join(found) + "\n"


def build_corpus() -> str:
    """The page about the corpus pipeline."""
    begin = classes([CleanConfig], {*SOURCES.values(), *STEPS.values()})
    head = [section(kind) for kind in begin]
    sources, steps = of_kinds("Sources", SOURCES), of_kinds("Steps", STEPS)
    return "\n".join([CORPUS_HEAD, "## Configuration\n", *head, *sources, *steps])


def build_recipes() -> str:
    """The page about the packaged recipes."""
    rows = []
    for file in sorted(RECIPES.rglob("*.yaml")):
        name = file.relative_to(RECIPES).with_suffix("").as_posix()
        head = itertools.takewhile(lambda line: line.strip("# "), file.read_text().splitlines())
        what = prose(" ".join(line.lstrip("# ") for line in head))
        rows.append((f"[`{name}`](../recipes/{name}.yaml)", what))
    return RECIPES_HEAD + table(("recipe", "what it trains"), rows) + "\n"


def build_api() -> str:
    """The page about the public names. mkdocstrings puts their docstrings into it."""
    named = [name for names in API.values() for name in names]
    if sorted(named) != sorted(skillweave.__all__):
        raise SystemExit(f"API: list {set(named) ^ set(skillweave.__all__)} as `__all__` does")
    parts = [
        f"## {title}\n\n" + "\n\n".join(f"::: skillweave.{name}" for name in names)
        for title, names in API.items()
    ]
    return API_HEAD + "\n\n".join(parts) + "\n"


PAGES = {
    "recipe.md": build,
    "corpus_reference.md": build_corpus,
    "recipes.md": build_recipes,
    "api.md": build_api,
}
"""Page → what writes it."""

if __name__ == "__main__":
    for name, write in PAGES.items():
        file, page = Path(__file__).with_name(name), write()
        if "--check" not in sys.argv:
            file.write_text(page, "utf-8")
        elif not file.is_file() or file.read_text("utf-8") != page:
            sys.exit(f"docs/{name} is not up to date; run `make docs`")
