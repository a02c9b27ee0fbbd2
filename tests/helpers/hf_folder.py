"""A folder of a tiny model that transformers wrote, with its tokenizer."""

from pathlib import Path
from typing import Any

import torch
from transformers import BertConfig, BertTokenizerFast, PreTrainedModel

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "so", "good", "bad", "very", "the"]
WORDS += ["cat", "dog", "is", "here", "what", "where"]


def save_bert(folder: Path, kind: type[PreTrainedModel], **options: Any) -> PreTrainedModel:
    """Write a model of random weights and its tokenizer into a folder as transformers does."""
    folder.mkdir(parents=True)
    (folder / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    BertTokenizerFast(str(folder / "vocab.txt")).save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(WORDS),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=32,
        initializer_range=0.5,
        **options,
    )
    model = kind(config).eval()
    model.save_pretrained(folder)
    return model
