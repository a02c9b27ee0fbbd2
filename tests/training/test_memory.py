import pytest
import torch

from skillweave.batch import Layout, Modality, Role, Span
from skillweave.config import ConfigError
from skillweave.model.config import ModelConfig
from skillweave.model.model import Model
from skillweave.training import memory

CPU = torch.device("cpu")
LAYOUT = Layout("see", (Span(Modality.IMAGE, Role.INPUT),))


def model(**image):
    return Model(
        ModelConfig.parse(
            {
                "width": 8,
                "streams": {"image": {"size": 32, "patch": 16, **image}},
                "encoder": {"layers": 3, "heads": 2, "feed_forward": 16},
                "targets": {"classification": {"classes": ["a", "b"]}},
            }
        )
    )


def needed(built, samples):
    """By hand: gradients and two moments; pixels twice; six vectors of 8 numbers in each of three
    layers for four patches and [CLS]. Four bytes a number."""
    states = 12 * sum(p.numel() for p in built.parameters())
    return states + samples * 4 * (2 * 3 * 32 * 32 + 5 * 8 * 6 * 3)


@pytest.mark.parametrize("samples", [1, 7])
def test_what_does_not_fit_is_refused_and_what_hardly_fits_is_told(monkeypatch, samples):
    built = model()
    exact = needed(built, samples)
    batches = {"see": (LAYOUT, samples)}
    monkeypatch.setattr(memory, "free_memory", lambda _: exact - 1)
    with pytest.raises(ConfigError, match=r"tasks\.see\.batch_size or model\.streams\.image\.size"):
        memory.check_memory(built, batches, CPU)
    monkeypatch.setattr(memory, "free_memory", lambda _: exact)
    assert f"for {samples} samples" in memory.check_memory(built, batches, CPU)
    monkeypatch.setattr(memory, "free_memory", lambda _: 2 * exact)
    assert not memory.check_memory(built, batches, CPU)
    monkeypatch.setattr(memory, "free_memory", lambda _: None)
    assert not memory.check_memory(built, batches, CPU)


def test_frozen_weights_need_no_state(monkeypatch):
    built = model()
    states = 12 * sum(p.numel() for p in built.parameters())
    monkeypatch.setattr(memory, "free_memory", lambda _: needed(built, 1) - states)
    with pytest.raises(ConfigError):
        memory.check_memory(built, {"see": (LAYOUT, 1)}, CPU)
    assert memory.check_memory(built.requires_grad_(False), {"see": (LAYOUT, 1)}, CPU)


def test_free_memory_is_known_on_linux():
    assert 0 < memory.free_memory(CPU) < 2**50


def test_the_text_that_a_decoder_writes_needs_no_stream() -> None:
    """A Whisper has a stream of sound alone."""
    span = {"modality": "text", "role": "target", "encoder_pass": 1, "attention": "causal"}
    tasks = {"speech": {"spans": [{"modality": "sound"}, span], "targets": {"lm": 1.0}}}
    described = {
        "width": 8,
        "streams": {"sound": {"embedding": ["filterbank"], "channels": 4, "max_length": 8}},
        "encoder": {"layers": 1, "heads": 1, "feed_forward": 8},
        "decoder": {"layers": 1, "heads": 1, "feed_forward": 8},
        "target_embedding": {"vocabulary": 9, "max_length": 4, "tied": False},
        "targets": {"lm": {}},
        "tasks": tasks,
    }
    built = Model(ModelConfig.parse(described))
    layout = built.config.tasks["speech"].layout("speech")
    assert memory.check_memory(built, {"speech": (layout, 2)}, CPU) == ""
