"""Families by their `model_type`."""

from __future__ import annotations

from skillweave.interop.huggingface.families import clip, llama, roberta, wav2vec2
from skillweave.interop.huggingface.families.albert import ALBERT
from skillweave.interop.huggingface.families.bart import BART, PEGASUS
from skillweave.interop.huggingface.families.beit import BEIT
from skillweave.interop.huggingface.families.bert import BERT
from skillweave.interop.huggingface.families.bloom import BLOOM
from skillweave.interop.huggingface.families.deit import DEIT
from skillweave.interop.huggingface.families.distilbert import DISTILBERT
from skillweave.interop.huggingface.families.electra import ELECTRA
from skillweave.interop.huggingface.families.gpt2 import GPT2
from skillweave.interop.huggingface.families.speech_to_text import S2T
from skillweave.interop.huggingface.families.t5 import T5
from skillweave.interop.huggingface.families.videomae import VIDEOMAE
from skillweave.interop.huggingface.families.vilt import VILT
from skillweave.interop.huggingface.families.vit import VIT
from skillweave.interop.huggingface.families.vit_mae import VIT_MAE
from skillweave.interop.huggingface.families.whisper import WHISPER
from skillweave.interop.huggingface.family import Family

FAMILIES: dict[str, Family] = {
    family.model_type: family
    for family in (
        BERT,
        *roberta.FAMILIES,
        DISTILBERT,
        ELECTRA,
        ALBERT,
        GPT2,
        BLOOM,
        *llama.FAMILIES,
        VIT,
        DEIT,
        BEIT,
        VIT_MAE,
        VIDEOMAE,
        VILT,
        *clip.FAMILIES,
        T5,
        BART,
        PEGASUS,
        *wav2vec2.FAMILIES,
        S2T,
        WHISPER,
    )
}
