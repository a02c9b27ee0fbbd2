"""The dense encoder against Hugging Face's BERT and ViT on random weights: hidden states, logits,
losses and gradients."""

from dataclasses import replace

import pytest
import torch
from tiny import hidden_states, randomise, relative_error
from torch import Tensor, nn
from transformers import BertConfig, BertForMaskedLM, BertModel, ViTConfig, ViTModel

from skillweave.batch import IGNORE, Batch, Layout, Modality, Span
from skillweave.model.config import ModelConfig, ModelTask
from skillweave.model.model import Model

WIDTH, HEADS, HIDDEN, LAYERS, VOCABULARY, POSITIONS = 15, 3, 37, 3, 41, 11
PRECISIONS = [(torch.float32, 1e-5), (torch.float64, 1e-9)]
Names = dict[str, list[str]]
"""Our parameter → those of Hugging Face that are concatenated to make it."""


def layer_names(ours: str, theirs: str, parts: dict[str, list[str]]) -> Names:
    return {
        f"{ours}.{mine}.{kind}": [f"{theirs}.{name}.{kind}" for name in names]
        for mine, names in parts.items()
        for kind in ("weight", "bias")
    }


def bert_names() -> Names:
    names = {
        "embeddings.text.content.word.weight": ["bert.embeddings.word_embeddings.weight"],
        "embeddings.text.positions.position.table.weight": [
            "bert.embeddings.position_embeddings.weight"
        ],
        "embeddings.text.positions.segment.table.weight": [
            "bert.embeddings.token_type_embeddings.weight"
        ],
        "targets.mlm.bias": ["cls.predictions.bias"],
    }
    names |= layer_names("embeddings.text", "bert.embeddings", {"norm": ["LayerNorm"]})
    head = {"transform": ["transform.dense"], "norm": ["transform.LayerNorm"]}
    names |= layer_names("targets.mlm", "cls.predictions", head)
    parts = {
        "attention.qkv.experts.shared": [
            f"attention.self.{name}" for name in ("query", "key", "value")
        ],
        "attention.output": ["attention.output.dense"],
        "attention_norm": ["attention.output.LayerNorm"],
        "feed_forward.experts.shared.inner": ["intermediate.dense"],
        "feed_forward.experts.shared.outer": ["output.dense"],
        "feed_forward_norm": ["output.LayerNorm"],
    }
    for i in range(LAYERS):
        names |= layer_names(f"encoder.blocks.{i}", f"bert.encoder.layer.{i}", parts)
    return names


def vit_names() -> Names:
    names = {
        "embeddings.image.content.patch.first": ["embeddings.cls_token"],
        "embeddings.image.positions.position.table.weight": ["embeddings.position_embeddings"],
    }
    names |= layer_names(
        "embeddings.image.content.patch",
        "embeddings.patch_embeddings",
        {"projection": ["projection"]},
    )
    names |= layer_names("encoder", "", {"last_norm": ["layernorm"]})
    parts = {
        "attention.qkv.experts.shared": [f"attention.{name}_proj" for name in "qkv"],
        "attention.output": ["attention.o_proj"],
        "attention_norm": ["layernorm_before"],
        "feed_forward.experts.shared.inner": ["mlp.fc1"],
        "feed_forward.experts.shared.outer": ["mlp.fc2"],
        "feed_forward_norm": ["layernorm_after"],
    }
    for i in range(LAYERS):
        names |= layer_names(f"encoder.blocks.{i}", f"layers.{i}", parts)
    return {ours: [name.lstrip(".") for name in theirs] for ours, theirs in names.items()}


def copy_weights(model: Model, reference: nn.Module, names: Names) -> None:
    """Fill every parameter of the model from the reference's, all of which are used."""
    given = dict(reference.named_parameters())
    assert {name for group in names.values() for name in group} == set(given)
    wanted = dict(model.named_parameters())
    assert set(names) == set(wanted)
    with torch.no_grad():
        for ours, theirs in names.items():
            wanted[ours].copy_(torch.cat([given[name] for name in theirs]).view_as(wanted[ours]))


def assert_same_gradients(
    model: Model, reference: nn.Module, names: Names, tolerance: float
) -> None:
    given = dict(reference.named_parameters())
    wanted = dict(model.named_parameters())
    largest = max(float(p.grad.abs().max()) for p in given.values() if p.grad is not None)
    for ours, theirs in names.items():
        grads = [given[name].grad for name in theirs]
        if grads[0] is None:
            assert wanted[ours].grad is None, ours
            continue
        found, expected = wanted[ours].grad, torch.cat(grads)
        assert (found - expected.view_as(found)).abs().max() < tolerance * largest, ours


def bert_pair(dtype: torch.dtype) -> tuple[Model, BertForMaskedLM]:
    config = BertConfig(
        vocab_size=VOCABULARY,
        hidden_size=WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        intermediate_size=HIDDEN,
        max_position_embeddings=POSITIONS,
        attn_implementation="eager",
    )
    reference = BertForMaskedLM(config).to(dtype).eval()
    randomise(reference)
    ours = ModelConfig.parse(
        {
            "width": WIDTH,
            "streams": {"text": {"vocabulary": VOCABULARY, "max_length": POSITIONS}},
            "encoder": {"layers": LAYERS, "heads": HEADS, "feed_forward": HIDDEN},
            "targets": {"mlm": {}},
            "tasks": {"t": {"spans": [{"modality": "text"}], "targets": {"mlm": 1.0}}},
        }
    )
    model = Model(ours).to(dtype).eval()
    copy_weights(model, reference, bert_names())
    return model, reference


def text_batch(labelled: bool = False) -> tuple[Batch, Tensor]:
    """Three texts, two of them padded; also Hugging Face's attention mask."""
    lengths = torch.tensor([[9], [4], [1]])
    mask = torch.arange(9) < lengths
    ids = torch.randint(0, VOCABULARY, (3, 9)) * mask
    batch = Batch(Layout("t", (Span(Modality.TEXT, length=9),)), (ids,), lengths)
    if not labelled:
        return batch, mask
    label_ids = torch.where(
        (torch.rand(3, 9) < 0.4) & mask, torch.randint(0, VOCABULARY, (3, 9)), IGNORE
    )
    label_ids[0, 2] = 7
    keep = label_ids != IGNORE
    return replace(batch, labels={"label_ids": label_ids}, logits_to_keep=keep), mask


@pytest.mark.parametrize(("dtype", "tolerance"), PRECISIONS)
def test_bert_hidden_states_and_gradients(dtype: torch.dtype, tolerance: float) -> None:
    model, reference = bert_pair(dtype)
    batch, mask = text_batch()
    expected = reference.bert(batch.inputs[0], attention_mask=mask.long()).last_hidden_state
    found = hidden_states(model, batch)[0]
    assert relative_error(found[mask], expected[mask]) < tolerance
    probe = torch.randn(int(mask.sum()), WIDTH, dtype=dtype)
    (expected[mask] * probe).sum().backward()
    (found[mask] * probe).sum().backward()
    assert_same_gradients(model, reference, bert_names(), tolerance)


@pytest.mark.parametrize(("dtype", "tolerance"), PRECISIONS)
def test_positions_of_a_pair_run_on_as_in_bert(dtype: torch.dtype, tolerance: float) -> None:
    """[CLS] a [SEP] b [SEP] with segments 0 and 1, whatever padding stands between the two."""
    model, reference = bert_pair(dtype)
    model = model.with_tasks(
        {"pair": ModelTask.parse({"spans": [{"modality": "text"}] * 2, "targets": {}})}
    )
    lengths = torch.tensor([[6, 5], [2, 4], [1, 1]])
    ids = [torch.randint(0, VOCABULARY, (3, length)) for length in (7, 5)]
    spans = tuple(Span(Modality.TEXT, length=x.shape[1]) for x in ids)
    found = hidden_states(model, Batch(Layout("pair", spans), tuple(ids), lengths))[0]
    for n, (a, b) in enumerate(lengths.tolist()):
        one = torch.cat([ids[0][n, :a], ids[1][n, :b]]).unsqueeze(0)
        segments = torch.tensor([[0] * a + [1] * b])
        expected = reference.bert(one, token_type_ids=segments).last_hidden_state[0]
        assert relative_error(torch.cat([found[n, :a], found[n, 7 : 7 + b]]), expected) < tolerance


@pytest.mark.parametrize(("dtype", "tolerance"), PRECISIONS)
def test_bert_masked_language_modelling(dtype: torch.dtype, tolerance: float) -> None:
    model, reference = bert_pair(dtype)
    batch, mask = text_batch(labelled=True)
    labels = batch.labels["label_ids"]
    expected = reference(batch.inputs[0], attention_mask=mask.long(), labels=labels)
    found = model(batch)
    assert torch.equal(found.positions["mlm"], (labels != IGNORE).nonzero())
    assert relative_error(found.logits["mlm"], expected.logits[labels != IGNORE]) < tolerance
    assert found.loss.item() == pytest.approx(expected.loss.item(), rel=tolerance)
    expected.loss.backward()
    found.loss.backward()
    assert_same_gradients(model, reference, bert_names(), tolerance)


@pytest.mark.parametrize(("dtype", "tolerance"), PRECISIONS)
@pytest.mark.parametrize("epsilon", [1e-12, 1e-2])
def test_vit_hidden_states_and_gradients(
    dtype: torch.dtype, tolerance: float, epsilon: float
) -> None:
    config = ViTConfig(
        hidden_size=WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        intermediate_size=HIDDEN,
        image_size=12,
        patch_size=4,
        layer_norm_eps=epsilon,
        attn_implementation="sdpa",  # its eager softmax is always in float32
    )
    reference = ViTModel(config, add_pooling_layer=False).to(dtype).eval()
    randomise(reference)
    encoder = {
        "layers": LAYERS,
        "heads": HEADS,
        "feed_forward": HIDDEN,
        "norm_position": "pre",
        "norm_epsilon": epsilon,
    }
    tasks = {"t": {"spans": [{"modality": "image"}], "targets": {}}}
    ours = {
        "width": WIDTH,
        "streams": {"image": {"size": 12, "patch": 4}},
        "encoder": encoder,
        "tasks": tasks,
    }
    model = Model(ModelConfig.parse(ours)).to(dtype).eval()
    copy_weights(model, reference, vit_names())
    pixels = torch.randn(2, 3, 12, 12, dtype=dtype)
    batch = Batch(
        Layout("t", (Span(Modality.IMAGE, length=10),)), (pixels,), torch.full((2, 1), 10)
    )
    expected = reference(pixels).last_hidden_state
    found = hidden_states(model, batch)[0]
    assert relative_error(found, expected) < tolerance
    probe = torch.randn_like(expected)
    (expected * probe).sum().backward()
    (found * probe).sum().backward()
    assert_same_gradients(model, reference, vit_names(), tolerance)


def test_dense_text_model_has_as_many_parameters_as_bert_without_pooler() -> None:
    with torch.device("meta"):
        reference = BertModel(BertConfig(vocab_size=21128), add_pooling_layer=False)
        model = Model(ModelConfig.parse({"streams": {"text": {}}}))
    assert model.count_parameters() == sum(p.numel() for p in reference.parameters())
