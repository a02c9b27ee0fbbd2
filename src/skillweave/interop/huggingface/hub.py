"""Models of the Hugging Face hub by their names."""

from __future__ import annotations

import re
from pathlib import Path

from skillweave.config import ConfigError
from skillweave.weights.files import FILE

NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")
"""`org/name`, or the name alone of the oldest models."""


def hub_folder(source: str | Path) -> Path:
    """A folder that is there, or that of a model of the hub, fetched once and then kept in the
    hub's cache.

    Only what stands at its top is fetched: descriptions, and weights as safetensors or, where there
    are none, as pickles. Raises ConfigError for what is neither.
    """
    folder = Path(source)
    if folder.exists() or not NAME.fullmatch(str(source)):
        return folder
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        for patterns in (["*.json", "*.txt", "*.safetensors"], ["*.bin"]):
            folder = Path(
                snapshot_download(str(source), allow_patterns=patterns, ignore_patterns=["*/*"])
            )
            if (folder / FILE).exists() or (folder / f"{FILE}.index.json").exists():
                break
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ConfigError(
            f"{source}: no such folder, and not to be had from the Hugging Face hub: {reason}"
        ) from None
    return folder


def is_hugging_face(source: str | Path) -> bool:
    """Whether something is a model folder of Transformers, or the id of a model on the hub: `a/b`
    where there is no folder `a` here."""
    folder = Path(source)
    if folder.is_dir():
        file = folder / "config.json"
        return file.is_file() and '"model_type"' in file.read_text("utf-8", "replace")
    name = str(source)
    return NAME.fullmatch(name) is not None and "/" in name and not folder.parent.is_dir()
