"""Settings that change what a model computes or how it is used: none is lost, in either
direction."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as T
from hf_generation import BART, S2T, T5, WHISPER
from hf_references import BERT, CLIP, DISTIL, GPT2, Reference, make_batch, run_theirs, true_tokens
from hf_vision import VIT
from safetensors.torch import load_file, save_file
from tiny import relative_error
from tokenizers import Tokenizer, models

import skillweave as sw
from skillweave.analysis.inspection import inspect_model
from skillweave.config import ConfigError
from skillweave.interop.huggingface import convert_folder, from_hf, to_hf
from skillweave.weights.files import WeightsError

ONE = {"num_labels": 1}
SEVERAL = {"num_labels": 3, "problem_type": "multi_label_classification"}


@pytest.mark.parametrize(("labels", "kind"), [(ONE, "regression"), (SEVERAL, "multi_label")])
@pytest.mark.parametrize(
    ("architecture", "config", "options"),
    [
        ("BertForSequenceClassification", "BertConfig", BERT),
        ("DistilBertForSequenceClassification", "DistilBertConfig", DISTIL),
        ("GPT2ForSequenceClassification", "GPT2Config", GPT2),
        ("BartForSequenceClassification", "BartConfig", BART),
        ("ViTForImageClassification", "ViTConfig", VIT),
    ],
)
def test_the_kind_of_problem_is_kept(
    architecture: str, config: str, options: dict[str, Any], labels: dict[str, Any], kind: str
) -> None:
    """A classifier of one label is a regression, as Transformers takes it."""
    theirs = Reference(architecture, config, {**options, **labels}).build()
    model = from_hf(theirs)
    (target,) = model.config.targets
    assert target == kind
    batch = make_batch(model, torch.float64)
    expected = run_theirs(theirs, batch)[kind]
    found = model(batch).logits[kind].view_as(expected)
    assert relative_error(found, expected) < 1e-9
    back = to_hf(model, theirs.config.model_type)
    assert type(back) is type(theirs) and back.config.num_labels == labels["num_labels"]
    assert (back.config.problem_type or "regression") == (labels.get("problem_type", "regression"))
    for name, x in theirs.state_dict().items():
        assert torch.equal(back.state_dict()[name], x), name


def test_a_regression_of_several_numbers_is_refused() -> None:
    options = {**BERT, "num_labels": 3, "problem_type": "regression"}
    theirs = Reference("BertForSequenceClassification", "BertConfig", options).build()
    with pytest.raises(ConfigError, match="num_labels=3 has no counterpart"):
        from_hf(theirs)


@pytest.mark.parametrize(
    ("architecture", "config", "options", "output"),
    [
        ("T5ForConditionalGeneration", "T5Config", {**T5, "tie_word_embeddings": False}, "lm_head"),
        ("MT5ForConditionalGeneration", "MT5Config", T5, "lm_head"),
        ("BartForConditionalGeneration", "BartConfig", BART, "lm_head"),
        ("WhisperForConditionalGeneration", "WhisperConfig", WHISPER, "proj_out"),
        ("GPT2LMHeadModel", "GPT2Config", GPT2, "lm_head"),
    ],
)
def test_an_output_layer_with_weights_of_its_own_is_kept(
    architecture: str, config: str, options: dict[str, Any], output: str, tmp_path: Path
) -> None:
    """As in T5 1.1, Flan-T5 and mT5, whose configurations tie it; Transformers follows the
    weights."""
    theirs = Reference(architecture, config, options).build(torch.float32)
    theirs.save_pretrained(tmp_path / "theirs")
    file = tmp_path / "theirs" / "model.safetensors"
    state = load_file(file)
    name = f"{output}.weight"
    state[name] = torch.randn(theirs.state_dict()[name].shape)
    save_file(state, file, {"format": "pt"})
    theirs = type(theirs).from_pretrained(tmp_path / "theirs")
    for source in (tmp_path / "theirs", theirs):
        model = from_hf(source)
        batch = make_batch(model, torch.float32)
        expected = run_theirs(theirs, batch)["lm"][true_tokens(batch, len(batch.inputs) - 1)]
        assert relative_error(model(batch).logits["lm"], expected) < 1e-5
    assert torch.equal(to_hf(model).state_dict()[name], state[name])
    model.save_pretrained(tmp_path / "ours")
    convert_folder(tmp_path / "ours", tmp_path / "back", theirs.config.model_type)
    back = type(theirs).from_pretrained(tmp_path / "back")
    for name, x in theirs.state_dict().items():
        assert torch.equal(back.state_dict()[name], x), name


@pytest.mark.parametrize("kind", ["SequenceClassification", "TokenClassification"])
@pytest.mark.parametrize("problem", [None, "multi_label_classification"])
def test_two_classes_of_one_name_are_refused(kind: str, problem: str | None) -> None:
    """Answers are by name: the probability of one of the two would be lost."""
    options = {**BERT, "id2label": {0: "x", 1: "y", 2: "x"}, "problem_type": problem}
    theirs = Reference(f"BertFor{kind}", "BertConfig", options).build()
    with pytest.raises(ConfigError, match="classes 0 and 2 have the same name 'x'"):
        from_hf(theirs)


def test_frames_that_transformers_gives_one_position_are_refused() -> None:
    options = {**S2T, "pad_token_id": 0}
    theirs = Reference("Speech2TextForConditionalGeneration", "Speech2TextConfig", options).build()
    with pytest.raises(ConfigError, match="pad_token_id=0: transformers gives all frames one"):
        sw.from_hf(theirs)


def bert_folder(folder: Path) -> tuple[Any, dict[str, torch.Tensor]]:
    """A BERT in a folder, and its tensors there."""
    theirs = Reference("BertForMaskedLM", "BertConfig", BERT).build(torch.float32)
    theirs.save_pretrained(folder)
    return theirs, load_file(folder / "model.safetensors")


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod."])
def test_pickles_of_older_versions_and_names_of_wrappers(prefix: str, tmp_path: Path) -> None:
    theirs, state = bert_folder(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    wrapped = {prefix + name: x for name, x in state.items()}
    file = tmp_path / "pytorch_model.bin"
    torch.save(wrapped, file, _use_new_zipfile_serialization=False)
    expected = from_hf(theirs).state_dict()
    for name, x in from_hf(tmp_path).state_dict().items():
        assert torch.equal(x, expected[name]), name
    torch.save({**wrapped, f"{prefix}extra": torch.zeros(1)}, file)
    with pytest.raises(WeightsError, match=f"unexpected: {prefix}extra"):
        from_hf(tmp_path)


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2])
def test_float8_weights_are_read(dtype: torch.dtype, tmp_path: Path) -> None:
    _, state = bert_folder(tmp_path / "theirs")
    small = {name: x.to(dtype) for name, x in state.items()}
    save_file(small, tmp_path / "theirs" / "model.safetensors", {"format": "pt"})
    convert_folder(tmp_path / "theirs", tmp_path / "ours")
    words = sw.load(tmp_path / "ours").words(sw.Modality.TEXT)
    assert torch.equal(words, small["bert.embeddings.word_embeddings.weight"].float())


def test_quantized_weights_and_adapters_are_refused(tmp_path: Path) -> None:
    _, state = bert_folder(tmp_path)
    name = "bert.encoder.layer.0.output.dense.weight"
    integers = {**state, name: state[name].to(torch.int8)}
    save_file(integers, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(WeightsError, match=rf"{name} holds integers \(torch.int8\)"):
        from_hf(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "fp8"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ConfigError, match="quantization_config: the weights are quantized"):
        from_hf(tmp_path)
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(ConfigError, match="adapter of peft"):
        from_hf(tmp_path)


def test_a_converted_whisper_is_inspected(tmp_path: Path) -> None:
    """Its texts have no stream of their own."""
    theirs = Reference("WhisperForConditionalGeneration", "WhisperConfig", WHISPER).build()
    model = from_hf(theirs)
    found = inspect_model(model)
    assert found["total_parameters"] == sum(x.numel() for x in model.parameters())
    assert found["tasks"]["lm"]["activated_parameters"] == found["total_parameters"]


SEARCH = {
    "num_beams": 4,
    "length_penalty": 2.0,
    "max_length": 12,
    "min_length": 8,
    "no_repeat_ngram_size": 2,
    "forced_bos_token_id": 0,
    "suppress_tokens": [5, 6],
    "repetition_penalty": 1.5,
}


@pytest.mark.parametrize("where", ["generation_config.json", "config.json"])
def test_search_options_are_kept_in_both_directions(where: str, tmp_path: Path) -> None:
    """Also those of older models, whose config.json has them."""
    theirs = Reference("BartForConditionalGeneration", "BartConfig", BART).build(torch.float32)
    theirs.generation_config = T.GenerationConfig(**SEARCH)
    theirs.save_pretrained(tmp_path / "theirs")
    if where == "config.json":
        (tmp_path / "theirs" / "generation_config.json").unlink()
        config = json.loads((tmp_path / "theirs" / where).read_text())
        (tmp_path / "theirs" / where).write_text(json.dumps(config | SEARCH))
    convert_folder(tmp_path / "theirs", tmp_path / "ours")
    target = sw.load(tmp_path / "ours").config.targets["lm"]
    assert (target.beams, target.length_penalty, target.max_answer_tokens) == (4, 2.0, 11)
    convert_folder(tmp_path / "ours", tmp_path / "back")
    expected = type(theirs).from_pretrained(tmp_path / "theirs").generation_config.to_dict()
    found = T.GenerationConfig.from_pretrained(tmp_path / "back").to_dict()
    assert found.pop("max_new_tokens") == expected.pop("max_length") - 1
    for name, x in expected.items():
        assert x is None or name.startswith("_") or found[name] == x, name


def test_search_options_without_a_counterpart_are_refused(tmp_path: Path) -> None:
    theirs = Reference("BartForConditionalGeneration", "BartConfig", BART).build(torch.float32)
    theirs.generation_config = T.GenerationConfig(do_sample=True, temperature=0.5)
    theirs.save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match="do_sample=True has no counterpart here"):
        from_hf(tmp_path)
    theirs.generation_config = T.GenerationConfig(decoder_start_token_id=5)
    theirs.save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match="decoder_start_token_id=5 is not that of"):
        from_hf(tmp_path)


def test_a_chat_model_keeps_how_it_is_sampled(tmp_path: Path) -> None:
    theirs = Reference("GPT2LMHeadModel", "GPT2Config", GPT2).build(torch.float32)
    theirs.save_pretrained(tmp_path / "theirs")
    # the temperature has no effect, which newer versions of Transformers refuse to write
    options = {"temperature": 0.6, "top_p": 0.9, "eos_token_id": [2, 9]}
    (tmp_path / "theirs" / "generation_config.json").write_text(json.dumps(options))
    convert_folder(tmp_path / "theirs", tmp_path / "ours")
    convert_folder(tmp_path / "ours", tmp_path / "back")
    found = T.GenerationConfig.from_pretrained(tmp_path / "back").to_dict()
    assert {name: found[name] for name in options} == options


def test_a_whisper_that_was_converted_back_writes_in_a_given_language() -> None:
    options = {**WHISPER, "vocab_size": 60, "max_target_positions": 20}
    theirs = Reference("WhisperForConditionalGeneration", "WhisperConfig", options).build()
    theirs.generation_config = T.GenerationConfig(
        **{name: WHISPER[name] for name in WHISPER if name.endswith("_token_id")},
        is_multilingual=True,
        lang_to_id={"<|en|>": 41, "<|zh|>": 42},
        task_to_id={"transcribe": 44, "translate": 45},
        no_timestamps_token_id=46,
        max_initial_timestamp_index=5,
        alignment_heads=[[0, 1]],
        max_length=15,
    )
    back = to_hf(from_hf(theirs))
    frames = torch.randn(2, WHISPER["num_mel_bins"], 2 * WHISPER["max_source_positions"]).double()
    for language in ("en", "zh"):
        expected = theirs.generate(frames, language=language, task="translate")
        assert torch.equal(back.generate(frames, language=language, task="translate"), expected)
    model = from_hf(theirs)
    target = model.config.targets["lm"].model_copy(update={"begin": ["<|zh|>", "<|translate|>"]})
    model.config = model.config.changed(targets={"lm": target})
    expected = theirs.generate(frames, language="zh", task="translate")
    assert torch.equal(to_hf(model).generate(frames), expected)


@pytest.mark.parametrize(
    ("architecture", "config", "options"),
    [
        ("CLIPModel", "CLIPConfig", CLIP),
        ("BartForConditionalGeneration", "BartConfig", {**BART, "decoder_start_token_id": 7}),
        ("GPT2ForSequenceClassification", "GPT2Config", GPT2),
        ("WhisperForConditionalGeneration", "WhisperConfig", WHISPER),
        ("T5ForConditionalGeneration", "T5Config", T5),
    ],
)
def test_ids_of_special_tokens_are_kept_without_a_tokenizer(
    architecture: str, config: str, options: dict[str, Any], tmp_path: Path
) -> None:
    theirs = Reference(architecture, config, options).build(torch.float32)
    from_hf(theirs).save_pretrained(tmp_path / "ours")
    convert_folder(tmp_path / "ours", tmp_path / "back", theirs.config.model_type)
    back = type(theirs).from_pretrained(tmp_path / "back")
    for found, expected in (
        (back.config, theirs.config),
        (getattr(back.config, "text_config", back.config), theirs.config.get_text_config()),
    ):
        for name in ("pad_token_id", "eos_token_id", "decoder_start_token_id"):
            assert getattr(found, name, None) == getattr(expected, name, None), name
    batch = make_batch(from_hf(theirs), torch.float32)
    for kind, expected in run_theirs(theirs, batch).items():
        assert torch.equal(run_theirs(back, batch)[kind], expected)


def test_padding_that_only_config_json_names_is_kept(tmp_path: Path) -> None:
    """As of most classifiers that were trained from GPT-2, whose tokenizer has no padding."""
    options = {**GPT2, "vocab_size": 41, "pad_token_id": 3, "id2label": {0: "a", 1: "b"}}
    theirs = Reference("GPT2ForSequenceClassification", "GPT2Config", options).build(torch.float32)
    theirs.save_pretrained(tmp_path / "theirs")
    tokens = {f"t{i}": i for i in range(41)}
    tokenizer = Tokenizer(models.WordLevel(tokens, unk_token="t0"))
    T.PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="t2").save_pretrained(
        tmp_path / "theirs"
    )
    convert_folder(tmp_path / "theirs", tmp_path / "ours")
    convert_folder(tmp_path / "ours", tmp_path / "back")
    back = T.AutoModelForSequenceClassification.from_pretrained(tmp_path / "back")
    assert back.config.pad_token_id == 3
    ids = torch.tensor([[5, 6, 7], [8, 3, 3]])
    assert torch.equal(back(ids).logits, theirs(ids).logits)
