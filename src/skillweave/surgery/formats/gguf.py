"""GGUF, the format of llama.cpp: models of the shape of LLaMA, by way of Hugging Face's format."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from skillweave.batch import Batch
from skillweave.config import ConfigError
from skillweave.interop.huggingface.exporter import export_folder
from skillweave.interop.huggingface.json_files import read_json
from skillweave.model.folders import hf_model_type
from skillweave.model.model import Model
from skillweave.surgery.formats.base import (
    FORMATS,
    Exported,
    Format,
    logit_quality,
    relative_error,
    size_of,
)

SHAPED_AS_LLAMA = ("llama", "mistral")
"""Families that the architecture `llama` of GGUF expresses."""
GGUF_FILE = "model.gguf"
BYTE_LEVEL, SENTENCEPIECE = "gpt2", "llama"
"""What llama.cpp calls the two kinds of tokenizers."""


@FORMATS.register("gguf")
class Gguf(Format):
    """A file for llama.cpp, in float32, with the tokenizer. It is compared with what the reader of
    Transformers makes of it."""

    summary = "GGUF (LLaMA)"
    modules = ("gguf", "transformers")

    def export(self, model: Model, batch: Batch, folder: Path) -> list[Exported]:
        """See `Format`."""
        path = folder / GGUF_FILE
        with tempfile.TemporaryDirectory() as place:
            theirs = Path(place) / "theirs"
            model.save_pretrained(Path(place) / "ours")
            export_folder(Path(place) / "ours", theirs, None)
            _write(theirs, path)
        found, expected = _compare(model, batch, path)
        shape: list[int | str] = ["N", "L"]
        error, quality = relative_error(found, expected), logit_quality(found, expected)
        size = size_of(path)
        return [Exported(GGUF_FILE, "logits", {"text": shape}, len(batch), size, error, quality)]


def _write(theirs: Path, path: Path) -> None:
    """Write a folder of Transformers as GGUF."""
    import gguf
    import transformers

    kind = hf_model_type(theirs)
    if kind not in SHAPED_AS_LLAMA:
        able = " and ".join(SHAPED_AS_LLAMA)
        raise ConfigError(f"GGUF is written for models of the families {able}, not {kind}")
    stock = transformers.AutoModelForCausalLM.from_pretrained(theirs, dtype=torch.float32)
    config: Any = stock.config
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("skillweave")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_vocab_size(config.vocab_size)
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    _add_tokenizer(writer, theirs, config)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config.num_hidden_layers)
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    for name, x in stock.state_dict().items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        made = names.get_name(name, try_suffixes=(".weight", ".bias"))
        if made is None:
            raise ConfigError(f"GGUF's architecture llama has no tensor {name}")
        if count := next((n for part, n in heads.items() if part in name), None):
            x = interleave(x, count)
        writer.add_tensor(made, x.contiguous().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def interleave(x: Tensor, heads: int) -> Tensor:
    """[heads · D, ...] rows of a query or key projection in the order of llama.cpp, which rotates
    neighbouring components of a head, where Transformers rotates one half with the other."""
    return x.unflatten(0, (heads, 2, -1)).transpose(1, 2).flatten(0, 2)


def _add_tokenizer(writer: Any, theirs: Path, config: Any) -> None:
    """The tokens with their kinds, and the merges of byte-level BPE."""
    import gguf

    described = read_json(theirs / "tokenizer.json") if (theirs / "tokenizer.json").exists() else {}
    model = described.get("model", {})
    if model.get("type") not in ("BPE", "WordLevel", "WordPiece"):
        raise ConfigError("GGUF needs a BPE tokenizer, as models of this shape have")
    by_id = {number: token for token, number in model["vocab"].items()}
    special = {one["id"]: one["content"] for one in described.get("added_tokens", [])}
    by_id |= special
    kinds = gguf.TokenType
    tokens = [by_id.get(i, f"<unused{i}>") for i in range(config.vocab_size)]
    writer.add_tokenizer_model(SENTENCEPIECE if model.get("byte_fallback") else BYTE_LEVEL)
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens)
    writer.add_token_types(
        [
            kinds.CONTROL if i in special else kinds.NORMAL if i in by_id else kinds.UNUSED
            for i in range(config.vocab_size)
        ]
    )
    if merges := model.get("merges"):
        writer.add_token_merges([one if isinstance(one, str) else " ".join(one) for one in merges])
    ends = {"bos": config.bos_token_id, "eos": config.eos_token_id, "pad": config.pad_token_id}
    for name, number in ends.items():
        if isinstance(number, int):
            getattr(writer, f"add_{name}_token_id")(number)


@torch.inference_mode()
def _compare(model: Model, batch: Batch, path: Path) -> tuple[Tensor, Tensor]:
    """The logits of the file, as Transformers reads it, and ours."""
    import transformers

    read = transformers.AutoModelForCausalLM.from_pretrained(
        path.parent, gguf_file=path.name, dtype=torch.float32
    ).eval()
    output = model(replace(batch, labels={}))
    (expected,) = output.logits.values()
    ((sample_M, place_M),) = (one.unbind(1) for one in output.positions.values())
    (ids,) = batch.inputs
    valid_NL = torch.arange(ids.shape[1]) < batch.lengths[:, :1]
    found = read(input_ids=ids, attention_mask=valid_NL.long()).logits
    return found[sample_M, place_M], expected
