"""Errors name what does not fit: weights, options, families, shards, tokenizers."""

import json
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from hf_generation import WAV2VEC2
from hf_references import BERT, GPT2, LLAMA, REFERENCES, YARN, Reference
from tiny import relative_error, tiny_config, tiny_model
from tokenizers import Tokenizer, models
from transformers import (
    BeitConfig,
    BertConfig,
    BertForMaskedLM,
    BertTokenizer,
    LlamaConfig,
    ViltConfig,
    Wav2Vec2Config,
    Wav2Vec2CTCTokenizer,
)

import skillweave as sw
from skillweave.cli.app import main
from skillweave.config import ConfigError
from skillweave.data.processors import load_tokenizer
from skillweave.interop.checkpoints import Checkpoint
from skillweave.interop.huggingface import convert_folder
from skillweave.interop.huggingface.export_checks import find_family
from skillweave.model.config import ModelTask
from skillweave.surgery.carve import carve
from skillweave.weights.files import FILE, WeightsError, write_weights

MASKED = Reference("BertForMaskedLM", "BertConfig", BERT)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    MASKED.build(torch.float32).save_pretrained(tmp_path, max_shard_size="20KB")
    return tmp_path


def state_and_config() -> tuple[dict[str, torch.Tensor], Any]:
    theirs = MASKED.build(torch.float32)
    return dict(theirs.state_dict()), theirs.config


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda s: s.pop("bert.encoder.layer.1.output.dense.bias"),
            r"missing: bert\.encoder\.layer\.1\.output\.dense\.bias",
        ),
        (lambda s: s.update(extra=torch.zeros(1)), r"unexpected: extra"),
        (
            lambda s: s.update({"bert.embeddings.position_embeddings.weight": torch.zeros(2, 15)}),
            r"position_embeddings\.weight is \(2, 15\), but the configuration needs \(13, 15\)",
        ),
        (
            lambda s: s.update({"cls.predictions.decoder.weight": torch.zeros(41, 15)}),
            (
                r"cls\.predictions\.decoder\.weight is tied to"
                r" bert\.embeddings\.word_embeddings\.weight, but differs"
            ),
        ),
    ],
)
def test_weights_that_do_not_fit(change: Any, message: str) -> None:
    state, config = state_and_config()
    config.architectures = ["BertForMaskedLM"]
    change(state)
    with pytest.raises(WeightsError, match=message):
        sw.from_hf(state, config)


def test_one_of_several_tied_weights_is_enough() -> None:
    state, config = state_and_config()
    config.architectures = ["BertForMaskedLM"]
    words = state.pop("bert.embeddings.word_embeddings.weight")
    assert torch.equal(sw.from_hf(state, config).words(sw.Modality.TEXT), words)


def test_older_names_of_norms() -> None:
    state, config = state_and_config()
    config.architectures = ["BertForMaskedLM"]
    old = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
            "LayerNorm.bias", "LayerNorm.beta"
        ): x
        for name, x in state.items()
    }
    expected = sw.from_hf(state, config).state_dict()
    found = sw.from_hf(old, config).state_dict()
    assert all(torch.equal(x, found[name]) for name, x in expected.items())


def test_a_checkpoint_of_another_family() -> None:
    state, _ = state_and_config()
    with pytest.raises(WeightsError, match="the names are those of family 'bert'"):
        sw.from_hf(state, LlamaConfig(**LLAMA, architectures=["LlamaForCausalLM"]))


def test_an_unknown_family_or_head(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "berd"}))
    with pytest.raises(ConfigError, match="unknown family 'berd'; did you mean 'bert'"):
        sw.from_hf(folder)
    (folder / "config.json").write_text(json.dumps(config | {"architectures": ["BertForMaskedLN"]}))
    with pytest.raises(ConfigError, match="did you mean 'BertForMaskedLM'"):
        sw.from_hf(folder)


def test_a_missing_shard(folder: Path) -> None:
    shard = sorted(folder.glob("model-*.safetensors"))[1]
    shard.unlink()
    with pytest.raises(WeightsError, match=f"names {shard.name}, which is not there"):
        sw.from_hf(folder)


def test_pickles_hold_nothing_but_tensors(tmp_path: Path) -> None:
    theirs = MASKED.build(torch.float32)
    theirs.save_pretrained(tmp_path)
    expected = sw.from_hf(tmp_path).state_dict()
    (tmp_path / "model.safetensors").unlink()
    torch.save(theirs.state_dict(), tmp_path / "pytorch_model.bin")
    found = sw.from_hf(tmp_path).state_dict()
    assert all(torch.equal(x, found[name]) for name, x in expected.items())
    torch.save({"x": print}, tmp_path / "pytorch_model.bin")
    with pytest.raises(WeightsError, match="not a checkpoint that can be read safely"):
        sw.from_hf(tmp_path)


def test_an_option_without_a_counterpart() -> None:
    state, config = state_and_config()
    config.architectures, config.is_decoder = ["BertForMaskedLM"], True
    with pytest.raises(ConfigError, match="bert: is_decoder=True has no counterpart here"):
        sw.from_hf(state, config)
    uneven = Wav2Vec2Config(conv_dim=(8, 8, 8, 8, 8, 8, 4), architectures=["Wav2Vec2Model"])
    with pytest.raises(
        ConfigError, match=r"wav2vec2: conv_dim=.* has no counterpart here; all must be equal"
    ):
        sw.from_hf({}, uneven)
    with pytest.raises(ConfigError, match="activation 'mish' has no counterpart"):
        sw.from_hf(
            state, BertConfig(**BERT | {"hidden_act": "mish"}, architectures=["BertForMaskedLM"])
        )
    both = {
        "use_relative_position_bias": True,
        "use_shared_relative_position_bias": True,
        "architectures": ["BeitModel"],
    }
    with pytest.raises(
        ConfigError, match="use_relative_position_bias at once have no counterpart here"
    ):
        sw.from_hf({}, BeitConfig(**both))
    with pytest.raises(
        ConfigError, match="vilt: max_image_length=5 has no counterpart here; it must be -1"
    ):
        sw.from_hf({}, ViltConfig(max_image_length=5, architectures=["ViltModel"]))
    strange = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10.0}
    with pytest.raises(ConfigError, match="rotary scaling 'dynamic' has no counterpart"):
        sw.from_hf(
            {}, LlamaConfig(**LLAMA, rope_parameters=strange, architectures=["LlamaForCausalLM"])
        )
    with pytest.raises(ConfigError, match=r"rope_parameters: mscale=0\.5 has no counterpart"):
        sw.from_hf(
            {},
            LlamaConfig(
                **LLAMA, rope_parameters={**YARN, "mscale": 0.5}, architectures=["LlamaForCausalLM"]
            ),
        )


def test_options_that_a_family_cannot_express() -> None:
    config = sw.from_hf(MASKED.build(torch.float32)).config
    changed = config.model_copy(
        update={"encoder": config.encoder.model_copy(update={"gated": True, "window": 3})}
    )
    with pytest.raises(
        ConfigError,
        match=(
            r"family 'bert' .* cannot express encoder\.window 3 \(it has None\); encoder\.gated"
            r" True"
        ),
    ):
        find_family(changed, "bert")
    with pytest.raises(ConfigError, match="has no architecture with the targets lm"):
        find_family(
            sw.from_hf(Reference("GPT2LMHeadModel", "GPT2Config", GPT2).build()).config, "bert"
        )
    sparse = tiny_config(
        tasks={"masked_text": {"spans": [{"modality": "text"}], "targets": {"mlm": 1.0}}}
    )
    with pytest.raises(ConfigError, match=r"cannot express|no architecture"):
        sw.to_hf(tiny_model(sparse))


def test_a_tokenizer_with_more_tokens_than_embeddings(folder: Path) -> None:
    Tokenizer(models.WordLevel({str(i): i for i in range(42)}, "0")).save(
        str(folder / "tokenizer.json")
    )
    with pytest.raises(
        ConfigError, match="the tokenizer has 42 tokens, the word embedding 41 rows"
    ):
        sw.from_hf(folder)
    Tokenizer(models.WordLevel({str(i): i for i in range(41)}, "0")).save(
        str(folder / "tokenizer.json")
    )
    assert list(sw.from_hf(folder).assets) == ["text_tokenizer.json"]


def test_a_vocabulary_file_replaces_the_tokenizer(folder: Path, tmp_path: Path) -> None:
    (folder / "tokenizer.json").unlink(missing_ok=True)
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "red", "cat", "##s"]
    (folder / "vocab.txt").write_text("\n".join(tokens))
    model = sw.from_hf(folder)
    model.save_pretrained(tmp_path / "ours")
    for path in (folder, tmp_path / "ours"):
        assert load_tokenizer(path).encode("Red cats", add_special_tokens=False).ids == [5, 6, 7]
    assert (
        model.assets["text_tokenizer.json"]
        == BertTokenizer.from_pretrained(folder).backend_tokenizer.to_str().encode()
    )


def test_the_command_converts_both_ways(folder: Path, tmp_path: Path) -> None:
    ours, back = tmp_path / "ours", tmp_path / "back"
    assert main(["convert", str(folder), "--out", str(ours)]) == 0
    assert main(["convert", str(ours), "--out", str(back)]) == 0
    expected = MASKED.build(torch.float32).state_dict()
    found = sw.to_hf(sw.load(ours)).state_dict()
    assert all(torch.equal(x, found[name]) for name, x in expected.items())
    assert json.loads((back / "config.json").read_text())["architectures"] == ["BertForMaskedLM"]
    weights = (ours / FILE).read_bytes()
    (ours / FILE).write_bytes(weights[:-1] + bytes([weights[-1] ^ 1]))
    with pytest.raises(ConfigError, match=r"model\.safetensors: damaged"):
        sw.load(ours)


def test_characters_of_a_ctc_tokenizer(tmp_path: Path) -> None:
    theirs, ours, back = tmp_path / "theirs", tmp_path / "ours", tmp_path / "back"
    Reference("Wav2Vec2ForCTC", "Wav2Vec2Config", {**WAV2VEC2, "vocab_size": 5}).build(
        torch.float32
    ).save_pretrained(theirs)
    characters = {"<pad>": 0, "<unk>": 1, "|": 2, "A": 3}
    (theirs / "vocab.json").write_text(json.dumps(characters))
    assert main(["convert", str(theirs), "--out", str(ours)]) == 0
    assert sw.load(ours).config.targets["ctc"].characters == ["<unk>", " ", "A", "<4>"]
    assert main(["convert", str(ours), "--out", str(back)]) == 0
    tokenizer = Wav2Vec2CTCTokenizer(str(back / "vocab.json"), unk_token="<unk>")
    assert tokenizer.decode([3, 3, 0, 3, 2, 0, 3]) == "AA A"
    (theirs / "vocab.json").write_text(json.dumps(characters | {"B": 5}))
    with pytest.raises(
        ConfigError, match="numbers characters up to 5, and the output layer up to 4"
    ):
        sw.from_hf(theirs)


def test_every_family_has_a_reference() -> None:
    from skillweave.interop.huggingface.families import FAMILIES

    tested = {reference.architecture for reference in REFERENCES}
    heads = {name for family in FAMILIES.values() for name in family.heads}
    same = ("XLMRoberta", "Mistral", "Qwen2", "Qwen3", "Mixtral", "MT5")
    same_code = {name for name in heads if name.startswith(same)}
    assert heads - same_code <= tested


def test_a_tensor_at_a_time(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Query, key and value make one weight. Tensors that were read before are released."""
    held: list[weakref.ref[torch.Tensor]] = []
    most = 0
    read = Checkpoint.__getitem__

    def watched(self: Checkpoint, name: str) -> torch.Tensor:
        nonlocal most
        x = read(self, name)
        held.append(weakref.ref(x))
        most = max(most, sum(one() is not None for one in held))
        return x

    monkeypatch.setattr(Checkpoint, "__getitem__", watched)
    convert_folder(folder, tmp_path / "ours")
    # Three tensors, and the one before until the next one is read.
    assert len(held) > 40 and most <= 4
    found, expected = sw.load(tmp_path / "ours").state_dict(), sw.from_hf(folder).state_dict()
    assert set(found) == set(expected)
    assert all(torch.equal(found[name], x) for name, x in expected.items())


def test_nothing_is_left_of_a_conversion_that_failed(folder: Path, tmp_path: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"intermediate_size": 5}))
    with pytest.raises(WeightsError, match="wrong shape"):
        convert_folder(folder, tmp_path / "ours")
    assert list((tmp_path / "ours").iterdir()) == []


def test_an_expert_does_not_hold_its_stack() -> None:
    theirs = next(one for one in REFERENCES if one.architecture == "MixtralForCausalLM").build(
        torch.float32
    )
    for name, x in sw.from_hf(theirs).state_dict().items():
        assert x.untyped_storage().nbytes() == x.numel() * x.element_size(), name


@pytest.mark.parametrize("stored", ["float32", "bf16", "int8"])
def test_a_carved_model_becomes_theirs(stored: str, tmp_path: Path) -> None:
    """Only the weights that the task needs are exported; matrices that are stored in fewer bits
    become float32."""
    theirs = Reference("BertForPreTraining", "BertConfig", BERT).build(torch.float32)
    model = sw.from_hf(theirs)
    tasks = {"mlm_classification": model.config.tasks["mlm_classification"]}
    tasks["mlm"] = ModelTask(spans=tasks["mlm_classification"].spans, targets={"mlm": 1.0})
    model = model.with_tasks({"mlm": tasks["mlm"]})
    carve(model, "mlm").save_pretrained(tmp_path / "ours", stored)
    convert_folder(tmp_path / "ours", tmp_path / "back")
    back, whole = (
        BertForMaskedLM.from_pretrained(tmp_path / "back").state_dict(),
        theirs.state_dict(),
    )
    for name, x in back.items():
        assert relative_error(x, whole[name]) < (1e-7 if stored == "float32" else 0.02), name
        assert x.dtype == torch.float32


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.update(extra=torch.zeros(1)), "unexpected: extra"),
        (
            lambda s: s.pop("encoder.blocks.0.attention.output.weight"),
            r"lacks encoder\.blocks\.0\.attention\.output\.weight",
        ),
        (
            lambda s: s.update({"encoder.blocks.0.attention.output.weight": torch.zeros(2, 2)}),
            r"wrong shape: encoder\.blocks\.0\.attention\.output\.weight is \(2, 2\)",
        ),
    ],
)
def test_folders_of_ours_with_weights_that_do_not_fit(
    change: Any, message: str, tmp_path: Path
) -> None:
    model = sw.from_hf(MASKED.build(torch.float32))
    model.save_pretrained(tmp_path / "ours")
    state = dict(model.state_dict())
    change(state)
    write_weights(state, tmp_path / "ours" / FILE)
    with pytest.raises(WeightsError, match=message):
        convert_folder(tmp_path / "ours", tmp_path / "back")
    assert not (tmp_path / "back" / "config.json").exists()
