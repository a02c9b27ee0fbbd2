"""Known faults of other toolkits, which are absent here."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from hf_generation import T5
from hf_references import (
    BERT,
    BLOOM,
    CLIP,
    KeepDouble,
    Reference,
    make_batch,
    run_theirs,
    true_tokens,
)
from tiny import randomise, relative_error
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import nn

import skillweave as sw
from skillweave.batch import Batch
from skillweave.interop.tencentpretrain.config import read_tencent_config
from skillweave.layers.position import alibi_slopes
from skillweave.model.config import ModelConfig
from skillweave.model.model import Model
from skillweave.recipe import RecipeConfig

WORDS = {"vocabulary": 41, "max_length": 13}


def test_alibi_has_its_effect() -> None:
    """The same weights give BLOOM's outputs with ALiBi and others without."""
    theirs = Reference("BloomForCausalLM", "BloomConfig", BLOOM).build()
    model = sw.from_hf(theirs)
    data = model.config.model_dump(mode="json")
    data["encoder"]["position"]["kind"] = "none"
    without = Model(ModelConfig.parse(data)).double().eval()
    without.load_state_dict(model.state_dict())
    batch = make_batch(model, torch.float64)
    with KeepDouble():
        expected = run_theirs(theirs, batch)["lm"][true_tokens(batch, 0)]
    assert relative_error(model(batch).logits["lm"], expected) < 1e-9
    assert relative_error(without(batch).logits["lm"], expected) > 1e-2


def test_alibi_decreases_by_its_slope_per_position() -> None:
    """With queries and keys of 0, only the bias remains: attention is softmax(-slope · distance)."""
    model = sw.from_hf(Reference("BloomModel", "BloomConfig", BLOOM).build())
    attention = model.encoder.blocks[0].attention
    qkv, size = attention.qkv.experts["shared"], 5
    with torch.no_grad():
        qkv.weight.zero_()
        qkv.bias.zero_()
        qkv.weight[30:] = torch.eye(15)  # Values are the inputs.
        attention.output.weight.copy_(torch.eye(15))
        attention.output.bias.zero_()
    batch = make_batch(model, torch.float64)
    seen: list[Any] = []
    compute = attention.with_scores

    def watch(x_TD: Any, *others: Any) -> Any:
        found = compute(x_TD, *others)
        seen.append((x_TD, found[0]))
        return found

    attention.with_scores = watch
    model.hidden(batch)
    (given, found), length = seen[0], int(batch.lengths[0, 0])
    for head, slope in enumerate(alibi_slopes(3)):
        own = slice(head * size, (head + 1) * size)
        shares = torch.softmax(-slope * torch.arange(length - 1, -1, -1).double(), dim=0)
        assert relative_error(found[length - 1, own], shares @ given[:length, own]) < 1e-12


@pytest.mark.parametrize("side", ["encoder", "decoder"])
def test_the_relative_bias_of_t5_is_converted(side: str) -> None:
    theirs = Reference("T5ForConditionalGeneration", "T5Config", T5).build(torch.float32)
    expected = theirs.get_parameter(
        f"{side}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
    )
    assert torch.equal(sw.from_hf(theirs).get_parameter(f"{side}.position.table.weight"), expected)


@pytest.mark.parametrize("norm", ["layer", "rms"])
def test_norms_start_with_scale_1_and_no_bias(norm: str) -> None:
    encoder = {
        "layers": 2,
        "heads": 2,
        "feed_forward": 8,
        "norm": norm,
        "norm_position": "pre",
        "qk_norm": True,
    }
    targets = {"mlm": {}, "lm": {}}
    stream = {"text": WORDS}
    extra = {"decoder": {**encoder, "layers": 1}, "target_embedding": WORDS}
    model = Model(
        ModelConfig.parse(
            {"width": 8, "streams": stream, "encoder": encoder, "targets": targets, **extra}
        )
    )
    norms = [module for module in model.modules() if isinstance(module, nn.LayerNorm | nn.RMSNorm)]
    # Blocks of the encoder, block of the decoder, last norms, embeddings, mlm.
    assert len(norms) == 2 * (2 + 2) + (2 + 2 + 1) + 2 + 2 + 1
    for module in norms:
        assert module.weight is not None and bool((module.weight == 1).all())
        bias = getattr(module, "bias", None)
        assert bias is None or not bias.any()


def test_clip_starts_with_the_published_temperature() -> None:
    """0.07 (arXiv 2103.00020, section 2.3); the weight is the logarithm of its inverse."""
    theirs = transformers.CLIPModel(transformers.CLIPConfig(**CLIP))
    streams = {"text": WORDS, "image": {"size": 12, "patch": 4}}
    tasks = {
        "a": {
            "spans": [{"modality": "text"}, {"modality": "image", "encoder_pass": 1}],
            "targets": {"contrastive": 1.0},
        }
    }
    encoder = {"heads": 2, "layers": 1, "feed_forward": 8}
    data = {
        "width": 8,
        "streams": streams,
        "encoder": encoder,
        "targets": {"contrastive": {}},
        "tasks": tasks,
    }
    found = Model(ModelConfig.parse(data)).get_parameter("targets.contrastive.log_scale").item()
    assert found == pytest.approx(math.log(1 / 0.07))
    assert found == pytest.approx(theirs.logit_scale.item(), abs=1e-3)


SIZES = {
    "emb_size": 8,
    "hidden_size": 8,
    "layers_num": 2,
    "vocab_size": 41,
    "embedding": ["word"],
    "dropout": 0.0,
}
RUNNING = {
    "bidirectional language model": {**SIZES, "encoder": "bilstm", "target": ["bilm"]},
    "prefix language model": {
        **SIZES, "heads_num": 2, "feedforward_size": 16, "embedding": ["word", "pos"], "encoder": "transformer",
        "mask": "causal_with_prefix", "target": ["lm"],
    },
}  # fmt: skip


def labelled(model: Model) -> tuple[Batch, int]:
    """A batch whose last text predicts its neighbours, and the position where that text begins."""
    batch = make_batch(model, torch.float64)
    begin = batch.layout.spans[0].length if len(batch.layout.spans) > 1 else 0
    following = torch.full((len(batch), begin + batch.layout.spans[-1].length), -100)
    previous = following.clone()
    for row, (length, ids) in enumerate(
        zip(batch.lengths[:, -1].tolist(), batch.inputs[-1], strict=True)
    ):
        following[row, begin : begin + length - 1] = ids[1:length]
        previous[row, begin + 1 : begin + length] = ids[: length - 1]
    labels = {"label_ids": following, "previous_ids": previous}
    return Batch(batch.layout, batch.inputs, batch.lengths, labels), begin


@pytest.mark.parametrize("name", RUNNING)
def test_language_models_of_every_mask_run_and_learn(name: str) -> None:
    torch.manual_seed(0)
    model = Model(ModelConfig.parse(read_tencent_config(RUNNING[name]))).double()
    batch, _ = labelled(model)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(200):
        loss = model(batch).loss
        assert loss is not None
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 2


def test_attention_to_the_prefix_is_full_and_causal_behind_it() -> None:
    model = (
        Model(ModelConfig.parse(read_tencent_config(RUNNING["prefix language model"])))
        .double()
        .eval()
    )
    randomise(model)
    batch, begin = labelled(model)
    before = model.hidden(batch)[0]
    batch.inputs[1][0, 3] = (batch.inputs[1][0, 3] + 1) % 41
    after = model.hidden(batch)[0]
    assert torch.equal(before[0, : begin + 3], after[0, : begin + 3]) and not torch.equal(
        before[0, begin + 3], after[0, begin + 3]
    )
    batch.inputs[0][0, 8] = (batch.inputs[0][0, 8] + 1) % 41
    # The first word of the prefix sees its last word.
    assert not torch.equal(model.hidden(batch)[0][0, 0], after[0, 0])


def test_special_tokens_are_read_from_files(tmp_path: Path) -> None:
    """A RoBERTa with the special tokens `<s>`, `</s>` and `<mask>` is converted and trained, and keeps
    all its word embeddings."""
    theirs = Reference("RobertaForMaskedLM", "RobertaConfig", {**BERT, "type_vocab_size": 1}).build(
        torch.float32
    )
    theirs.save_pretrained(tmp_path / "theirs")
    tokens = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", *"abcdefgh"]
    tokenizer = Tokenizer(
        models.WordLevel({token: i for i, token in enumerate(tokens)}, unk_token="<unk>")
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(tmp_path / "theirs" / "tokenizer.json"))
    names = {
        "cls_token": "<s>",
        "sep_token": "</s>",
        "mask_token": "<mask>",
        "pad_token": "<pad>",
        "unk_token": "<unk>",
    }
    (tmp_path / "theirs" / "special_tokens_map.json").write_text(json.dumps(names))
    model = sw.from_hf(tmp_path / "theirs")
    model.save_pretrained(tmp_path / "ours")
    rows = [{"text": " ".join("abcdefgh"[i % 3 :])} for i in range(40)]
    (tmp_path / "texts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    described = model.config.model_dump(mode="json")
    data = {"path": str(tmp_path / "texts.jsonl"), "fractions": [0.8, 0.1, 0.1]}
    recipe = {
        "output": str(tmp_path / "run"),
        "start_from": str(tmp_path / "ours"),
        "model": {key: described[key] for key in ("width", "streams", "encoder", "targets")},
        "tasks": {"masked_text": {"data": data, "batch_size": 4}},
        "training": {"steps": 1, "threads": 1, "optimizer": {"learning_rate": 1e-12}},
    }
    sw.train(RecipeConfig.parse(recipe), quiet=True)
    trained = sw.load(tmp_path / "run")
    assert trained.config.streams.text is not None
    assert trained.config.streams.text.tokenizer.special["mask"] == "<mask>"
    # All 41 rows, of which 13 have tokens.
    assert relative_error(trained.words(sw.Modality.TEXT), model.words(sw.Modality.TEXT)) < 1e-6
