"""A tiny model for every task of the catalogue, with data of the packs."""

from text_rows import text_sources

from skillweave.recipe import RecipeConfig

SOURCES = {
    "text_classification": {"path": "pack:poems", "columns": {"label": "dynasty"}},
    "speech_recognition": {"path": "pack:speech"},
    "image_classification": {"path": "pack:emoji", "columns": {"label": "category"}},
    "video_classification": {"path": "pack:clips", "columns": {"label": "motion"}},
    "sound_classification": {"path": "pack:speech", "columns": {"label": "transcript"}},
    "text_to_image": {"path": "pack:emoji", "columns": {"text": ["name_zh", "name_en"]}},
    "text_to_video": {"path": "pack:clips", "columns": {"text": ["caption_zh", "caption_en"]}},
    "text_to_code": {"path": "pack:code_zh"},
    "masked_text": {"path": "pack:poems"},
    "masked_sound": {"path": "pack:speech"},
    "image_text_contrastive": {"path": "pack:emoji", "columns": {"text": ["name_zh", "name_en"]}},
    "video_text_contrastive": {
        "path": "pack:clips",
        "columns": {"text": ["caption_zh", "caption_en"]},
    },
    "masked_image": {"path": "pack:emoji"},
    "masked_image_tokens": {"path": "pack:emoji"},
    "masked_video": {"path": "pack:clips"},
    "masked_code": {"path": "pack:code_zh"},
    "text_to_frames": {"path": "pack:clips", "columns": {"text": ["caption_zh", "caption_en"]}},
    "text_naming": {"path": "pack:poems", "columns": {"label": "dynasty"}},
    "image_naming": {"path": "pack:emoji", "columns": {"label": "category"}},
    "video_naming": {"path": "pack:clips", "columns": {"label": "motion"}},
    "image_captioning": {"path": "pack:emoji", "columns": {"text": ["name_zh", "name_en"]}},
    "video_captioning": {"path": "pack:clips", "columns": {"text": ["caption_zh", "caption_en"]}},
    "word_filling": {"path": "pack:poems"},
    "language_modelling": {"path": "pack:poems"},
    "speech_to_text": {"path": "pack:speech"},
    "code_to_text": {"path": "pack:code_zh"},
    "image_to_text": {"path": "pack:emoji", "columns": {"text": ["name_zh", "name_en"]}},
    "masked_text_pair": {"path": "pack:poems"},
    "text_denoising": {"path": "pack:poems"},
    "text_infilling": {"path": "pack:poems"},
    "sound_captioning": {"path": "pack:speech", "columns": {"text": "transcript"}},
    "code_summarization": {"path": "pack:code_zh"},
    "image_based_text_denoising": {"path": "pack:emoji", "columns": {"text": "caption_zh"}},
    "video_based_text_denoising": {"path": "pack:clips", "columns": {"text": "caption_zh"}},
    "sound_based_text_denoising": {"path": "pack:speech", "columns": {"text": "transcript"}},
    "code_based_text_denoising": {"path": "pack:code_zh"},
    "gap_sentences": {"path": "pack:poems"},
    "span_corruption": {"path": "pack:poems"},
    "replaced_text": {"path": "pack:poems"},
    "visual_question_answering": {"path": "pack:questions"},
    "video_question_answering": {"path": "pack:clip_questions"},
    "image_text_matching": {"path": "pack:emoji", "columns": {"text": ["name_zh", "name_en"]}},
    "video_text_matching": {
        "path": "pack:clips",
        "columns": {"text": ["caption_zh", "caption_en"]},
    },
    **text_sources(),
}
MODEL = {
    "width": 24,
    "shared": ["word"],
    "streams": {
        "text": {"vocabulary": 600, "max_length": 32},
        "code": {"vocabulary": 600, "max_length": 48},
        "image": {"size": 16, "patch": 4, "embedding": ["masked_patch", "position"]},
        "sound": {"channels": 8, "max_length": 100},
        "video": {
            "size": 16,
            "frames": 2,
            "tubelet": [1, 8, 8],
            "embedding": ["visible_tubelet", "factorised_position"],
        },
    },
    "encoder": {"layers": 2, "heads": 2, "feed_forward": 48, "sparse": {"qkv": {"route": "skill"}}},
    "target_embedding": {"max_length": 20},
    "decoder": {"layers": 1, "heads": 2, "feed_forward": 48},
    "targets": {
        "masked_unit": {"clusters": 6},
        "classification": {"classes": []},
        "masked_image_token": {"vocabulary": 9},
        "masked_autoencoder": {
            "stream": "video",
            "width": 16,
            "decoder": {"layers": 1, "heads": 2, "feed_forward": 32},
        },
    },
}


def recipe(*names: str) -> RecipeConfig:
    """The recipe of some tasks."""
    tasks = {
        name: {"data": {**SOURCES[name], "limit": 30}, "batch_size": 4, "augment": {"join": 2}}
        for name in names
    }
    for name in names:
        if name.endswith("_classification") and name != "text_classification":
            tasks[name]["target"] = name  # a classifier each
    return RecipeConfig.parse(
        {"model": MODEL, "tasks": tasks, "training": {"steps": 4, "threads": 1}}
    )
