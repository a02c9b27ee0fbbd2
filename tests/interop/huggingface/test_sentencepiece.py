"""Tokenizers of SentencePiece: read where they can be, and otherwise refused with a remedy."""

import sys
from fnmatch import fnmatch
from pathlib import Path

import pytest
import torch
import transformers
from hf_references import Reference
from hf_text import DEBERTA, MARIAN
from transformers.convert_slow_tokenizer import import_protobuf

import skillweave as sw
from skillweave.config import ConfigError
from skillweave.interop.huggingface.folder import DESCRIPTIONS
from skillweave.interop.huggingface.tokenizer_files import (
    FILE,
    OLDER,
    TWO_LANGUAGES,
    text_processor,
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A DeBERTa without a tokenizer."""
    theirs = Reference("DebertaV2ForMaskedLM", "DebertaV2Config", DEBERTA).build(torch.float32)
    theirs.save_pretrained(tmp_path)
    return tmp_path


def test_a_model_of_sentencepiece_is_read(folder: Path) -> None:
    """The folder of DeBERTa v3 has no other tokenizer."""
    pytest.importorskip("sentencepiece")
    pieces = import_protobuf().ModelProto()
    kinds = {"[PAD]": 3, "[CLS]": 3, "[SEP]": 3, "[UNK]": 2}
    for rank, piece in enumerate([*kinds, "▁", *"abcdefgh", "▁ab", "cd"]):
        pieces.pieces.add(piece=piece, score=-float(rank), type=kinds.get(piece, 1))
    pieces.trainer_spec.model_type = 1
    pieces.trainer_spec.unk_id = 3
    (folder / "spm.model").write_bytes(pieces.SerializeToString())
    model = sw.from_hf(folder)
    processor = text_processor(model.config, model.assets)
    assert processor is not None
    expected = transformers.AutoTokenizer.from_pretrained(folder)
    for text in ("ab cd", "a  b\nhgz", "cdcd"):
        assert processor(text).data.tolist() == expected(text)["input_ids"]
    assert processor.tokenizer.token_to_id(processor.names["mask"]) == expected.mask_token_id


def test_the_library_that_is_missing_is_named(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "spm.model").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "sentencepiece", None)
    with pytest.raises(ConfigError, match=r"sentencepiece.*pip install 'skillweave\[hf\]'"):
        sw.from_hf(folder)


def test_two_tokenizers_are_refused(tmp_path: Path) -> None:
    """Marian has one for each language. Its weights convert without them."""
    theirs = Reference("MarianMTModel", "MarianConfig", MARIAN).build(torch.float32)
    theirs.save_pretrained(tmp_path)
    assert not sw.from_hf(tmp_path).assets
    (tmp_path / "source.spm").write_bytes(b"")
    with pytest.raises(ConfigError, match=r"source\.spm: a tokenizer for each language"):
        sw.from_hf(tmp_path)


@pytest.mark.parametrize("name", [FILE, *OLDER, TWO_LANGUAGES])
def test_the_hub_gives_every_tokenizer(name: str) -> None:
    assert any(fnmatch(name, pattern) for pattern in DESCRIPTIONS)
