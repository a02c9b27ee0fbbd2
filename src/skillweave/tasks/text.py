"""Tasks over text."""

from skillweave.batch import Modality, Span
from skillweave.tasks import build_text
from skillweave.tasks.build import classify
from skillweave.tasks.build_answers import answer_in_text
from skillweave.tasks.build_pretraining import masked_pair, masked_text, replaced_text
from skillweave.tasks.task import ANSWER, Task

ONE = (Span(Modality.TEXT),)
PAIR = (Span(Modality.TEXT), Span(Modality.TEXT))
"""[CLS] a [SEP] b [SEP] as one sequence."""
TWO = (Span(Modality.TEXT), Span(Modality.TEXT, encoder_pass=1))
"""Two texts encoded apart, with the same parameters (siamese)."""

TASKS = (
    Task(
        name="text_classification",
        summary="which category a text belongs to (SkillNet section 4.1)",
        spans=ONE,
        target="classification",
        metric="accuracy",
        fields=("text", "label"),
        build=classify(Modality.TEXT),
    ),
    Task(
        name="text_pair_classification",
        summary="how two texts relate, such as entailment (BERT section 4.1)",
        spans=PAIR,
        target="classification",
        metric="accuracy",
        fields=("text", "second", "label"),
        build=build_text.classify_pair,
    ),
    Task(
        name="text_multi_label",
        summary="all categories that a text belongs to",
        spans=ONE,
        target="multi_label",
        metric="micro_f1",
        fields=("text", "labels"),
        build=classify(Modality.TEXT),
    ),
    Task(
        name="text_regression",
        summary="a number for a text",
        spans=ONE,
        target="regression",
        metric="spearman",
        fields=("text", "score"),
        build=classify(Modality.TEXT),
    ),
    Task(
        name="text_pair_regression",
        summary="a number for two texts, such as how alike they are (BERT section 4.1, STS-B)",
        spans=PAIR,
        target="regression",
        metric="spearman",
        fields=("text", "second", "score"),
        build=build_text.classify_pair,
    ),
    Task(
        name="sequence_labelling",
        summary="a label for each word, such as names of persons and places (BERT section 5.3)",
        spans=ONE,
        target="token_labels",
        metric="entity_f1",
        fields=("text", "tags"),
        build=build_text.label_words,
    ),
    Task(
        name="reading_comprehension",
        summary="where in a text the answer to a question stands (BERT section 4.2, SQuAD)",
        spans=PAIR,
        target="span",
        metric="answer_f1",
        fields=("question", "text", "answers"),
        build=build_text.find_answer,
        parts=build_text.windows,
    ),
    Task(
        name="multiple_choice",
        summary="which of several continuations or answers is right (BERT section 4.4)",
        spans=PAIR,
        target="choice",
        metric="accuracy",
        fields=("text", "choices", "label"),
        build=build_text.choose_text,
        choices=4,
    ),
    Task(
        name="idiom_cloze",
        summary="which of ten idioms belongs into a text (ChID)",
        spans=PAIR,
        target="choice",
        metric="accuracy",
        fields=("text", "candidates", "label"),
        build=build_text.choose_idiom,
        choices=10,
    ),
    Task(
        name="text_prompting",
        summary=(
            "which category a text belongs to, by the word that a masked language model expects"
            " (PET)"
        ),
        spans=ONE,
        target="prompt",
        metric="accuracy",
        fields=("text", "label"),
        build=build_text.ask_by_prompt,
    ),
    Task(
        name="text_to_text",
        summary="a text for a text, such as its translation, summary or answer, by a decoder (T5)",
        spans=(*ONE, ANSWER),
        target="lm",
        metric="chrf",
        fields=("text", "answer"),
        answer="answer",
        build=answer_in_text(Modality.TEXT),
    ),
    Task(
        name="text_matching",
        summary="the text that belongs to another, by a vector of each (siamese)",
        spans=TWO,
        target="contrastive",
        metric="recall",
        fields=("text", "second"),
        build=build_text.match_texts,
    ),
    Task(
        name="text_similarity",
        summary="how alike two texts are, by the cosine of their vectors (SBERT)",
        spans=TWO,
        target="cosine",
        metric="spearman",
        fields=("text", "second", "score"),
        build=build_text.match_texts,
    ),
    Task(
        name="simcse",
        summary=(
            "pretraining: vectors of texts, each of which is to find itself through dropout"
            " (SimCSE)"
        ),
        spans=TWO,
        target="contrastive",
        metric="recall",
        fields=("text",),
        build=build_text.match_itself,
        pretraining=True,
    ),
    Task(
        name="masked_text",
        summary="pretraining: the masked words of a text (SkillNet section 4.2, BERT)",
        spans=ONE,
        target="mlm",
        metric="perplexity",
        fields=("text",),
        build=masked_text,
        pretraining=True,
    ),
    Task(
        name="replaced_text",
        summary="pretraining: which words of a text were put in from another one (ELECTRA)",
        spans=ONE,
        target="replaced",
        metric="perplexity",
        fields=("text",),
        build=replaced_text,
        pretraining=True,
    ),
    Task(
        name="masked_text_pair",
        summary=(
            "pretraining: the masked words of two parts of a text, and whether they are in order"
            " (BERT, ALBERT)"
        ),
        spans=PAIR,
        target="mlm",
        metric="perplexity",
        fields=("text",),
        build=masked_pair,
        pretraining=True,
        also={"sentence_pair": {"kind": "classification", "classes": ["in_order", "otherwise"]}},
    ),
)
