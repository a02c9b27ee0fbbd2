"""Tasks in one formulation: the answer is the candidate of largest similarity, encoded by the same
model (Uni-Perceiver).

Candidates are class names or wordpieces, each a text of its own in the last pass; no task has
parameters of its own. Retrieval in this formulation is `text_to_image` and its like with `target:
similarity`.

With `target: lm` the tasks that write choose by an output layer instead (GPT-2; where there is a
decoder, BART, Pegasus, T5), and `language_modelling` with `target: bilm` as ELMo.
"""

from skillweave.batch import Attention, Modality, Role, Span
from skillweave.tasks.build import name_class
from skillweave.tasks.build_answers import continue_text
from skillweave.tasks.build_pretraining import corrupted, denoised, gapped, masked_text
from skillweave.tasks.task import Builder, Task

CANDIDATES = Span(Modality.TEXT, Role.TARGET, encoder_pass=1)
CONTINUED = Span(Modality.TEXT, Role.TARGET, attention=Attention.CAUSAL)


def _naming(modality: Modality, what: str) -> Task:
    return Task(
        name=f"{modality.value}_naming",
        summary=f"the class of {what}, among class names",
        spans=(Span(modality), CANDIDATES),
        target="similarity",
        metric="accuracy",
        fields=(modality.value, "label"),
        build=name_class(modality),
        candidates="class",
    )


def _captioning(modality: Modality, what: str) -> Task:
    return Task(
        name=f"{modality.value}_captioning",
        summary=f"the caption of {what}, word by word, among wordpieces",
        spans=(Span(modality), CONTINUED, CANDIDATES),
        target="similarity",
        metric="perplexity",
        fields=("text", modality.value),
        build=continue_text(modality),
        candidates="words",
    )


def _rewriting(name: str, what: str, build: Builder) -> Task:
    return Task(
        name=name,
        summary=f"pretraining: {what}, word by word, among wordpieces",
        spans=(Span(Modality.TEXT), CONTINUED, CANDIDATES),
        target="similarity",
        metric="perplexity",
        fields=("text",),
        build=build,
        pretraining=True,
        candidates="words",
    )


TASKS = (
    _naming(Modality.TEXT, "a text"),
    _naming(Modality.IMAGE, "a picture"),
    _naming(Modality.VIDEO, "a clip"),
    _captioning(Modality.IMAGE, "a picture"),
    _captioning(Modality.VIDEO, "a clip"),
    Task(
        name="word_filling",
        summary="pretraining: the masked words of a text, among wordpieces",
        spans=(Span(Modality.TEXT), CANDIDATES),
        target="similarity",
        metric="perplexity",
        fields=("text",),
        build=masked_text,
        pretraining=True,
        candidates="words",
    ),
    Task(
        name="language_modelling",
        summary="pretraining: each next word of a text, among wordpieces",
        spans=(CONTINUED, CANDIDATES),
        target="similarity",
        metric="perplexity",
        fields=("text",),
        build=continue_text(),
        pretraining=True,
        candidates="words",
    ),
    _rewriting(
        "text_denoising",
        "a text whose spans were masked and sentences shuffled (BART; M6)",
        denoised,
    ),
    _rewriting("gap_sentences", "the sentences taken out of a text (Pegasus)", gapped),
    _rewriting("span_corruption", "the spans taken out of a text (T5)", corrupted),
)
