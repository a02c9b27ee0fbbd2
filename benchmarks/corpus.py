"""The corpus pipeline on real texts: speed, duplicates against exact similarity, personal data,
memory, and a Ray cluster.

    python benchmarks/corpus.py [--json FILE] [--only PART ...] [--megabytes 1000]
        [--texts FOLDER ...] [--datatrove PYTHON] [--ray PYTHON] [--work FOLDER]

Texts come from installed packages, documentation and licences, or from the folders of `--texts`.
Planted near duplicates are copies of texts in which some tokens are others. Parts:

steps      MB/s of each step and of all, in one process
minhash    the same MinHash stage here and in datatrove, one process each, in turns; `--datatrove`: a
           Python with datatrove 0.10, numpy, spacy and nltk
recall     found pairs against the exact Jaccard similarity, for English and for Chinese
personal   the labelled sample benchmarks/data/personal_data.txt
memory     peak memory at once and three times the texts
ray        shards of Ray against local ones; `--ray`: a Python with ray and skillweave[corpus]
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import re
import shutil
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from pathlib import Path

from report import Figure, report

from skillweave import corpus
from skillweave.corpus.config import CleanConfig
from skillweave.corpus.sources.encoding import decode
from skillweave.corpus.step import STEPS
from skillweave.corpus.tokens import TOKEN, mostly_han, normalized_tokens

HERE = Path(__file__).parent
PARTS = ("steps", "minhash", "recall", "personal", "memory", "ray")
SUFFIXES = {".txt", ".md", ".rst", ".html", ".htm", ".py", ".csv", ".xml", ""}
NAMES = re.compile(r"licen[sc]e|copying|copyright|readme|notice|changelog|authors", re.I)
ROOTS = (
    sysconfig.get_paths()["purelib"],
    "/usr/share/doc",
    "/usr/share/common-licenses",
    "/usr/lib",
)
LONGEST = 20_000
"""Characters of a text; longer files give several."""
PLANTED = 0.05
"""Planted near duplicates for each text."""
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


def real_texts(roots: list[str], longest: int) -> Iterator[str]:
    """The texts of files, each once, in pieces of at most `longest` characters."""
    seen = set()
    for root in roots:
        for folder, folders, names in os.walk(root):
            folders.sort()
            for name in sorted(names):
                file = Path(folder, name)
                if file.suffix.lower() not in SUFFIXES and not NAMES.search(name):
                    continue
                if file.is_symlink() or not 200 < file.stat().st_size < 20 * 2**20:
                    continue
                data = file.read_bytes()
                digest = hashlib.blake2b(data, digest_size=8).digest()
                decoded = None if b"\0" in data[:4096] or digest in seen else decode(data)
                seen.add(digest)
                if decoded is None:
                    continue
                text = decoded[0]
                yield from (text[i : i + longest] for i in range(0, len(text), longest))


def altered(text: str, chance: random.Random, share: float) -> str:
    """A copy in which a share of the tokens are other tokens of the text."""
    places = list(TOKEN.finditer(text))
    chosen = chance.sample(range(len(places)), max(1, int(share * len(places))))
    for i in sorted(chosen, reverse=True):
        start, stop = places[i].span()
        text = f"{text[:start]}{places[chance.randrange(len(places))][0]}{text[stop:]}"
    return text


def write_texts(
    folder: Path, roots: list[str], megabytes: float, longest: int = LONGEST
) -> tuple[float, int]:
    """Real texts with planted near duplicates as files of 64 MB; their size in MB and number."""
    done = folder / "texts.json"
    if done.is_file():
        return tuple(json.loads(done.read_text()))
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    chance = random.Random(0)
    size = count = 0
    stream = None
    for text in real_texts(roots, longest):
        made = [text]
        if chance.random() < PLANTED and len(normalized_tokens(text[:2000])) > 50:
            made.append(altered(text, chance, chance.uniform(0.002, 0.03)))
        for one in made:
            if stream is None or stream.tell() > 64e6:
                stream = (folder / f"{count:08}.jsonl").open("wb")
            stream.write(json.dumps({"text": one}, ensure_ascii=False).encode("utf-8", "replace"))
            stream.write(b"\n")
            size, count = size + len(one.encode("utf-8", "replace")), count + 1
        if size > megabytes * 1e6:
            break
    done.write_text(json.dumps([size / 1e6, count]))
    return size / 1e6, count


def configured(texts: Path, out: Path, kinds: tuple[str, ...] = STEPS_MEASURED) -> CleanConfig:
    """A configuration of some steps, from an empty folder."""
    shutil.rmtree(out, ignore_errors=True)
    steps = [{"kind": kind, **GENTLE.get(kind, {})} for kind in kinds]
    source = {"kind": "jsonl", "path": f"{texts}/*.jsonl"}
    return CleanConfig.parse({"out": str(out), "sources": {"texts": source}, "steps": steps})


def steps(texts: Path, work: Path, size: float) -> Iterator[Figure]:
    """MB/s of each step, by the size of what it is given, and of all."""
    start = time.perf_counter()
    found = corpus.clean(configured(texts, work / "steps"), processes=1)
    seconds = time.perf_counter() - start
    for step in found["funnel"]:
        speed = step["bytes"] / 1e6 / max(step["seconds"], 1e-9)
        yield Figure(f"{step['step']}, MB/s of a core", speed, "MB/s, any", 0, True)
    yield Figure("all steps, MB/s of a core", size / seconds, "MB/s, any", 0, True)
    yield Figure("texts", size, "MB, at least", 1000, size >= 1000)


def minhash(texts: Path, work: Path, size: float, python: str | None) -> Iterator[Figure]:
    """Signatures, groups and the removal of near duplicates, here and in datatrove."""
    if python is None:
        print("minhash: no --datatrove; left out")
        return
    ours, theirs, removed = [], [], 0
    for round_ in range(3):  # in turns
        out = work / f"minhash-{round_}"
        start = time.perf_counter()
        found = corpus.clean(configured(texts, out, ("near_duplicates",)), processes=1)
        ours.append(time.perf_counter() - start)
        removed = found["rows"]["dropped"]
        call = [python, str(HERE / "datatrove_minhash.py"), str(texts), str(work / "datatrove")]
        answer = json.loads(
            subprocess.run(call, check=True, capture_output=True).stdout.splitlines()[-1]
        )
        theirs.append(answer["seconds"])
    print(f"minhash: removed {removed:,} here, {answer['removed']:,} there")
    best, other = min(ours), min(theirs)
    yield Figure("MinHash stage", size / best, "MB/s of a core, any", 0, True)
    yield Figure("MinHash stage of datatrove", size / other, "MB/s of a core, any", 0, True)
    yield Figure(
        "MinHash stage against datatrove", other / best, "×, at least", 1.5, other / best >= 1.5
    )


def shingles(text: str) -> set[tuple[str, ...]]:
    """The 5-grams of a text."""
    tokens = normalized_tokens(text)
    return {tuple(tokens[i : i + 5]) for i in range(len(tokens) - 4)}


def recall(texts: Path) -> Iterator[Figure]:
    """Pairs of texts and altered copies, and pairs of different texts."""
    step = STEPS["near_duplicates"]()
    chance = random.Random(1)
    by_language: dict[str, list[str]] = {"English": [], "Chinese": []}
    for file in sorted(texts.glob("*.jsonl")):
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
            union = len(grams[i] | grams[j])
            jaccard = len(grams[i] & grams[j]) / union if union else 0.0
            hit = bool((keys[i] == keys[j]).any())
            similar += jaccard >= 0.8
            both += hit and jaccard >= 0.8
            found += hit
            right += hit and jaccard >= 0.6
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


def personal() -> Iterator[Figure]:
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


def peak_memory(config: CleanConfig, work: Path) -> float:
    """GB that a run in a process of its own needs at most."""
    file = work / "memory.yaml"
    file.write_text(json.dumps(config.model_dump(mode="json")))
    code = (
        "import resource, sys; from skillweave import corpus;"
        "corpus.clean(corpus.read_config(sys.argv[1]), processes=1);"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )
    call = [sys.executable, "-c", code, str(file)]
    out = subprocess.run(call, check=True, capture_output=True, text=True).stdout
    return int(out.split()[-1]) * 1024 / 1e9


def memory(texts: Path, work: Path, size: float) -> Iterator[Figure]:
    """Once and three times the texts, where copies are altered so that few are duplicates."""
    thrice = work / "thrice"
    shutil.rmtree(thrice, ignore_errors=True)
    thrice.mkdir(parents=True)
    chance = random.Random(2)
    for file in sorted(texts.glob("*.jsonl")):
        for copy in range(3):
            with (thrice / f"{copy}-{file.name}").open("wb") as stream:
                for line in file.open("rb"):
                    text = json.loads(line)["text"]
                    text = altered(text, chance, 0.3) if copy and TOKEN.search(text) else text
                    stream.write(
                        json.dumps({"text": text}, ensure_ascii=False).encode("utf-8", "replace")
                        + b"\n"
                    )
    for times, folder in ((1, texts), (3, thrice)):
        peak = peak_memory(configured(folder, work / f"memory-{times}"), work)
        yield Figure(f"peak memory at {times * size:,.0f} MB", peak, "GB, at most", 2, peak <= 2)


def ray(texts: Path, work: Path, python: str | None) -> Iterator[Figure]:
    """The checksums of shards that two workers of Ray wrote, and of local ones."""
    if python is None:
        print("ray: no --ray; left out")
        return
    sums = {}
    for engine, program in (("native", sys.executable), ("ray", python)):
        config = configured(texts, work / f"engine-{engine}")
        file = work / f"{engine}.yaml"
        file.write_text(json.dumps(config.model_dump(mode="json")))
        call = [
            program,
            "-m",
            "skillweave",
            "clean",
            str(file),
            "--engine",
            engine,
            "--processes",
            "2",
        ]
        subprocess.run(call, check=True, capture_output=True)
        sums[engine] = Path(config.out, "SHA256SUMS").read_text()
    same = sums["ray"] == sums["native"]
    yield Figure("Ray's shards are the local ones", float(same), "1 if so", 1, same)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--json", type=Path)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--megabytes", type=float, default=1000)
    parser.add_argument("--texts", nargs="+", default=list(ROOTS))
    parser.add_argument("--datatrove", metavar="PYTHON")
    parser.add_argument("--ray", metavar="PYTHON")
    parser.add_argument("--work", type=Path, default=Path("runs/benchmark-corpus"))
    options = parser.parse_args()
    work = options.work.resolve()
    texts = work / "texts"
    size, count = write_texts(texts, options.texts, options.megabytes)
    print(f"{count:,} texts, {size:,.0f} MB")
    made = {
        "steps": lambda: steps(texts, work, size),
        "minhash": lambda: minhash(texts, work, size, options.datatrove),
        "recall": lambda: recall(texts),
        "personal": personal,
        "memory": lambda: memory(texts, work, size),
        "ray": lambda: ray(texts, work, options.ray),
    }
    figures = [figure for part in options.only for figure in made[part]()]
    return report("The corpus pipeline", figures, options.json)


if __name__ == "__main__":
    sys.exit(main())
