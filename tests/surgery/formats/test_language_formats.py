"""CTranslate2 and GGUF of models that other libraries made, compared by those libraries' readers."""

from pathlib import Path

import ctranslate2
import gguf
import numpy as np
import pytest
import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

import skillweave as sw
from skillweave.evaluation.agreement import made_batch
from skillweave.surgery.formats import export_model
from skillweave.surgery.formats.gguf import interleave

SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
SEQ2SEQ = {
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 64,
    "decoder_ffn_dim": 64,
}
IDS = {"pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 3}


def saved(kind: str, folder: Path, **options) -> Path:
    """A random model of Transformers with a tokenizer of words."""
    architecture = getattr(transformers, kind)
    config = architecture.config_class(vocab_size=40, **options)
    architecture(config).eval().save_pretrained(folder)
    words = ["<pad>", "</s>", "<unk>", "<s>", "<mask>", *(f"w{i}" for i in range(35))]
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, "<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    special = {"pad": "<pad>", "eos": "</s>", "unk": "<unk>", "bos": "<s>", "mask": "<mask>"}
    special |= {"cls": "<s>", "sep": "</s>"}
    named = {f"{name}_token": token for name, token in special.items()}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **named).save_pretrained(folder)
    return folder


def exported(kind: str, to: str, tmp_path: Path, **options) -> tuple[sw.Model, dict, Path]:
    model = sw.load(saved(kind, tmp_path / "theirs", **options))
    (task,) = model.config.tasks
    out = tmp_path / "out"
    return model, export_model(model, to, made_batch(model, task), out), out


def test_bert_as_ctranslate2(tmp_path: Path) -> None:
    _, about, out = exported("BertModel", "ctranslate2", tmp_path, **SIZES, intermediate_size=64)
    assert about["files"][0]["gives"] == "hidden states"
    ids = [[3, 7, 8, 1], [3, 9, 1]]
    encoder = ctranslate2.Encoder(str(out / "model"))
    theirs = transformers.BertModel.from_pretrained(tmp_path / "theirs").eval()
    for row in ids:
        found = np.array(encoder.forward_batch([row]).last_hidden_state)
        expected = theirs(torch.tensor([row])).last_hidden_state.detach()
        np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (
            "T5ForConditionalGeneration",
            {"d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 2, "num_heads": 2}
            | {"decoder_start_token_id": 0, "pad_token_id": 0, "eos_token_id": 1},
        ),
        (
            "BartForConditionalGeneration",
            SEQ2SEQ
            | IDS
            | {"decoder_start_token_id": 1, "forced_eos_token_id": 1}
            | {"max_position_embeddings": 64},
        ),
    ],
)
def test_seq2seq_as_ctranslate2(kind: str, options: dict, tmp_path: Path) -> None:
    _, about, out = exported(kind, "ctranslate2", tmp_path, **options)
    (one,) = about["files"]
    assert one["gives"] == "log probabilities of answers"
    translator = ctranslate2.Translator(str(out / "model"))
    theirs = getattr(transformers, kind).from_pretrained(tmp_path / "theirs").eval()
    (scored,) = translator.score_batch([["w1", "w2", "</s>"]], [["w3", "w4"]])
    start = theirs.config.decoder_start_token_id
    logits = theirs(
        input_ids=torch.tensor([[6, 7, 1]]), decoder_input_ids=torch.tensor([[start, 8, 9]])
    ).logits.log_softmax(-1)[0]
    expected = [logits[i, token].item() for i, token in enumerate([8, 9, 1])]
    np.testing.assert_allclose(scored.log_probs, expected, atol=1e-4)


def test_llama_as_gguf(tmp_path: Path) -> None:
    _, about, out = exported(
        "LlamaForCausalLM",
        "gguf",
        tmp_path,
        **SIZES,
        **IDS,
        intermediate_size=64,
        num_key_value_heads=1,
        max_position_embeddings=64,
    )
    (one,) = about["files"]
    assert one["largest_relative_error"] <= 1e-5 and one["quality"] == {"same_largest": 1.0}
    file = out / "model.gguf"
    fields = gguf.GGUFReader(file).fields
    assert fields["general.architecture"].contents() == "llama"
    assert fields["llama.attention.head_count_kv"].contents() == 1
    assert fields["tokenizer.ggml.tokens"].contents()[:6] == [
        "<pad>", "</s>", "<unk>", "<s>", "<mask>", "w0",
    ]  # fmt: skip
    tensors = {one.name: np.array(one.data) for one in gguf.GGUFReader(file).tensors}
    state = transformers.LlamaForCausalLM.from_pretrained(tmp_path / "theirs").state_dict()
    np.testing.assert_array_equal(tensors["token_embd.weight"], state["model.embed_tokens.weight"])
    assert len(tensors) == len(state)


def test_queries_are_interleaved_as_llama_cpp_rotates_them() -> None:
    """Rows 0 and D/2 of a head, which Transformers rotates together, become neighbours."""
    rows = torch.arange(12.0)[:, None]
    assert interleave(rows, 2).flatten().tolist() == [0, 3, 1, 4, 2, 5, 6, 9, 7, 10, 8, 11]


def test_other_families_are_told(tmp_path: Path) -> None:
    with pytest.raises(sw.ConfigError, match="llama and mistral, not bert"):
        exported("BertModel", "gguf", tmp_path, **SIZES, intermediate_size=64)
    assert not (tmp_path / "out").exists()


def test_whisper_as_ctranslate2(tmp_path: Path) -> None:
    options = SEQ2SEQ | IDS | {"decoder_start_token_id": 3, "num_mel_bins": 8}
    options |= {"max_source_positions": 20, "max_target_positions": 16}
    _, about, out = exported("WhisperForConditionalGeneration", "ctranslate2", tmp_path, **options)
    assert about["files"][0]["gives"] == "hidden states"
    whisper = ctranslate2.models.Whisper(str(out / "model"))
    theirs = transformers.WhisperForConditionalGeneration.from_pretrained(tmp_path / "theirs")
    mels = np.random.default_rng(0).normal(size=(2, 8, 40)).astype("float32")
    found = np.array(whisper.encode(ctranslate2.StorageView.from_array(mels), to_cpu=True))
    expected = theirs.eval().model.encoder(torch.from_numpy(mels)).last_hidden_state
    np.testing.assert_allclose(found, expected.detach(), atol=1e-4)


def test_the_merges_of_a_byte_level_tokenizer_are_in_the_file(tmp_path: Path) -> None:
    """The reader of Transformers makes the same tokenizer of the file."""
    sizes = {**SIZES, "intermediate_size": 64, "max_position_embeddings": 64}
    folder = saved("LlamaForCausalLM", tmp_path / "theirs", **sizes, **IDS)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=40, special_tokens=["<pad>", "</s>", "<unk>", "<s>"])
    tokenizer.train_from_iterator(["low lower lowest new newer newest"] * 4, trainer)
    named = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>", "bos_token": "<s>"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **named).save_pretrained(folder)
    model = sw.load(folder)
    export_model(model, "gguf", made_batch(model, next(iter(model.config.tasks))), tmp_path / "out")
    fields = gguf.GGUFReader(tmp_path / "out" / "model.gguf").fields
    assert fields["tokenizer.ggml.model"].contents() == "gpt2"
    merges = fields["tokenizer.ggml.merges"].contents()
    tokens = fields["tokenizer.ggml.tokens"].contents()
    assert merges and all(merge.replace(" ", "") in tokens for merge in merges)
    assert [tokens.index(t) for t in ("<pad>", "</s>", "<unk>", "<s>")] == [0, 1, 2, 3]
    (number,) = (tokenizer.token_to_id(merges[-1].replace(" ", "")),)
    assert tokens[number] == merges[-1].replace(" ", "")
