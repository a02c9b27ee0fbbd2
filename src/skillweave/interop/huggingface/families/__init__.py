"""The built-in families, each of which registers itself.

The order counts: of several families that can express a model, the first one is chosen.
"""

from skillweave.interop.huggingface.families import (  # noqa: F401, I001
    bert,
    roberta,
    distilbert,
    electra,
    albert,
    gpt2,
    bloom,
    llama,
    smollm3,
    phi3,
    gemma,
    modernbert,
    mpnet,
    deberta,
    vit,
    deit,
    beit,
    dinov2,
    dinov3,
    vit_mae,
    videomae,
    vilt,
    clip,
    siglip,
    t5,
    mt5,
    bart,
    mbart,
    marian,
    wav2vec2,
    wavlm,
    data2vec_audio,
    speech_to_text,
    whisper,
    moonshine,
)
from skillweave.interop.huggingface.family import FAMILIES

__all__ = ["FAMILIES"]
