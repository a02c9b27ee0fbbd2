"""Reference models for sound, and with a decoder: architecture, configuration class and options."""

from __future__ import annotations

from typing import Any

from hf_vision import CLASSES, PAD, VOCABULARY

T5: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "d_model": 15,
    "d_kv": 7,
    "d_ff": 37,
    "num_layers": 3,
    "num_decoder_layers": 2,
    "num_heads": 3,
    "relative_attention_num_buckets": 8,
    "relative_attention_max_distance": 6,
    "pad_token_id": PAD,
    "decoder_start_token_id": PAD,
}
BART: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "d_model": 15,
    "encoder_layers": 3,
    "decoder_layers": 2,
    "encoder_attention_heads": 3,
    "decoder_attention_heads": 5,
    "encoder_ffn_dim": 37,
    "decoder_ffn_dim": 23,
    "max_position_embeddings": 13,
    "pad_token_id": PAD,
    "bos_token_id": 0,
    "eos_token_id": 2,
    "decoder_start_token_id": 2,
    "forced_eos_token_id": None,
}
PEGASUS = {**BART, "pad_token_id": PAD, "decoder_start_token_id": PAD}
WAV2VEC2: dict[str, Any] = {
    "vocab_size": 41,
    "hidden_size": 15,
    "num_hidden_layers": 3,
    "num_attention_heads": 3,
    "intermediate_size": 37,
    "conv_dim": (7, 7, 7),
    "conv_kernel": (5, 3, 2),
    "conv_stride": (3, 2, 1),
    "num_conv_pos_embeddings": 6,
    "num_conv_pos_embedding_groups": 5,
    "pad_token_id": 0,
}
LARGE = {
    **WAV2VEC2,
    "feat_extract_norm": "layer",
    "conv_bias": True,
    "do_stable_layer_norm": True,
    "num_conv_pos_embeddings": 7,
    "mask_time_prob": 0.0,
}
DATA2VEC = {**WAV2VEC2, "num_conv_pos_embeddings": 3, "conv_pos_kernel_size": 4}
WAVLM_BIAS = {"num_buckets": 8, "max_bucket_distance": 6, "attn_implementation": "eager"}
S2T: dict[str, Any] = {
    "vocab_size": 41,
    "d_model": 15,
    "encoder_layers": 3,
    "decoder_layers": 2,
    "encoder_attention_heads": 3,
    "decoder_attention_heads": 5,
    "encoder_ffn_dim": 37,
    "decoder_ffn_dim": 23,
    "conv_channels": 14,
    "conv_kernel_sizes": (5, 3),
    "input_feat_per_channel": 11,
    "max_source_positions": 60,
    "max_target_positions": 13,
    "attn_implementation": "eager",  # The only implementation that it has.
}
WHISPER: dict[str, Any] = {
    "vocab_size": 41,
    "d_model": 30,  # Even, because of its sines and cosines.
    "encoder_layers": 3,
    "decoder_layers": 2,
    "encoder_attention_heads": 3,
    "decoder_attention_heads": 5,
    "encoder_ffn_dim": 37,
    "decoder_ffn_dim": 23,
    "num_mel_bins": 11,
    "max_source_positions": 8,
    "max_target_positions": 13,
    "pad_token_id": PAD,
    "bos_token_id": 0,
    "eos_token_id": 2,
    "decoder_start_token_id": 2,
}
MOONSHINE: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 30,
    "intermediate_size": 37,
    "encoder_num_hidden_layers": 3,
    "decoder_num_hidden_layers": 2,
    "encoder_num_attention_heads": 3,
    "decoder_num_attention_heads": 3,
    "rope_parameters": {"rope_type": "default", "rope_theta": 30.0, "partial_rotary_factor": 0.85},
    "pad_token_id": PAD,
    "decoder_start_token_id": 2,
}
GENERATION: list[tuple[str, str, dict[str, Any]]] = [
    ("T5ForConditionalGeneration", "T5Config", T5),
    (
        "T5ForConditionalGeneration",
        "T5Config",
        {**T5, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False},
    ),
    ("T5EncoderModel", "T5Config", T5),
    ("MT5ForConditionalGeneration", "MT5Config", {**T5, "feed_forward_proj": "gated-gelu"}),
    ("MT5EncoderModel", "MT5Config", T5),
    ("T5Model", "T5Config", T5),
    ("T5ForSequenceClassification", "T5Config", {**T5, **CLASSES, "eos_token_id": 2}),
    ("T5ForQuestionAnswering", "T5Config", T5),
    ("BartModel", "BartConfig", BART),
    ("BartForSequenceClassification", "BartConfig", {**BART, **CLASSES}),
    ("BartForQuestionAnswering", "BartConfig", BART),
    ("PegasusModel", "PegasusConfig", PEGASUS),
    ("T5ForTokenClassification", "T5Config", {**T5, **CLASSES, "feed_forward_proj": "gated-gelu"}),
    ("BartForConditionalGeneration", "BartConfig", BART),
    (
        "BartForConditionalGeneration",
        "BartConfig",
        {**BART, "scale_embedding": True, "activation_function": "relu"},
    ),
    ("PegasusForConditionalGeneration", "PegasusConfig", PEGASUS),
    ("PegasusForConditionalGeneration", "PegasusConfig", {**PEGASUS, "scale_embedding": True}),
    ("Wav2Vec2Model", "Wav2Vec2Config", LARGE),
    ("Wav2Vec2ForCTC", "Wav2Vec2Config", WAV2VEC2),
    ("Wav2Vec2ForCTC", "Wav2Vec2Config", {**LARGE, "hidden_act": "relu"}),
    (
        "Wav2Vec2ForSequenceClassification",
        "Wav2Vec2Config",
        {**WAV2VEC2, **CLASSES, "classifier_proj_size": 9},
    ),
    ("HubertModel", "HubertConfig", WAV2VEC2),
    (
        "HubertForSequenceClassification",
        "HubertConfig",
        {**LARGE, **CLASSES, "conv_bias": False, "classifier_proj_size": 11},
    ),
    ("HubertForCTC", "HubertConfig", {**LARGE, "conv_bias": False, "do_stable_layer_norm": False}),
    ("Data2VecAudioModel", "Data2VecAudioConfig", {**DATA2VEC, "mask_time_prob": 0.0}),
    (
        "Data2VecAudioForCTC",
        "Data2VecAudioConfig",
        {**DATA2VEC, "conv_bias": True, "conv_pos_kernel_size": 3, "hidden_act": "relu"},
    ),
    (
        "Data2VecAudioForSequenceClassification",
        "Data2VecAudioConfig",
        {**DATA2VEC, **CLASSES, "classifier_proj_size": 9},
    ),
    ("WavLMModel", "WavLMConfig", {**LARGE, **WAVLM_BIAS}),
    ("WavLMForCTC", "WavLMConfig", {**WAV2VEC2, **WAVLM_BIAS}),
    ("WavLMForCTC", "WavLMConfig", {**LARGE, **WAVLM_BIAS, "conv_bias": False}),
    (
        "WavLMForSequenceClassification",
        "WavLMConfig",
        {**WAV2VEC2, **WAVLM_BIAS, **CLASSES, "classifier_proj_size": 9},
    ),
    ("MoonshineModel", "MoonshineConfig", MOONSHINE),
    ("MoonshineForConditionalGeneration", "MoonshineConfig", MOONSHINE),
    (
        "MoonshineForConditionalGeneration",
        "MoonshineConfig",
        {
            **MOONSHINE,
            "attention_bias": True,
            "tie_word_embeddings": False,
            "encoder_hidden_act": "relu",
            "decoder_hidden_act": "gelu",
            "pad_head_dim_to_multiple_of": 8,
        },
    ),
    ("Speech2TextForConditionalGeneration", "Speech2TextConfig", S2T),
    (
        "Speech2TextForConditionalGeneration",
        "Speech2TextConfig",
        {
            **S2T,
            "scale_embedding": False,
            "tie_word_embeddings": False,
            "num_conv_layers": 1,
            "conv_kernel_sizes": (3,),
        },
    ),
    ("WhisperForConditionalGeneration", "WhisperConfig", WHISPER),
    ("WhisperModel", "WhisperConfig", WHISPER),
    (
        "WhisperForAudioClassification",
        "WhisperConfig",
        {**WHISPER, **CLASSES, "classifier_proj_size": 11},
    ),
    (
        "WhisperForConditionalGeneration",
        "WhisperConfig",
        {**WHISPER, "tie_word_embeddings": False, "activation_function": "relu"},
    ),
]
