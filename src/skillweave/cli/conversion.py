"""The command `convert`: models of other libraries."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

import skillweave as sw
from skillweave.cli.shared import Results, unused_folder


def convert(
    model: Annotated[
        str,
        Argument(
            metavar="MODEL",
            help="A folder that transformers wrote, a model of the hub (org/name), a run or model"
            " folder, or a checkpoint file of TencentPretrain.",
        ),
    ],
    *,
    out: Annotated[Path, Option(metavar="DIR", help="The folder to write.")],
    config: Annotated[
        Path | None,
        Option(metavar="FILE", help="The .json configuration of a TencentPretrain checkpoint."),
    ] = None,
    family: Annotated[
        str | None,
        Option(
            metavar="NAME",
            help="When converting to Hugging Face: their model_type (default: the one that fits).",
        ),
    ] = None,
) -> Results:
    """Convert a model from Hugging Face or TencentPretrain, or to Hugging Face."""
    from skillweave.interop.huggingface import convert_folder
    from skillweave.interop.tencentpretrain.weights import from_tencent

    unused_folder(out)
    if config is None:
        if Path(model).is_file():
            raise sw.ConfigError(
                f"{model} is a file; a checkpoint of TencentPretrain also needs --config FILE.json"
            )
        told = convert_folder(model, out, family)
        print(told)
        return {"model": str(out), "converted": told}
    converted = from_tencent(Path(model), sw.ModelConfig.from_file(config))
    converted.save_pretrained(out)
    task = next(iter(converted.config.tasks))
    parameters = converted.count_parameters()
    print(f"wrote {out}: {parameters:,} parameters, task {task}")
    return {"model": str(out), "parameters": parameters, "task": task}
