"""ViLT (arXiv 2102.03334): the words of a text and the patches of a picture as one sequence through
ViT's encoder."""

from __future__ import annotations

from typing import Any

from skillweave.interop.huggingface.families import bert, vit
from skillweave.interop.huggingface.family import CLASSES, Family, Head
from skillweave.interop.huggingface.preprocessors import IMAGE_FILE
from skillweave.interop.rules import stacked, with_prefix

MODALITIES = "embeddings.token_type_embeddings.weight"
POOLED = Head.pooled("vilt.pooler.dense", "mlm_score.", "itm_score.", "classifier.")
MASKED = Head.masked_language_model(
    "mlm_score.transform.dense",
    "mlm_score.transform.LayerNorm",
    "mlm_score.decoder.bias",
    "mlm_score.decoder",
    "vilt.embeddings.text_embeddings.word_embeddings",
    activation_option="hidden_act",
)


def _read_options(config: Any) -> dict[str, Any]:
    return {**vit.read_biases(config), "targets.multi_label.inner": 2 * config.hidden_size}


VILT = Family(
    model_type="vilt",
    prefix="vilt.",
    fields={**bert.BERT.fields, **vit.FIELDS},
    rules={
        **with_prefix("embeddings.text_", bert.EMBEDDING),
        f"{bert.TEXT}.modality_vector": stacked(MODALITIES, 0),
        **vit.VIT.rules,
        f"{vit.IMAGE}.modality_vector": stacked(MODALITIES, 1),
    },
    heads={
        "ViltModel": POOLED,
        "ViltForMaskedLM": Head(
            targets={"mlm": {}, "pooled": {}},  # Hugging Face's model always has a pooler.
            rules={**POOLED.rules, **MASKED.rules},
            fields=MASKED.fields,
            tied={**MASKED.tied, "mlm_score.bias": "mlm_score.decoder.bias"},
            unused=("itm_score.",),
        ),
        "ViltForQuestionAnswering": Head(
            targets={"multi_label": {}},
            rules={
                "targets.multi_label.pooler": "vilt.pooler.dense",
                "targets.multi_label.inner.0": "classifier.0",
                "targets.multi_label.inner.1": "classifier.1",
                "targets.multi_label.output": "classifier.3",
            },
            fields={"targets.multi_label.classes": CLASSES},
        ),
    },
    constants={
        "streams.text.embedding": ["word", "position", "segment", "modality"],
        "streams.image.embedding": ["patch", "position", "modality"],
        "encoder.norm_position": "pre",
    },
    required={"num_channels": 3, "modality_type_vocab_size": 2, "max_image_length": -1},
    read_options=_read_options,
    write_options=vit.write_biases,
    spans=({"modality": "text"}, {"modality": "image"}),
    ignored=bert.BERT.ignored,
    processor_files=(IMAGE_FILE,),
)
VILT.register()
