"""Models of skillweave on the Hugging Face hub: written as a commit, read from a pinned commit,
with checksums."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from skillweave.config import ConfigError
from skillweave.config.streams import ASSETS_FOLDER
from skillweave.model.folders import CONFIG_FILE, HUB_ID
from skillweave.model.model import Model
from skillweave.storage import CHECKSUMS_FILE, Damaged, checksums, read_checksums, read_json, verify
from skillweave.weights.adapters import is_tuned
from skillweave.weights.files import FILE

OWN_FILES = [CONFIG_FILE, FILE, CHECKSUMS_FILE, f"{ASSETS_FOLDER}/*", "README.md", "*.json"]
"""What is downloaded of a model."""
MISSING = "huggingface_hub is not installed (pip install 'skillweave[hf]')"


def split_id(source: str) -> tuple[str, str | None]:
    """`org/name@revision` → the id and the revision: a commit, a branch or a tag."""
    name, _, revision = source.partition("@")
    return name, revision or None


def push(
    folder: Path,
    repo: str,
    further: dict[str, Path] | None = None,
    private: bool = True,
    message: str = "Upload a model of skillweave",
    api: Any = None,
) -> str:
    """Upload a model folder as one commit, and return the commit's id.

    Only what belongs to the model is uploaded: configuration, weights (those of a tuned model
    together with its base), assets, checksums. `further`: more files, by name. `api`: an HfApi.
    Raises ConfigError for an id that is none, and for what the hub refuses.
    """
    if not HUB_ID.fullmatch(repo) or "/" not in repo or "@" in repo:
        raise ConfigError(f"{repo}: a model on the hub is called org/name")
    verify(folder)
    with tempfile.TemporaryDirectory() as place:
        staged = Path(place) / "model"
        if is_tuned(folder) or not read_checksums(folder):
            Model.from_pretrained(folder).save_pretrained(staged)
        else:
            for name in [*read_checksums(folder), CHECKSUMS_FILE]:
                _copy(folder / name, staged / name)
        for name, file in (further or {}).items():
            _copy(file, staged / name)
        return _told(
            repo, lambda: _upload(api or _api(), staged, repo, private=private, message=message)
        )


def pull(source: str, api: Any = None, download: Callable[..., str] | None = None) -> Path:
    """The folder of a model of skillweave on the hub, `org/name` or `org/name@revision`.

    A revision is first resolved to its commit, so all files are of one commit. They are compared
    with the checksums that the hub has and with those of the model. Without a network, the files in
    the cache are used. Raises ConfigError for a model that is not there, Damaged for files with
    other checksums or none.
    """
    name, revision = split_id(source)
    download = download or _snapshot_download()
    commit, known = _told(source, lambda: _resolve(api or _api(), name, revision))
    offline = commit is None
    chosen = {"revision": commit or revision, "local_files_only": offline}
    folder = Path(_told(source, lambda: download(name, allow_patterns=OWN_FILES, **chosen)))
    if not read_checksums(folder):
        raise Damaged(f"{source}: has no {CHECKSUMS_FILE}, so its files cannot be checked")
    verify(folder)
    there = [name for name in known if (folder / name).is_file()]
    for file, found in checksums(folder, there).items():
        if found != known[file]:
            raise Damaged(f"{source}: {file}: its checksum is not the one that the hub has")
    return folder


def is_own(source: str, download: Callable[..., str] | None = None) -> bool:
    """Whether a model of the hub is one of skillweave's: only its configuration is downloaded.
    False if there is no such model."""
    name, revision = split_id(source)
    try:
        download = download or _snapshot_download()
        folder = Path(download(name, revision=revision, allow_patterns=[CONFIG_FILE]))
    except (OSError, ValueError):  # what looks for Hugging Face's models says why
        return False
    return "streams" in read_json(folder / CONFIG_FILE)


def _api() -> Any:
    try:
        from huggingface_hub import HfApi
    except ImportError:
        raise ConfigError(MISSING) from None
    return HfApi()


def _snapshot_download() -> Callable[..., str]:
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise ConfigError(MISSING) from None
    return snapshot_download


def _upload(api: Any, staged: Path, repo: str, *, private: bool, message: str) -> str:
    api.create_repo(repo, private=private, exist_ok=True)
    done = api.upload_folder(repo_id=repo, folder_path=str(staged), commit_message=message)
    return str(done.oid)


def _resolve(api: Any, name: str, revision: str | None) -> tuple[str | None, dict[str, str]]:
    """The commit of a revision, and the checksums of its large files; None without a network."""
    try:
        info = api.model_info(name, revision=revision, files_metadata=True)
    except (ConnectionError, TimeoutError):
        return None, {}
    except Exception as error:
        if type(error).__name__ in ("OfflineModeIsEnabled", "ConnectError", "ConnectTimeout"):
            return None, {}
        raise
    large = {one.rfilename: one.lfs.sha256 for one in info.siblings or () if one.lfs}
    return info.sha, large


def _told(source: str, call: Callable[[], Any]) -> Any:
    """What a call of the hub returns; its errors as ConfigError."""
    try:
        return call()
    except ConfigError:
        raise
    except (OSError, ValueError) as error:  # HfHubHTTPError and the like
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise ConfigError(f"{source}: Hugging Face hub: {reason[0]}") from None


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
