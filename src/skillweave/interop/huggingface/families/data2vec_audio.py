"""Data2Vec for sound (arXiv 2202.03555): wav2vec 2.0 whose positions come from a stack of
convolutions."""

from __future__ import annotations

from dataclasses import replace

from skillweave.interop.huggingface.families.wav2vec2 import SOUND, family
from skillweave.interop.huggingface.family import without

BASE = family("data2vec-audio", "Data2VecAudio", "data2vec_audio.")
DATA2VEC_AUDIO = replace(
    BASE,
    fields={
        **without(BASE.fields, "streams.sound.convolution_norm"),
        "streams.sound.position_kernel": "conv_pos_kernel_size",
        "streams.sound.position_layers": "num_conv_pos_embeddings",
    },
    rules={
        **BASE.rules,
        f"{SOUND}.positions.convolution_stack.layers.{{i}}": (
            "encoder.pos_conv_embed.layers.{i}.conv"
        ),
    },
    constants={
        **BASE.constants,
        "streams.sound.embedding": ["waveform", "convolution_stack"],
        "streams.sound.convolution_norm": "layer",
    },
)
DATA2VEC_AUDIO.register()
