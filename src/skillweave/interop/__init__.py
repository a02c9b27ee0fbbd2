"""Models of other libraries, read and written."""

from __future__ import annotations

import hashlib
import os
import shutil
import warnings
from importlib.metadata import version
from pathlib import Path
from tempfile import mkdtemp

from skillweave.model.folders import CONVERTERS


@CONVERTERS.register("huggingface")
def convert_once(source: str) -> Path:
    """The converted model of a Hugging Face folder or hub id, in the user's cache. It is converted
    when its files are new or changed, or the package is another version. A model of skillweave on
    the hub is only downloaded."""
    from skillweave.interop import hub

    if not Path(source).is_dir() and hub.is_own(source):
        return hub.pull(source)
    from skillweave.interop.huggingface.folder import find_folder  # Transformers is optional
    from skillweave.interop.huggingface.importer import import_folder

    folder = find_folder(source).resolve()
    files = [(file.name, file.stat()) for file in sorted(folder.iterdir()) if file.is_file()]
    state = repr(
        [
            version("skillweave"),
            folder,
            *((name, one.st_size, one.st_mtime_ns) for name, one in files),
        ]
    )
    root = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "skillweave"
    out = root / hashlib.sha256(state.encode()).hexdigest()[:16]
    if not out.is_dir():
        root.mkdir(parents=True, exist_ok=True)
        partial = Path(mkdtemp(dir=root))
        try:
            import_folder(folder, partial)
            partial.replace(out)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        warnings.warn(f"{source} was converted to {out}", stacklevel=2)
    return out
