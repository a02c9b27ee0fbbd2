"""Tasks over sound."""

from skillweave.batch import Modality, Span
from skillweave.tasks.build import classify, masked_sound, transcribe
from skillweave.tasks.build_answers import answer_in_text
from skillweave.tasks.task import ANSWER, Task

TASKS = (
    Task(
        name="sound_classification",
        summary="which category a recording holds (wav2vec 2.0)",
        spans=(Span(Modality.SOUND),),
        target="classification",
        metric="accuracy",
        fields=("sound", "label"),
        build=classify(Modality.SOUND),
    ),
    Task(
        name="speech_recognition",
        summary="what was said, by CTC over characters (SkillNet section 4.1)",
        spans=(Span(Modality.SOUND),),
        target="ctc",
        metric="cer",
        fields=("sound", "transcript"),
        build=transcribe,
    ),
    Task(
        name="speech_to_text",
        summary="what was said, word by word, by a decoder (S2T)",
        spans=(Span(Modality.SOUND), ANSWER),
        target="lm",
        metric="cer",
        fields=("sound", "transcript"),
        answer="transcript",
        build=answer_in_text(Modality.SOUND),
    ),
    Task(
        name="masked_sound",
        summary=(
            "pretraining: the MFCC cluster of masked frames (SkillNet section 4.2, a simple HuBERT)"
        ),
        spans=(Span(Modality.SOUND),),
        target="masked_unit",
        metric="perplexity",
        fields=("sound",),
        build=masked_sound,
        pretraining=True,
    ),
)
