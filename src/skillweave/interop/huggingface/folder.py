"""Folders of Hugging Face models, on disk or from the hub."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from skillweave.config import ConfigError
from skillweave.config.errors import reading
from skillweave.interop.huggingface.families import FAMILIES
from skillweave.interop.huggingface.json_files import read_json
from skillweave.interop.huggingface.sentence_transformers import is_sentence_model, list_modules
from skillweave.model.folders import CONFIG_FILE, HUB_ID
from skillweave.weights.files import FILE

DESCRIPTIONS = ["*.json", "*.txt", "*.model", "*.spm", "*.safetensors"]
"""Files of a model of the hub: its descriptions, its tokenizer and its weights."""


def find_folder(source: str | Path) -> Path:
    """A folder on disk, or that of a model of the hub, which is downloaded to the hub's cache.

    Only files at the top level are downloaded: descriptions, and weights as safetensors or, if
    there are none, as pickles. Raises ConfigError for an id that cannot be downloaded.
    """
    folder = Path(source)
    if folder.exists() or not HUB_ID.fullmatch(str(source)):
        return folder
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    name, _, revision = str(source).partition("@")
    chosen: dict[str, Any] = {"revision": revision} if revision else {}
    try:
        for patterns in (DESCRIPTIONS, ["*.bin"]):
            folder = Path(
                snapshot_download(name, allow_patterns=patterns, ignore_patterns=["*/*"], **chosen)
            )
            if (folder / FILE).exists() or (folder / f"{FILE}.index.json").exists():
                break
        if is_sentence_model(folder):
            inside = [f"{path}/*" for _, path in list_modules(folder) if path]
            folder = Path(snapshot_download(name, allow_patterns=inside, **chosen))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ConfigError(
            f"{source}: no such folder, and it cannot be downloaded from the Hugging Face hub:"
            f" {reason}"
        ) from None
    return folder


def read_hf_config(folder: Path) -> Any:
    """The configuration of a Hugging Face model. Raises ConfigError if there is none, or its family
    is not known."""
    import transformers

    file = folder / CONFIG_FILE
    if not file.is_file():
        raise ConfigError(f"{folder}: no {CONFIG_FILE} there; give a Hugging Face model folder")
    data = read_json(file)
    if "model_type" not in data:
        raise ConfigError(
            f"{file}: no model_type, so it does not describe a Hugging Face model; known:"
            f" {', '.join(FAMILIES)}"
        )
    FAMILIES.find(str(data["model_type"]))
    with reading(file, "a configuration that transformers reads"):
        return transformers.AutoConfig.for_model(**data)
