"""Folders of tiny models of Transformers that write text, with tokenizers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
)

TEXTS = [
    "the red cat sleeps on the mat and the blue dog runs in the park",
    "a good film about space, and a bad film about cars; question and answer: topic of the news",
    "标题：今天的新闻；关键词：体育；分类：财经 问题：什么？回答：没有",
]


def tokenizer_of(*special: str) -> Tokenizer:
    """Byte-level BPE over some texts."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=list(special), initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(TEXTS * 3, trainer)
    return tokenizer


def save_gpt2(folder: Path, positions: int = 128) -> GPT2LMHeadModel:
    """A decoder-only model, whose tokenizer puts nothing around a text."""
    tokenizer = tokenizer_of("<|endoftext|>")
    end = {name: "<|endoftext|>" for name in ("bos_token", "eos_token", "unk_token")}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **end).save_pretrained(folder)
    torch.manual_seed(0)
    size = tokenizer.get_vocab_size()
    ends: Any = {"bos_token_id": 0, "eos_token_id": 0}
    config = GPT2Config(
        vocab_size=size, n_positions=positions, n_embd=24, n_layer=2, n_head=3, **ends
    )
    config.initializer_range = 0.3
    model = GPT2LMHeadModel(config).eval()
    model.save_pretrained(folder)
    return model


def save_t5(folder: Path) -> T5ForConditionalGeneration:
    """An encoder-decoder."""
    tokenizer = tokenizer_of("<pad>", "</s>", "<unk>")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", 1)]
    )
    named = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **named).save_pretrained(folder)
    torch.manual_seed(0)
    config = T5Config(
        vocab_size=tokenizer.get_vocab_size(),
        d_model=24,
        d_kv=8,
        d_ff=40,
        num_layers=2,
        num_heads=3,
        initializer_factor=3.0,
        decoder_start_token_id=0,
        pad_token_id=0,
        eos_token_id=1,
    )
    model = T5ForConditionalGeneration(config).eval()
    model.save_pretrained(folder)
    return model
