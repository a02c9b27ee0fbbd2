"""Commands that make a model of other models."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from shlex import quote
from typing import Annotated, Any, Literal

from typer import Argument, Option

import skillweave as sw
from skillweave.cli.shared import (
    Column,
    Results,
    Run,
    Seed,
    Settings,
    Task,
    open_recipe,
    require_writable,
    unused_folder,
)

WEAVE_FILE = "weave.json"

NewModel = Annotated[Path, Option(metavar="DIR", help="The model folder to write.")]


def carve(
    run: Run,
    *,
    task: Task,
    out: Annotated[
        str | None, Option(metavar="DIR", help="The folder to write (default: RUN-TASK).")
    ] = None,
    weights: Annotated[
        Literal["float32", "bf16", "int8"],
        Option(help="How matrices are stored; int8 and bf16 are read back as float32."),
    ] = "float32",
    no_export: Annotated[
        bool, Option("--no-export", help="Do not export the encoders for other programs.")
    ] = False,
    keep_experts: Annotated[
        bool,
        Option("--keep-experts", help="Keep experts that cannot be merged; needs --no-export."),
    ] = False,
) -> Results:
    """Write the dense model that one task of a run needs.

    Each pass is also exported for other programs. Nothing is written unless the answers are those
    of the run.
    """
    from skillweave.reporting.card import write_card
    from skillweave.surgery.carve import REPORT_FILE, carve_lines, carve_run

    folder = unused_folder(out or f"{Path(run)}-{task}")
    about = carve_run(run, task, folder, weights, not no_export, keep_experts)
    write_card(folder)
    print(*carve_lines(about), sep="\n")
    print(f"wrote {folder}; {folder / REPORT_FILE} says the same. Next:")
    print(f"  skillweave evaluate {folder}")
    return about


def upcycle(
    model: Annotated[str, Argument(metavar="RUN-or-MODEL", help="A run or model folder.")],
    *,
    sparse: Annotated[
        str,
        Option(
            metavar="SPARSE",
            help="A recipe with model.encoder.sparse, or that setting as a mapping:"
            " '{feed_forward: {route: token}}'; of other parts '{decoder: {...}}'.",
        ),
    ],
    out: Annotated[
        str | None, Option(metavar="DIR", help="The folder to write (default: MODEL-upcycled).")
    ] = None,
    noise: Annotated[
        float,
        Option(
            metavar="SHARE",
            help="Add noise to each copy, as a share of the standard deviation of its weights; the"
            " answers then differ.",
        ),
    ] = 0.0,
    seed: Seed = 0,
) -> Results:
    """Make a sparse model of a dense one.

    Its answers are those of the dense model until it is trained further.
    """
    from skillweave.evaluation.agreement import SAME, comparison_batches, differences
    from skillweave.model.parts import settings_path
    from skillweave.recipe import RECIPE_FILE
    from skillweave.reporting.console import provenance_table
    from skillweave.reporting.terminal import console
    from skillweave.surgery.upcycle import copy_table

    folder = unused_folder(out or f"{Path(model)}-upcycled")
    parts, dense = _read_sparse(sparse), sw.load(model)
    batches, what = comparison_batches(dense, model)
    result = sw.upcycle(dense, parts, noise, seed)
    rows = copy_table(result, dense)
    console().print(provenance_table(rows, f"{folder} from {model}"))
    apart = differences(dense, result, batches)
    print(
        f"compared on {what}: answers differ by at most {max(apart.values()):.1e} of the largest"
        " logit"
    )
    if not noise and not all(difference <= SAME for difference in apart.values()):
        raise sw.ConfigError(
            f"that is more than rounding ({SAME:.0e}), so nothing was written; a part that was"
            " already sparse has another route"
        )
    result.save_pretrained(folder)
    recipe = sparse
    if _is_mapping(sparse):
        own = Path(model) / RECIPE_FILE
        changes = [_setting([*settings_path(part), "sparse"], one) for part, one in parts.items()]
        recipe = " ".join([str(own) if own.is_file() else "RECIPE", *changes])
    _print_next(folder, recipe)
    return [asdict(row) for row in rows]


def weave(
    inputs: Annotated[
        list[str],
        Argument(
            metavar="MODALITY=MODEL",
            help="Where the weights of a modality come from: a run, a model folder, or a folder or"
            " hub id of Hugging Face, such as text=runs/texts.",
        ),
    ],
    *,
    recipe: Annotated[
        str,
        Option(metavar="RECIPE", help="The recipe whose model is made, a YAML file or a name."),
    ],
    out: NewModel,
    shared: Annotated[
        str | None,
        Option(
            metavar="MODALITY",
            help="The modality whose model gives the parts that all skills share (default: the"
            " first).",
        ),
    ] = None,
    settings: Settings = None,
) -> Results:
    """Make a model of several skills from a pretrained model of each.

    A stream with a projector keeps its model's encoder, of any width, and its vectors are compared
    with that model's. weave.json in the new folder lists the source of each part.
    """
    from skillweave.reporting.console import provenance_table
    from skillweave.reporting.terminal import console
    from skillweave.storage import write_json
    from skillweave.surgery.provenance import tabulate
    from skillweave.surgery.weave import comparison_lines, weave

    unused_folder(out)
    sources: dict[str, str] = {}
    for given in inputs:
        modality, _, path = given.partition("=")
        if not path or modality in sources:
            raise sw.ConfigError(
                f"{given}: give each modality once, as MODALITY=MODEL, such as text=runs/texts"
            )
        sources[modality] = path
    woven = weave(open_recipe(recipe, settings), sources, shared)
    rows = [*tabulate(woven.provenance, woven.model.state_dict()), *woven.files]
    console().print(provenance_table(rows, f"{out} from {', '.join(inputs)}"))
    print(*comparison_lines(woven), sep="\n")
    woven.model.save_pretrained(out)
    found = [asdict(row) for row in rows]
    write_json(out / WEAVE_FILE, found)
    _print_next(out, " ".join([recipe, *(quote(one) for one in settings or ())]))
    return found


def average(
    models: Annotated[
        list[str],
        Argument(metavar="RUN-or-MODEL", help="One run, or several runs or model folders."),
    ],
    *,
    out: NewModel,
) -> Results:
    """Average the weights of several models or of a run's checkpoints.

    A run keeps several checkpoints when it is trained with a larger training.save_total_limit.
    """
    from skillweave.surgery.average import average, checkpoints_of

    unused_folder(out)
    folders = checkpoints_of(models)
    average(folders).save_pretrained(out)
    print(f"{out}: the mean of {', '.join(map(str, folders))}")
    return {"model": str(out), "mean_of": list(map(str, folders))}


def vocabulary(
    texts: Annotated[
        list[str],
        Argument(
            metavar="FILE",
            help="Texts, in any source of a recipe; with --extend, files with a word on each line.",
        ),
    ],
    *,
    out: Annotated[
        Path,
        Option(metavar="FILE", help="The tokenizer (.json) or, with --extend, the model to write."),
    ],
    extend: Annotated[
        str | None,
        Option(metavar="RUN-or-MODEL", help="The model whose tokenizer gets the words."),
    ] = None,
    size: Annotated[int, Option(metavar="N", help="The largest number of tokens.")] = 21128,
    kind: Annotated[
        Literal["wordpiece", "bpe"], Option(help="The algorithm of the tokenizer.")
    ] = "wordpiece",
    cased: Annotated[bool, Option("--cased", help="Distinguish upper from lower case.")] = False,
    min_frequency: Annotated[int, Option(metavar="N", help="How often a token must occur.")] = 2,
    column: Column = "text",
) -> Results:
    """Train a tokenizer, or add words to that of a model."""
    from skillweave.config.streams import TrainedTokenizerConfig
    from skillweave.data.processors import train_tokenizer
    from skillweave.data.sources import open_rows
    from skillweave.data.values import texts_of
    from skillweave.storage import write_text

    if extend:
        return _extend(extend, texts, out)
    require_writable(out)
    if out.suffix != ".json":
        raise sw.ConfigError(
            f"{out}: a tokenizer is written as .json; name it in model.streams.text.tokenizer.path"
        )
    values = []
    for path in texts:
        table = open_rows(path)
        values += table.column(table.find_column(column, "--column"))
    if empty := sum(not any(texts_of([value])) for value in values):
        print(f"{empty:,} rows hold no text in {column!r}; they are left out")
    lines = list(texts_of(values))
    settings = TrainedTokenizerConfig(kind=kind, lowercase=not cased, min_frequency=min_frequency)
    tokenizer = train_tokenizer(lines, settings, size)
    write_text(out, tokenizer.to_str(pretty=True))
    tokens = tokenizer.get_vocab_size()
    print(f"{out}: {tokens:,} tokens from {len(lines):,} texts")
    return {"tokenizer": str(out), "tokens": tokens, "texts": len(lines), "empty": empty}


def _extend(path: str, files: list[str], out: Path) -> Results:
    """Add the lines of files to a model's tokenizer."""
    from skillweave.config.reading import read_lines
    from skillweave.surgery.vocabulary import extend

    unused_folder(out)
    model = sw.load(path)
    words = [word for file in files for word in read_lines(Path(file))]
    larger = extend(model, words)
    larger.save_pretrained(out)
    before, after = (
        m.config.streams.text.vocabulary if m.config.streams.text else 0 for m in (model, larger)
    )
    print(
        f"{out}: {before:,} tokens became {after:,}; train the model further, so that it learns"
        " the new ones"
    )
    return {"model": str(out), "tokens_before": before, "tokens": after}


def _read_sparse(text: str) -> Mapping[str, Any]:
    """The sparse layers that `--sparse` names, by part of the model: a mapping, or those of a
    recipe."""
    from skillweave.config.reading import parse_yaml
    from skillweave.model.parts import part_configs
    from skillweave.surgery.upcycle import by_part

    if not _is_mapping(text):
        return {path: part.sparse for path, part in part_configs(open_recipe(text).model).items()}
    return by_part(parse_yaml(text, "--sparse", "a mapping such as {feed_forward: {route: token}}"))


def _setting(keys: list[str], value: Any) -> str:
    """A setting of the model for the command line, such as `'model.decoder.sparse={...}'`."""
    import yaml

    text = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=1000).strip()
    return f"'model.{'.'.join(keys)}={text}'"


def _is_mapping(sparse: str) -> bool:
    return sparse.lstrip().startswith("{")


def _print_next(folder: Path, recipe: str) -> None:
    print(f"wrote {folder}. Next:")
    print(f"  skillweave train {recipe} start_from={folder} output={folder}-trained")
