"""TencentPretrain's configurations: those of its paper (section 4, with corrected punctuation, and
Table 1) and of its repository."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

import skillweave
from skillweave.config import ConfigError
from skillweave.interop.huggingface import to_hf
from skillweave.model.config import ModelConfig
from skillweave.model.model import Model

PAPER: dict[str, dict[str, Any]] = {
    "BERT": {
        "embedding": ["word", "pos", "seg"],
        "encoder": "transformer",
        "target": ["mlm", "sp"],
    },
    "T5": {
        "embedding": ["word"],
        "encoder": "transformer",
        "tgt_embedding": ["word"],
        "decoder": "transformer",
        "target": ["lm"],
    },
    "ViLT": {
        "embedding": ["patch_word", "pos", "seg"],
        "encoder": "transformer",
        "pooling": "first",
        "target": ["cls", "mlm"],
    },
    "CLIP": {
        "stream_0": {"embedding": ["word", "pos"], "encoder": "transformer", "pooling": "first"},
        "stream_1": {"embedding": ["patch", "pos"], "encoder": "transformer", "pooling": "first"},
        "target": ["clr"],
    },
}
TABLE_1: dict[str, dict[str, Any]] = {
    "ELMo": {"embedding": ["word"], "encoder": "bi-lstm", "target": ["bilm"]},
    "InferSent": {"embedding": ["word"], "encoder": "gru", "target": ["cls"]},
    "CoVe": {
        "embedding": ["word"],
        "encoder": "lstm",
        "tgt_embedding": ["word"],
        "decoder": "lstm",
        "target": ["lm"],
    },
    "GPT-2": {"embedding": ["word", "pos"], "encoder": "transformer", "target": ["lm"]},
    "ViT": {"embedding": ["patch", "pos"], "encoder": "transformer", "target": ["cls"]},
    "BEiT": {"embedding": ["patch", "pos"], "encoder": "transformer", "target": ["mlm"]},
    "S2T": {
        "embedding": ["speech", "pos"],
        "encoder": "transformer",
        "tgt_embedding": ["word", "pos"],
        "decoder": "transformer",
        "target": ["lm"],
    },
}
BERT = {
    "emb_size": 768, "feedforward_size": 3072, "hidden_size": 768, "hidden_act": "gelu", "heads_num": 12, "layers_num": 12,
    "max_seq_length": 512, "dropout": 0.1, "data_processor": "bert", "embedding": "word_pos_seg", "encoder": "transformer",
    "mask": "fully_visible", "target": ["mlm", "sp"],
}  # fmt: skip
LLAMA = {
    "emb_size": 4096, "feedforward_size": 11008, "hidden_size": 4096, "hidden_act": "silu", "heads_num": 32, "layers_num": 32,
    "dropout": 0.1, "data_processor": "lm", "max_seq_length": 2048, "embedding": ["word"], "remove_transformer_bias": True,
    "remove_embedding_layernorm": True, "rotary_position_embedding": True, "encoder": "transformer", "feed_forward": "gated",
    "mask": "causal", "layernorm_positioning": "pre", "layernorm": "rms", "target": ["lm"],
}  # fmt: skip
CLIP = {
    "stream_0": {
        "emb_size": 512, "feedforward_size": 2048, "hidden_size": 512, "hidden_act": "gelu", "heads_num": 8, "layers_num": 12,
        "max_seq_length": 77, "embedding": ["word", "pos"], "encoder": "transformer", "mask": "causal",
        "remove_embedding_layernorm": True, "layernorm_positioning": "pre", "pooling": "last",
    },
    "stream_1": {
        "emb_size": 768, "feedforward_size": 3072, "hidden_size": 768, "hidden_act": "gelu_quick", "heads_num": 12,
        "layers_num": 12, "max_seq_length": 50, "embedding": ["patch", "pos"], "encoder": "transformer",
        "mask": "fully_visible", "remove_embedding_layernorm": False, "layernorm_positioning": "pre", "pooling": "first",
    },
    "data_processor": "clip", "embedding": ["dual"], "encoder": "dual", "target": ["clr"], "image_height": 224,
    "image_width": 224, "patch_size": 32, "feature_size": 512, "projection": True, "tie_weights": False, "dropout": 0.0,
}  # fmt: skip
T5 = {
    "emb_size": 64, "feedforward_size": 96, "hidden_size": 64, "hidden_act": "gelu_fast", "attention_head_size": 8,
    "heads_num": 6, "layers_num": 3, "decoder_layers_num": 2, "dropout": 0.0, "share_embedding": True, "tie_weights": False,
    "remove_attention_scale": True, "layernorm": "t5", "remove_transformer_bias": True, "feed_forward": "gated",
    "relative_position_embedding": True, "layernorm_positioning": "pre", "remove_embedding_layernorm": True,
    "embedding": ["word"], "tgt_embedding": ["word"], "encoder": "transformer", "decoder": "transformer", "target": ["lm"],
}  # fmt: skip
BILSTM = {
    "emb_size": 512, "hidden_size": 1536, "layers_num": 2, "dropout": 0.1, "max_seq_length": 1024, "data_processor": "bilm",
    "embedding": ["word"], "remove_embedding_layernorm": True, "encoder": "bilstm", "target": ["bilm"],
}  # fmt: skip
GATED_CNN = {
    "emb_size": 128, "hidden_size": 807, "layers_num": 9, "kernel_size": 4, "block_size": 2, "max_seq_length": 1024,
    "dropout": 0.1, "data_processor": "lm", "embedding": ["word"], "remove_embedding_layernorm": True, "encoder": "gatedcnn",
    "target": ["lm"],
}  # fmt: skip
S2T = {
    "emb_size": 256, "feedforward_size": 2048, "hidden_size": 256, "hidden_act": "gelu", "heads_num": 4, "layers_num": 12,
    "decoder_layers_num": 6, "max_audio_frames": 6000, "dropout": 0.1, "data_processor": "s2t",
    "embedding": ["speech", "sinusoidalpos"], "tgt_embedding": ["word", "pos"], "encoder": "transformer",
    "mask": "fully_visible", "decoder": "transformer", "target": ["lm"], "has_lmtarget_bias": True, "conv_layers_num": 2,
    "audio_feature_size": 80, "conv_channels": 1024, "conv_kernel_sizes": [5, 5],
}  # fmt: skip
BEIT = {
    "emb_size": 768, "feedforward_size": 3072, "hidden_size": 768, "hidden_act": "gelu", "heads_num": 12, "layers_num": 12,
    "dropout": 0.1, "data_processor": "beit", "embedding": ["masked_patch", "pos"], "encoder": "transformer",
    "mask": "fully_visible", "target": ["mlm"], "image_height": 256, "image_width": 256, "patch_size": 16,
    "image_preprocess": ["crop"], "tokenizer": "vqgan",
    "image_tokenizer": {"is_gumbel": False, "is_transformer": True, "image_vocab_size": 1024, "frame_size": 16},
}  # fmt: skip
ALBERT = {
    **BERT, "emb_size": 128, "hidden_act": "relu", "factorized_embedding_parameterization": True, "parameter_sharing": True,
}  # fmt: skip
SIAMESE = {
    "stream_0": BERT,
    "stream_1": BERT,
    "embedding": ["dual"],
    "encoder": "dual",
    "pooling": "mean",
    "tie_weights": True,
}


def read(data: dict[str, Any], folder: Path, **changes: Any) -> ModelConfig:
    file = folder / "config.json"
    file.write_text(json.dumps({**data, **changes}))
    return ModelConfig.from_file(file)


def count(config: ModelConfig, part: str = "") -> int:
    with torch.device("meta"):
        return sum(
            p.numel() for name, p in Model(config).named_parameters() if name.startswith(part)
        )


def preset(name: str) -> ModelConfig:
    return ModelConfig.from_file(Path(skillweave.__file__).parent / "presets" / f"{name}.yaml")


def test_bert_of_the_paper(tmp_path: Path) -> None:
    config = read(PAPER["BERT"], tmp_path)
    with torch.device("meta"):
        theirs = transformers.BertForPreTraining(transformers.BertConfig())
    assert count(config) == sum(p.numel() for p in theirs.parameters())
    assert [span.modality for span in config.tasks["mlm_sp"].spans] == ["text", "text"]
    small = config.model_copy(update={"encoder": config.encoder.model_copy(update={"layers": 2})})
    assert type(to_hf(Model(small))).__name__ == "BertForPreTraining"


def test_t5_of_the_paper(tmp_path: Path) -> None:
    config = read(PAPER["T5"], tmp_path)
    assert count(config) == 60_506_624
    assert config == preset("t5-small")


@pytest.mark.parametrize("embedding", ["patch_word", "word_patch"])
def test_vilt_of_the_paper(embedding: str, tmp_path: Path) -> None:
    """Words and patches are one sequence, with both targets."""
    config, sized = (
        read(PAPER["ViLT"], tmp_path, embedding=[embedding, "pos", "seg"], labels_num=2),
        preset("vilt-base"),
    )
    assert config.encoder == sized.encoder
    (task,) = config.tasks.values()
    assert [(span.modality, span.encoder_pass, span.attention) for span in task.spans] == [
        ("text", 0, "full"),
        ("image", 0, "full"),
    ]
    assert set(task.targets) == {"classification", "mlm"}
    with torch.device("meta"):
        text = transformers.BertForMaskedLM(
            transformers.BertConfig(vocab_size=30522, max_position_embeddings=40)
        )
        image = transformers.ViTModel(
            transformers.ViTConfig(image_size=384, patch_size=32), add_pooling_layer=False
        )
    head = 768 * 768 + 768 + 2 * 768 + 2
    embeddings = sum(p.numel() for p in image.embeddings.parameters())
    last_norm = 2 * 768  # BERT is post-norm, ViLT is pre-norm.
    assert (
        count(config) == sum(p.numel() for p in text.parameters()) + embeddings + head + last_norm
    )


def test_vilt_with_sizes(tmp_path: Path) -> None:
    sizes = {
        **BERT,
        "embedding": ["word_patch", "pos", "seg"],
        "target": ["mlm", "sp"],
        "data_processor": "vilt",
    }
    config = read(sizes, tmp_path, image_height=256, image_width=256, patch_size=32)
    assert config.streams.image is not None and config.streams.image.embedding == [
        "patch",
        "position",
    ]
    assert (
        config.streams.image.size,
        config.streams.image.patch,
        config.streams.image.patch_bias,
    ) == (256, 32, False)
    assert [span.modality for span in config.tasks["mlm_sp"].spans] == ["text", "image"]


def test_clip_of_the_paper(tmp_path: Path) -> None:
    config = read(PAPER["CLIP"], tmp_path)
    assert count(config) == 151_277_313
    assert config.targets["contrastive"].pooling == {"text": "first", "image": "first"}
    # With full attention the first token knows the whole text.
    assert [span.attention for span in config.tasks["clr"].spans] == ["full", "full"]


@pytest.mark.parametrize(
    ("row", "name"),
    [
        ("ELMo", "elmo"),
        ("CoVe", "cove"),
        ("InferSent", "infersent"),
        ("GPT-2", "gpt2"),
        ("ViT", "vit-base"),
    ],
)
def test_rows_of_table_1(row: str, name: str, tmp_path: Path) -> None:
    config, expected = read(TABLE_1[row], tmp_path), preset(name)
    other = {"InferSent": {"name": "gru", "direction": "forward"}, "CoVe": {"direction": "forward"}}
    encoder = expected.encoder.model_dump() | other.get(row, {})
    if encoder["name"] == "gru":
        del encoder["cell_size"]
    assert config.encoder.model_dump() == encoder
    assert (config.width, config.streams, config.decoder) == (
        expected.width,
        expected.streams,
        expected.decoder,
    )
    assert [t.kind for t in config.targets.values()] == [t.kind for t in expected.targets.values()]
    count(config)


def test_beit_and_s2t_of_table_1(tmp_path: Path) -> None:
    """They are the presets, but with learned positions, as in the table."""
    beit, sized = read(TABLE_1["BEiT"], tmp_path), preset("beit-base")
    assert beit.encoder == sized.encoder and beit.streams.image.embedding == [
        "masked_patch",
        "position",
    ]
    assert {target.kind for target in beit.targets.values()} == {"masked_image_token"}
    s2t, sized = read(TABLE_1["S2T"], tmp_path), preset("s2t-small")
    learned = sized.streams.sound.model_copy(update={"embedding": ["filterbank", "position"]})
    assert (s2t.encoder, s2t.decoder, s2t.streams.sound) == (sized.encoder, sized.decoder, learned)
    assert s2t.tasks["lm"].layout("lm") == sized.tasks["lm"].layout("lm")
    assert s2t.target_embedding.embedding == ["word", "position"]
    # The first positions of fairseq are unused.
    assert count(s2t) - count(sized) == 256 * (2 + 6000 + 2 + 1024)


def test_s2t_of_its_repository(tmp_path: Path) -> None:
    config = read(S2T, tmp_path, vocab_size=10000)
    sound, words = config.streams.sound, config.target_embedding
    assert (sound.channels, sound.kernels, sound.strides, sound.max_length) == (
        1024,
        (5, 5),
        (2, 2),
        1500,
    )
    assert words.scale_embedding and not words.tied and config.targets["lm"].bias
    convolutions = [torch.nn.Conv1d(80, 1024, 5), torch.nn.Conv1d(512, 512, 5)]
    assert count(config, "embeddings.sound.content") == sum(
        p.numel() for c in convolutions for p in c.parameters()
    )


def test_beit_of_its_repository(tmp_path: Path) -> None:
    config = read(BEIT, tmp_path)
    assert (config.streams.image.size, config.streams.image.embedding) == (
        256,
        ["masked_patch", "position"],
    )
    assert config.targets["masked_image_token"].vocabulary == 1024
    count(config)


def test_what_is_given_counts_and_the_rest_is_the_presets(tmp_path: Path) -> None:
    config, expected = (
        read(PAPER["T5"], tmp_path, layers_num=2, hidden_act="gelu_fast"),
        preset("t5-small"),
    )
    changed = {"layers": 2, "activation": "gelu_tanh"}
    assert config.encoder == expected.encoder.model_copy(update=changed)
    assert config.decoder is not None and expected.decoder is not None
    assert config.decoder == expected.decoder.model_copy(update=changed)


def test_sizes_of_ones_own(tmp_path: Path) -> None:
    config = read(BERT, tmp_path, vocab_size=30522)
    with torch.device("meta"):
        theirs = transformers.BertForPreTraining(transformers.BertConfig())
    assert count(config) == sum(p.numel() for p in theirs.parameters())
    assert config.encoder.norm_epsilon == 1e-6
    assert config.streams.text is not None and config.streams.text.embedding == [
        "word",
        "position",
        "segment",
    ]


def test_llama(tmp_path: Path) -> None:
    config = read(LLAMA, tmp_path, vocab_size=32000)
    assert count(config) == 6_738_415_616
    assert [span.attention for span in config.tasks["lm"].spans] == ["causal"]


def test_clip_with_the_options_of_the_published_model(tmp_path: Path) -> None:
    config = read(CLIP, tmp_path)
    data = config.model_dump(mode="json")
    data["streams"]["text"]["vocabulary"] = 49408
    assert count(ModelConfig.parse(data)) == 151_277_313
    assert [span.attention for span in config.tasks["clr"].spans] == ["causal", "full"]
    assert config.streams.image is not None and config.streams.image.encoder is not None
    assert config.streams.image.encoder.activation == "quick_gelu"


def test_t5_of_version_1_1(tmp_path: Path) -> None:
    config = read(T5, tmp_path, vocab_size=50)
    theirs = transformers.T5ForConditionalGeneration(
        transformers.T5Config(
            vocab_size=50,
            d_model=64,
            d_kv=8,
            d_ff=96,
            num_layers=3,
            num_decoder_layers=2,
            num_heads=6,
            feed_forward_proj="gated-gelu",
            tie_word_embeddings=False,
        )
    )
    untied = theirs.lm_head.weight.numel() if theirs.lm_head.weight is theirs.shared.weight else 0
    assert count(config) == sum(p.numel() for p in theirs.parameters()) + untied


def test_albert_shares_its_layers_and_factorises_words(tmp_path: Path) -> None:
    config = read(ALBERT, tmp_path, target=["mlm"], vocab_size=30000)
    assert count(config) == 11_221_680


def test_recurrent_and_convolutional_files(tmp_path: Path) -> None:
    stack = torch.nn.LSTM(512, 768, 2)
    assert count(read(BILSTM, tmp_path), "encoder") == 2 * sum(
        p.numel() for p in stack.parameters()
    )
    assert count(read(GATED_CNN, tmp_path), "encoder") == count(preset("gated-cnn-9"), "encoder")


def test_two_texts_share_an_encoder(tmp_path: Path) -> None:
    config = read(SIAMESE, tmp_path, target=["cls"], labels_num=3)
    assert [span.encoder_pass for span in config.tasks["cls"].spans] == [0, 1]
    assert config.targets["classification"].compared == ["first", "second", "difference"]
    assert list(config.streams.present()) == ["text"]
    with pytest.raises(ConfigError, match="two streams of one modality share their weights here"):
        read(SIAMESE, tmp_path, tie_weights=False)


@pytest.mark.parametrize("mask", ["fully_visible", "causal", "causal_with_prefix"])
def test_masks(mask: str, tmp_path: Path) -> None:
    config = read(LLAMA, tmp_path, mask=mask)
    expected = {
        "fully_visible": ["full"],
        "causal": ["causal"],
        "causal_with_prefix": ["full", "causal"],
    }
    assert [span.attention for span in config.tasks["lm"].spans] == expected[mask]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hiden_size": 3}, "unknown key 'hiden_size'; did you mean 'hidden_size'"),
        ({"encoder": "transfomer"}, "unknown encoder 'transfomer'; did you mean 'transformer'"),
        ({"embedding": ["word", "poss"]}, "unknown embedding 'poss'; did you mean 'pos'"),
        ({"target": ["mln"]}, "unknown target 'mln'; did you mean 'mlm'"),
        ({"channels_num": 1}, "channels_num 1 has no counterpart; it must be 3"),
        ({"embedding": ["pos"]}, "needs one of word, patch, masked_patch, word_patch, speech"),
        ({"hidden_act": "linear"}, "unknown hidden_act 'linear'"),
    ],
)
def test_what_does_not_fit(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        read(BERT, tmp_path, **changes)
