"""A language model of equal size and steps on raw and on clean texts: perplexity of held-out texts.

    python studies/corpus.py [--seeds 0 1] [--steps 400] [--width 192] [--layers 3]
        [--megabytes 40] [--clean CONFIG] [--cache FOLDER] [--work FOLDER] [--json FILE]

The raw texts are all that stands between the tags of installed HTML documentation, menus included, as
a crawl has them (benchmarks/corpus_texts.py, which downloads the packages once). The clean ones
are those of the same pages after `--clean` (recipes/corpus/web_texts.yaml, whose source becomes an
archive of the pages). One page in twenty is held out, by the hash of its address. All models read
pieces of 1,200 characters, the same number of them, with the tokenizer of the raw texts. Perplexities
are those of the raw and of the clean texts of held-out pages. The claim holds where the clean texts
give the lower perplexity of clean held-out texts with every seed.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import yaml

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))
from corpus_texts import CACHE, gather, page_text, pages, pieces, write_archive  # noqa: E402
from report import Figure, report  # noqa: E402

from skillweave.corpus import clean, read_config  # noqa: E402

HELD_OUT = 20
"""One page in so many is held out."""
LONGEST = 1200
"""Characters of a piece: about as many as the model reads."""
SETS = ("train", "held_out")


def write_pieces(file: Path, texts: Iterable[str]) -> None:
    """Pieces of texts as JSON lines."""
    with file.open("w", encoding="utf-8", errors="replace") as stream:
        for text in texts:
            for piece in pieces(text, LONGEST):
                stream.write(json.dumps({"text": piece}, ensure_ascii=False) + "\n")


def write_raw(options: argparse.Namespace) -> None:
    """The raw texts and an archive of the pages, to train on and held out."""
    sets: dict[str, list[tuple[str, bytes]]] = {name: [] for name in SETS}
    for url, data in pages(options.cache, options.megabytes):
        number = int.from_bytes(hashlib.blake2b(url.encode(), digest_size=4).digest(), "big")
        sets["held_out" if number % HELD_OUT == 0 else "train"].append((url, data))
    for name, found in sets.items():
        write_pieces(options.work / f"raw-{name}.jsonl", (page_text(data) for _, data in found))
        write_archive(options.work / f"{name}.warc.gz", found)


def write_clean(options: argparse.Namespace, name: str) -> int:
    """The texts of an archive after the steps of the configuration; how many are kept."""
    config = read_config(options.clean)
    out = options.work / f"clean-{name}"
    shutil.rmtree(out, ignore_errors=True)
    ((source, settings),) = config.sources.items()
    settings = settings.model_copy(update={"path": str(options.work / f"{name}.warc.gz")})
    config = config.model_copy(update={"out": str(out), "sources": {source: settings}})
    kept = clean(config)["rows"]["kept"]
    texts = (
        text
        for file in sorted((out / "shards").glob("*.parquet"))
        for text in pq.read_table(file, columns=["text"])["text"].to_pylist()
    )
    write_pieces(options.work / f"clean-{name}.jsonl", texts)
    return kept


def recipe(options: argparse.Namespace, name: str, data: str, seed: int) -> dict[str, Any]:
    """A GPT-2 of the options, on some texts."""
    text = {"vocabulary": 8_000, "max_length": 256}
    tokenizer = options.work / "runs" / f"raw-seed{options.seeds[0]}" / "best"
    if name != "raw" or seed != options.seeds[0]:
        text["tokenizer"] = {"path": str(tokenizer)}  # that of the raw texts in all runs
    return {
        "name": f"{name}-seed{seed}",
        "output": str(options.work / "runs" / f"{name}-seed{seed}"),
        "model": {
            "width": options.width,
            "streams": {"text": text},
            "encoder": {"layers": options.layers, "heads": max(1, options.width // 64)},
            "targets": {"lm": {}},
        },
        "tasks": {"language_modelling": {"target": "lm", "data": {"path": data}, "batch_size": 16}},
        "training": {"steps": options.steps, "seed": seed},
    }


def run(*words: str) -> None:
    """A call of skillweave."""
    subprocess.run([sys.executable, "-m", "skillweave", *words], check=True)


def measure(options: argparse.Namespace) -> Iterator[tuple[str, int, str, float]]:
    """System, seed, held-out texts and their perplexity."""
    systems = ("raw", "clean")
    data = {name: str(options.work / f"{name}-train.jsonl") for name in systems}
    sets = {name: options.work / f"{name}-held_out.jsonl" for name in systems}
    for seed in options.seeds:
        for system, path in data.items():
            described = recipe(options, system, path, seed)
            file = options.work / f"{described['name']}.yaml"
            file.write_text(yaml.safe_dump(described, sort_keys=False))
            if not Path(described["output"], "best").is_dir():
                run("train", str(file))
            for name, held_out in sets.items():
                answer = options.work / f"{described['name']}-{name}.json"
                task = f"language_modelling={held_out}"
                run("evaluate", described["output"], "--data", task, "--json", str(answer))
                found = json.loads(answer.read_text())["language_modelling"]
                yield system, seed, name, found["perplexity"]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--width", type=int, default=192)
    parser.add_argument("--layers", type=int, default=3)
    parser.add_argument("--megabytes", type=float, default=40)
    parser.add_argument("--cache", type=Path, default=CACHE)
    parser.add_argument("--clean", type=Path, default=ROOT / "recipes/corpus/web_texts.yaml")
    parser.add_argument("--work", type=Path, default=Path("runs/study-corpus"))
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    options.work = options.work.resolve()
    options.work.mkdir(parents=True, exist_ok=True)
    gather(options.cache)
    if not (options.work / "held_out.warc.gz").is_file():
        write_raw(options)
    for name in SETS:
        if not (options.work / f"clean-{name}.jsonl").is_file():
            print(f"{name}: {write_clean(options, name):,} texts are kept")
    found = {(s, seed, name): value for s, seed, name, value in measure(options)}
    figures = []
    for seed in options.seeds:
        for name in ("clean", "raw"):
            raw, after = found["raw", seed, name], found["clean", seed, name]
            ratio = after / raw
            print(f"seed {seed}, {name} held-out texts: {raw:.2f} raw, {after:.2f} clean")
            bound = 1.0 if name == "clean" else float("inf")
            title = f"perplexity of {name} held-out texts, clean / raw, seed {seed}"
            figures.append(Figure(title, ratio, "×, at most", bound, ratio < bound))
    return report("A language model on raw and on clean texts", figures, options.json)


if __name__ == "__main__":
    sys.exit(main())
