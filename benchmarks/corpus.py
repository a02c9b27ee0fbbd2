"""The corpus pipeline on real texts: speed, duplicates against exact similarity, personal data,
memory, and a Ray cluster.

    python benchmarks/corpus.py [--json FILE] [--only PART ...] [--megabytes 1000]
        [--datatrove PYTHON] [--ray PYTHON] [--work FOLDER] [--cache FOLDER]

Texts come from the packages of benchmarks/corpus_texts.py. Planted near duplicates are copies of texts
in which some tokens are others. Each part stores its figures in `--work`, and the same call again
continues with the parts that are missing. Parts:

texts      download the packages and write the texts; all other parts need no network
steps      MB/s of each step and of all, in one process, and its peak memory
extract    MB/s of the steps of web_texts.yaml on a web archive of 60 MB of pages
minhash    the same MinHash stage here and in datatrove on a part of the texts, one process each, in
           turns, with the recall of both; `--datatrove`: a Python with datatrove 0.10, numpy, spacy,
           nltk, tokenizers, orjson, zstandard and xxhash before 4
recall     found pairs against the exact Jaccard similarity, for English and for Chinese
personal   the labelled sample benchmarks/data/personal_data.txt
memory     peak memory of two processes at three times the texts
ray        shards that two workers of Ray wrote against those of two local processes; `--ray`: a Python
           with ray and skillweave[corpus]
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from corpus_texts import CACHE, altered, gather, pages, write_archive, write_texts
from report import Figure, report

from skillweave import corpus
from skillweave.corpus.config import CleanConfig
from skillweave.corpus.step import STEPS
from skillweave.corpus.tokens import mostly_han, normalized_tokens
from skillweave.storage import read_json, write_json

HERE = Path(__file__).parent
PARTS = ("texts", "steps", "extract", "minhash", "recall", "personal", "memory", "ray")
PART_MB = 128
"""MB of the texts that are given to datatrove and to Ray."""
PAGES_MB = 60
ROUNDS = 2
SAMPLED = 400
"""Planted pairs of each language for which the exact similarity is computed."""
STEPS_MEASURED = (
    "repair", "unicode", "punctuation", "length", "language", "simplify", "characters", "words",
    "exact_duplicates", "repetition", "gopher", "c4", "fineweb", "near_duplicates",
    "personal_data", "secrets",
)  # fmt: skip
GENTLE = {
    "language": {"score": 0},
    "characters": {"most_removed": 1},
    "words": {"most": 10**6},
    "repetition": {"lines": 1, "line_characters": 1, "paragraphs": 1, "paragraph_characters": 1,
                   "top_ngrams": {2: 1, 3: 1, 4: 1}, "ngrams": {n: 1 for n in range(5, 11)}},
    "gopher": {"least_words": 0, "word_length": [0, 10**6], "symbols": 1, "bullet_lines": 1,
               "ellipsis_lines": 1, "alphabetic_words": 0, "least_stop_words": 0},
    "c4": {"code": False, "terminal_punctuation": False, "least_sentences": 0, "least_line_words": 0},
    "fineweb": {"punctuated_lines": 0, "duplicated_characters": 1, "short_lines": 1},
}  # fmt: skip
"""Options with which a step drops little, so that the ones after it see as much."""


def configured(
    texts: str, out: Path, kinds: tuple[str, ...] = STEPS_MEASURED, keep: tuple[str, ...] = ()
) -> CleanConfig:
    """A configuration of some steps, from an empty folder."""
    shutil.rmtree(out, ignore_errors=True)
    steps = [{"kind": kind, **GENTLE.get(kind, {})} for kind in kinds]
    source = {"kind": "jsonl", "path": texts, "keep": keep}
    return CleanConfig.parse({"out": str(out), "sources": {"texts": source}, "steps": steps})


def clean(config: CleanConfig, work: Path, *options: str, program: str = sys.executable) -> None:
    """Run the command in a process of its own."""
    file = work / "config.yaml"
    file.write_text(json.dumps(config.model_dump(mode="json")))
    call = [program, "-m", "skillweave", "clean", str(file), *options]
    subprocess.run(call, check=True, stdout=subprocess.DEVNULL)


def children(process: int) -> list[int]:
    """The processes that a process has started (Linux)."""
    files = Path(f"/proc/{process}/task").glob("*/children")
    return [int(child) for file in files for child in file.read_text().split()]


def resident(process: int) -> int:
    """The bytes that a process and all below it hold; 0 for one that has ended."""
    try:
        pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
        return pages * resource.getpagesize() + sum(map(resident, children(process)))
    except (OSError, IndexError):
        return 0


@contextmanager
def watched_memory() -> Iterator[list[float]]:
    """The most memory, in GB, that the processes below this one hold together; looked at ten times a
    second. Memory that they share counts once for each."""
    peak, ended = [0.0], threading.Event()

    def watch() -> None:
        while not ended.wait(0.1):
            peak[0] = max(peak[0], sum(map(resident, children(os.getpid()))) / 1e9)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield peak
    finally:
        ended.set()
        thread.join()


def cpu_seconds() -> float:
    """CPU time of the processes that this one has waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def write(options: argparse.Namespace) -> Iterator[Figure]:
    """The texts, three times as many, a part of them, and pages."""
    gather(options.cache)
    found = write_texts(options.work / "texts", options.cache, options.megabytes)
    write_texts(options.work / "part", options.cache, min(PART_MB, options.megabytes))
    write_thrice(options.work / "texts", options.work / "thrice")
    write_archive(options.work / "pages.warc.gz", pages(options.cache, PAGES_MB))
    size = found["megabytes"]
    yield Figure("texts", size, "MB, at least", 1000, size >= 1000)
    yield Figure("of these in Chinese", found["chinese"], "MB, any", 0, True)
    yield Figure("texts and copies", found["texts"], "any", 0, True)


def steps(options: argparse.Namespace) -> Iterator[Figure]:
    """MB/s of each step, by the size of what it is given, of all, and the memory."""
    size = read_json(options.work / "texts/texts.json")["megabytes"]
    config = configured(f"{options.work}/texts/*.jsonl", options.work / "steps")
    begun, used = time.perf_counter(), cpu_seconds()
    with watched_memory() as peak:
        clean(config, options.work, "--processes", "1")
    seconds, used = time.perf_counter() - begun, cpu_seconds() - used
    for step in read_json(Path(config.out, "report.json"))["funnel"]:
        speed = step["bytes"] / 1e6 / max(step["seconds"], 1e-9)
        yield Figure(f"{step['step']}", speed, "MB/s of a core, any", 0, True)
    yield Figure("all steps", size / seconds, "MB/s of a core, any", 0, True)
    yield Figure("all steps, by CPU time", size / used, "MB/s of a core, any", 0, True)
    yield Figure(f"peak memory at {size:,.0f} MB", peak[0], "GB, at most", 2, peak[0] <= 2)


def extract(options: argparse.Namespace) -> Iterator[Figure]:
    """The speed of a recipe on pages."""
    config = corpus.read_config(HERE.parent / "recipes/corpus/web_texts.yaml")
    out = options.work / "extract"
    shutil.rmtree(out, ignore_errors=True)
    source = config.sources["crawl"].model_copy(
        update={"path": str(options.work / "pages.warc.gz")}
    )
    config = config.model_copy(update={"out": str(out), "sources": {"crawl": source}})
    begun = time.perf_counter()
    clean(config, options.work, "--processes", "1")
    seconds = time.perf_counter() - begun
    first, second, *_ = read_json(out / "report.json")["funnel"]
    for step in (first, second):
        speed = step["bytes"] / 1e6 / step["seconds"]
        yield Figure(f"{step['step']} of pages", speed, "MB/s of a core, any", 0, True)
    speed = first["bytes"] / 1e6 / seconds
    yield Figure("all of web_texts.yaml", speed, "MB of pages/s of a core, any", 0, True)


def minhash(options: argparse.Namespace) -> Iterator[Figure]:
    """Signatures, groups and the removal of near duplicates, here and in datatrove."""
    if options.datatrove is None:
        print("minhash: no --datatrove; left out")
        return
    size = read_json(options.work / "part/texts.json")["megabytes"]
    ours, theirs = [], []
    out, other = options.work / "minhash", options.work / "datatrove"
    for _ in range(ROUNDS):  # in turns
        config = configured(
            f"{options.work}/part/*.jsonl", out, ("near_duplicates",), ("number", "copy_of")
        )
        begun = time.perf_counter()
        clean(config, options.work, "--processes", "1")
        ours.append(time.perf_counter() - begun)
        call = [options.datatrove, str(HERE / "datatrove_minhash.py"), f"{options.work}/part"]
        begun = time.perf_counter()
        subprocess.run([*call, str(other)], check=True, stdout=subprocess.DEVNULL)
        theirs.append(time.perf_counter() - begun)
    best, least = min(ours), min(theirs)
    yield Figure("MinHash stage", size / best, "MB/s of a core, any", 0, True)
    yield Figure("MinHash stage of datatrove", size / least, "MB/s of a core, any", 0, True)
    ratio = least / best
    yield Figure("MinHash stage against datatrove", ratio, "×, at least", 1.5, ratio >= 1.5)
    pairs = similar_pairs(options.work / "part")
    kept = {
        number
        for file in (out / "shards").glob("*.parquet")
        for number in pq.read_table(file, columns=["number"])["number"].to_pylist()
    }
    found = recall_of(pairs, kept)
    their = recall_of(pairs, {*json.loads((other / "kept.json").read_text())})
    yield Figure(f"recall of {len(pairs)} planted pairs", found, "at least", 0.95, found >= 0.95)
    yield Figure("the same, of datatrove", their, "any", 0, True)
    yield Figure("recall against datatrove", found - their, "at least", -0.01, found > their - 0.01)


def similar_pairs(folder: Path) -> list[tuple[str, str]]:
    """The numbers of planted copies and their originals, whose Jaccard similarity is at least 0.8."""
    pairs, before = [], ""
    for file in sorted(folder.glob("*.jsonl")):
        for line in file.open("rb"):
            row = json.loads(line)
            if "copy_of" in row and jaccard(shingles(before), shingles(row["text"])) >= 0.8:
                pairs.append((row["copy_of"], row["number"]))
            before = row["text"]
    return pairs


def recall_of(pairs: list[tuple[str, str]], kept: set[str]) -> float:
    """The share of pairs of which one is removed."""
    return sum(not kept.issuperset(pair) for pair in pairs) / max(len(pairs), 1)


def jaccard(left: set[Any], right: set[Any]) -> float:
    """The shared elements of two sets against all."""
    return len(left & right) / max(len(left | right), 1)


def shingles(text: str) -> set[tuple[str, ...]]:
    """The 5-grams of a text."""
    tokens = normalized_tokens(text)
    return {tuple(tokens[i : i + 5]) for i in range(len(tokens) - 4)}


def recall(options: argparse.Namespace) -> Iterator[Figure]:
    """Pairs of texts and altered copies, and pairs of different texts."""
    step = STEPS["near_duplicates"]()
    chance = random.Random(1)
    by_language: dict[str, list[str]] = {"English": [], "Chinese": []}
    for file in sorted((options.work / "part").glob("*.jsonl")):
        for line in file.open("rb"):
            text = json.loads(line)["text"]
            language = "Chinese" if mostly_han(text) else "English"
            if len(by_language[language]) < SAMPLED and len(shingles(text)) > 50:
                by_language[language].append(text)
    for language, originals in by_language.items():
        if len(originals) < 20:
            print(f"recall: {len(originals)} texts in {language}; left out")
            continue
        copies = [altered(text, chance, chance.uniform(0.001, 0.12)) for text in originals]
        keys = step.keys([{"text": text} for text in [*originals, *copies]])
        count = len(originals)
        pairs = [(i, count + i) for i in range(count)]
        pairs += [(i, chance.randrange(count)) for i in range(count)]
        grams = [shingles(text) for text in [*originals, *copies]]
        similar = found = both = right = 0
        for i, j in pairs:
            if i == j:
                continue
            similarity = jaccard(grams[i], grams[j])
            hit = bool((keys[i] == keys[j]).any())
            similar += similarity >= 0.8
            both += hit and similarity >= 0.8
            found += hit
            right += hit and similarity >= 0.6
        share = both / max(similar, 1)
        yield Figure(
            f"recall at Jaccard 0.8, {language}, {similar} pairs",
            share,
            "at least",
            0.95,
            share >= 0.95,
        )
        precise = right / max(found, 1)
        yield Figure(
            f"precision at Jaccard 0.6, {language}, {found} pairs",
            precise,
            "at least",
            0.9,
            precise >= 0.9,
        )


def personal(_: argparse.Namespace) -> Iterator[Figure]:
    """The labelled sample."""
    sys.path.insert(0, str(HERE.parent / "tests" / "helpers"))
    from personal_data_sample import read_sample, score

    sample = read_sample(HERE / "data" / "personal_data.txt")
    found = score(sample)
    yield Figure(
        f"personal data, precision, {len(sample)} lines",
        found.precision,
        "at least",
        0.95,
        found.precision >= 0.95,
    )
    yield Figure(
        f"personal data, recall, {found.marked} marked",
        found.recall,
        "at least",
        0.95,
        found.recall >= 0.95,
    )


def memory(options: argparse.Namespace) -> Iterator[Figure]:
    """Three times the texts; the copies are no duplicates."""
    size = 3 * read_json(options.work / "texts/texts.json")["megabytes"]
    config = configured(f"{options.work}/thrice/*.jsonl", options.work / "memory")
    with watched_memory() as peak:
        clean(config, options.work, "--processes", "2")
    shutil.rmtree(config.out)
    title = f"peak memory of two processes at {size:,.0f} MB"
    yield Figure(title, peak[0], "GB, at most", 2, peak[0] <= 2)


def write_thrice(texts: Path, out: Path) -> None:
    """The texts, and two copies of them with their words, or Han characters, in another order."""
    out.mkdir(parents=True, exist_ok=True)
    if (out / "done").is_file():
        return
    for file in sorted(texts.glob("*.jsonl")):
        link = out / file.name
        link.unlink(missing_ok=True)
        link.symlink_to(file)
        with (
            (out / f"1-{file.name}").open("w", errors="replace") as first,
            (out / f"2-{file.name}").open("w", errors="replace") as second,
            file.open("rb") as lines,
        ):
            for line in lines:
                text = json.loads(line)["text"]
                joint = "" if mostly_han(text) else " "
                words = text.split(" ") if joint else list(text)
                for stream, order in (
                    (first, words[::-1]),
                    (second, [*words[::2], *words[1::2]]),
                ):
                    row = {"text": joint.join(order)}
                    stream.write(json.dumps(row, ensure_ascii=False) + "\n")
    (out / "done").touch()


def ray(options: argparse.Namespace) -> Iterator[Figure]:
    """The checksums of shards that two workers of Ray wrote, and of local ones."""
    if options.ray is None:
        print("ray: no --ray; left out")
        return
    sums = {}
    program = str(Path(options.ray).parent / "ray")
    start = [program, "start", "--head", "--num-cpus", "2", "--include-dashboard", "false"]
    for engine, python in (("native", sys.executable), ("ray", options.ray)):
        config = configured(f"{options.work}/part/*.jsonl", options.work / f"engine-{engine}")
        if engine == "ray":
            subprocess.run(start, check=True, stdout=subprocess.DEVNULL)
        try:
            call = ("--engine", engine, "--processes", "2")
            clean(config, options.work, *call, program=python)
        finally:
            if engine == "ray":
                subprocess.run([program, "stop"], check=False, stdout=subprocess.DEVNULL)
        sums[engine] = Path(config.out, "SHA256SUMS").read_text()
    same = sums["ray"] == sums["native"]
    yield Figure("Ray's shards are the local ones", float(same), "1 if so", 1, same)


RUN = dict(zip(PARTS, (write, steps, extract, minhash, recall, personal, memory, ray), strict=True))


def figures(part: str, options: argparse.Namespace) -> list[Figure]:
    """The figures of a part, measured unless they were."""
    file = options.work / f"figures-{part}.json"
    if not file.is_file():
        begun = time.perf_counter()
        found = list(RUN[part](options))
        print(f"{part}: {time.perf_counter() - begun:,.0f} s", flush=True)
        if not found:
            return []
        write_json(file, {"figures": found})
    return [Figure(*figure) for figure in read_json(file)["figures"]]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--json", type=Path)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--megabytes", type=float, default=1000)
    parser.add_argument("--datatrove", metavar="PYTHON")
    parser.add_argument("--ray", metavar="PYTHON")
    parser.add_argument("--cache", type=Path, default=CACHE)
    parser.add_argument("--work", type=Path, default=CACHE.parent / "corpus-benchmark")
    options = parser.parse_args()
    options.work = options.work.resolve()
    options.work.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # figures are of one core
    found = [figure for part in options.only for figure in figures(part, options)]
    return report("The corpus pipeline", found, options.json)


if __name__ == "__main__":
    sys.exit(main())
