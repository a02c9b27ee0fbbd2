"""Towers as stock models of Hugging Face's transformers."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor
from transformers.utils import logging

from skillweave.batch import Batch, Modality
from skillweave.config.streams import ImageStream, VideoStream
from skillweave.data.processors import build_processors
from skillweave.data.processors.text import TextProcessor
from skillweave.interop.huggingface.export_checks import flatten
from skillweave.interop.huggingface.families import bert, vit
from skillweave.interop.huggingface.family import Head
from skillweave.interop.huggingface.tokenizer_files import write_tokenizer
from skillweave.interop.key_map import KeyMap, export_weights
from skillweave.interop.rules import Rules
from skillweave.model.model import Model
from skillweave.surgery.export.stock import stock_class

PRE_NORM: Rules = {
    "encoder.blocks.{i}.attention_norm": "encoder.layer.{i}.attention.LayerNorm",
    "encoder.blocks.{i}.feed_forward_norm": "encoder.layer.{i}.intermediate.LayerNorm",
    "encoder.last_norm": "LayerNorm",
}
"""Where RoBERTa-PreLayerNorm differs from BERT."""
RULES = {
    "BertModel": bert.BERT.rules,
    "RobertaPreLayerNormModel": {**bert.BERT.rules, **PRE_NORM},
    "ViTModel": vit.VIT.rules,
    "VivitModel": vit.VIT.rules,
}
"""Class → how its weights are made of ours, under the names of texts and pictures."""


def write_stock(tower: Model, folder: Path) -> str:
    """Write a tower that fits as a model folder of Hugging Face's, with the tokeniser of a text;
    the name of its class."""
    name = stock_class(tower)
    modality, stream = _stream(tower)
    visual = isinstance(stream, ImageStream | VideoStream)
    options, ours = (_visual if visual else _textual)(tower, modality, stream)
    ours |= {key: x for key, x in tower.state_dict().items() if key.startswith("encoder.")}
    kind = getattr(transformers, name)
    sizes = bert.BERT.write_config(flatten(tower.config), Head())  # whose options all of them share
    model = kind(kind.config_class(**sizes | options), add_pooling_layer=False)
    shapes = {key: x.shape for key, x in model.state_dict().items()}
    mappings = KeyMap(RULES[name]).map_weights(ours, shapes)
    model.load_state_dict(export_weights(mappings, ours, shapes))
    with _quiet():
        model.save_pretrained(folder)
    if not visual and (processor := _processor(tower, modality)):
        write_tokenizer(processor, folder)
    return name


@torch.inference_mode()
def run_stock(tower: Model, folder: Path, batch: Batch) -> Tensor:
    """[N, L, D] what the model in a folder makes of a batch."""
    kind = getattr(transformers, stock_class(tower))
    with _quiet():
        model = kind.from_pretrained(folder, add_pooling_layer=False).eval()
    (x,), (modality, _) = batch.inputs, _stream(tower)
    if modality is Modality.IMAGE:
        return model(pixel_values=x).last_hidden_state
    if modality is Modality.VIDEO:
        return model(pixel_values=x.transpose(1, 2)).last_hidden_state
    own_NL = torch.arange(x.shape[1]) < batch.lengths
    ids = x.masked_fill(~own_NL, _padding(tower, modality))
    return model(input_ids=ids, attention_mask=own_NL.long()).last_hidden_state


@contextmanager
def _quiet() -> Generator[None]:
    """Without transformers' progress bars, which flash by for a tower."""
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def _stream(tower: Model) -> tuple[Modality, Any]:
    ((modality, stream),) = tower.config.streams.present().items()
    return modality, stream


def _positions(tower: Model, modality: Modality, length: int) -> Tensor:
    """[L, D] all that is added to the content, whatever it is made of; the segment is that of a
    single span."""
    x_1LD = next(tower.parameters()).new_zeros(1, length, tower.config.width)
    for module in tower.get_submodule(f"embeddings.{modality.value}.positions").children():
        x_1LD = x_1LD + module(x_1LD)
    return x_1LD[0].detach()


def _visual(
    tower: Model, modality: Modality, stream: ImageStream | VideoStream
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Options of the configuration, and the tensors of the embedding; a clip's as those of a
    picture."""
    module = "patch" if isinstance(stream, ImageStream) else "tubelet"
    content = f"embeddings.{modality.value}.content.{module}"
    ours = {
        key.replace(content, f"{vit.IMAGE}.content.patch"): x
        for key, x in tower.state_dict().items()
        if content in key
    }
    ours[f"{vit.IMAGE}.positions.position.table.weight"] = _positions(
        tower, modality, stream.max_length
    )
    if isinstance(stream, ImageStream):
        return {"image_size": stream.size, "patch_size": stream.patch}, ours
    return {
        "image_size": stream.size,
        "num_frames": stream.frames,
        "tubelet_size": list(stream.tubelet),
    }, ours


def _textual(
    tower: Model, modality: Modality, stream: Any
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The same; code as text, in one segment of zeros."""
    words, positions, padding = (
        tower.words(modality),
        _positions(tower, modality, stream.max_length),
        _padding(tower, modality),
    )
    # RoBERTa counts positions from behind that of padding
    if tower.config.encoder.norm_position == "pre":
        positions = torch.cat([positions.new_zeros(padding + 1, positions.shape[1]), positions])
    norm = f"embeddings.{modality.value}.norm"
    ours = {
        key.replace(norm, f"{bert.TEXT}.norm"): x
        for key, x in tower.state_dict().items()
        if key.startswith(norm)
    }
    ours |= {
        f"{bert.TEXT}.content.word.weight": words,
        f"{bert.TEXT}.positions.position.table.weight": positions,
        f"{bert.TEXT}.positions.segment.table.weight": torch.zeros(1, tower.config.width),
    }
    sizes = {
        "vocab_size": len(words),
        "max_position_embeddings": len(positions),
        "type_vocab_size": 1,
        "pad_token_id": padding,
    }
    return sizes, ours


def _processor(tower: Model, modality: Modality) -> TextProcessor | None:
    processor = build_processors(tower.config, tower.assets)[modality] if tower.assets else None
    return processor if isinstance(processor, TextProcessor) else None


def _padding(tower: Model, modality: Modality) -> int:
    """The id of [PAD]; 0, as batches are padded, for a model without a tokeniser."""
    processor = _processor(tower, modality)
    return (processor.tokenizer.token_to_id(processor.names["pad"]) if processor else None) or 0
