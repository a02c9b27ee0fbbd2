"""tokenizer.json: WordPiece over all kinds of text that the other steps made, and code."""

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq

from skillweave.config.streams import TrainedTokenizerConfig
from skillweave.data.processors import train_tokenizer
from steps.common import fraction

VOCABULARY = 14_000
MIN_COUNT = 8
"""A character that the sample has less often gets no token, so that rare Chinese characters leave
room for words."""
MAX_CHARACTERS = 4_000_000
"""Characters of each column; rows are drawn by hash."""
COLUMNS = ("text", "second", "code", "text_zh", "text_en", "name_zh", "name_en")


def texts(folder: Path) -> Iterator[str]:
    """Texts of all files, at most `MAX_CHARACTERS` of each kind of file and column."""
    kinds: dict[str, list[Path]] = {}
    for file in sorted(folder.glob("*.parquet")):
        kinds.setdefault(file.name.partition("-")[0].removesuffix(".parquet"), []).append(file)
    for files in kinds.values():
        for column in COLUMNS:
            found = [
                text
                for file in files
                if column in pq.read_schema(file).names
                for text in pq.read_table(file, columns=[column])[column].to_pylist()
                if text
            ]
            size = sum(map(len, found))
            share = MAX_CHARACTERS / size if size else 0.0
            yield from (text for text in found if share >= 1 or fraction("token", text) < share)


def train(folder: Path) -> None:
    """Write the tokenizer beside the data."""
    sample = list(texts(folder))
    extra = folder / "sample-tokenizer.jsonl"
    if extra.exists():
        sample += [json.loads(line)["text"] for line in extra.open(encoding="utf-8")]
    counts = Counter(character for text in sample for character in text)
    rare = {ord(one): " " for one, count in counts.items() if count < MIN_COUNT}
    config = TrainedTokenizerConfig(min_frequency=4)
    tokenizer = train_tokenizer((one.translate(rare) for one in sample), config, VOCABULARY)
    (folder / "tokenizer.json").write_text(tokenizer.to_str(), encoding="utf-8")
    print("tokenizer", len(sample), "texts", tokenizer.get_vocab_size(), "tokens")
