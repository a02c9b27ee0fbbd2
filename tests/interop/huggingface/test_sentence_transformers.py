"""Folders of sentence-transformers against vectors that are made of Transformers' hidden states by
hand, and files that are written back."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hf_folder import save_bert
from hf_generation import BART, T5
from hf_references import Reference
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoTokenizer, BertForMaskedLM, BertModel

import skillweave as sw
from skillweave.batch import Batch
from skillweave.config import ConfigError
from skillweave.interop.huggingface import convert_folder, to_hf
from skillweave.model.config import ModelConfig
from skillweave.model.model import Model

TEXTS = ["so good", "very bad the cat is here", "what", "the dog is good the cat is bad"]
PREFIX = "sentence_transformers.models."
MODULES = [("Transformer", ""), ("Pooling", "1_Pooling")]
DENSE = {"in_features": 16, "out_features": 5, "bias": True}
DENSE["activation_function"] = "torch.nn.modules.activation.Tanh"
LAST = {"in_features": 5, "out_features": 4, "bias": False}
LAST["activation_function"] = "torch.nn.modules.linear.Identity"


def write(
    folder: Path,
    pooling: dict[str, Any],
    dense: Sequence[dict[str, Any]] = (),
    normalize: bool = False,
    kind: Any = BertModel,
    **prompts: Any,
) -> None:
    save_bert(folder, kind)
    modules = [*MODULES]
    modules += [("Dense", f"{i}_Dense") for i in range(2, 2 + len(dense))]
    modules += [("Normalize", f"{len(modules)}_Normalize")] * normalize
    listed = [{"idx": 0, "path": path, "type": PREFIX + kind} for kind, path in modules]
    (folder / "modules.json").write_text(json.dumps(listed))
    for (_, path), about in zip(modules[1:], [pooling, *dense], strict=False):
        (folder / path).mkdir()
        (folder / path / "config.json").write_text(json.dumps(about))
    for i, layer in enumerate(dense):
        tensors = {"linear.weight": torch.randn(layer["out_features"], layer["in_features"])}
        tensors |= {"linear.bias": torch.randn(layer["out_features"])} if layer["bias"] else {}
        save_file(tensors, folder / f"{i + 2}_Dense" / "model.safetensors")
    (folder / "config_sentence_transformers.json").write_text(json.dumps(prompts))
    settings = {"max_seq_length": 6, "do_lower_case": False}
    (folder / "sentence_bert_config.json").write_text(json.dumps(settings))


def hidden_states(folder: Path, text: str) -> np.ndarray:
    """[L, D] of a text alone, cut to six tokens."""
    given = AutoTokenizer.from_pretrained(folder)(
        text, return_tensors="pt", truncation=True, max_length=6
    )
    with torch.no_grad():
        return AutoModel.from_pretrained(folder)(**given).last_hidden_state[0].numpy()


BY_HAND = {
    "cls": lambda x_LD: x_LD[0],
    "max": lambda x_LD: x_LD.max(0),
    "mean": lambda x_LD: x_LD.mean(0),
    "mean_sqrt_len_tokens": lambda x_LD: x_LD.sum(0) / len(x_LD) ** 0.5,
    "weightedmean": lambda x_LD: np.average(x_LD, 0, weights=np.arange(1, len(x_LD) + 1)),
    "lasttoken": lambda x_LD: x_LD[-1],
}
OLDER = {"mean": "mean_tokens", "cls": "cls_token", "lasttoken": "lasttoken"}


def unit(x_ND: np.ndarray) -> np.ndarray:
    return x_ND / np.linalg.norm(x_ND, axis=1, keepdims=True)


def check_back(folder: Path, tmp_path: Path, expected: np.ndarray) -> None:
    """The converted folder is written back, and its vectors are the same again."""
    convert_folder(folder, tmp_path / "back")
    convert_folder(tmp_path / "back", tmp_path / "again")
    found = sw.encode(tmp_path / "again", "pooled", text=TEXTS)
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("mode", [*BY_HAND, ("cls", "mean")])
def test_poolings(mode: str | tuple[str, ...], tmp_path: Path) -> None:
    modes = [mode] if isinstance(mode, str) else [*mode]
    write(tmp_path / "theirs", {"pooling_mode": mode})
    states = [hidden_states(tmp_path / "theirs", text) for text in TEXTS]
    expected = np.stack([np.concatenate([BY_HAND[m](x_LD) for m in modes]) for x_LD in states])
    convert_folder(tmp_path / "theirs", tmp_path / "ours")
    found = sw.encode(tmp_path / "ours", "pooled", text=TEXTS)
    np.testing.assert_allclose(found, unit(expected), atol=1e-6)
    if all(m in OLDER for m in modes):
        check_back(tmp_path / "ours", tmp_path, found)
        about = json.loads((tmp_path / "back" / "1_Pooling" / "config.json").read_text())
        used = {name for name, on in about.items() if on is True}
        assert used == {f"pooling_mode_{OLDER[m]}" for m in modes}


@pytest.mark.parametrize("kind", [BertModel, BertForMaskedLM])
def test_layers_and_prompts(kind: Any, tmp_path: Path) -> None:
    """Of a base model, and of one whose file has a head that is not used."""
    prompts = {"prompts": {"query": "what is ", "document": ""}, "default_prompt_name": "query"}
    dense = [DENSE, LAST]
    write(tmp_path / "theirs", {"pooling_mode_mean_tokens": True}, dense, True, kind, **prompts)
    convert_folder(tmp_path / "theirs", tmp_path / "ours")
    first, last = (load_file(tmp_path / "theirs" / f"{i}_Dense/model.safetensors") for i in (2, 3))

    def expected(prompt: str) -> np.ndarray:
        states = [hidden_states(tmp_path / "theirs", prompt + text) for text in TEXTS]
        x_ND = np.stack([x_LD.mean(0) for x_LD in states])
        x_ND = np.tanh(x_ND @ first["linear.weight"].numpy().T + first["linear.bias"].numpy())
        return unit(x_ND @ last["linear.weight"].numpy().T)

    found = sw.encode(tmp_path / "ours", "pooled", text=TEXTS)
    np.testing.assert_allclose(found, expected("what is "), atol=1e-6)
    check_back(tmp_path / "ours", tmp_path, found)
    about = json.loads((tmp_path / "back" / "config_sentence_transformers.json").read_text())
    assert about["prompts"] == {"query": "what is "} and about["default_prompt_name"] == "query"
    settings = json.loads((tmp_path / "back" / "sentence_bert_config.json").read_text())
    assert settings["max_seq_length"] == 6
    with pytest.raises(ConfigError, match="unknown prompt 'qery'; did you mean 'query'"):
        sw.encode(tmp_path / "ours", "pooled", prompt="qery", text=TEXTS)
    assert type(to_hf(sw.load(tmp_path / "ours"))) is BertModel


@pytest.mark.parametrize("kind", ["cosine", "contrastive"])
def test_models_that_were_trained_to_compare_texts_are_written(kind: str, tmp_path: Path) -> None:
    write(tmp_path / "theirs", {"pooling_mode": "mean"}, normalize=True)
    base = sw.from_hf(tmp_path / "theirs")
    data = base.config.model_dump(mode="json")
    spans = [{"modality": "text", "encoder_pass": i} for i in range(2)]
    data["targets"] = {kind: {"pooling": "mean"}}
    data["tasks"] = {"text_similarity": {"spans": spans, "targets": {kind: 1.0}}}
    model = Model(ModelConfig.parse(data), base.assets)
    model.load_state_dict(base.state_dict(), strict=False)
    model.save_pretrained(tmp_path / "ours")
    expected = sw.encode(base, "pooled", text=TEXTS)
    np.testing.assert_allclose(sw.encode(model, "text_similarity", text=TEXTS), expected, atol=1e-6)
    check_back(tmp_path / "ours", tmp_path, expected)


@pytest.mark.parametrize(
    ("file", "change", "told"),
    [
        ("1_Pooling/config.json", {"pooling_mode": "median"}, "unknown pooling"),
        ("sentence_bert_config.json", {"do_lower_case": True}, "do_lower_case"),
        ("sentence_bert_config.json", {"module_output_name": "x"}, "module_output_name='x'"),
        ("sentence_bert_config.json", {"transformer_task": "fill-mask"}, "transformer_task"),
        ("1_Pooling/config.json", {"pooling_mode_median": True}, "pooling_mode_median=True"),
        ("2_Dense/config.json", {"activation_function": "x.Mish"}, "activation_function"),
        ("2_Dense/config.json", {"activation_function": "mine.Tanh"}, "activation_function"),
        ("2_Dense/config.json", {"module_input_name": "token_embeddings"}, "module_input_name"),
        ("2_Dense/config.json", {"use_residual": True}, "use_residual"),
        ("config_sentence_transformers.json", {"default_prompt_name": "x"}, "default prompt"),
        ("config_sentence_transformers.json", {"similarity_fn_name": "dot"}, "similarity_fn_name"),
    ],
)
def test_what_has_no_counterpart_is_refused(
    file: str, change: dict[str, Any], told: str, tmp_path: Path
) -> None:
    write(tmp_path / "theirs", {"pooling_mode": "mean"}, [DENSE])
    path = tmp_path / "theirs" / file
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ConfigError, match=told):
        sw.load(tmp_path / "theirs")


@pytest.mark.parametrize("architecture", ["T5ForConditionalGeneration", "T5EncoderModel"])
def test_of_t5_the_encoder_is_used(architecture: str, tmp_path: Path) -> None:
    theirs = Reference(architecture, "T5Config", T5).build(torch.float32)
    write(tmp_path / "bert", {"pooling_mode": "mean"})
    theirs.save_pretrained(tmp_path / "theirs")
    for name in ("modules.json", "1_Pooling/config.json"):
        (tmp_path / "theirs" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "theirs" / name).write_text((tmp_path / "bert" / name).read_text())
    model = sw.from_hf(tmp_path / "theirs")
    ids = torch.tensor([[5, 9, 7, 11]])
    with torch.no_grad():
        expected = theirs.get_encoder()(ids).last_hidden_state.mean(1)
    layout = model.config.tasks["pooled"].layout("pooled").with_lengths((4,))
    found = model.embed(Batch(layout, (ids,), torch.tensor([[4]])))[0].detach()
    np.testing.assert_allclose(found, unit(expected.numpy()), atol=1e-6)


def test_a_decoder_is_refused(tmp_path: Path) -> None:
    Reference("BartModel", "BartConfig", BART).build(torch.float32).save_pretrained(tmp_path)
    listed = [{"path": path, "type": PREFIX + kind} for kind, path in MODULES]
    (tmp_path / "modules.json").write_text(json.dumps(listed))
    with pytest.raises(ConfigError, match="has no decoder"):
        sw.from_hf(tmp_path)


def test_modules_without_a_counterpart_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "theirs", {"pooling_mode": "mean"})
    file = tmp_path / "theirs" / "modules.json"
    file.write_text(file.read_text().replace("models.Pooling", "models.CNN"))
    with pytest.raises(ConfigError, match=r"unknown kind of module in .*modules\.json 'CNN'"):
        sw.load(tmp_path / "theirs")


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("sentence_transformers.models.Pooling", "mine.Pooling", "unknown kind of module"),
        ("1_Pooling", "../1_Pooling", "leads out of the folder"),
    ],
)
def test_modules_of_others(old: str, new: str, told: str, tmp_path: Path) -> None:
    write(tmp_path / "theirs", {"pooling_mode": "mean"})
    file = tmp_path / "theirs" / "modules.json"
    file.write_text(file.read_text().replace(old, new))
    with pytest.raises(ConfigError, match=told):
        sw.from_hf(tmp_path / "theirs")


@pytest.mark.parametrize("family", ["roberta", "xlm-roberta"])
def test_lengths_of_older_folders(family: str, tmp_path: Path) -> None:
    write(tmp_path / "theirs", {"pooling_mode": "mean"})
    (tmp_path / "theirs" / "sentence_bert_config.json").unlink()
    file = tmp_path / "theirs" / f"sentence_{family}_config.json"
    file.write_text(json.dumps({"max_seq_length": 4, "do_lower_case": False}))
    text = sw.from_hf(tmp_path / "theirs").config.streams.text
    assert text is not None and text.max_tokens == 4


def test_options_that_newer_versions_write(tmp_path: Path) -> None:
    write(tmp_path / "theirs", {"pooling_mode": "mean"})
    file = tmp_path / "theirs" / "sentence_bert_config.json"
    options = {"transformer_task": "feature-extraction", "module_output_name": "token_embeddings"}
    text = {"method": "forward", "method_output_name": "last_hidden_state"}
    file.write_text(json.dumps({**options, "modality_config": {"text": text}}))
    sw.from_hf(tmp_path / "theirs")
