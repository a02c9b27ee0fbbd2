"""The metrics of the package, in the order of tables."""

from skillweave.metrics.base import METRICS, Metric
from skillweave.metrics.captions import bleu_4, cider, of_texts, rouge_l
from skillweave.metrics.labels import f1, macro_f1, matthews, of_classes
from skillweave.metrics.transcription import (
    edit_counts,
    error_rate_of,
    whisper_basic,
    whisper_english,
    word_edit_counts,
)

METRICS.update(
    {
        "accuracy": Metric("accuracy"),
        "auc": Metric("area under the ROC curve"),
        "f1": Metric("F1", compute=of_classes(f1)),
        "macro_f1": Metric("macro F1", compute=of_classes(macro_f1)),
        "micro_f1": Metric("micro F1"),
        "matthews": Metric("Matthews correlation", compute=of_classes(matthews)),
        "pearson": Metric("Pearson correlation"),
        "spearman": Metric("Spearman correlation"),
        "squared_error": Metric("mean squared error", lower=True, unbounded=True),
        "cosine": Metric("cosine with the teacher's vectors"),
        "entity_f1": Metric("entity F1"),
        "tag_accuracy": Metric("accuracy of words"),
        "exact_match": Metric("exact match"),
        "vqa_accuracy": Metric("VQA accuracy"),
        "answer_f1": Metric("F1 of answers"),
        "cmrc_f1": Metric("F1 of answers (CMRC)"),
        "bleu": Metric("BLEU"),
        "chrf": Metric("chrF"),
        "bleu_4": Metric("BLEU-4 of all references", compute=of_texts(bleu_4)),
        "rouge_l": Metric("ROUGE-L", compute=of_texts(rouge_l)),
        "cider": Metric("CIDEr", unbounded=True, compute=of_texts(cider)),
        "cer": Metric("character error rate", lower=True),
        "wer": Metric("word error rate", lower=True, compute=error_rate_of(word_edit_counts)),
        "normalized_cer": Metric(
            "normalized character error rate",
            lower=True,
            compute=error_rate_of(edit_counts, whisper_basic),
        ),
        "normalized_wer": Metric(
            "normalized word error rate",
            lower=True,
            compute=error_rate_of(word_edit_counts, whisper_basic),
        ),
        "english_wer": Metric(
            "word error rate of normalized English",
            lower=True,
            compute=error_rate_of(word_edit_counts, whisper_english),
        ),
        "recall_at_1": Metric("recall@1"),
        "recall_at_5": Metric("recall@5"),
        "recall_at_10": Metric("recall@10"),
        "median_rank": Metric("median rank", lower=True, unbounded=True),
        "perplexity": Metric("perplexity", lower=True, unbounded=True),
        "masked_accuracy": Metric("accuracy at predicted positions"),
        "pixel_error": Metric("error of hidden pixels", lower=True),
    }
)
