"""The command line. Libraries are imported by the command that needs them, so that help comes at
once."""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

from skillweave import __version__

OVERRIDE = re.compile(r"--([\w-]+(?:\.[\w-]+)+)(?:=(.*))?|([\w-]+(?:\.[\w-]+)*)=(.*)", re.DOTALL)
"""`--a.b value`, `--a.b=value` or `a.b=value`."""

EXPECTED = (
    ("skillweave.config.base", "ConfigError"),
    ("skillweave.data.processors.base", "BadInput"),
    ("skillweave.weights.files", "WeightsError"),
    ("skillweave.training.errors", "TrainingError"),
    ("skillweave.training.errors", "Interrupted"),
    ("skillweave.metrics.ranking", "MetricError"),
)
"""Errors that are told in a line: module and name. What was not imported cannot have been
raised."""

RUN: dict[str, Any] = {"metavar": "RUN", "help": "a run folder, such as runs/quickstart"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status: 0, 2 for an error the user can mend, 130 after
    Ctrl-C."""
    words, overrides = split_overrides(sys.argv[1:] if arguments is None else list(arguments))
    parser = build_parser()
    options, left = parser.parse_known_args(words)
    if left and not take(options, left):
        parser.error(
            f"{options.command}: unknown argument {left[0]} (see skillweave {options.command}"
            " --help)"
        )
    if overrides and not getattr(options, "overridable", False):
        parser.error(f"{options.command} takes no settings such as {overrides[0]}")
    options.overrides = overrides
    try:
        run(options)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # `| head` went away; exit would flush into the void
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        code = exit_code(error)
        if options.debug or not code:
            raise
        print(f"skillweave {options.command}: {error}", file=sys.stderr)
        return code
    return 0


def exit_code(error: Exception) -> int:
    """2 when the message alone tells the user what to do; that of the signal that ended a run; 0
    for a fault of the program."""
    known = {
        name: getattr(sys.modules[module], name)
        for module, name in EXPECTED
        if module in sys.modules
    }
    if "Interrupted" in known and isinstance(error, known["Interrupted"]):
        return error.code
    return 2 if isinstance(error, (OSError, *known.values())) else 0


def split_overrides(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Words for argparse, and `a.b=value` settings. Raises SystemExit for a setting without a
    value."""
    kept, overrides = [], []
    queue = iter(words)
    for word in queue:
        match = OVERRIDE.fullmatch(word)
        if not match or (kept and kept[0] not in ("train", "quickstart", "inspect")):
            kept.append(word)
            continue
        name, value = match[1] or match[3], match[2] if match[1] else match[4]
        if value is None and (value := next(queue, None)) is None:
            raise SystemExit(f"skillweave: {word} needs a value: {word}=VALUE")
        overrides.append(f"{name}={value}")
    return kept, overrides


def take(options: argparse.Namespace, words: Sequence[str]) -> bool:
    """Give inputs that stand behind options to the command that asks for inputs; argparse itself
    stops looking for them there."""
    if any(word.startswith("-") for word in words):
        return False
    if hasattr(options, "inputs"):
        options.inputs += words
        return True
    if getattr(options, "query", "") is None and len(words) == 1:
        options.query = words[0]
        return True
    return False


def build_parser() -> argparse.ArgumentParser:
    """All commands with their options."""
    about = "One compact model for many tasks over text, image, sound, video and code."
    parser = argparse.ArgumentParser(prog="skillweave", description=about, allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"skillweave {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)

    def command(name: str, text: str, overridable: bool = False) -> argparse.ArgumentParser:
        note = (
            " Any setting of the recipe can follow: --training.steps 100, or training.steps=100."
            if overridable
            else ""
        )
        sub = commands.add_parser(
            name, help=text, description=text[0].upper() + text[1:] + "." + note, allow_abbrev=False
        )
        sub.add_argument("--debug", action="store_true", help="show the stack trace of an error")
        sub.set_defaults(overridable=overridable, module="commands")
        return sub

    _add_training(command)
    _add_making(command)
    _add_using(command)
    _add_tools(command)
    return parser


def _add_training(command: Callable[..., argparse.ArgumentParser]) -> None:
    """Commands that make and measure runs."""
    sub = command(
        "quickstart",
        "train, measure and show a model of five modalities on the data in the package",
        True,
    )
    sub.add_argument("--resume", action="store_true", help="go on with an interrupted quickstart")
    sub = command("train", "train a recipe", True)
    sub.add_argument(
        "recipe",
        metavar="RECIPE",
        help="a YAML file, or the name of a recipe in the package, such as quickstart",
    )
    sub.add_argument("--resume", action="store_true", help="go on from the run's newest checkpoint")
    sub.add_argument(
        "--fraction",
        type=float,
        metavar="SHARE",
        help="train on this share of all training samples, such as 0.01",
    )
    folds = (
        "train K times, each time measured on another K-th of the training data, and give mean and"
        " deviation"
    )
    sub.add_argument("--folds", type=int, metavar="K", help=folds)
    sub.add_argument("--json", metavar="FILE", help="with --folds: write the figures here as well")
    sub.add_argument(
        "--print-config", action="store_true", help="print the recipe with every setting, and exit"
    )
    sub = command("evaluate", "measure a run on unseen samples and write its report page")
    sub.add_argument("folder", **RUN)
    sub.add_argument("--split", default="test", help="train, validation or test (default)")
    sub.add_argument(
        "--tasks", nargs="+", metavar="TASK", help="these tasks only (then no report is written)"
    )
    unseen = (
        "measure the tasks of this recipe, which the run was not trained on (then no report is"
        " written)"
    )
    sub.add_argument("--zero-shot", metavar="RECIPE", help=unseen)
    sub.add_argument(
        "--bootstrap",
        type=int,
        default=1000,
        metavar="N",
        help="resamples for the intervals (default 1000)",
    )
    sub.add_argument(
        "--compare",
        nargs="+",
        default=[],
        metavar="RUN",
        help="draw these runs' learning curves too",
    )
    sub.add_argument("--json", metavar="FILE", help="write the figures here as well")
    sub = command(
        "inspect",
        "show what a run or recipe is made of: components, skills, parameters per task",
        True,
    )
    kinds = (
        "a run or model folder, a YAML file, the name of a recipe or preset (bert-base), or a"
        " model's configuration as .json"
    )
    sub.add_argument("target", metavar="RUN-or-RECIPE", help=kinds)
    sub.add_argument("--json", metavar="FILE", help="write the figures here as well")
    sub = command(
        "interference",
        "measure how much the tasks of a run help or harm each other, as table, JSON and heat map",
    )
    sub.add_argument("folder", **RUN)
    sub.add_argument(
        "--batches", type=int, default=100, metavar="N", help="batches of each task (default 100)"
    )
    sub.add_argument("--tasks", nargs="+", default=[], metavar="TASK", help="these tasks only")
    blocks = (
        "feed_forward (default) or attention of two layers, a layer's number from 0, or a module"
        " path"
    )
    sub.add_argument("--blocks", nargs="+", default=[], metavar="BLOCK", help=blocks)
    sub.add_argument("--split", default="train", help="train (default), validation or test")
    sub.add_argument("--seed", type=int, default=0, help="of the batches' order (default 0)")
    sub.add_argument(
        "--bootstrap",
        type=int,
        default=1000,
        metavar="N",
        help="resamples for the intervals (default 1000)",
    )
    sub.add_argument(
        "--advise", action="store_true", help="propose changes of the recipe, each with its figure"
    )
    sub.add_argument("--out", metavar="FILE", help="the heat map (default RUN/interference.svg)")
    sub.add_argument("--json", metavar="FILE", help="write the figures here as well")
    command("schema", "print the JSON schema of recipes, for editors")


def _add_making(command: Callable[..., argparse.ArgumentParser]) -> None:
    """Commands that make a model of other models."""
    sub = command(
        "upcycle", "make a sparse model of a dense one; it answers alike until it is trained on"
    )
    sub.add_argument("model", metavar="RUN-or-MODEL", help="a run or model folder")
    sub.add_argument(
        "--sparse",
        required=True,
        metavar="SPARSE",
        help=(
            "a recipe with model.encoder.sparse, or that as a mapping: '{feed_forward: {route:"
            " token}}'"
        ),
    )
    sub.add_argument(
        "--out",
        metavar="DIR",
        help="the model folder to write (default: the model's, with -upcycled)",
    )
    sub.add_argument(
        "--noise",
        type=float,
        default=0.0,
        metavar="SHARE",
        help="perturb each copy, by a share of its weights' spread; the answers then differ",
    )
    sub.add_argument("--seed", type=int, default=0, help="of new gates and noise (default 0)")
    sub.add_argument("--json", metavar="FILE", help="write the table here as well")
    sub = command("carve", "make the part of a run that one task needs a dense model of its own")
    sub.add_argument("folder", **RUN)
    sub.add_argument("--task", required=True, help="the task to keep")
    sub.add_argument(
        "--out", metavar="DIR", help="the folder to write (default: the run's, with -TASK)"
    )
    stored = "how matrices are stored; int8 and bf16 are read as float32 (default float32)"
    sub.add_argument(
        "--weights", choices=["float32", "bf16", "int8"], default="float32", help=stored
    )
    sub.add_argument(
        "--no-towers", action="store_true", help="do not export the passes for other programs"
    )
    sub.add_argument("--json", metavar="FILE", help="write what carve.json says here as well")
    sub = command(
        "convert",
        "turn a model of Hugging Face's or TencentPretrain's into one of ours, or back into Hugging"
        " Face's",
    )
    kinds = (
        "a folder that transformers wrote, a model of the hub (org/name), a run or model folder, a"
        " file of TencentPretrain's"
    )
    sub.add_argument("model", metavar="MODEL", help=kinds)
    sub.add_argument(
        "--config",
        metavar="FILE",
        help="of a file of TencentPretrain's: its configuration, a .json",
    )
    sub.add_argument("--out", required=True, metavar="DIR", help="the folder to write")
    sub.add_argument(
        "--family",
        metavar="NAME",
        help="on the way back: their model_type (default: the one that fits)",
    )
    sub.set_defaults(module="tools")
    sub = command("weave", "make a model of several skills from a pretrained model of each")
    sub.add_argument(
        "inputs",
        nargs="+",
        metavar="MODALITY=MODEL",
        help="where a modality's weights come from: text=runs/texts",
    )
    sub.add_argument(
        "--recipe", required=True, help="the recipe whose model is made, a YAML file or a name"
    )
    sub.add_argument(
        "--out",
        required=True,
        metavar="DIR",
        help="the model folder to write; weave.json in it says what came from where",
    )
    sub.add_argument(
        "--shared",
        metavar="MODALITY",
        help="whose model gives the parts that all skills share (default: the first)",
    )
    sub.add_argument("--json", metavar="FILE", help="write the table here as well")


def _add_using(command: Callable[..., argparse.ArgumentParser]) -> None:
    """Commands that use a trained run."""
    about = (
        "answer for raw inputs: a class, a number, labels, an answer, a transcript, or the samples"
        " found; a JSON line each"
    )
    sub = command("predict", about)
    sub.add_argument("folder", **RUN)
    sub.add_argument(
        "inputs",
        nargs="*",
        metavar="INPUT",
        help="files; for tasks over text also texts themselves",
    )
    sub.add_argument("--task", required=True, help="the task to answer for")
    columns = (
        "a .jsonl, .csv, .tsv or .parquet file whose columns are named as in the recipe's data"
    )
    sub.add_argument("--input", metavar="FILE", help=columns)
    sub.add_argument(
        "--out",
        metavar="FILE",
        help="a .jsonl or .parquet file for the input's own columns and the answers",
    )
    sub.add_argument(
        "--k", type=int, default=5, help="answers per query of a retrieval task (default 5)"
    )
    sub.set_defaults(module="tools")
    command("index", "embed all samples of a run once, for search").add_argument("folder", **RUN)
    sub = command("search", "find a run's samples by a text or a file")
    sub.add_argument("folder", **RUN)
    sub.add_argument("query", nargs="?", metavar="TEXT", help="what to look for")
    for modality in ("image", "sound", "video", "code"):
        sub.add_argument(
            f"--{modality}", metavar="FILE", help=f"look for what resembles this {modality} instead"
        )
    sub.add_argument(
        "--in",
        dest="within",
        default="image",
        metavar="MODALITY",
        help="image (default), video, code or text",
    )
    sub.add_argument("--k", type=int, default=5, help="how many (default 5)")
    sub.add_argument("--out", metavar="DIR", help="save the files found here")
    sub.add_argument("--json", metavar="FILE", help="write the list here as well")


def _add_tools(command: Callable[..., argparse.ArgumentParser]) -> None:
    """Commands that work on models, tokenisers and vectors."""
    sub = command(
        "average",
        "write the mean of several models, or of a run's checkpoints (training.save_total_limit)",
    )
    sub.add_argument(
        "models",
        nargs="+",
        metavar="RUN-or-MODEL",
        help="one run, or several runs or model folders",
    )
    sub.add_argument("--out", required=True, metavar="DIR", help="the model folder to write")
    sub.set_defaults(module="tools")
    sub = command(
        "vocabulary", "train a tokeniser on texts, or give the tokeniser of a model more words"
    )
    sub.add_argument(
        "texts",
        nargs="+",
        metavar="FILE",
        help="texts, in any source of a recipe; with --extend, a word a line",
    )
    sub.add_argument(
        "--out",
        required=True,
        metavar="FILE",
        help="the tokeniser (.json) or, with --extend, the model to write",
    )
    sub.add_argument(
        "--extend", metavar="RUN-or-MODEL", help="the model whose tokeniser gets the words"
    )
    sub.add_argument(
        "--size", type=int, default=21128, metavar="N", help="the most pieces (default 21128)"
    )
    sub.add_argument(
        "--kind",
        choices=["wordpiece", "bpe"],
        default="wordpiece",
        help="its kind (default wordpiece)",
    )
    sub.add_argument("--cased", action="store_true", help="tell capitals from small letters")
    sub.add_argument(
        "--min-frequency",
        type=int,
        default=2,
        metavar="N",
        help="how often a piece must occur (default 2)",
    )
    sub.add_argument("--column", default="text", help="the column of the texts (default text)")
    sub.set_defaults(module="tools")
    sub = command(
        "shard",
        "cut texts into wordpieces once, into memory-mapped files that tasks over text read",
    )
    sub.add_argument("source", metavar="SOURCE", help="texts, in any source of a recipe")
    sub.add_argument(
        "--tokenizer",
        required=True,
        metavar="PATH",
        help="tokenizer.json, vocab.txt, or a folder with one of them, such as a model's",
    )
    sub.add_argument(
        "--out",
        required=True,
        metavar="DIR",
        help="the folder of the shards, where the same call goes on",
    )
    sub.add_argument("--column", default="text", help="the column of the texts (default text)")
    sub.add_argument(
        "--rows", type=int, default=100_000, metavar="N", help="rows of a shard (default 100000)"
    )
    sub.add_argument(
        "--workers",
        type=int,
        default=0,
        metavar="N",
        help="processes; they change no shard (default 0: this one)",
    )
    sub.set_defaults(module="tools")
    sub = command("features", "write a vector for each row of a file")
    sub.add_argument("folder", **RUN)
    sub.add_argument("--task", required=True, help="the task whose pass encodes the rows")
    sub.add_argument(
        "--input", required=True, metavar="FILE", help="a .jsonl, .csv, .tsv or .parquet file"
    )
    sub.add_argument(
        "--out",
        required=True,
        metavar="FILE",
        help=".npy, or .jsonl or .parquet with the input's own columns",
    )
    sub.add_argument(
        "--whiten", type=int, metavar="K", help="whiten the vectors and keep K numbers of each"
    )
    sub.add_argument(
        "--fit",
        metavar="FILE",
        help="the rows that whitening is fitted on (default: the input's own)",
    )
    sub.set_defaults(module="tools")


def print_config(options: argparse.Namespace) -> None:
    """Print a recipe with every setting, as YAML."""
    import yaml

    from skillweave.recipe import find_recipe, read_recipe

    recipe = read_recipe(find_recipe(options.recipe), options.overrides, options.fraction)
    print(
        yaml.safe_dump(recipe.model_dump(mode="json"), allow_unicode=True, sort_keys=False), end=""
    )


def print_schema(options: argparse.Namespace) -> None:
    """Print the JSON schema of recipes."""
    from skillweave.recipe import RecipeConfig

    print(json.dumps(RecipeConfig.model_json_schema(), indent=2, ensure_ascii=False))


def run(options: argparse.Namespace) -> None:
    """Run the command that was given."""
    if options.command == "schema":
        print_schema(options)
    elif options.command == "train" and options.print_config:
        print_config(options)
    else:
        getattr(import_module(f"skillweave.cli.{options.module}"), f"run_{options.command}")(
            options
        )


if __name__ == "__main__":
    sys.exit(main())
