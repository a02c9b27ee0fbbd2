"""Models of recordings with their own preprocessors: the same outputs as in Transformers."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from hf_generation import MOONSHINE, S2T, WAV2VEC2, WAVLM_BIAS, WHISPER
from hf_references import Reference

import skillweave as sw
from skillweave.batch import Batch
from skillweave.config import ConfigError
from skillweave.data.processors import build_processors
from skillweave.interop.huggingface import convert_folder

SPEECH = Reference("Speech2TextForConditionalGeneration", "Speech2TextConfig", S2T)
WHISPERS = Reference("WhisperForConditionalGeneration", "WhisperConfig", WHISPER)


def recording(samples: int = 311, loudness: float = 1e-3) -> np.ndarray:
    """Quiet noise around a mean that is not 0, which ends with a frame of `WAV2VEC2`."""
    noise = np.random.default_rng(0).standard_normal(samples)
    return (loudness * (noise + 0.3)).astype(np.float32)


def batch_of(model: Any, waveform: np.ndarray) -> Batch:
    (name,) = model.config.tasks
    features = build_processors(model.config, model.assets)["sound"](waveform)
    layout = model.config.tasks[name].layout(name).with_lengths((features.length,))
    return Batch(layout, (features.data[None],), torch.tensor([[features.length]]))


@pytest.mark.parametrize("normalised", [True, False])
@pytest.mark.parametrize(
    ("name", "options"), [("WavLM", {**WAV2VEC2, **WAVLM_BIAS}), ("Hubert", WAV2VEC2)]
)
def test_quiet_recordings_are_scaled_as_by_the_feature_extractor(
    name: str, options: dict[str, Any], normalised: bool, tmp_path: Path
) -> None:
    theirs = Reference(f"{name}ForCTC", f"{name}Config", options).build(torch.float32)
    theirs.save_pretrained(tmp_path / "theirs")
    extractor = transformers.Wav2Vec2FeatureExtractor(do_normalize=normalised)
    extractor.save_pretrained(tmp_path / "theirs")
    convert_folder(tmp_path / "theirs", tmp_path / "ours")
    model = sw.from_hf(tmp_path / "theirs")
    waveform = recording()
    given = extractor(waveform, sampling_rate=16_000, return_tensors="pt")
    batch = batch_of(model, waveform)
    torch.testing.assert_close(batch.inputs[0], given["input_values"], rtol=1e-5, atol=1e-6)
    expected = theirs(given["input_values"]).logits
    found = model(batch).logits["ctc"]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5 * expected.abs().max().item())
    convert_folder(tmp_path / "ours", tmp_path / "back")
    back = transformers.AutoFeatureExtractor.from_pretrained(tmp_path / "back")
    assert back.do_normalize == normalised


@pytest.mark.parametrize(
    ("reference", "kind", "options"),
    [
        (SPEECH, "Speech2TextFeatureExtractor", {"normalize_means": False}),
        (SPEECH, "Speech2TextFeatureExtractor", {"do_ceptral_normalize": False}),
        (SPEECH, "Speech2TextFeatureExtractor", {"num_mel_bins": 40}),
        (WHISPERS, "WhisperFeatureExtractor", {"hop_length": 320}),
        (WHISPERS, "WhisperFeatureExtractor", {"n_fft": 512}),
        (WHISPERS, "WhisperFeatureExtractor", {"feature_size": 40}),
    ],
)
def test_options_of_feature_extractors_are_not_dropped(
    reference: Reference, kind: str, options: dict[str, Any], tmp_path: Path
) -> None:
    reference.build(torch.float32).save_pretrained(tmp_path)
    bins = reference.options.get("num_mel_bins", reference.options.get("input_feat_per_channel"))
    sizes = {"feature_size": bins} | ({"num_mel_bins": bins} if "Speech" in kind else {})
    getattr(transformers, kind)(**sizes).save_pretrained(tmp_path)
    sw.from_hf(tmp_path)
    getattr(transformers, kind)(**(sizes | options)).save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match=f"{kind} makes other inputs"):
        sw.from_hf(tmp_path)


def test_moonshine_hears_recordings_as_loud_as_they_are(tmp_path: Path) -> None:
    theirs = Reference("MoonshineModel", "MoonshineConfig", MOONSHINE).build(torch.float32)
    theirs.save_pretrained(tmp_path)
    extractor = transformers.Wav2Vec2FeatureExtractor(do_normalize=False)
    extractor.save_pretrained(tmp_path)
    model = sw.from_hf(tmp_path)
    # The last samples fill no position.
    waveform = recording(10_000, loudness=0.1)
    given = extractor(waveform, sampling_rate=16_000, return_tensors="pt")["input_values"]
    expected = theirs.encoder(given).last_hidden_state
    (name,) = model.config.tasks
    features = build_processors(model.config, model.assets)["sound"](waveform)
    layout = model.config.tasks[name].layout(name).with_lengths((features.length, 1))
    batch = Batch(
        layout,
        (features.data[None], torch.tensor([[3]])),
        torch.tensor([[features.length, 1]]),
    )
    found = model.hidden(batch)[0]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5 * expected.abs().max().item())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"decoder_num_key_value_heads": 1}, "decoder_num_key_value_heads=1"),
        ({"decoder_num_attention_heads": 5}, "decoder_num_attention_heads=5"),
        ({"head_dim": 16}, "head_dim=16"),
        (
            {"rope_parameters": {**MOONSHINE["rope_parameters"], "partial_rotary_factor": 0.5}},
            "5 of the 10 in a head are rotated",
        ),
    ],
)
def test_what_moonshine_cannot_have_is_named(options: dict[str, Any], message: str) -> None:
    config = transformers.MoonshineConfig(
        **{**MOONSHINE, **options}, architectures=["MoonshineModel"]
    )
    with pytest.raises(ConfigError, match=message):
        sw.from_hf({}, config)
