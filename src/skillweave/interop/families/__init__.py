"""Families by their `model_type`."""

from __future__ import annotations

from skillweave.interop.families import clip, llama, roberta, wav2vec2
from skillweave.interop.families.albert import ALBERT
from skillweave.interop.families.bart import BART, PEGASUS
from skillweave.interop.families.beit import BEIT
from skillweave.interop.families.bert import BERT
from skillweave.interop.families.bloom import BLOOM
from skillweave.interop.families.deit import DEIT
from skillweave.interop.families.distilbert import DISTILBERT
from skillweave.interop.families.electra import ELECTRA
from skillweave.interop.families.gpt2 import GPT2
from skillweave.interop.families.speech_to_text import S2T
from skillweave.interop.families.t5 import T5
from skillweave.interop.families.videomae import VIDEOMAE
from skillweave.interop.families.vilt import VILT
from skillweave.interop.families.vit import VIT
from skillweave.interop.families.vit_mae import VIT_MAE
from skillweave.interop.families.whisper import WHISPER
from skillweave.interop.family import Family

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
