"""mBART (arXiv 2001.08210): BART with pre-norm."""

from __future__ import annotations

from skillweave.interop.huggingface.families.bart import (
    TIED,
    generation_heads,
    last_token_classification,
    sequence_to_sequence,
)
from skillweave.interop.huggingface.family import Head

MBART = sequence_to_sequence(
    "mbart",
    {
        **generation_heads("MBart"),
        "MBartForSequenceClassification": last_token_classification(TIED),
        "MBartForQuestionAnswering": Head.question_answering(tied=TIED, ends_text=True),
    },
    stream_constants={"position_offset": 2},
    side_constants={"norm_position": "pre"},
)
MBART.register()
