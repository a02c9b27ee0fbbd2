"""The `skillweave` command: its subcommands, the forms of their arguments, and their errors.

Each subcommand is a function in one of the modules of this package. It imports the libraries that
it needs when it runs, so that help and shell completion start fast.
"""

from __future__ import annotations

import atexit
import gc
import inspect
import os
import re
import sys
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import nullcontext
from functools import wraps
from io import TextIOWrapper
from itertools import islice
from pathlib import Path
from types import FunctionType
from typing import Annotated, Any, TextIO

from typer import Exit, Option, Typer
from typer.main import get_command

from skillweave import __version__
from skillweave.cli import (
    conversion,
    corpus,
    data,
    environment,
    evaluation,
    export,
    hub,
    inference,
    planning,
    retrieval,
    serving,
    surgery,
    training,
)
from skillweave.cli.shared import (
    Incomplete,
    Results,
    is_first_process,
    quietly,
    require_writable,
)

COMMON = {
    "json": (
        None,
        Annotated[
            Path | None,
            Option("--json", metavar="FILE", help="Write the results to this file as well."),
        ],
    ),
    "quiet": (
        False,
        Annotated[
            bool,
            Option("--quiet", "-q", help="Print answers and errors only, no tables and progress."),
        ],
    ),
    "debug": (False, Annotated[bool, Option("--debug", help="Show the stack trace of an error.")]),
}
"""The options that every subcommand has: their defaults, and how Typer reads them."""

COMMANDS: tuple[FunctionType, ...] = (
    training.quickstart,
    training.init,
    training.train,
    planning.plan,
    planning.lr_find,
    planning.sweep,
    planning.runs,
    evaluation.evaluate,
    inference.predict,
    inference.generate,
    retrieval.index,
    retrieval.search,
    serving.serve,
    inference.features,
    evaluation.inspect,
    evaluation.interference,
    evaluation.rate,
    evaluation.ratings,
    surgery.carve,
    export.export,
    surgery.upcycle,
    surgery.weave,
    surgery.average,
    surgery.vocabulary,
    conversion.convert,
    hub.card,
    hub.push,
    hub.pull,
    data.shard,
    corpus.clean,
    training.cache,
    training.schema,
    environment.doctor,
)
"""All subcommands, in the order of the help."""

OF_RECIPES = "train", "quickstart", "inspect", "cache", "plan", "lr-find", "sweep"
"""Subcommands that take settings of a recipe."""
TAKE_A_SETTING = "--set", "--vary"
"""Options whose values look like settings."""

NO_COLLECTION = 1_000_000
"""New objects before garbage is collected while a command starts: imports make many objects and
little garbage. `shared.started` ends it."""
SPIN_COUNT = "1000"
"""Rounds for which an idle OpenMP thread spins before it sleeps. With libgomp's default of about
300,000, idle threads keep other processes, and each other, from the cores of a busy machine
(benchmarks/busy_machine.py)."""
PACKAGE = Path(__file__).parent.parent
SETTING = re.compile(r"--([\w-]+(?:\.[\w-]+)+)(?:=(.*))?|([\w-]+(?:\.[\w-]+)*)=(.*)", re.DOTALL)
"""A setting of the recipe: `--a.b value`, `--a.b=value` or `a.b=value`."""


def main(words: Sequence[str] | None = None) -> int:
    """Run a subcommand and return the exit status.

    The status is 0 after success, 2 after an error that the user can correct, 130 after Ctrl-C, and
    that of the signal which interrupted a training.
    """
    if isinstance(sys.stdout, TextIOWrapper):  # names of files may hold what it cannot express
        sys.stdout.reconfigure(errors="backslashreplace")
    # What the user sets stays. Libraries read these when they are loaded.
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", SPIN_COUNT)
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")  # it looks in every package
    gc.set_threshold(NO_COLLECTION)
    atexit.register(gc.freeze)  # to look for garbage once more at the end takes 0.3 s
    words = list(sys.argv[1:] if words is None else words)
    named = [function for function in COMMANDS if words[:1] == [name_of(function)]]
    command: Any = get_command(build(named or COMMANDS))
    options = [option for one in command.commands.values() for option in one.params]
    repeatable = {name for option in options if option.multiple for name in option.opts}
    given = _mark_settings(words)
    with warnings.catch_warnings():
        if not sys.warnoptions:  # the user did not ask for the warnings of other libraries
            # ty: ignore[invalid-assignment] a function of the same signature
            warnings.showwarning = _show_warning
        try:
            command(args=list(_repeat_options(given, repeatable)), prog_name="skillweave")
        except SystemExit as stop:
            return int(stop.code or 0)
    return 0


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Print a warning of this package in a line, and none of another library."""
    if category is UserWarning and Path(filename).is_relative_to(PACKAGE):
        from skillweave.config.names import printable

        print(f"warning: {printable(message)}", file=sys.stderr)


def _mark_settings(words: Sequence[str]) -> Iterator[str]:
    """Give each setting of the recipe as a value of `--set`."""
    takes_settings = bool(words) and words[0] in OF_RECIPES
    rest = iter(words)
    for word in rest:
        if word == "--":  # what follows are values, whatever they look like
            yield from (word, *rest)
            return
        if word in TAKE_A_SETTING and takes_settings:
            yield from (word, *islice(rest, 1))
            continue
        match = SETTING.fullmatch(word) if takes_settings else None
        if match is None:
            yield word
        elif match[3]:
            yield from ("--set", word)
        else:
            value = next(rest, None) if match[2] is None else match[2]
            yield from ("--set", match[1] if value is None else f"{match[1]}={value}")


def _repeat_options(words: Iterable[str], repeatable: Collection[str]) -> Iterator[str]:
    """Write `--tasks a b` as `--tasks a --tasks b`, the form that Typer reads."""
    option, values = "", 0
    rest = iter(words)
    for word in rest:
        if word == "--":
            yield from (word, *rest)
            return
        if word.startswith("--"):
            option, values = word, 0
        elif option in repeatable:
            values += 1
            if values > 1:
                yield option
        yield word


def _with_common_options(function: FunctionType) -> Callable[..., None]:
    """A subcommand with the options of `COMMON`: `--json` writes what it returns, `--quiet` hides
    what it prints. Without `--debug`, expected errors are reported in one line."""

    @wraps(function)
    def run(*, json: Path | None, quiet: bool, debug: bool, **options: Any) -> None:
        try:
            require_writable(json)
            with quietly() if quiet else nullcontext():
                found = function(**options)
            _write_results(json, found)
            sys.stdout.flush()
        except BrokenPipeError:
            raise  # `| head` ended; Typer exits without a message
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            raise Exit(130) from None
        except Exception as error:
            from skillweave.config.names import printable  # help starts without pydantic

            if isinstance(error, Incomplete):
                _write_results(json, error.results)
            status = exit_status(error)
            if debug or status is None:
                raise
            if str(error):  # empty where the first of several processes tells it
                print(
                    f"skillweave {name_of(function)}: {printable(error)}",
                    file=sys.stderr,
                )
            raise Exit(status) from None

    signature = inspect.signature(function, eval_str=True)
    common = [
        inspect.Parameter(
            name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation
        )
        for name, (default, annotation) in COMMON.items()
    ]
    # ty: ignore[missing-attribute] is what inspect.signature, and so Typer, reads
    run.__signature__ = signature.replace(parameters=[*signature.parameters.values(), *common])
    run.__annotations__ = {**function.__annotations__, **{c.name: c.annotation for c in common}}
    return run


def _write_results(file: Path | None, results: Results) -> None:
    if file is not None and is_first_process():
        from skillweave.storage import write_json

        write_json(file, results)


def exit_status(error: Exception) -> int | None:
    """The exit status for an error whose message tells the user what to do; None for a bug."""
    return getattr(error, "exit_status", 2 if isinstance(error, OSError) else None)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"skillweave {__version__}")
        raise Exit


def _options(
    version: Annotated[
        bool,
        Option("--version", is_eager=True, help="Show the version and exit.", callback=_version),
    ] = False,
) -> None:
    """One compact model for many tasks over text, image, sound, video and code."""


def build(commands: Iterable[FunctionType] = COMMANDS) -> Typer:
    """The command line with these subcommands. A call builds its own one, since to build all of
    them takes a tenth of a second."""
    app = Typer(
        rich_markup_mode=None,
        no_args_is_help=True,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_options)
    for function in commands:
        app.command()(_with_common_options(function))
    return app


def name_of(function: FunctionType) -> str:
    """The name of a subcommand."""
    return function.__name__.replace("_", "-")
