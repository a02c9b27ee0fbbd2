"""The command `shard`: preparing data."""

from __future__ import annotations

from typing import Annotated

from typer import Argument, Option

from skillweave.cli.shared import Column, Results, started


def shard(
    source: Annotated[str, Argument(metavar="SOURCE", help="Texts, in any source of a recipe.")],
    *,
    tokenizer: Annotated[
        str,
        Option(
            metavar="PATH",
            help="A tokenizer's file or folder, as in a recipe's tokenizer.path.",
        ),
    ],
    out: Annotated[
        str,
        Option(
            metavar="DIR", help="The folder of the shards; the same call again continues there."
        ),
    ],
    column: Column = "text",
    rows: Annotated[int, Option(metavar="N", min=1, help="Rows of a shard.")] = 100_000,
    parse_special: Annotated[
        bool,
        Option("--parse-special", help="As in a recipe's tokenizer.parse_special: chat templates."),
    ] = False,
    workers: Annotated[
        int,
        Option(
            metavar="N",
            min=0,
            help="Processes; 0 uses this one. The shards do not depend on their number.",
        ),
    ] = 0,
) -> Results:
    """Tokenize texts once, into memory-mapped files.

    Tasks over text read them as any other source.
    """
    from skillweave.data.sharding import ShardingConfig, ShardingProgress, write_shards
    from skillweave.reporting.terminal import progress

    started()
    done = ShardingProgress(0, 0, 0)
    config = ShardingConfig(source, column, tokenizer, out, rows, parse_special)
    with progress() as step:
        for done in write_shards(config, workers):
            step("shards", done.shards, done.total)
    if done.empty:
        print(f"{done.empty:,} rows hold no text in {column!r}; tasks will skip and list them")
    recipe = f"data: {{path: {out}/*.arrow}}, tokenizer: {{path: {out}}}"
    print(f"{out}: {done.total:,} shards; in a recipe {recipe}")
    return {"shards": done.total, "rows_without_text": done.empty, "recipe": recipe}
