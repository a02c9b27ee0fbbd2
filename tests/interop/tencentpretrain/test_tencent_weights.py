"""TencentPretrain's checkpoints: random Hugging Face models whose weights get TencentPretrain's
names give the same outputs."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hf_generation import BART, T5
from hf_references import (
    BERT,
    BLOOM,
    CLIP,
    GPT2,
    LLAMA,
    SMALL,
    KeepDouble,
    Reference,
    make_batch,
    run_theirs,
    true_tokens,
)
from hf_vision import VIT
from tencent_names import (
    State,
    albert,
    bart,
    bert,
    bert_classifier,
    bert_pretraining,
    bert_pretraining_of_old,
    bloom,
    clip,
    gpt2,
    llama,
    t5,
    vit,
)
from tiny import relative_error
from torch import nn

import skillweave as sw
from skillweave.batch import Batch, Layout, Modality, Span
from skillweave.cli.app import main
from skillweave.interop.tencentpretrain.weights import from_tencent
from skillweave.model.config import ModelConfig
from skillweave.weights.files import WeightsError

TEXT = {
    "layernorm_eps": 1e-12,
    "hidden_act": "gelu",
    "mask": "fully_visible",
    "dropout": 0.1,
    "encoder": "transformer",
}
SIZES = {
    **TEXT,
    "emb_size": 15,
    "hidden_size": 15,
    "feedforward_size": 37,
    "heads_num": 3,
    "layers_num": 3,
    "max_seq_length": 13,
}
MLM = {**SIZES, "embedding": ["word", "pos", "seg"], "target": ["mlm"]}
TOWER = {
    "embedding": ["word", "pos"], "encoder": "transformer", "layernorm_positioning": "pre", "hidden_act": "gelu_quick",
    "heads_num": 3, "feedforward_size": 23, "layernorm_eps": 1e-5,
}  # fmt: skip
CASES: dict[str, tuple[Reference, dict[str, Any], Any]] = {
    "BERT": (
        Reference("BertForPreTraining", "BertConfig", BERT),
        {**MLM, "target": ["mlm", "sp"], "data_processor": "bert"},
        bert_pretraining,
    ),
    "BERT of UER": (
        Reference("BertForPreTraining", "BertConfig", BERT),
        {**MLM, "embedding": "word_pos_seg", "target": ["mlm", "sp"]},
        bert_pretraining_of_old,
    ),
    "BERT fine-tuned": (
        Reference("BertForSequenceClassification", "BertConfig", {**BERT, "num_labels": 3}),
        {**MLM, "target": ["cls"]},
        bert_classifier,
    ),
    "ALBERT": (
        Reference("AlbertForMaskedLM", "AlbertConfig", {**SMALL, "hidden_act": "relu"}),
        {**MLM, "emb_size": 7, "hidden_act": "relu", "factorized_embedding_parameterization": True, "parameter_sharing": True},
        albert,
    ),
    "GPT-2": (
        Reference("GPT2LMHeadModel", "GPT2Config", {**GPT2, "n_inner": 37}),
        {
            **SIZES, "hidden_act": "gelu_fast", "mask": "causal", "layernorm_positioning": "pre", "layernorm_eps": 1e-5,
            "embedding": ["word", "pos"], "remove_embedding_layernorm": True, "tie_weights": True, "target": ["lm"],
        },
        gpt2,
    ),
    "BLOOM": (
        Reference("BloomForCausalLM", "BloomConfig", BLOOM),
        {
            **SIZES, "feedforward_size": 60, "hidden_act": "gelu_fast", "layernorm_eps": 1e-5, "mask": "causal",
            "layernorm_positioning": "pre", "embedding": ["word"], "alibi_position_embedding": True, "layer_number_scale": True,
            "tie_weights": True, "target": ["lm"],
        },
        bloom,
    ),
    "LLaMA": (
        Reference("LlamaForCausalLM", "LlamaConfig", {**LLAMA, "num_attention_heads": 5, "num_key_value_heads": 5}),
        {
            **SIZES, "emb_size": 30, "hidden_size": 30, "heads_num": 5, "hidden_act": "silu", "feed_forward": "gated",
            "remove_transformer_bias": True, "remove_embedding_layernorm": True, "rotary_position_embedding": True,
            "mask": "causal", "layernorm_positioning": "pre", "layernorm": "rms", "layernorm_eps": 1e-6, "embedding": ["word"],
            "target": ["lm"],
        },
        llama,
    ),
    "LLaMA with grouped queries": (
        Reference("LlamaForCausalLM", "LlamaConfig", {**LLAMA, "num_attention_heads": 5, "num_key_value_heads": 1}),
        {
            **SIZES, "emb_size": 30, "hidden_size": 30, "heads_num": 5, "local_kv_heads_num": 1, "hidden_act": "silu",
            "feed_forward": "gated", "remove_transformer_bias": True, "remove_embedding_layernorm": True,
            "rotary_position_embedding": True, "mask": "causal", "layernorm_positioning": "pre", "layernorm": "rms",
            "layernorm_eps": 1e-6, "embedding": ["word"], "target": ["lm"],
        },
        llama,
    ),
    "T5 1.1": (
        Reference(
            "T5ForConditionalGeneration",
            "T5Config",
            {**T5, "relative_attention_max_distance": 128, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False},
        ),
        {
            **SIZES, "attention_head_size": 7, "decoder_layers_num": 2, "hidden_act": "gelu_fast", "feed_forward": "gated",
            "relative_position_embedding": True, "relative_attention_buckets_num": 8, "remove_attention_scale": True,
            "remove_transformer_bias": True, "layernorm": "t5", "layernorm_eps": 1e-6, "layernorm_positioning": "pre",
            "remove_embedding_layernorm": True, "share_embedding": True, "tie_weights": True, "embedding": ["word"],
            "tgt_embedding": ["word"], "decoder": "transformer", "target": ["lm"],
        },
        t5,
    ),
    "BART": (
        Reference("BartForConditionalGeneration", "BartConfig", {**BART, "decoder_attention_heads": 3, "decoder_ffn_dim": 37}),
        {
            **SIZES, "layernorm_eps": 1e-5, "decoder_layers_num": 2, "embedding": ["word", "pos"],
            "tgt_embedding": ["word", "pos"], "decoder": "transformer", "share_embedding": True, "tie_weights": True,
            "has_lmtarget_bias": True, "target": ["lm"],
        },
        bart,
    ),
    "ViT": (
        Reference("ViTModel", "ViTConfig", VIT),
        {
            **SIZES, "layernorm_positioning": "pre", "remove_embedding_layernorm": True, "embedding": ["patch", "pos"],
            "image_height": 12, "image_width": 12, "patch_size": 4, "target": ["cls"],
        },
        vit,
    ),
    "CLIP": (
        Reference("CLIPModel", "CLIPConfig", CLIP),
        {
            "stream_0": {
                **TOWER, "emb_size": 15, "hidden_size": 15, "layers_num": 2, "max_seq_length": 13, "mask": "causal",
                "remove_embedding_layernorm": True, "pooling": "last",
            },
            "stream_1": {
                **TOWER, "embedding": ["patch", "pos"], "emb_size": 21, "hidden_size": 21, "layers_num": 3,
                "remove_embedding_layernorm": False, "pooling": "first",
            },
            "embedding": ["dual"], "encoder": "dual", "image_height": 12, "image_width": 12, "patch_size": 4,
            "feature_size": 11, "projection": True, "dropout": 0.0, "target": ["clr"],
        },
        clip,
    ),
}  # fmt: skip


def configuration(data: dict[str, Any], folder: Path) -> Path:
    file = folder / "tencent.json"
    file.write_text(json.dumps(data))
    return file


def checkpoint(case: str) -> tuple[Any, State]:
    reference, _, rename = CASES[case]
    theirs = reference.build(torch.float64)
    return theirs, {
        name: x.detach().clone() for name, x in rename(dict(theirs.state_dict())).items()
    }


@pytest.mark.parametrize("case", CASES)
def test_the_same_answers(case: str, tmp_path: Path) -> None:
    theirs, state = checkpoint(case)
    model = from_tencent(state, ModelConfig.from_file(configuration(CASES[case][1], tmp_path)))
    task = next(iter(model.config.tasks.values()))
    alone = model.config.model_dump(mode="json")
    if "sp" in task.targets:  # A single text is enough.
        alone["tasks"] = {"mlm_sp": {"spans": [{"modality": "text"}], "targets": task.targets}}
        model.config = ModelConfig.parse(alone)
    batch = make_batch(model, torch.float64)
    with KeepDouble():
        expected = run_theirs(theirs, batch)
    found = dict(model(batch).logits)
    if case == "ViT":
        expected = {
            "classification": (
                expected["pooled"] @ state["target.cls.linear_2.weight"].T
                + state["target.cls.linear_2.bias"]
            )
        }
    if "sp" in found:
        found["classification"] = found.pop("sp")
    assert set(found) == set(expected)
    for kind, logits in found.items():
        wanted = expected[kind][true_tokens(batch, -1)] if kind in ("mlm", "lm") else expected[kind]
        assert relative_error(logits, wanted) < 1e-9


@pytest.mark.parametrize("way", ["lstm", "bidirectional gru", "bilstm"])
def test_recurrent_checkpoints(way: str, tmp_path: Path) -> None:
    """PyTorch's modules with TencentPretrain's names."""
    torch.manual_seed(0)
    words = torch.randn(41, 7, dtype=torch.float64)
    kind, size, both = {
        "lstm": (nn.LSTM, 10, False),
        "bidirectional gru": (nn.GRU, 5, True),
        "bilstm": (nn.LSTM, 5, False),
    }[way]
    names = ["rnn_forward", "rnn_backward"] if way == "bilstm" else ["rnn"]
    stacks = [kind(7, size, 2, bidirectional=both).double() for _ in names]
    state = {"embedding.word.embedding.weight": words}
    for name, stack in zip(names, stacks, strict=True):
        state |= {f"encoder.{name}.{part}": x for part, x in stack.state_dict().items()}
    data = {
        "emb_size": 7, "hidden_size": 10, "layers_num": 2, "embedding": ["word"], "remove_embedding_layernorm": True,
        "encoder": way.split()[-1], "bidirectional": both, "dropout": 0.1,
    }  # fmt: skip
    model = from_tencent(state, ModelConfig.from_file(configuration(data, tmp_path)))
    ids = torch.randint(41, (1, 6))
    batch = Batch(Layout("encode", (Span(Modality.TEXT, length=6),)), (ids,), torch.tensor([[6]]))
    expected = stacks[0](words[ids[0]])[0]
    if way == "bilstm":
        expected = torch.cat([expected, stacks[1](words[ids[0]].flip(0))[0].flip(0)], dim=1)
    assert relative_error(model.hidden(batch)[0][0], expected) < 1e-12


def test_a_siamese_model_of_equal_streams(tmp_path: Path) -> None:
    theirs, _ = checkpoint("BERT")
    old = bert(dict(theirs.state_dict()))
    state = {}
    for i in range(2):
        for name, x in old.items():
            name = name.replace("embedding.layer_norm", f"embedding.dual.stream_{i}_layer_norm")
            name = name.replace("encoder.transformer", f"encoder.encoder_{i}.transformer")
            if not name.startswith("encoder") and "stream_" not in name:
                name = name.replace("embedding.", f"embedding.dual.embedding_{i}.", 1)
            state[name] = x.clone()
    data = {
        "stream_0": MLM,
        "stream_1": MLM,
        "embedding": ["dual"],
        "encoder": "dual",
        "tie_weights": True,
    }
    config = ModelConfig.from_file(configuration(data, tmp_path))
    model = from_tencent(state, config)
    assert torch.equal(model.words(Modality.TEXT), old["embedding.word.embedding.weight"])
    state["encoder.encoder_1.transformer.2.feed_forward.linear_1.bias"] += 1
    with pytest.raises(
        WeightsError, match=r"encoder_1\.transformer\.2.* is tied to .*encoder_0.*, but differs"
    ):
        from_tencent(state, config)


def test_the_command_reads_a_file(tmp_path: Path) -> None:
    _, state = checkpoint("BERT")
    torch.save(state, tmp_path / "model.bin")
    file = configuration(CASES["BERT"][1], tmp_path)
    words = [
        "convert",
        str(tmp_path / "model.bin"),
        "--config",
        str(file),
        "--out",
        str(tmp_path / "out"),
    ]
    assert main(words) == 0
    model = sw.load(tmp_path / "out")
    assert torch.equal(model.words(Modality.TEXT), state["embedding.word.embedding.weight"])
    assert type(sw.to_hf(model)).__name__ == "BertForPreTraining"
    wrapped = {f"module.{name}": x for name, x in state.items()}  # of data parallelism
    torch.save(wrapped, tmp_path / "model.bin", _use_new_zipfile_serialization=False)
    assert main([*words[:-1], str(tmp_path / "wrapped")]) == 0
    torch.save({"x": print}, tmp_path / "model.bin")
    assert main([*words[:-1], str(tmp_path / "other")]) == 2


def test_what_does_not_fit_is_named(tmp_path: Path) -> None:
    config = ModelConfig.from_file(configuration(CASES["BERT"][1], tmp_path))
    _, state = checkpoint("BERT")
    del state["encoder.transformer.1.self_attn.final_linear.bias"]
    with pytest.raises(
        WeightsError, match=r"missing: encoder\.transformer\.1\.self_attn\.final_linear\.bias"
    ):
        from_tencent(state, config)
    _, state = checkpoint("BERT")
    with pytest.raises(WeightsError, match=r"unexpected: more"):
        from_tencent({**state, "more": torch.zeros(1)}, config)
