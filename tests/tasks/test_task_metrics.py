"""Each task family names the metrics that it computes."""

import numpy as np
import pytest

from skillweave.metrics import METRICS
from skillweave.tasks import TASKS, Task
from skillweave.tasks.classification import Classification, ClassPredictions
from skillweave.tasks.distillation import Distillation
from skillweave.tasks.generation import GeneratedText, TextGeneration
from skillweave.tasks.likelihood import Likelihood, ScoredClasses
from skillweave.tasks.masked_images import MaskedImage, ReconstructedPatches
from skillweave.tasks.masked_prediction import MaskedPredictions, PositionMetrics
from skillweave.tasks.multi_label import MultiLabelClassification, MultiLabelPredictions
from skillweave.tasks.predictions import Predictions
from skillweave.tasks.question_answering import AnswerPredictions, QuestionAnswering
from skillweave.tasks.regression import NumberPredictions, Regression
from skillweave.tasks.retrieval import Retrieval, RetrievalPredictions
from skillweave.tasks.token_labels import TokenLabelling, TokenLabelPredictions
from skillweave.tasks.transcription import TranscriptMetrics, Transcripts
from skillweave.tasks.visual_questions import VisualAnswers, VisualQuestionAnswering

KEYS = ["a", "b"]
NUMBERS, EYE = np.array([0.5, 1.0], np.float32), np.eye(2, dtype=np.float32)
COUNTS = np.array([0, 1])
TEXTS = {"references": ["a b", "c"], "hypotheses": ["a", "c"]}
FOUND: dict[type, Predictions] = {
    Likelihood: ScoredClasses(keys=KEYS, labels=COUNTS, probabilities=EYE, choices=COUNTS + 2),
    Classification: ClassPredictions(
        keys=KEYS, labels=COUNTS, probabilities=EYE, choices=COUNTS + 2
    ),
    VisualQuestionAnswering: VisualAnswers(
        keys=KEYS,
        questions=["how many?", "which?"],
        types=["number", ""],
        references=[["two"] * 4, ["a cat"] * 4],  # with fewer there is no VQA accuracy
        hypotheses=["two", "dog"],
        probabilities=[{}, {}],
    ),
    TranscriptMetrics: Transcripts(keys=KEYS, **TEXTS),
    TextGeneration: GeneratedText(
        keys=KEYS, **TEXTS, all_references=[["a b"], ["c"]], inputs=["x", "y"]
    ),
    MaskedImage: ReconstructedPatches(keys=KEYS, errors=NUMBERS, of_mean=NUMBERS, views=[]),
    PositionMetrics: MaskedPredictions(
        keys=KEYS, classes=2, labels=COUNTS, losses=NUMBERS, correct=COUNTS > 0, samples=COUNTS
    ),
    MultiLabelClassification: MultiLabelPredictions(keys=KEYS, labels=EYE > 0, probabilities=EYE),
    QuestionAnswering: AnswerPredictions(
        keys=KEYS, references=[["a"], ["b"]], hypotheses=["a", "c"]
    ),
    Distillation: NumberPredictions(keys=KEYS, references=EYE, values=EYE),
    Regression: NumberPredictions(keys=KEYS, references=NUMBERS, values=NUMBERS),
    Retrieval: RetrievalPredictions(keys=KEYS, queries=EYE, items=EYE, captions=COUNTS),
    TokenLabelling: TokenLabelPredictions(
        keys=KEYS, references=[["B-PER"], ["O"]], hypotheses=[["B-PER"], ["O"]]
    ),
}


@pytest.mark.parametrize("task", TASKS.values(), ids=lambda task: task.name)
def test_a_task_names_the_metrics_that_it_computes(task: Task) -> None:
    found = next(found for family, found in FOUND.items() if isinstance(task, family))
    assert set(task.columns(found)) == set(task.metrics) <= METRICS.keys()
