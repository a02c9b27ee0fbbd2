"""What a machine offers to skillweave: versions, devices, memory, codecs, access tokens."""

from __future__ import annotations

import os
import platform
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Any, Literal

from skillweave.config import ConfigError

Status = Literal["ok", "absent", "warning", "fault"]
EXTRAS = {
    "data": "datasets of the Hugging Face hub (hf:NAME)",
    "track": "learning curves in TensorBoard and Trackio",
    "constraints": "texts of a regular expression, a JSON schema or a grammar",
    "8bit": "AdamW whose state has 8 bits",
    "hf": "models of Hugging Face: convert, fine-tune, export, push and pull",
    "quickstart": "the reviews that the quickstart learns from",
    "corpus": "clean corpora from raw web data (skillweave clean)",
    "corpus-ray": "corpora on several machines",
    "serve": "the HTTP service",
    "search": "larger indexes for search",
    "sweep": "searches over settings (skillweave sweep)",
    "docs": "the documentation as a site, and notebooks that run",
    "ray": "runs and sweeps on a Ray cluster",
    "export": "ONNX, 8 bits, CTranslate2 and GGUF",
}
"""Extra of the package → what it gives. Another one is shown by its name."""
CODECS = {
    "h264": "most .mp4",
    "hevc": ".mp4 of phones",
    "vp9": ".webm",
    "av1": ".mp4 and .webm of the web",
    "aac": "sound of .mp4, .m4a",
    "mp3": ".mp3",
    "opus": "sound of .webm, .opus",
    "flac": ".flac",
}
"""Decoder of FFmpeg → the files that need it."""
LITTLE_MEMORY, LITTLE_DISK = 2 * 2**30, 2 * 2**30
"""Bytes below which training a small model is at risk."""


@dataclass(frozen=True)
class Check:
    """One fact about the machine. `group`: what it belongs to. `remedy`: what to do about it, or
    what an absent package would give."""

    group: str
    name: str
    status: Status
    found: str
    remedy: str = ""


def examine(folder: Path) -> list[Check]:
    """All facts. `folder`: where runs are written. A check that fails is a fact of its own."""
    checks: list[Check] = []
    parts: tuple[tuple[str, Callable[[], Iterator[Check]]], ...] = (
        ("python", _python),
        ("packages", _packages),
        ("devices", _devices),
        ("memory", lambda: _resources(folder)),
        ("media", _codecs),
        ("hub", _hub),
    )
    for group, part in parts:
        try:
            checks += part()
        except Exception as error:  # a broken installation can raise anything, and is to be told
            told = f"{type(error).__name__}: {error}"
            checks.append(Check(group, group, "fault", told, "reinstall skillweave"))
    return checks


def _python() -> Iterator[Check]:
    new_enough = sys.version_info >= (3, 11)
    yield Check(
        "python",
        "python",
        "ok" if new_enough else "fault",
        f"{platform.python_version()} at {sys.executable}",
        "" if new_enough else "install Python 3.11 or later",
    )


def _packages() -> Iterator[Check]:
    """Every package that skillweave needs or can use, against the versions that it accepts."""
    from packaging.requirements import Requirement

    try:
        listed = requires("skillweave") or []
    except PackageNotFoundError:
        remedy = "install it: pip install skillweave"
        yield Check("packages", "skillweave", "warning", "runs from its source", remedy)
        return
    yield Check("packages", "skillweave", "ok", version("skillweave"))
    for text in listed:
        needed = Requirement(text)
        extra = re.search(r"extra == ['\"]([\w-]+)['\"]", text)
        if extra and (extra[1] == "dev" or needed.name == "skillweave"):
            continue
        if needed.marker and not needed.marker.evaluate({"extra": extra[1] if extra else ""}):
            continue
        yield _package(needed.name, needed.specifier, extra[1] if extra else "")


def _package(name: str, accepted: object, extra: str) -> Check:
    gives = f"{EXTRAS.get(extra, extra)}: pip install 'skillweave[{extra}]'" if extra else ""
    try:
        found = version(name)
    except PackageNotFoundError:
        status: Status = "absent" if extra else "fault"
        return Check("packages", name, status, "not installed", gives or f"pip install {name}")
    from packaging.specifiers import SpecifierSet

    fits = SpecifierSet(str(accepted)).contains(found, prereleases=True)
    remedy = "" if fits else f"pip install '{name}{accepted}'"
    bad: Status = "warning" if extra else "fault"
    shown = found if fits else f"{found}, not {accepted}"
    return Check("packages", name, "ok" if fits else bad, shown, remedy)


def _devices() -> Iterator[Check]:
    import torch

    for i in range(torch.cuda.device_count()):
        about = torch.cuda.get_device_properties(i)
        shown = f"{about.name}, {about.total_memory / 2**30:.0f} GiB"
        yield Check("devices", f"cuda:{i}", "ok", shown)
    if torch.version.cuda and not torch.cuda.is_available():
        remedy = "check the driver with nvidia-smi"
        yield Check("devices", "cuda", "warning", "PyTorch for CUDA, but no GPU", remedy)
    if torch.backends.mps.is_available():
        yield Check("devices", "mps", "ok", "the GPU of this Mac")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    level = torch.backends.cpu.get_cpu_capability()
    shown = f"{cores} cores, {torch.get_num_threads()} threads, {level}"
    yield Check("devices", "cpu", "ok", shown)


def _resources(folder: Path) -> Iterator[Check]:
    if "SC_AVPHYS_PAGES" in os.sysconf_names:
        page = os.sysconf("SC_PAGE_SIZE")
        whole, free = (page * os.sysconf(n) for n in ("SC_PHYS_PAGES", "SC_AVPHYS_PAGES"))
        little = whole < LITTLE_MEMORY
        remedy = "smaller batches, or gradient_accumulation_steps" if little else ""
        shown = f"{free / 2**30:.1f} of {whole / 2**30:.1f} GiB unused"
        yield Check("memory", "memory", "warning" if little else "ok", shown, remedy)
    space = shutil.disk_usage(folder)
    little = space.free < LITTLE_DISK
    shown = f"{space.free / 2**30:.1f} of {space.total / 2**30:.1f} GiB free at {folder}"
    remedy = "free some, or give another output" if little else ""
    yield Check("memory", "disk", "warning" if little else "ok", shown, remedy)
    writable = os.access(folder, os.W_OK)
    if not writable:
        yield Check("memory", "folder", "fault", f"{folder} cannot be written", "work elsewhere")


def _codecs() -> Iterator[Check]:
    """The decoders of PyAV's FFmpeg, and libsndfile."""
    import av
    import soundfile

    versions = ", ".join(
        f"{name} {'.'.join(map(str, one))}" for name, one in sorted(av.library_versions.items())
    )
    yield Check("media", "ffmpeg", "ok", versions)
    for name, files in CODECS.items():
        try:
            av.codec.Codec(name, "r")
        except ValueError:
            remedy = "pip install av, whose wheels have it"
            yield Check("media", name, "warning", f"no decoder: {files} cannot be read", remedy)
        else:
            yield Check("media", name, "ok", files)
    yield Check("media", "libsndfile", "ok", soundfile.__libsndfile_version__)


def _hub() -> Iterator[Check]:
    """Whether there is an access token; never the token itself."""
    try:
        from huggingface_hub import constants, get_token
    except ImportError:
        remedy = f"{EXTRAS['hf']}: pip install 'skillweave[hf]'"
        yield Check("hub", "huggingface_hub", "absent", "not installed", remedy)
        return
    token = get_token()
    remedy = "" if token else "to push, or to pull private models: hf auth login, or set HF_TOKEN"
    yield Check("hub", "token", "ok" if token else "absent", "set" if token else "none", remedy)
    cache = Path(constants.HF_HUB_CACHE)
    offline = " (offline: HF_HUB_OFFLINE)" if constants.HF_HUB_OFFLINE else ""
    yield Check("hub", "cache", "ok", f"{cache}{offline}")


def connect_to_ray(extra: str) -> Any:
    """The module ray, connected to the cluster that runs here. `extra`: of the package, which has
    it. Raises ConfigError if Ray is not installed or no cluster runs."""
    try:
        ray = import_module("ray")
    except ImportError:
        raise ConfigError(
            f"--engine ray: the package ray is not installed; pip install 'skillweave[{extra}]'"
            " on all machines of the cluster, or use --engine native"
        ) from None
    if not ray.is_initialized():
        try:
            ray.init(address="auto", log_to_driver=False)
        except (ConnectionError, RuntimeError) as error:
            raise ConfigError(
                f"--engine ray: no Ray cluster is running here ({error}); start one with"
                " `ray start --head`"
            ) from None
    return ray
