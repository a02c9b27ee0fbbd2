"""Recurrent encoders and the gated CNN against torch's own modules on each sample alone, without
padding."""

from typing import Any

import pytest
import torch
from tiny import randomise, relative_error
from torch import Tensor, nn

from skillweave.batch import Batch
from skillweave.config import ConfigError
from skillweave.model.config import ModelConfig, ModelTask
from skillweave.model.model import Model

WIDTH, WORDS = 10, 31
LENGTHS = [[7, 2], [3, 5], [1, 1], [4, 3]]
KINDS = {"rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}


def build(
    encoder: dict[str, Any], attention: str = "full", target: str = "", **changes: Any
) -> Model:
    """A model of pairs of texts."""
    data = {
        "width": WIDTH,
        "streams": {"text": {"vocabulary": WORDS, "embedding": ["word"], "norm": False}},
        "encoder": {"layers": 3, "dropout": 0, **encoder},
        "targets": {target: {}} if target else {},
        "tasks": {
            "a": {
                "spans": [{"modality": "text", "attention": attention}] * 2,
                "targets": {target: 1.0} if target else {},
            }
        },
        **changes,
    }
    model = Model(ModelConfig.parse(data)).double().eval()
    randomise(model)
    return model


def pairs(model: Model, lengths: list[list[int]] = LENGTHS, labels: Any = None) -> Batch:
    """Padding stands in the middle of the sequence, too."""
    torch.manual_seed(2)
    padded = [max(column) for column in zip(*lengths, strict=True)]
    inputs = tuple(torch.randint(WORDS, (len(lengths), most)) for most in padded)
    layout = ModelTask.parse(model.config.tasks["a"].model_dump(mode="json")).layout("a")
    return Batch(layout.with_lengths(tuple(padded)), inputs, torch.tensor(lengths), labels or {})


def samples(model: Model, batch: Batch) -> list[Tensor]:
    """[L, D] the vectors of each sample's true words, one after the other."""
    words = model.get_parameter("embeddings.text.content.word.weight")
    true = [
        torch.cat([x[n, :size] for x, size in zip(batch.inputs, sizes, strict=True)])
        for n, sizes in enumerate(batch.lengths)
    ]
    return [words[ids] for ids in true]


def flat(model: Model, batch: Batch) -> list[Tensor]:
    """[L, D] what the model makes of each sample."""
    (hidden,) = model.hidden(batch)
    padded = [span.length for span in batch.layout.spans]
    found = []
    for n, sizes in enumerate(batch.lengths.tolist()):
        first, second = hidden[n].split(padded)
        assert not first[sizes[0] :].any() and not second[sizes[1] :].any()
        found.append(torch.cat([first[: sizes[0]], second[: sizes[1]]]))
    return found


def stack_of(model: Model, number: int) -> nn.RNNBase:
    return model.encoder.stacks[number]


@pytest.mark.parametrize("direction", ["forward", "bidirectional", "separate"])
@pytest.mark.parametrize("kind", KINDS)
def test_recurrent_layers(kind: str, direction: str) -> None:
    model = build({"name": kind, "direction": direction})
    batch = pairs(model)
    size, both = (
        (WIDTH, False) if direction == "forward" else (WIDTH // 2, direction == "bidirectional")
    )
    stacks = [
        KINDS[kind](WIDTH, size, 3, bidirectional=both).double() for _ in model.encoder.stacks
    ]
    assert len(stacks) == (2 if direction == "separate" else 1)
    for i, stack in enumerate(stacks):
        stack.load_state_dict(stack_of(model, i).state_dict())
    for x_LD, found in zip(samples(model, batch), flat(model, batch), strict=True):
        expected = stacks[0](x_LD)[0]
        if direction == "separate":
            expected = torch.cat([expected, stacks[1](x_LD.flip(0))[0].flip(0)], dim=1)
        assert relative_error(found, expected) < 1e-12


def test_a_cell_larger_than_its_output() -> None:
    model = build({"name": "lstm", "direction": "separate", "cell_size": 17})
    batch = pairs(model)
    stack = nn.LSTM(WIDTH, 17, 3, proj_size=WIDTH // 2).double()
    stack.load_state_dict(stack_of(model, 0).state_dict())
    for x_LD, found in zip(samples(model, batch), flat(model, batch), strict=True):
        assert relative_error(found[:, : WIDTH // 2], stack(x_LD)[0]) < 1e-12


def test_gradients_of_a_padded_batch_are_those_of_its_samples() -> None:
    for encoder in ({"name": "lstm", "direction": "bidirectional"}, {"name": "gated_cnn"}):
        model = build(encoder)
        batch = pairs(model)
        torch.cat(flat(model, batch)).square().sum().backward()
        together = {name: p.grad.clone() for name, p in model.named_parameters()}
        model.zero_grad()
        for n in range(len(batch)):
            alone = Batch(
                batch.layout.with_lengths(tuple(batch.lengths[n].tolist())),
                tuple(
                    x[n : n + 1, :size]
                    for x, size in zip(batch.inputs, batch.lengths[n], strict=True)
                ),
                batch.lengths[n : n + 1],
            )
            torch.cat(flat(model, alone)).square().sum().backward()
        for name, p in model.named_parameters():
            assert relative_error(together[name], p.grad) < 1e-12, name


def test_the_gated_cnn_by_its_equation() -> None:
    """(X * W + b) ⊗ σ(X * V + c), word by word; blocks of two layers after the first."""
    model = build({"name": "gated_cnn", "layers": 5, "kernel_size": 3})
    batch = pairs(model)

    def layer(x_LD: Tensor, i: int) -> Tensor:
        weight, bias = (
            model.get_parameter(f"encoder.convolutions.{i}.{name}") for name in ("weight", "bias")
        )
        rows = []
        for t in range(len(x_LD)):
            total = bias.clone()
            for k in range(3):
                if t - 2 + k >= 0:
                    total = total + weight[:, :, k] @ x_LD[t - 2 + k]
            rows.append(total[:WIDTH] * torch.sigmoid(total[WIDTH:]))
        return torch.stack(rows)

    for x_LD, found in zip(samples(model, batch), flat(model, batch), strict=True):
        x_LD = layer(x_LD, 0)
        for first in (1, 3):
            x_LD = x_LD + layer(layer(x_LD, first), first + 1)
        assert relative_error(found, x_LD) < 1e-12


@pytest.mark.parametrize(
    "encoder", [{"name": "lstm"}, {"name": "gru"}, {"name": "rnn"}, {"name": "gated_cnn"}]
)
def test_no_word_knows_the_next(encoder: dict[str, Any]) -> None:
    model = build(encoder, "causal", "lm")
    batch = pairs(model, [[6, 4]])
    before = model(batch).logits["lm"]
    batch.inputs[1][0, 2:] = (batch.inputs[1][0, 2:] + 1) % WORDS
    after = model(batch).logits["lm"]
    assert torch.equal(before[:8], after[:8]) and not torch.equal(before[8:], after[8:])


def test_neither_direction_of_a_bidirectional_language_model_sees_what_it_predicts() -> None:
    model = build({"name": "lstm", "direction": "separate"}, target="bilm")
    batch = pairs(model, [[6, 4]])
    before = model(batch).logits["bilm"].chunk(2)
    batch.inputs[1][0, 2] = (batch.inputs[1][0, 2] + 1) % WORDS  # the word in place 8
    after = model(batch).logits["bilm"].chunk(2)
    assert [torch.equal(a, b) for a, b in zip(before[0], after[0], strict=True)] == [True] * 8 + [
        False
    ] * 2
    assert [torch.equal(a, b) for a, b in zip(before[1], after[1], strict=True)] == [False] * 9 + [
        True
    ]


def test_the_bidirectional_loss_by_hand() -> None:
    model = build({"name": "gru", "direction": "separate"}, target="bilm")
    ignored = torch.full((4, 12), -100)
    following, previous = ignored.clone(), ignored.clone()
    following[0, :6], previous[0, 1:7] = torch.arange(6), torch.arange(6, 12)
    batch = pairs(model, labels={"label_ids": following, "previous_ids": previous})
    output = model.get_parameter("targets.bilm.output.weight")
    hidden = flat(model, batch)[0]
    expected = []
    for t in range(6):
        expected.append(-(hidden[t, : WIDTH // 2] @ output.T).log_softmax(0)[t])
        expected.append(-(hidden[t + 1, WIDTH // 2 :] @ output.T).log_softmax(0)[6 + t])
    assert model(batch).loss.item() == pytest.approx(torch.stack(expected).mean().item(), rel=1e-12)


def test_a_recurrent_decoder_attends_to_the_input() -> None:
    """An LSTM over the answer so far, and Luong's attention over the encoder's output, sample by
    sample."""
    target = {"vocabulary": WORDS, "embedding": ["word"], "norm": False}
    spans = [
        {"modality": "text"},
        {"modality": "text", "role": "target", "attention": "causal", "encoder_pass": 1},
    ]
    model = build(
        {"name": "lstm", "direction": "bidirectional"},
        decoder={"name": "lstm", "layers": 2, "dropout": 0},
        target_embedding=target,
        targets={"lm": {}},
        tasks={"a": {"spans": spans, "targets": {"lm": 1.0}}},
    )
    batch = pairs(model)
    words = model.get_parameter("embeddings.text.content.word.weight")
    reader, writer = (
        nn.LSTM(WIDTH, WIDTH // 2, 3, bidirectional=True).double(),
        nn.LSTM(WIDTH, WIDTH, 2).double(),
    )
    reader.load_state_dict(stack_of(model, 0).state_dict())
    writer.load_state_dict(model.decoder.stacks[0].state_dict())
    cross, expected = model.decoder.attention, []
    for n, (given, written) in enumerate(batch.lengths.tolist()):
        memory = reader(words[batch.inputs[0][n, :given]])[0]
        states = writer(words[batch.inputs[1][n, :written]])[0]
        key, value = cross.key_value(memory).chunk(2, dim=1)
        shares = torch.softmax(cross.query(states) @ key.T / WIDTH**0.5, dim=1)
        expected.append(
            torch.tanh(
                model.decoder.combination(torch.cat([cross.output(shares @ value), states], dim=1))
            )
            @ words.T
        )
    assert relative_error(model(batch).logits["lm"], torch.cat(expected)) < 1e-12


@pytest.mark.parametrize(
    ("encoder", "changes", "message"),
    [
        (
            {"name": "lstm", "heads": 2},
            {},
            "'lstm' has no heads, which is an option of 'transformer'; its options are biases, cell_size, direction",
        ),
        ({"name": "gated_cnn", "direction": "bidirectional"}, {}, "'gated_cnn' has no direction"),
        ({"direction": "bidirectional"}, {}, "'transformer' has no direction"),
        (
            {"name": "gru", "direction": "bidirectional"},
            {"width": 9},
            "width 9 is odd, and two directions share it",
        ),
        (
            {"name": "lstm", "cell_size": 10},
            {},
            "cell_size 10 is projected to 10, which is not smaller",
        ),
        (
            {"name": "lstm", "direction": "bidirectional"},
            {"targets": {"bilm": {}}},
            "use an rnn, lstm or gru encoder with direction 'separate'",
        ),
    ],
)
def test_options_that_do_not_go_together(
    encoder: dict[str, Any], changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        build(encoder, **changes)


def test_what_reads_both_ways_cannot_be_causal() -> None:
    with pytest.raises(
        ConfigError, match="the lstm reads both ways, so a causal span would see what follows"
    ):
        build({"name": "lstm", "direction": "separate"}, "causal")
    with pytest.raises(ConfigError, match="a decoder writes word by word"):
        build(
            {},
            decoder={"name": "gru", "direction": "bidirectional"},
            target_embedding={"vocabulary": WORDS},
        )
