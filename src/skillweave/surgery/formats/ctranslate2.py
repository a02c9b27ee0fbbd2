"""CTranslate2: BERT-, T5-, BART- and Whisper-shaped models, by way of Hugging Face's format."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from skillweave.batch import Batch, Modality
from skillweave.config import ConfigError
from skillweave.interop.huggingface.exporter import export_folder
from skillweave.interop.huggingface.json_files import read_json, write_json
from skillweave.model.folders import CONFIG_FILE, hf_model_type
from skillweave.model.model import Model
from skillweave.surgery.formats.base import (
    FORMATS,
    Exported,
    Format,
    relative_error,
    size_of,
)

MISSING_OPTIONS: dict[str, dict[str, Any]] = {
    "bert": {"position_embedding_type": "absolute"},
    "bart": {"normalize_before": False},
    "mbart": {"normalize_before": True},
}
"""Options that CTranslate2's converter reads, and that Transformers has no longer."""
MODEL_FOLDER = "model"


@FORMATS.register("ctranslate2")
class CTranslate2(Format):
    """A folder that `ctranslate2.Encoder`, `Translator` or `models.Whisper` opens. It is made by
    CTranslate2's own converter."""

    summary = "CTranslate2 (BERT, T5, BART, Whisper)"
    modules = ("ctranslate2", "transformers")
    tolerance = 1e-4
    """CTranslate2 approximates some functions, and gives 6 digits."""

    def export(self, model: Model, batch: Batch, folder: Path) -> list[Exported]:
        """See `Format`."""
        path = folder / MODEL_FOLDER
        with tempfile.TemporaryDirectory() as place:
            theirs = Path(place) / "theirs"
            model.save_pretrained(Path(place) / "ours")
            export_folder(Path(place) / "ours", theirs, None)
            _convert(theirs, path)
            found, expected, gives = _compare(model, batch, path, theirs)
        shape: list[int | str] = ["N", "L"]
        name = batch.layout.spans[0].modality.value
        error = relative_error(found, expected)
        size = size_of(path)
        return [Exported(MODEL_FOLDER, gives, {name: shape}, len(batch), size, error)]


def _convert(theirs: Path, path: Path) -> None:
    from ctranslate2.converters import TransformersConverter

    kind = hf_model_type(theirs) or ""
    file = theirs / CONFIG_FILE
    write_json(file, {**MISSING_OPTIONS.get(kind, {}), **read_json(file)})
    try:
        TransformersConverter(str(theirs)).convert(str(path))
    except (ValueError, AttributeError, NotImplementedError) as error:
        raise ConfigError(
            f"CTranslate2 does not convert this {kind} model, so nothing was written: {error}"
        ) from None


def _compare(model: Model, batch: Batch, path: Path, theirs: Path) -> tuple[Tensor, Tensor, str]:
    """Outputs of the converted model, those of ours, and what they are."""
    first = batch.layout.spans[0].modality
    if first is Modality.SOUND:
        return _encoded_sound(model, batch, path)
    if model.config.decoded(batch.layout.task):
        return _scores(model, batch, path, theirs)
    return _hidden(model, batch, path)


def _ids(batch: Batch, span: int) -> list[list[int]]:
    """The token ids of each sample, without padding."""
    rows = zip(batch.inputs[span].tolist(), batch.lengths[:, span].tolist(), strict=True)
    return [ids[:length] for ids, length in rows]


@torch.inference_mode()
def _hidden(model: Model, batch: Batch, path: Path) -> tuple[Tensor, Tensor, str]:
    import ctranslate2

    encoder = ctranslate2.Encoder(str(path))
    rows = _ids(batch, 0)
    expected_NLD = model.hidden(replace(batch, labels={}))[0]
    found = [np.array(encoder.forward_batch([ids]).last_hidden_state)[0] for ids in rows]
    kept = [expected_NLD[i, : len(ids)] for i, ids in enumerate(rows)]
    return torch.from_numpy(np.concatenate(found)), torch.cat(kept), "hidden states"


@torch.inference_mode()
def _scores(model: Model, batch: Batch, path: Path, theirs: Path) -> tuple[Tensor, Tensor, str]:
    """The logarithm of the probability of each token of the answers."""
    import ctranslate2
    from transformers import AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(theirs)
    answers_NL = batch.inputs[1].clone()
    answers_NL[:, 0] = read_json(theirs / CONFIG_FILE)["decoder_start_token_id"]
    batch = replace(batch, inputs=(batch.inputs[0], answers_NL), labels={})
    translator = ctranslate2.Translator(str(path))
    sources, answers = (
        [tokenizer.convert_ids_to_tokens(r) for r in _ids(batch, s)] for s in (0, 1)
    )
    scored = translator.score_batch(sources, [answer[1:] for answer in answers])
    output = model(batch)
    (logits,) = output.logits.values()
    ((sample_M, place_M),) = (one.unbind(1) for one in output.positions.values())
    log_MV = logits.float().log_softmax(-1)
    found, expected = [], []
    for i, ids in enumerate(_ids(batch, 1)):
        own_LV = log_MV[sample_M == i][place_M[sample_M == i].argsort()]
        expected += [own_LV[t, token].item() for t, token in enumerate(ids[1:])]
        found += scored[i].log_probs[: len(ids) - 1]
    return torch.tensor(found), torch.tensor(expected), "log probabilities of answers"


@torch.inference_mode()
def _encoded_sound(model: Model, batch: Batch, path: Path) -> tuple[Tensor, Tensor, str]:
    import ctranslate2

    whisper = ctranslate2.models.Whisper(str(path))
    expected_NLD = model.hidden(replace(batch, labels={}))[0]
    features = batch.inputs[0].transpose(1, 2).contiguous().numpy()  # [N, mels, frames]
    found = whisper.encode(ctranslate2.StorageView.from_array(features), to_cpu=True)
    return torch.from_numpy(np.array(found)), expected_NLD, "hidden states"
