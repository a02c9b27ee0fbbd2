"""Encoders as stock models of Hugging Face's transformers."""

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
from skillweave.data.processors import build_processor
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
"""Class → rules that give its weights from ours, under the names of text and image streams."""


def write_stock(model: Model, folder: Path) -> str:
    """Write a stock model as a folder of Hugging Face's, with the tokenizer of a text model;
    returns the name of its class."""
    name = stock_class(model)
    modality, stream = _stream(model)
    visual = isinstance(stream, ImageStream | VideoStream)
    options, ours = (_visual if visual else _textual)(model, modality, stream)
    ours |= {key: x for key, x in model.state_dict().items() if key.startswith("encoder.")}
    kind = getattr(transformers, name)
    # all of them have BERT's options
    sizes = bert.BERT.write_config(flatten(model.config), Head())
    stock = kind(kind.config_class(**sizes | options), add_pooling_layer=False)
    shapes = {key: x.shape for key, x in stock.state_dict().items()}
    mappings = KeyMap(RULES[name]).map_weights(ours, shapes)
    stock.load_state_dict(export_weights(mappings, ours, shapes))
    with _quiet():
        stock.save_pretrained(folder)
    if not visual and (processor := _processor(model, modality)):
        write_tokenizer(processor, folder)
    return name


@torch.inference_mode()
def run_stock(model: Model, folder: Path, batch: Batch) -> Tensor:
    """[N, L, D] the hidden states of a batch by the model in a folder."""
    kind = getattr(transformers, stock_class(model))
    with _quiet():
        stock = kind.from_pretrained(folder, add_pooling_layer=False).eval()
    (x,), (modality, _) = batch.inputs, _stream(model)
    if modality is Modality.IMAGE:
        return stock(pixel_values=x).last_hidden_state
    if modality is Modality.VIDEO:
        return stock(pixel_values=x.transpose(1, 2)).last_hidden_state
    own_NL = torch.arange(x.shape[1]) < batch.lengths
    ids = x.masked_fill(~own_NL, _padding(model, modality))
    return stock(input_ids=ids, attention_mask=own_NL.long()).last_hidden_state


@contextmanager
def _quiet() -> Generator[None]:
    """Without the progress bars of transformers, which flash by for a small model."""
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def _stream(model: Model) -> tuple[Modality, Any]:
    ((modality, stream),) = model.config.streams.present().items()
    return modality, stream


def _positions(model: Model, modality: Modality, length: int) -> Tensor:
    """[L, D] the sum of everything that is added to the content, for the segment of a single
    span."""
    x_1LD = next(model.parameters()).new_zeros(1, length, model.config.width)
    for module in model.get_submodule(f"embeddings.{modality.value}.positions").children():
        x_1LD = x_1LD + module(x_1LD)
    return x_1LD[0].detach()


def _visual(
    model: Model, modality: Modality, stream: ImageStream | VideoStream
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Options of the configuration, and the tensors of the embedding. Those of a video have the
    names of an image."""
    module = "patch" if isinstance(stream, ImageStream) else "tubelet"
    content = f"embeddings.{modality.value}.content.{module}"
    ours = {
        key.replace(content, f"{vit.IMAGE}.content.patch"): x
        for key, x in model.state_dict().items()
        if content in key
    }
    ours[f"{vit.IMAGE}.positions.position.table.weight"] = _positions(
        model, modality, stream.max_length
    )
    if isinstance(stream, ImageStream):
        return {"image_size": stream.size, "patch_size": stream.patch}, ours
    sizes = {"image_size": stream.size, "num_frames": stream.frames}
    return {**sizes, "tubelet_size": list(stream.tubelet)}, ours


def _textual(
    model: Model, modality: Modality, stream: Any
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The same for text and code, which have one segment of zeros."""
    words, padding = model.words(modality), _padding(model, modality)
    positions = _positions(model, modality, stream.max_length)
    # RoBERTa counts positions from the one after that of padding
    if model.config.encoder.norm_position == "pre":
        positions = torch.cat([positions.new_zeros(padding + 1, positions.shape[1]), positions])
    norm = f"embeddings.{modality.value}.norm"
    ours = {
        key.replace(norm, f"{bert.TEXT}.norm"): x
        for key, x in model.state_dict().items()
        if key.startswith(norm)
    }
    ours |= {
        f"{bert.TEXT}.content.word.weight": words,
        f"{bert.TEXT}.positions.position.table.weight": positions,
        f"{bert.TEXT}.positions.segment.table.weight": torch.zeros(1, model.config.width),
    }
    sizes = {
        "vocab_size": len(words),
        "max_position_embeddings": len(positions),
        "type_vocab_size": 1,
        "pad_token_id": padding,
    }
    return sizes, ours


def _processor(model: Model, modality: Modality) -> TextProcessor | None:
    processor = build_processor(model.config, model.assets, modality) if model.assets else None
    return processor if isinstance(processor, TextProcessor) else None


def _padding(model: Model, modality: Modality) -> int:
    """The id of [PAD]; 0, as batches are padded, for a model without a tokenizer."""
    processor = _processor(model, modality)
    return (processor.tokenizer.token_to_id(processor.names["pad"]) if processor else None) or 0
