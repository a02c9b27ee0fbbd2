"""Losses of masked pixels equal Hugging Face's; errors of masked autoencoders."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from hf_references import Reference, make_batch
from hf_vision import CLIPS, MAE, VIT, their_masks
from tiny import STREAMS, tiny_config
from transformers.image_utils import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

from skillweave.batch import Batch
from skillweave.config import ConfigError
from skillweave.interop.huggingface import from_hf

CASES = {
    "linear": Reference("ViTForMaskedImageModeling", "ViTConfig", {**VIT, "encoder_stride": 4}),
    "behind two tokens": Reference(
        "DeiTForMaskedImageModeling", "DeiTConfig", {**VIT, "encoder_stride": 4}
    ),
    "decoder": Reference("ViTMAEForPreTraining", "ViTMAEConfig", MAE),
    "decoder, normalised": Reference(
        "ViTMAEForPreTraining", "ViTMAEConfig", {**MAE, "norm_pix_loss": True}
    ),
    "of a clip": Reference(
        "VideoMAEForPreTraining", "VideoMAEConfig", {**CLIPS, "norm_pix_loss": False}
    ),
    "of a clip, normalised": Reference("VideoMAEForPreTraining", "VideoMAEConfig", CLIPS),
}


def with_pixels(batch: Batch) -> Batch:
    """The batch with its pixels as labels; Hugging Face compares those of clips from 0 to 1."""
    pixels = batch.inputs[0]
    if pixels.ndim == 5:
        mean, std = (
            torch.tensor(x, dtype=pixels.dtype).view(3, 1, 1, 1)
            for x in (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD)
        )
        pixels = pixels * std + mean
    return replace(batch, labels={**batch.labels, "pixels": pixels})


@pytest.mark.parametrize("reference", CASES.values(), ids=CASES)
def test_losses(reference: Reference) -> None:
    theirs: Any = reference.build()
    model = from_hf(theirs)
    batch = with_pixels(make_batch(model, torch.float64))
    pixels = batch.inputs[0] if batch.inputs[0].ndim == 4 else batch.inputs[0].transpose(1, 2)
    expected = theirs(pixel_values=pixels, **their_masks(theirs, batch)).loss
    # Hugging Face's SimMIM adds 1e-5 to the denominator.
    torch.testing.assert_close(model(batch).loss, expected, rtol=1e-6, atol=0)


def test_errors_of_autoencoders() -> None:
    model = from_hf(CASES["decoder"].build())
    batch = make_batch(model, torch.float64)
    length = model.config.streams.image.max_length
    whole = replace(
        batch,
        masked=(),
        layout=batch.layout.with_lengths((length,)),
        lengths=torch.full_like(batch.lengths, length),
    )
    with pytest.raises(ValueError, match=r"needs the mask of the input \(`Batch.masked`\)"):
        model(whole)
    uneven = batch.masked[0].clone()
    uneven[0] = False
    with pytest.raises(
        ValueError,
        match=r"leaves \[10, 4, 4\] positions of the samples; mask as many patches of each",
    ):
        model(replace(batch, masked=(uneven,)))
    with pytest.raises(
        ConfigError, match=r"give the stream 'video' `embedding: \[visible_tubelet, position\]`"
    ):
        tiny_config(targets={"masked_autoencoder": {"stream": "video"}}, tasks={})
    for kind, module in (
        ("masked_pixels", "masked_patch"),
        ("masked_autoencoder", "visible_patch"),
    ):
        with pytest.raises(
            ConfigError, match=rf"give the stream 'image' `embedding: \[{module}, position\]`"
        ):
            tiny_config(targets={kind: {}}, tasks={})
        image = {"size": 9, "patch": 4, "embedding": [module, "position"]}
        with pytest.raises(ConfigError, match="predicts whole patches, and size 9 is not"):
            tiny_config(targets={kind: {}}, tasks={}, streams={**STREAMS, "image": image})
