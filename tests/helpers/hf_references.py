"""Small random Hugging Face models with odd sizes, for each architecture and option, and batches for
both libraries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

import torch
import transformers
from hf_generation import GENERATION
from hf_text import TEXT
from hf_vision import BERT, CLASSES, PAD, VISION, VOCABULARY, mask_patches, their_masks
from tiny import randomise
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from skillweave.batch import Batch, Layout, Modality
from skillweave.interop.huggingface.family import PROBLEMS
from skillweave.model.model import Model

LENGTHS = [9, 4, 1]
CLASSIFYING = {"classification", "regression", "multi_label"}
SMALL = {**BERT, "embedding_size": 7}
DISTIL = {
    "vocab_size": VOCABULARY,
    "dim": 15,
    "n_layers": 3,
    "n_heads": 3,
    "hidden_dim": 37,
    "max_position_embeddings": 13,
    "pad_token_id": PAD,
}
GPT2 = {
    "vocab_size": VOCABULARY,
    "n_embd": 15,
    "n_layer": 3,
    "n_head": 3,
    "n_positions": 13,
    "pad_token_id": PAD,
    "bos_token_id": 0,
    "eos_token_id": 2,
}
BLOOM = {
    "vocab_size": VOCABULARY,
    "hidden_size": 15,
    "n_layer": 3,
    "n_head": 3,
    "pad_token_id": PAD,
}
BLOOM["attn_implementation"] = "eager"  # The only implementation that it has.
LLAMA = {**BERT, "hidden_size": 30, "num_attention_heads": 5, "num_key_value_heads": 1}
GROUPED = {**LLAMA, "num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": 4}
TOWER = {"num_hidden_layers": 2, "intermediate_size": 23, "num_attention_heads": 3}
CLIP = {
    "projection_dim": 11,
    "text_config": {
        **TOWER,
        "hidden_size": 15,
        "vocab_size": VOCABULARY,
        "max_position_embeddings": 13,
        "bos_token_id": 0,
        "eos_token_id": VOCABULARY - 1,
        "pad_token_id": PAD,
    },
    "vision_config": {
        **TOWER,
        "hidden_size": 21,
        "num_hidden_layers": 3,
        "image_size": 12,
        "patch_size": 4,
    },
}
SIGLIP = {
    "text_config": {**CLIP["text_config"], "hidden_size": 21, "max_position_embeddings": 9},
    "vision_config": {**CLIP["vision_config"], "layer_norm_eps": 1e-2},
}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 100.0,
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
YARN = {
    "rope_type": "yarn",
    "rope_theta": 30.0,
    "factor": 4.0,
    "original_max_position_embeddings": 16,
}


@dataclass(frozen=True)
class Reference:
    """A model of class `architecture` with the configuration class `config`."""

    architecture: str
    config: str
    options: dict[str, Any]
    flags: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.architecture

    def build(self, dtype: torch.dtype = torch.float64) -> Any:
        """The model with random weights, none of which has a value that would hide a fault."""
        torch.manual_seed(0)
        config = getattr(transformers, self.config)(
            **{"attn_implementation": "sdpa", **self.options}
        )
        # Lets the positions of VideoMAE have the precision of the model.
        with patch("torch.FloatTensor", torch.DoubleTensor):
            model = getattr(transformers, self.architecture)(config, **self.flags).eval()
        randomise(model)
        for buffer in (b for name, b in model.named_buffers() if name == "final_logits_bias"):
            buffer.normal_()
        model.requires_grad_()  # MAE's positions are otherwise not trained.
        for module in model.modules():
            # Pegasus detaches them.
            if type(module).__name__ == "PegasusSinusoidalPositionalEmbedding":
                module.requires_grad_(False)
            if type(module).__name__ in ("Gemma2RMSNorm", "Gemma3RMSNorm"):
                module.weight.data -= 1  # The scale is 1 more.
        model = model.to(dtype)
        for module in model.modules():
            if hasattr(module, "scalar_embed_scale"):  # Gemma rounds it to float32.
                module.embed_scale = torch.tensor(module.scalar_embed_scale, dtype=dtype)
            # Marian computes them.
            if type(module).__name__ == "MarianSinusoidalPositionalEmbedding":
                with patch("torch.FloatTensor", torch.DoubleTensor):
                    module.weight = nn.Parameter(module.create_weight(), requires_grad=False)
        return model


REFERENCES = [
    Reference("ElectraForTokenClassification", "ElectraConfig", {**SMALL, **CLASSES}),
    Reference("ElectraForQuestionAnswering", "ElectraConfig", SMALL),
    Reference("AlbertForTokenClassification", "AlbertConfig", {**SMALL, **CLASSES}),
    Reference("AlbertForQuestionAnswering", "AlbertConfig", SMALL),
    Reference("DistilBertForTokenClassification", "DistilBertConfig", {**DISTIL, **CLASSES}),
    Reference("DistilBertForQuestionAnswering", "DistilBertConfig", DISTIL),
    Reference(
        "RobertaForTokenClassification", "RobertaConfig", {**BERT, "type_vocab_size": 1, **CLASSES}
    ),
    Reference("RobertaForQuestionAnswering", "RobertaConfig", {**BERT, "type_vocab_size": 1}),
    Reference("BertForTokenClassification", "BertConfig", {**BERT, **CLASSES}),
    Reference("BertForQuestionAnswering", "BertConfig", BERT),
    Reference("BertModel", "BertConfig", BERT),
    Reference("BertModel", "BertConfig", BERT, {"add_pooling_layer": False}),
    Reference(
        "BertForMaskedLM", "BertConfig", {**BERT, "hidden_act": "relu", "layer_norm_eps": 1e-2}
    ),
    Reference("BertForPreTraining", "BertConfig", {**BERT, "type_vocab_size": 3}),
    Reference("BertForSequenceClassification", "BertConfig", {**BERT, **CLASSES}),
    Reference("RobertaModel", "RobertaConfig", {**BERT, "type_vocab_size": 1}),
    Reference(
        "RobertaForMaskedLM",
        "RobertaConfig",
        {**BERT, "type_vocab_size": 1, "hidden_act": "gelu_new"},
    ),
    Reference(
        "RobertaForSequenceClassification",
        "RobertaConfig",
        {**BERT, "type_vocab_size": 1, **CLASSES},
    ),
    Reference("XLMRobertaForMaskedLM", "XLMRobertaConfig", {**BERT, "type_vocab_size": 1}),
    Reference("DistilBertModel", "DistilBertConfig", DISTIL),
    Reference("DistilBertForMaskedLM", "DistilBertConfig", {**DISTIL, "activation": "relu"}),
    Reference("DistilBertForSequenceClassification", "DistilBertConfig", {**DISTIL, **CLASSES}),
    Reference("AlbertModel", "AlbertConfig", SMALL),
    Reference("AlbertForMaskedLM", "AlbertConfig", {**SMALL, "num_hidden_groups": 3}),
    Reference("AlbertForSequenceClassification", "AlbertConfig", {**SMALL, **CLASSES}),
    Reference("ElectraModel", "ElectraConfig", SMALL),
    Reference("ElectraForMaskedLM", "ElectraConfig", SMALL),
    Reference(
        "ElectraForPreTraining",
        "ElectraConfig",
        {**SMALL, "embedding_size": 15, "hidden_act": "relu"},
    ),
    Reference("ElectraForSequenceClassification", "ElectraConfig", {**SMALL, **CLASSES}),
    Reference("GPT2Model", "GPT2Config", GPT2),
    Reference(
        "GPT2LMHeadModel", "GPT2Config", {**GPT2, "n_inner": 37, "scale_attn_weights": False}
    ),
    Reference("GPT2LMHeadModel", "GPT2Config", {**GPT2, "tie_word_embeddings": False}),
    Reference("GPT2ForSequenceClassification", "GPT2Config", {**GPT2, **CLASSES}),
    Reference("GPT2ForTokenClassification", "GPT2Config", {**GPT2, **CLASSES}),
    Reference("GPT2ForQuestionAnswering", "GPT2Config", GPT2),
    Reference("BloomModel", "BloomConfig", BLOOM),
    Reference("BloomForCausalLM", "BloomConfig", {**BLOOM, "layer_norm_epsilon": 1e-2}),
    Reference(
        "BloomForCausalLM",
        "BloomConfig",
        {**BLOOM, "hidden_size": 20, "n_head": 5, "tie_word_embeddings": False},
    ),
    Reference("BloomForSequenceClassification", "BloomConfig", {**BLOOM, **CLASSES}),
    Reference("BloomForTokenClassification", "BloomConfig", {**BLOOM, **CLASSES}),
    Reference("BloomForQuestionAnswering", "BloomConfig", BLOOM),
    Reference("LlamaModel", "LlamaConfig", GROUPED),
    Reference("LlamaForCausalLM", "LlamaConfig", LLAMA),
    Reference(
        "LlamaForCausalLM",
        "LlamaConfig",
        {**GROUPED, "attention_bias": True, "mlp_bias": True, "rope_parameters": LLAMA3},
    ),
    Reference(
        "LlamaForCausalLM",
        "LlamaConfig",
        {
            **GROUPED,
            "tie_word_embeddings": True,
            "rope_parameters": {"rope_type": "linear", "factor": 3.0, "rope_theta": 50.0},
        },
    ),
    Reference(
        "Qwen3ForCausalLM", "Qwen3Config", {**GROUPED, "head_dim": 16, "rope_parameters": YARN}
    ),
    Reference(
        "LlamaForCausalLM",
        "LlamaConfig",
        {
            **GROUPED,
            "head_dim": 12,
            "rope_parameters": {
                **YARN,
                "attention_factor": 0.7,
                "beta_fast": 3.0,
                "beta_slow": 0.2,
            },
        },
    ),
    Reference("LlamaForSequenceClassification", "LlamaConfig", {**GROUPED, **CLASSES}),
    Reference("LlamaForTokenClassification", "LlamaConfig", {**GROUPED, **CLASSES}),
    Reference("LlamaForQuestionAnswering", "LlamaConfig", GROUPED),
    Reference("MistralForCausalLM", "MistralConfig", {**GROUPED, "sliding_window": 3}),
    Reference("Qwen2ForCausalLM", "Qwen2Config", {**LLAMA, "num_attention_heads": 5}),
    Reference("MistralForQuestionAnswering", "MistralConfig", {**GROUPED, "sliding_window": 3}),
    Reference("Qwen3ForCausalLM", "Qwen3Config", GROUPED),
    Reference(
        "MixtralForCausalLM",
        "MixtralConfig",
        {**GROUPED, "num_local_experts": 5, "experts_implementation": "eager"},
    ),
    *(Reference(*row) for row in VISION),
    Reference("CLIPModel", "CLIPConfig", CLIP),
    Reference("CLIPVisionModel", "CLIPVisionConfig", CLIP["vision_config"]),
    Reference(
        "CLIPVisionModelWithProjection",
        "CLIPVisionConfig",
        {**CLIP["vision_config"], "projection_dim": 11},
    ),
    Reference("CLIPTextModel", "CLIPTextConfig", CLIP["text_config"]),
    Reference(
        "CLIPTextModelWithProjection",
        "CLIPTextConfig",
        {**CLIP["text_config"], "projection_dim": 11},
    ),
    Reference("CLIPForImageClassification", "CLIPConfig", {**CLIP, **CLASSES}),
    Reference(
        "ChineseCLIPModel",
        "ChineseCLIPConfig",
        {**CLIP, "text_config": {**BERT, "type_vocab_size": 3}},
    ),
    Reference("SiglipModel", "SiglipConfig", SIGLIP),
    Reference(
        "SiglipModel",
        "SiglipConfig",
        {
            **SIGLIP,
            "text_config": {**SIGLIP["text_config"], "hidden_size": 15, "projection_size": 21},
        },
    ),
    Reference("SiglipForImageClassification", "SiglipConfig", {**SIGLIP, **CLASSES}),
    Reference("SiglipVisionModel", "SiglipVisionConfig", SIGLIP["vision_config"]),
    # Two columns and rows of pixels belong to no patch.
    Reference(
        "SiglipVisionModel", "SiglipVisionConfig", {**SIGLIP["vision_config"], "image_size": 14}
    ),
    Reference(
        "SiglipTextModel", "SiglipTextConfig", {**SIGLIP["text_config"], "projection_size": 11}
    ),
    *(Reference(*row) for row in GENERATION),
    *(Reference(*row) for row in TEXT),
]


class KeepDouble(TorchFunctionMode):
    """Keeps float64 where Hugging Face converts to float32: in norms, angles and softmaxes."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func is torch.Tensor.float and args[0].is_floating_point():
            return args[0].double()
        if (
            func is torch.Tensor.to
            and args[0].is_floating_point()
            and torch.float32 in (*args[1:], kwargs.get("dtype"))
        ):
            return args[0].double()
        if kwargs.get("dtype") is torch.float32 and func in (
            nn.functional.softmax,
            torch.softmax,
            torch.Tensor.softmax,
        ):
            kwargs["dtype"] = torch.float64
        scalar = func is torch.tensor and isinstance(args[0], int)
        if scalar and kwargs.get("dtype") is torch.float32:  # the root of a size
            kwargs["dtype"] = torch.float64
        return func(*args, **kwargs)


def make_batch(model: Model, dtype: torch.dtype, texts: Sequence[int] = LENGTHS) -> Batch:
    """Random inputs for the only task of a model: texts of these lengths, or as many images."""
    torch.manual_seed(1)
    (name,) = model.config.tasks
    layout = model.config.tasks[name].layout(name)
    inputs, lengths, padded = [], [], []
    for i, span in enumerate(layout.spans):
        if span.modality is Modality.IMAGE:
            size = model.config.streams.image.size
            inputs.append(torch.randn(len(texts), 3, size, size, dtype=dtype))
            lengths.append([model.config.streams.image.max_length] * len(texts))
        elif span.modality is Modality.SOUND:
            stream = model.config.streams.sound
            # In Transformers, group norm includes padding and samples that fill no frame, and
            # filterbanks and stacks are not masked between convolutions.
            alone = getattr(stream, "convolution_norm", "") == "layer"
            alone = alone and "convolution_stack" not in stream.embedding
            lengths.append(list(texts) if alone else [max(texts)] * len(texts))
            entries = stream.input_length(max(texts) - 1) + 1
            if stream.features == "whisper":  # All recordings have the same length.
                lengths[-1], entries = (
                    [stream.max_length] * len(texts),
                    stream.input_length(stream.max_length),
                )
            shape = (len(texts), entries, *stream.input_shape(1)[1:])
            inputs.append(torch.randn(shape, dtype=dtype))
        elif span.modality is Modality.VIDEO:
            stream = model.config.streams.video
            inputs.append(
                torch.randn(len(texts), 3, stream.frames, stream.size, stream.size, dtype=dtype)
            )
            lengths.append([stream.max_length] * len(texts))
        else:
            # Encoder and decoder read the same text.
            classified = layout.spans[-1].written and CLASSIFYING & model.config.targets.keys()
            own = (
                [length - i if length > 1 else 2 for length in texts]
                if i and not classified
                else list(texts)
            )
            if getattr(model.config.streams.text, "pad_to_max_length", False):
                own = [model.config.streams.text.max_length] * len(own)
            ids = torch.randint(3, VOCABULARY - 1, (len(own), max(own)))
            true = torch.arange(max(own)) < torch.tensor(own).unsqueeze(1)
            pooled = getattr(model.config.targets.get("pooled"), "pooling", "first")
            if len(layout.passes) > 1 or pooled == "last":  # CLIP pools at the last token.
                ids[range(len(own)), [length - 1 for length in own]] = (
                    2 if classified else VOCABULARY - 1
                )
            padding = model.config.streams.text.special_ids.get("pad", PAD) if not i else PAD
            inputs.append(torch.where(true, ids, padding))
            lengths.append(own)
        padded.append(max(lengths[-1]))
    batch = Batch(layout.with_lengths(tuple(padded)), tuple(inputs), torch.tensor(lengths).T)
    return mask_patches(batch, model.config.streams.image or model.config.streams.video)


def run_theirs(model: Any, batch: Batch) -> dict[str, Tensor]:
    """The outputs of a Hugging Face model by the kind of our target; `hidden` without a head."""
    given: dict[str, Tensor] = {}
    for i, span in enumerate(batch.layout.spans):
        if span.modality is Modality.TEXT:
            prefix = "decoder_" if span.written else ""
            given[f"{prefix}input_ids"] = batch.inputs[i]
            given[f"{prefix}attention_mask"] = true_tokens(batch, i).long()
        if span.modality is Modality.IMAGE:
            given["pixel_values"] = batch.inputs[i]
        elif span.modality is Modality.SOUND and batch.inputs[i].ndim == 3:
            whisper = model.config.model_type == "whisper"
            given["input_features"] = (
                batch.inputs[i].transpose(1, 2) if whisper else batch.inputs[i]
            )
        elif span.modality is Modality.SOUND:
            given["input_values"] = batch.inputs[i]
            if model.config.model_type == "moonshine":
                continue
            frames = model._get_feat_extract_output_lengths(
                torch.arange(1, batch.inputs[i].shape[1] + 1)
            )
            given["attention_mask"] = (frames <= batch.lengths[:, [i]]).long()
        elif span.modality is Modality.VIDEO:
            given["pixel_values"] = batch.inputs[i].transpose(1, 2)
    given |= their_masks(model, batch)
    # ViLT shuffles patches with this function.
    with patch("torch.multinomial", lambda weights, count: torch.arange(count)):
        found = model(**given)
    name = type(model).__name__
    if name in ("CLIPModel", "ChineseCLIPModel", "SiglipModel"):
        return {"contrastive": found.logits_per_text}
    if name.endswith("WithProjection"):
        embedded = found.image_embeds if "pixel_values" in given else found.text_embeds
        return {"hidden": found.last_hidden_state, "pooled": embedded}
    if name in ("CLIPForImageClassification", "SiglipForImageClassification"):
        return {
            _kind_of_problem(model.config): found.logits,
            **run_theirs(model.vision_model, batch),
        }
    if name == "BertForPreTraining":
        return {"mlm": found.prediction_logits, "classification": found.seq_relationship_logits}
    if name.endswith("Model") and name not in ("GPT2LMHeadModel", "MarianMTModel"):
        pooled = found.get("pooler_output")
        return {"hidden": found.last_hidden_state, **({} if pooled is None else {"pooled": pooled})}
    if "TokenClassification" in name:
        return {"token_labels": found.logits}
    if name == "ViltForMaskedLM":
        return {"mlm": found.logits, **run_theirs(model.vilt, batch)}
    if name == "ViltForQuestionAnswering":
        return {"multi_label": found.logits}
    if "QuestionAnswering" in name:
        return {"span": torch.stack([found.start_logits, found.end_logits], dim=-1)}
    if "Classification" in name:
        return {_kind_of_problem(model.config): found.logits}
    if name.endswith("CTC"):
        return {"ctc": found.logits}
    if name == "BeitForMaskedImageModeling":
        return {"masked_image_token": found.logits}
    if name in ("ViTMAEForPreTraining", "VideoMAEForPreTraining"):
        return {"masked_autoencoder": found.logits}
    if name.endswith("MaskedImageModeling"):
        size = model.config.patch_size
        return {
            "masked_pixels": (
                nn.functional.pixel_unshuffle(found.reconstruction, size).flatten(2).transpose(1, 2)
            )
        }
    return {
        (
            "replaced" if name == "ElectraForPreTraining" else "mlm" if "MaskedLM" in name else "lm"
        ): found.logits
    }


def _kind_of_problem(config: Any) -> str:
    """The kind of target that a classifier's logits belong to."""
    alone = config.num_labels == 1 and config.problem_type is None
    return PROBLEMS.get("regression" if alone else config.problem_type, "classification")


def true_tokens(batch: Batch, span: int) -> Tensor:
    """[N, L] whether a position of a span has a token."""
    return torch.arange(batch.layout.spans[span].length) < batch.lengths[:, [span]]


def asked(batch: Batch, kind: str) -> Tensor:
    """[N, L] the tokens for which a target of this kind has outputs: those of the last text, or of
    the last pass."""
    texts = [i for i, span in enumerate(batch.layout.spans) if span.modality is Modality.TEXT]
    return last_pass(batch) if kind in ("hidden", "ctc") else true_tokens(batch, texts[-1])


def last_pass(batch: Batch) -> Tensor:
    """[N, L] whether a position of the last pass has a token."""
    return torch.cat([true_tokens(batch, span) for span in batch.layout.passes[-1]], dim=1)


def run_ours(model: Model, batch: Batch) -> dict[str, Tensor]:
    """The outputs of our model, of which hidden states are flat tokens."""
    found = dict(model(batch).logits)
    for kind in {"token_labels", "span", "ctc"} & found.keys():
        found[kind] = found[kind][last_pass(batch)]
    if "mlm" in found:  # Hugging Face gives no logits of patches, which follow the words.
        found["mlm"] = found["mlm"][: batch.lengths[:, 0].sum()]
    # Hugging Face gives outputs of masked tubelets only.
    if "masked_autoencoder" in found and batch.inputs[0].ndim == 5:
        hidden = found["masked_autoencoder"][batch.masked[0]]
        found["masked_autoencoder"] = hidden.unflatten(0, (len(batch), -1))
    if "masked_image_token" in found:  # Hugging Face gives no logits of [CLS].
        found["masked_image_token"] = found["masked_image_token"].unflatten(0, (len(batch), -1))[
            :, 1:
        ]
    if not found or "pooled" in found:
        found["hidden"] = model.hidden(batch)[-1][last_pass(batch)]
    return found


def layout_of(model: Model) -> Layout:
    """The layout of the only task of a model."""
    (name,) = model.config.tasks
    return model.config.tasks[name].layout(name)
