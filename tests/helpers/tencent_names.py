"""Weights of Hugging Face models with TencentPretrain's names, from its public scripts and
independent of the rules under test."""

import torch
from torch import Tensor

State = dict[str, Tensor]


def norm(old: State, theirs: str, name: str) -> State:
    """A layer norm has gamma and beta; a norm without a bias has a weight."""
    if f"{theirs}.bias" not in old:
        return {f"{name}.weight": old[f"{theirs}.weight"]}
    return {f"{name}.gamma": old[f"{theirs}.weight"], f"{name}.beta": old[f"{theirs}.bias"]}


def linear(old: State, theirs: str, name: str) -> State:
    return {
        f"{name}{end}": old[f"{theirs}{end}"]
        for end in (".weight", ".bias")
        if f"{theirs}{end}" in old
    }


def layers(
    old: State, count: int, theirs: str, name: str, parts: dict[str, str], norms: dict[str, str]
) -> State:
    new: State = {}
    for i in range(count):
        for there, here in parts.items():
            new |= linear(old, f"{theirs}.{i}.{there}", f"{name}.{i}.{here}")
        for there, here in norms.items():
            new |= norm(old, f"{theirs}.{i}.{there}", f"{name}.{i}.{here}")
    return new


def numbered(
    prefix: str, names: list[str], output: str, attention: str = "self_attn"
) -> dict[str, str]:
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
        "embedding.seg.embedding.weight": with_padding_segment(
            old[f"{embeddings}.token_type_embeddings.weight"]
        ),
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
    """The names of the first versions of UER."""
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
    heads = {
        **linear(old, "bert.pooler.dense", "output_layer_1"),
        **linear(old, "classifier", "output_layer_2"),
    }
    return {**bert(old), **heads}


def albert(old: State) -> State:
    group = "albert.encoder.albert_layer_groups.0.albert_layers.0"
    parts = {
        **{
            f"attention.{part}": f"self_attn.linear_layers.{i}"
            for i, part in enumerate(("query", "key", "value"))
        },
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
            new[f"{here}.self_attn.linear_layers.{j}.weight"] = old[
                f"{there}.attn.c_attn.weight"
            ].t()[own]
            new[f"{here}.self_attn.linear_layers.{j}.bias"] = old[f"{there}.attn.c_attn.bias"][own]
        names = {
            "attn.c_proj": "self_attn.final_linear",
            "mlp.c_fc": "feed_forward.linear_1",
            "mlp.c_proj": "feed_forward.linear_2",
        }
        for name, own_name in names.items():
            new[f"{here}.{own_name}.weight"] = old[f"{there}.{name}.weight"].t()
            new[f"{here}.{own_name}.bias"] = old[f"{there}.{name}.bias"]
        new |= {
            **norm(old, f"{there}.ln_1", f"{here}.layer_norm_1"),
            **norm(old, f"{there}.ln_2", f"{here}.layer_norm_2"),
        }
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
            # Each head has a query, a key and a value of size 5.
            heads = old[f"transformer.h.{i}.self_attention.query_key_value.{end}"].split(5)
            for j in range(3):
                new[f"encoder.transformer.{i}.self_attn.linear_layers.{j}.{end}"] = torch.cat(
                    heads[j::3]
                )
    return {
        **new,
        "embedding.word.embedding.weight": old["transformer.word_embeddings.weight"],
        "target.lm.output_layer.weight": old["transformer.word_embeddings.weight"],
        **norm(old, "transformer.word_embeddings_layernorm", "embedding.layer_norm"),
        **norm(old, "transformer.ln_f", "encoder.layer_norm"),
    }


def llama(old: State) -> State:
    """The values of a rotary pair are neighbours, as in Meta's checkpoints."""

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
            new[f"encoder.transformer.{i}.self_attn.linear_layers.{j}.weight"] = side_by_side(
                weight
            )
    return {
        **new,
        "embedding.word.embedding.weight": old["model.embed_tokens.weight"],
        "encoder.layer_norm.weight": old["model.norm.weight"],
        "target.lm.output_layer.weight": old["lm_head.weight"],
    }


def t5(old: State) -> State:
    inner = {"wi_0": "linear_gate", "wi_1": "linear_1", "wo": "linear_2"}
    attention = numbered("layer.0.SelfAttention.", list("qkv"), "o")
    encoder = {
        **attention,
        **{f"layer.1.DenseReluDense.{a}": f"feed_forward.{b}" for a, b in inner.items()},
    }
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
            {
                **first,
                "encoder_attn_layer_norm": "layer_norm_2",
                "final_layer_norm": "layer_norm_3",
            },
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
    """The pooler, and a classifier of three classes that Hugging Face's model lacks."""
    parts = {
        **{
            f"attention.{name}": f"self_attn.linear_layers.{i}"
            for i, name in enumerate(PROJECTIONS)
        },
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
        **layers(
            old, 2, "text_model.encoder.layers", "encoder.encoder_0.transformer", parts, norms
        ),
        **layers(
            old, 3, "vision_model.encoder.layers", "encoder.encoder_1.transformer", parts, norms
        ),
        **norm(old, "text_model.final_layer_norm", "encoder.encoder_0.layer_norm"),
        **norm(old, "vision_model.post_layernorm", "encoder.encoder_1.layer_norm"),
        "target.clr.logit_scale": old["logit_scale"],
        "target.clr.encoder_0_projection": old["text_projection.weight"].T,
        "target.clr.encoder_1_projection": old["visual_projection.weight"].T,
    }
