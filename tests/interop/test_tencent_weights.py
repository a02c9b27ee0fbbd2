"""TencentPretrain's checkpoints: random models of Hugging Face under TencentPretrain's names, read by ours, answer alike.

The tables here are written from its public conversion scripts, apart from the rules under test.
"""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hf_references import (
    BART,
    BERT,
    BLOOM,
    CLIP,
    GPT2,
    LLAMA,
    SMALL,
    T5,
    KeepDouble,
    Reference,
    make_batch,
    run_theirs,
    true_tokens,
)
from hf_vision import VIT
from tiny import relative_error
from torch import Tensor, nn

import skillweave as sw
from skillweave.batch import Batch, Layout, Modality, Span
from skillweave.cli import main
from skillweave.config import ConfigError, ModelConfig
from skillweave.interop import from_tencent
from skillweave.weights import WeightsError

State = dict[str, Tensor]


def norm(old: State, theirs: str, name: str) -> State:
    """A layer norm is called gamma and beta; one without a bias keeps its weight's name."""
    if f"{theirs}.bias" not in old:
        return {f"{name}.weight": old[f"{theirs}.weight"]}
    return {f"{name}.gamma": old[f"{theirs}.weight"], f"{name}.beta": old[f"{theirs}.bias"]}


def linear(old: State, theirs: str, name: str) -> State:
    return {f"{name}{end}": old[f"{theirs}{end}"] for end in (".weight", ".bias") if f"{theirs}{end}" in old}


def layers(old: State, count: int, theirs: str, name: str, parts: dict[str, str], norms: dict[str, str]) -> State:
    new: State = {}
    for i in range(count):
        for there, here in parts.items():
            new |= linear(old, f"{theirs}.{i}.{there}", f"{name}.{i}.{here}")
        for there, here in norms.items():
            new |= norm(old, f"{theirs}.{i}.{there}", f"{name}.{i}.{here}")
    return new


def numbered(prefix: str, names: list[str], output: str, attention: str = "self_attn") -> dict[str, str]:
    found = {f"{prefix}{name}": f"{attention}.linear_layers.{i}" for i, name in enumerate(names)}
    return {**found, f"{prefix}{output}": f"{attention}.final_linear"}


def with_padding_segment(table: Tensor) -> Tensor:
    return torch.cat([torch.zeros(1, table.shape[1], dtype=table.dtype), table])


def bert(old: State, base: str = "bert", count: int = 3) -> State:
    embeddings = f"{base}.embeddings"
    parts = {
        **numbered("attention.self.", ["query", "key", "value"], "../output"),
        "attention.output.dense": "self_attn.final_linear",
        "intermediate.dense": "feed_forward.linear_1",
        "output.dense": "feed_forward.linear_2",
    }
    norms = {"attention.output.LayerNorm": "layer_norm_1", "output.LayerNorm": "layer_norm_2"}
    return {
        "embedding.word.embedding.weight": old[f"{embeddings}.word_embeddings.weight"],
        "embedding.pos.embedding.weight": old[f"{embeddings}.position_embeddings.weight"],
        "embedding.seg.embedding.weight": with_padding_segment(old[f"{embeddings}.token_type_embeddings.weight"]),
        **norm(old, f"{embeddings}.LayerNorm", "embedding.layer_norm"),
        **layers(old, count, f"{base}.encoder.layer", "encoder.transformer", parts, norms),
    }


def bert_pretraining(old: State) -> State:
    return {
        **bert(old),
        **linear(old, "bert.pooler.dense", "target.sp.linear_1"),
        **linear(old, "cls.seq_relationship", "target.sp.linear_2"),
        **linear(old, "cls.predictions.transform.dense", "target.mlm.linear_1"),
        **norm(old, "cls.predictions.transform.LayerNorm", "target.mlm.layer_norm"),
        "target.mlm.linear_2.weight": old["cls.predictions.decoder.weight"],
        "target.mlm.linear_2.bias": old["cls.predictions.bias"],
    }


def bert_pretraining_of_old(old: State) -> State:
    """As UER's first versions had it."""
    names = {
        "embedding.word.embedding": "embedding.word_embedding",
        "embedding.pos.embedding": "embedding.position_embedding",
        "embedding.seg.embedding": "embedding.segment_embedding",
        "target.sp.linear_": "target.nsp_linear_",
        "target.mlm.linear_": "target.mlm_linear_",
        "target.mlm.layer_norm": "target.layer_norm",
    }
    new = {}
    for name, x in bert_pretraining(old).items():
        for today, before in names.items():
            name = name.replace(today, before)
        new[name] = x
    return new


def bert_classifier(old: State) -> State:
    heads = {**linear(old, "bert.pooler.dense", "output_layer_1"), **linear(old, "classifier", "output_layer_2")}
    return {**bert(old), **heads}


def albert(old: State) -> State:
    group = "albert.encoder.albert_layer_groups.0.albert_layers.0"
    parts = {
        **{f"attention.{part}": f"self_attn.linear_layers.{i}" for i, part in enumerate(("query", "key", "value"))},
        "attention.dense": "self_attn.final_linear",
        "ffn": "feed_forward.linear_1",
        "ffn_output": "feed_forward.linear_2",
    }
    new = {}
    for there, here in parts.items():
        new |= linear(old, f"{group}.{there}", f"encoder.transformer.{here}")
    words = "albert.embeddings.word_embeddings.weight"
    return {
        **bert(old, "albert", 0),
        **new,
        **norm(old, f"{group}.attention.LayerNorm", "encoder.transformer.layer_norm_1"),
        **norm(old, f"{group}.full_layer_layer_norm", "encoder.transformer.layer_norm_2"),
        **linear(old, "albert.encoder.embedding_hidden_mapping_in", "encoder.linear"),
        **linear(old, "predictions.dense", "target.mlm.linear_1"),
        **norm(old, "predictions.LayerNorm", "target.mlm.layer_norm"),
        "target.mlm.linear_2.weight": old[words],
        "target.mlm.linear_2.bias": old["predictions.bias"],
    }


def gpt2(old: State) -> State:
    new = {
        "embedding.word.embedding.weight": old["transformer.wte.weight"],
        "embedding.pos.embedding.weight": old["transformer.wpe.weight"],
        "target.lm.output_layer.weight": old["transformer.wte.weight"],
        **norm(old, "transformer.ln_f", "encoder.layer_norm"),
    }
    for i in range(3):
        there, here = f"transformer.h.{i}", f"encoder.transformer.{i}"
        for j in range(3):
            own = slice(15 * j, 15 * (j + 1))
            new[f"{here}.self_attn.linear_layers.{j}.weight"] = old[f"{there}.attn.c_attn.weight"].t()[own]
            new[f"{here}.self_attn.linear_layers.{j}.bias"] = old[f"{there}.attn.c_attn.bias"][own]
        names = {
            "attn.c_proj": "self_attn.final_linear",
            "mlp.c_fc": "feed_forward.linear_1",
            "mlp.c_proj": "feed_forward.linear_2",
        }
        for name, own_name in names.items():
            new[f"{here}.{own_name}.weight"] = old[f"{there}.{name}.weight"].t()
            new[f"{here}.{own_name}.bias"] = old[f"{there}.{name}.bias"]
        new |= {**norm(old, f"{there}.ln_1", f"{here}.layer_norm_1"), **norm(old, f"{there}.ln_2", f"{here}.layer_norm_2")}
    return new


def bloom(old: State) -> State:
    parts = {
        "self_attention.dense": "self_attn.final_linear",
        "mlp.dense_h_to_4h": "feed_forward.linear_1",
        "mlp.dense_4h_to_h": "feed_forward.linear_2",
    }
    norms = {"input_layernorm": "layer_norm_1", "post_attention_layernorm": "layer_norm_2"}
    new = layers(old, 3, "transformer.h", "encoder.transformer", parts, norms)
    for i in range(3):
        for end in ("weight", "bias"):
            heads = old[f"transformer.h.{i}.self_attention.query_key_value.{end}"].split(5)  # of size 5: q, k, v, q, ...
            for j in range(3):
                new[f"encoder.transformer.{i}.self_attn.linear_layers.{j}.{end}"] = torch.cat(heads[j::3])
    return {
        **new,
        "embedding.word.embedding.weight": old["transformer.word_embeddings.weight"],
        "target.lm.output_layer.weight": old["transformer.word_embeddings.weight"],
        **norm(old, "transformer.word_embeddings_layernorm", "embedding.layer_norm"),
        **norm(old, "transformer.ln_f", "encoder.layer_norm"),
    }


def llama(old: State) -> State:
    """Rotary pairs stand side by side, as Meta has them."""

    def side_by_side(weight: Tensor) -> Tensor:
        size, width = 6, weight.shape[1]
        return weight.reshape(-1, 2, size // 2, width).transpose(1, 2).reshape(-1, width)

    parts = {
        "self_attn.v_proj": "self_attn.linear_layers.2",
        "self_attn.o_proj": "self_attn.final_linear",
        "mlp.gate_proj": "feed_forward.linear_gate",
        "mlp.up_proj": "feed_forward.linear_1",
        "mlp.down_proj": "feed_forward.linear_2",
    }
    norms = {"input_layernorm": "layer_norm_1", "post_attention_layernorm": "layer_norm_2"}
    new = layers(old, 3, "model.layers", "encoder.transformer", parts, norms)
    for i in range(3):
        for j, name in enumerate("qk"):
            weight = old[f"model.layers.{i}.self_attn.{name}_proj.weight"]
            new[f"encoder.transformer.{i}.self_attn.linear_layers.{j}.weight"] = side_by_side(weight)
    return {
        **new,
        "embedding.word.embedding.weight": old["model.embed_tokens.weight"],
        "encoder.layer_norm.weight": old["model.norm.weight"],
        "target.lm.output_layer.weight": old["lm_head.weight"],
    }


def t5(old: State) -> State:
    inner = {"wi_0": "linear_gate", "wi_1": "linear_1", "wo": "linear_2"}
    attention = numbered("layer.0.SelfAttention.", list("qkv"), "o")
    encoder = {**attention, **{f"layer.1.DenseReluDense.{a}": f"feed_forward.{b}" for a, b in inner.items()}}
    decoder = {
        **attention,
        **numbered("layer.1.EncDecAttention.", list("qkv"), "o", "context_attn"),
        **{f"layer.2.DenseReluDense.{a}": f"feed_forward.{b}" for a, b in inner.items()},
    }

    def norms(count: int) -> dict[str, str]:
        return {f"layer.{i}.layer_norm": f"layer_norm_{i + 1}" for i in range(count)}

    bias = "block.0.layer.0.SelfAttention.relative_attention_bias.weight"
    return {
        **layers(old, 3, "encoder.block", "encoder.transformer", encoder, norms(2)),
        **layers(old, 2, "decoder.block", "decoder.transformer_decoder", decoder, norms(3)),
        "embedding.word.embedding.weight": old["shared.weight"],
        "tgt_embedding.word.embedding.weight": old["shared.weight"],
        "target.lm.output_layer.weight": old["shared.weight"],
        "encoder.relative_pos_emb.relative_attention_bias.weight": old[f"encoder.{bias}"],
        "decoder.self_pos_emb.relative_attention_bias.weight": old[f"decoder.{bias}"],
        "encoder.layer_norm.weight": old["encoder.final_layer_norm.weight"],
        "decoder.layer_norm.weight": old["decoder.final_layer_norm.weight"],
    }


PROJECTIONS = ["q_proj", "k_proj", "v_proj"]


def bart(old: State) -> State:
    both = {"fc1": "feed_forward.linear_1", "fc2": "feed_forward.linear_2"}
    attention = numbered("self_attn.", PROJECTIONS, "out_proj")
    cross = numbered("encoder_attn.", PROJECTIONS, "out_proj", "context_attn")
    first, last = {"self_attn_layer_norm": "layer_norm_1"}, {"final_layer_norm": "layer_norm_2"}
    new = {
        **layers(
            old,
            3,
            "model.encoder.layers",
            "encoder.transformer",
            {**attention, **both},
            {**first, **last},
        ),
        **layers(
            old,
            2,
            "model.decoder.layers",
            "decoder.transformer_decoder",
            {**attention, **cross, **both},
            {**first, "encoder_attn_layer_norm": "layer_norm_2", "final_layer_norm": "layer_norm_3"},
        ),
        "target.lm.output_layer.weight": old["model.shared.weight"],
        "target.lm.output_layer.bias": old["final_logits_bias"].squeeze(0),
    }
    for side, name in (("encoder", "embedding"), ("decoder", "tgt_embedding")):
        new[f"{name}.word.embedding.weight"] = old["model.shared.weight"]
        new[f"{name}.pos.embedding.weight"] = old[f"model.{side}.embed_positions.weight"][2:]
        new |= norm(old, f"model.{side}.layernorm_embedding", f"{name}.layer_norm")
    return new


def vit(old: State) -> State:
    """The pooler, and a classifier of three classes behind it that Hugging Face's model lacks."""
    parts = {
        **{f"attention.{name}": f"self_attn.linear_layers.{i}" for i, name in enumerate(PROJECTIONS)},
        "attention.o_proj": "self_attn.final_linear",
        "mlp.fc1": "feed_forward.linear_1",
        "mlp.fc2": "feed_forward.linear_2",
    }
    norms = {"layernorm_before": "layer_norm_1", "layernorm_after": "layer_norm_2"}
    generator = torch.Generator().manual_seed(5)
    return {
        "embedding.patch.cls_emb": old["embeddings.cls_token"],
        **linear(old, "embeddings.patch_embeddings.projection", "embedding.patch.projection"),
        "embedding.pos.embedding.weight": old["embeddings.position_embeddings"].squeeze(0),
        **layers(old, 3, "layers", "encoder.transformer", parts, norms),
        **norm(old, "layernorm", "encoder.layer_norm"),
        **linear(old, "pooler.dense", "target.cls.linear_1"),
        "target.cls.linear_2.weight": torch.randn(3, 15, dtype=torch.float64, generator=generator),
        "target.cls.linear_2.bias": torch.randn(3, dtype=torch.float64, generator=generator),
    }


def clip(old: State) -> State:
    parts = {
        **numbered("self_attn.", PROJECTIONS, "out_proj"),
        "mlp.fc1": "feed_forward.linear_1",
        "mlp.fc2": "feed_forward.linear_2",
    }
    norms = {"layer_norm1": "layer_norm_1", "layer_norm2": "layer_norm_2"}
    text, image = "text_model.embeddings", "vision_model.embeddings"
    dual = "embedding.dual"
    return {
        f"{dual}.embedding_0.word.embedding.weight": old[f"{text}.token_embedding.weight"],
        f"{dual}.embedding_0.pos.embedding.weight": old[f"{text}.position_embedding.weight"],
        f"{dual}.embedding_1.patch.cls_emb": old[f"{image}.class_embedding"].reshape(1, 1, -1),
        f"{dual}.embedding_1.patch.projection.weight": old[f"{image}.patch_embedding.weight"],
        f"{dual}.embedding_1.pos.embedding.weight": old[f"{image}.position_embedding.weight"],
        **norm(old, "vision_model.pre_layrnorm", f"{dual}.stream_1_layer_norm"),
        **layers(old, 2, "text_model.encoder.layers", "encoder.encoder_0.transformer", parts, norms),
        **layers(old, 3, "vision_model.encoder.layers", "encoder.encoder_1.transformer", parts, norms),
        **norm(old, "text_model.final_layer_norm", "encoder.encoder_0.layer_norm"),
        **norm(old, "vision_model.post_layernorm", "encoder.encoder_1.layer_norm"),
        "target.clr.logit_scale": old["logit_scale"],
        "target.clr.encoder_0_projection": old["text_projection.weight"].T,
        "target.clr.encoder_1_projection": old["visual_projection.weight"].T,
    }


TEXT = {"layernorm_eps": 1e-12, "hidden_act": "gelu", "mask": "fully_visible", "dropout": 0.1, "encoder": "transformer"}
SIZES = {**TEXT, "emb_size": 15, "hidden_size": 15, "feedforward_size": 37, "heads_num": 3, "layers_num": 3, "max_seq_length": 13}
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
    return theirs, {name: x.detach().clone() for name, x in rename(dict(theirs.state_dict())).items()}


@pytest.mark.parametrize("case", CASES)
def test_the_same_answers(case: str, tmp_path: Path) -> None:
    theirs, state = checkpoint(case)
    model = from_tencent(state, ModelConfig.from_file(configuration(CASES[case][1], tmp_path)))
    task = next(iter(model.config.tasks.values()))
    alone = model.config.model_dump(mode="json")
    if "sp" in task.targets:  # a single text is enough to compare
        alone["tasks"] = {"mlm_sp": {"spans": [{"modality": "text"}], "targets": task.targets}}
        model.config = ModelConfig.parse(alone)
    batch = make_batch(model, torch.float64)
    with KeepDouble():
        expected = run_theirs(theirs, batch)
    found = dict(model(batch).logits)
    if case == "ViT":
        expected = {
            "classification": expected["pooled"] @ state["target.cls.linear_2.weight"].T + state["target.cls.linear_2.bias"]
        }
    if "sp" in found:
        found["classification"] = found.pop("sp")
    assert set(found) == set(expected)
    for kind, logits in found.items():
        wanted = expected[kind][true_tokens(batch, -1)] if kind in ("mlm", "lm") else expected[kind]
        assert relative_error(logits, wanted) < 1e-9


@pytest.mark.parametrize("way", ["lstm", "bidirectional gru", "bilstm"])
def test_recurrent_checkpoints(way: str, tmp_path: Path) -> None:
    """torch's own modules under the names of TencentPretrain's."""
    torch.manual_seed(0)
    words = torch.randn(41, 7, dtype=torch.float64)
    kind, size, both = {"lstm": (nn.LSTM, 10, False), "bidirectional gru": (nn.GRU, 5, True), "bilstm": (nn.LSTM, 5, False)}[way]
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
    data = {"stream_0": MLM, "stream_1": MLM, "embedding": ["dual"], "encoder": "dual", "tie_weights": True}
    config = ModelConfig.from_file(configuration(data, tmp_path))
    model = from_tencent(state, config)
    assert torch.equal(model.words(Modality.TEXT), old["embedding.word.embedding.weight"])
    state["encoder.encoder_1.transformer.2.feed_forward.linear_1.bias"] += 1
    with pytest.raises(WeightsError, match=r"encoder_1\.transformer\.2.* is tied to .*encoder_0.*, but differs"):
        from_tencent(state, config)


def test_the_command_reads_a_file(tmp_path: Path) -> None:
    _, state = checkpoint("BERT")
    torch.save(state, tmp_path / "model.bin")
    file = configuration(CASES["BERT"][1], tmp_path)
    words = ["convert", str(tmp_path / "model.bin"), "--config", str(file), "--out", str(tmp_path / "out")]
    assert main(words) == 0
    model = sw.load(tmp_path / "out")
    assert torch.equal(model.words(Modality.TEXT), state["embedding.word.embedding.weight"])
    assert type(sw.to_hf(model)).__name__ == "BertForPreTraining"
    torch.save({"x": print}, tmp_path / "model.bin")
    assert main([*words[:-1], str(tmp_path / "other")]) == 2


def test_what_does_not_fit_is_named(tmp_path: Path) -> None:
    config = ModelConfig.from_file(configuration(CASES["BERT"][1], tmp_path))
    _, state = checkpoint("BERT")
    del state["encoder.transformer.1.self_attn.final_linear.bias"]
    with pytest.raises(WeightsError, match=r"missing: encoder\.transformer\.1\.self_attn\.final_linear\.bias"):
        from_tencent(state, config)
    _, state = checkpoint("BERT")
    with pytest.raises(WeightsError, match=r"unexpected: more"):
        from_tencent({**state, "more": torch.zeros(1)}, config)
    with pytest.raises(WeightsError, match=r"target\.mlm\.linear_2\.weight is tied to embedding\.word\.embedding\.weight"):
        from_tencent({**state, "target.mlm.linear_2.weight": torch.zeros(41, 15).double()}, config)
    with pytest.raises(ConfigError, match="sinusoidal positions alternate"):
        from_tencent({**state, "embedding.sinusoidalpos.pe": torch.zeros(1)}, config)
