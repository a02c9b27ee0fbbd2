"""A language model of equal size and steps on raw and on clean texts: perplexity of held-out texts.

    python studies/corpus.py [--seeds 0 1] [--steps 2000] [--width 256] [--layers 4]
        [--megabytes 200] [--texts FOLDER ...] [--clean CONFIG] [--work FOLDER] [--json FILE]

The raw texts are those of benchmarks/corpus.py, with their planted near duplicates. One text in
fifty is held out, by its hash, before anything is cleaned. The rest is trained on as it is, and after
the steps of `--clean` (recipes/corpus/web_texts.yaml, without its steps for pages). Both models have
the tokenizer of the raw texts. Perplexities are those of all held-out texts, and of those that
the steps keep. The claim holds where the clean texts give the lower perplexity of kept held-out texts
with every seed.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))
from corpus import ROOTS, write_texts  # noqa: E402
from report import Figure, report  # noqa: E402

from skillweave.corpus import CleanConfig, clean  # noqa: E402

HELD_OUT = 50
"""One text in so many is held out."""
LONGEST = 1200
"""Characters of a text: about as many as the model reads."""
PAGE_STEPS = {"extract"}
"""Steps that need pages, which these texts are not."""


def split_texts(texts: Path, folder: Path) -> None:
    """The texts to train on and those held out, by their hashes: equal texts are on one side."""
    folder.mkdir(parents=True, exist_ok=True)
    with (
        (folder / "train.jsonl").open("wb") as train,
        (folder / "held_out.jsonl").open("wb") as held_out,
    ):
        for file in sorted(texts.glob("*.jsonl")):
            for line in file.open("rb"):
                number = int.from_bytes(hashlib.blake2b(line, digest_size=4).digest(), "big")
                (held_out if number % HELD_OUT == 0 else train).write(line)


def clean_texts(recipe: Path, source: Path, out: Path) -> int:
    """Do the steps of a recipe to texts; how many are kept."""
    shutil.rmtree(out, ignore_errors=True)
    content = yaml.safe_load(recipe.read_text("utf-8"))
    steps = [step for step in content["steps"] if step["kind"] not in PAGE_STEPS]
    sources = {"texts": {"kind": "jsonl", "path": str(source)}}
    config = CleanConfig.parse({"out": str(out), "sources": sources, "steps": steps})
    return clean(config)["rows"]["kept"]


def recipe(options: argparse.Namespace, name: str, data: str, seed: int) -> dict[str, Any]:
    """A GPT-2 of the options, on some texts."""
    text = {"vocabulary": 16_000, "max_length": 256}
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
    folder = options.work / "split"
    sets = {"all": folder / "held_out.jsonl", "kept": options.work / "held_out/shards/*.parquet"}
    data = {
        "raw": str(folder / "train.jsonl"),
        "clean": str(options.work / "clean/shards/*.parquet"),
    }
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
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--megabytes", type=float, default=200)
    parser.add_argument("--texts", nargs="+", default=list(ROOTS))
    parser.add_argument("--clean", type=Path, default=ROOT / "recipes/corpus/web_texts.yaml")
    parser.add_argument("--work", type=Path, default=Path("runs/study-corpus"))
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    options.work = options.work.resolve()
    write_texts(options.work / "texts", options.texts, options.megabytes, LONGEST)
    split_texts(options.work / "texts", options.work / "split")
    for name, source in (("clean", "train"), ("held_out", "held_out")):
        source_file = options.work / "split" / f"{source}.jsonl"
        kept = clean_texts(options.clean, source_file, options.work / name)
        print(f"{source}: {kept:,} texts are kept")
    found = {(s, seed, name): value for s, seed, name, value in measure(options)}
    figures = []
    for seed in options.seeds:
        for name in ("kept", "all"):
            raw, after = found["raw", seed, name], found["clean", seed, name]
            ratio = after / raw
            print(f"seed {seed}, {name} held-out texts: {raw:.2f} raw, {after:.2f} clean")
            bound = 1.0 if name == "kept" else float("inf")
            title = f"perplexity of {name} held-out texts, clean / raw, seed {seed}"
            figures.append(Figure(title, ratio, "×, at most", bound, ratio < bound))
    return report("A language model on raw and on clean texts", figures, options.json)


if __name__ == "__main__":
    sys.exit(main())
