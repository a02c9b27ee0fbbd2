"""Random models of Transformers whose answers are of different lengths."""

from __future__ import annotations

from typing import Any

import torch
from hf_generation import BART
from hf_references import GPT2, LLAMA, Reference
from torch import Tensor

END = 2


def bart(seed: int) -> Any:
    """An encoder-decoder whose answers are of different lengths."""
    theirs: Any = Reference("BartForConditionalGeneration", "BartConfig", BART).build()
    torch.manual_seed(seed)
    # else one word follows itself for ever
    theirs.model.decoder.embed_positions.weight.data.normal_(0, 10)
    theirs.final_logits_bias[0, END] += 3
    return theirs


def llama(seed: int) -> Any:
    """A language model whose answers are of different lengths."""
    options = {**LLAMA, "eos_token_id": END, "tie_word_embeddings": False}
    theirs: Any = Reference("LlamaForCausalLM", "LlamaConfig", options).build()
    torch.manual_seed(seed)
    theirs.model.embed_tokens.weight.data.normal_(0, 3)
    theirs.lm_head.weight.data.normal_(0, 1)
    return theirs


def answers(rows: Tensor, given: int) -> list[list[int]]:
    found = [row[given:].tolist() for row in rows]
    return [row[: row.index(END)] if END in row else row for row in found]


def gpt2(seed: int) -> Any:
    """Another, with learned positions."""
    options = {**GPT2, "n_positions": 20, "tie_word_embeddings": False}
    theirs: Any = Reference("GPT2LMHeadModel", "GPT2Config", options).build()
    torch.manual_seed(seed)
    theirs.transformer.wte.weight.data.normal_(0, 1)
    theirs.transformer.wpe.weight.data.normal_(0, 1)
    theirs.lm_head.weight.data.normal_(0, 1)
    return theirs
