"""The waveform embedding against Hugging Face's wav2vec 2.0, and with padding that must change
nothing."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny import randomise, relative_error, tiny_config
from torch import Tensor, nn
from transformers import Wav2Vec2Config, Wav2Vec2Model

from skillweave.components.embeddings.base import AddedEmbedding, SpanPlace
from skillweave.components.embeddings.position import (
    ConvolutionPositionEmbedding,
    ConvolutionStackEmbedding,
)
from skillweave.components.embeddings.waveform import StemEmbedding, WaveformEmbedding
from skillweave.config import ConfigError
from skillweave.config.streams import WaveformStream

STREAM = WaveformStream(channels=16)
SMALL = WaveformStream(channels=4, kernels=(4, 3, 2), strides=(2, 2, 1))


def build(stream: WaveformStream, kind: type[nn.Module] = WaveformEmbedding) -> Any:
    embedding = kind(stream.channels, stream.kernels, stream.strides, 12).double()
    randomise(embedding)
    return embedding


def reference() -> Wav2Vec2Model:
    config = Wav2Vec2Config(
        hidden_size=12,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=8,
        conv_dim=(STREAM.channels,) * 7,
        num_conv_pos_embedding_groups=2,
        feat_extract_norm="group",
    )
    return Wav2Vec2Model(config).double().eval()


def copy_weights(ours: WaveformEmbedding, theirs: Wav2Vec2Model) -> None:
    convolutions = theirs.feature_extractor.conv_layers
    pairs = [
        (a.weight, b.conv.weight) for a, b in zip(ours.convolutions, convolutions, strict=True)
    ]
    group, projection = convolutions[0].layer_norm, theirs.feature_projection
    pairs += [(ours.scale, group.weight), (ours.shift, group.bias)]
    pairs += [
        (ours.norm.weight, projection.layer_norm.weight),
        (ours.norm.bias, projection.layer_norm.bias),
    ]
    pairs += [
        (ours.projection.weight[:, :, 0], projection.projection.weight),
        (ours.projection.bias, projection.projection.bias),
    ]
    with torch.no_grad():
        for mine, given in pairs:
            given.copy_(mine)


@pytest.mark.parametrize(
    "position",
    [ConvolutionPositionEmbedding(6, 3, 12), ConvolutionStackEmbedding(6, 3, 2, 12)],
    ids=["convolution", "stack"],
)
def test_neighbours_behind_the_end_count_as_nothing(position: AddedEmbedding) -> None:
    """A convolution over positions sees no padding: each recording is embedded as it would be
    alone."""
    torch.manual_seed(0)
    position = position.double()
    x_NLD, lengths = torch.randn(3, 9, 12, dtype=torch.float64), [9, 4, 1]
    found = position(x_NLD, SpanPlace(lengths_N=torch.tensor(lengths)))
    for row, x_LD, length in zip(found, x_NLD, lengths, strict=True):
        torch.testing.assert_close(row[:length], position(x_LD[None, :length])[0])


def test_groups_must_share_the_width() -> None:
    for name in ("convolution", "convolution_stack"):
        with pytest.raises(ConfigError, match="width 24 is not a multiple of 16 position_groups"):
            tiny_config(width=24, streams={"sound": {"embedding": ["waveform", name]}})


@pytest.mark.parametrize("spare", [0, 1, 17, 319])
@pytest.mark.parametrize("frames", [2, 13])
def test_wav2vec_2(frames: int, spare: int) -> None:
    """Also recordings that end inside a frame: the group norm counts the samples to `spare`."""
    ours, theirs = build(STREAM), reference()
    copy_weights(ours, theirs)
    waveform = torch.randn(3, STREAM.samples(frames - 1) + 1 + spare, dtype=torch.float64)
    expected = theirs.feature_projection(theirs.feature_extractor(waveform).transpose(1, 2))[0]
    found = ours(waveform)
    assert relative_error(found, expected) < 1e-9


def test_positions_are_those_of_wav2vec_2() -> None:
    samples = torch.arange(0, 40_000, 7)
    expected = reference()._get_feat_extract_output_lengths(samples).clamp(min=0).tolist()
    assert [STREAM.positions(n) for n in samples.tolist()] == expected


@given(
    layers=st.lists(st.tuples(st.integers(1, 12), st.integers(1, 6)), min_size=1, max_size=7),
    positions=st.integers(1, 1000),
)
def test_samples_are_the_most_that_give_the_positions(
    layers: list[tuple[int, int]], positions: int
) -> None:
    kernels, strides = zip(*layers, strict=True)
    stream = WaveformStream(kernels=kernels, strides=strides)
    samples = stream.samples(positions)
    assert stream.positions(samples) == positions
    assert stream.positions(samples + 1) == positions + 1


@given(
    lengths=st.lists(st.integers(1, 12), min_size=1, max_size=4),
    padding=st.integers(0, 30),
    seed=st.integers(0, 99),
)
@pytest.mark.parametrize("kind", [WaveformEmbedding, StemEmbedding])
def test_padding_and_other_recordings_change_nothing(
    kind: type[nn.Module], lengths: list[int], padding: int, seed: int
) -> None:
    """However long the padding is, and however many samples fill no frame."""
    torch.manual_seed(seed)
    embedding = build(SMALL, kind)
    spare = seed % (SMALL.samples(2) - SMALL.samples(1))
    waveforms = [torch.randn(SMALL.samples(n) - spare, dtype=torch.float64) for n in lengths]
    longest = max(len(w) for w in waveforms) + padding
    padded = torch.stack(
        [torch.cat([w, torch.full((longest - len(w),), torch.nan).double()]) for w in waveforms]
    )
    together = embedding(padded)
    for row, waveform, length in zip(together, waveforms, lengths, strict=True):
        alone: Tensor = embedding(waveform[None])[0]
        torch.testing.assert_close(row[:length], alone[:length], rtol=1e-9, atol=1e-9)


def test_gradient_with_padding() -> None:
    embedding = build(SMALL)
    waveform = torch.randn(2, SMALL.samples(5), dtype=torch.float64, requires_grad=True)
    behind = torch.arange(SMALL.samples(5)) >= torch.tensor(
        [[SMALL.samples(5)], [SMALL.samples(2)]]
    )

    def true_frames(x: Tensor) -> Tensor:
        out = embedding(x.masked_fill(behind, torch.nan))
        return torch.cat([out[0, :5], out[1, :2]])

    assert torch.autograd.gradcheck(true_frames, waveform)
    true_frames(waveform).sum().backward()
    assert waveform.grad[1, SMALL.samples(2) :].abs().max() == 0
