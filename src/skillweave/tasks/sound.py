"""Tasks over sound."""

from skillweave.batch import Modality, Span
from skillweave.tasks.build import masked_sound, transcribe
from skillweave.tasks.task import Task

TASKS = (
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
        name="masked_sound",
        summary="pretraining: the MFCC cluster of masked frames (SkillNet section 4.2, a simple HuBERT)",
        spans=(Span(Modality.SOUND),),
        target="masked_unit",
        metric="perplexity",
        fields=("sound",),
        build=masked_sound,
        pretraining=True,
    ),
)
