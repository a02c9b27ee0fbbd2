"""How a text is written: search, sampling, penalties and limits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, model_validator

from skillweave.config.base import Config, Positive

CONSTRAINTS = ("choices", "regex", "json_schema", "grammar")
SAMPLING = {
    "temperature",
    "top_k",
    "top_p",
    "min_p",
    "typical_p",
    "top_h",
    "epsilon_cutoff",
    "eta_cutoff",
    "seed",
}
ASSISTED = ("prompt_lookup_num_tokens", "num_assistant_tokens", "assistant_confidence_threshold")
OWN = {"bad_words", "max_new_tokens", "do_sample", *ASSISTED, *CONSTRAINTS}
"""Settings of the caller, which no model comes with."""
Probability = Field(default=None, gt=0, le=1)


class DecodingConfig(Config):
    """Settings with the names and meanings of Transformers' `generate`, in the same order of
    application. Without any, each token is the most probable one."""

    max_new_tokens: Positive | None = None
    """Most tokens of an answer; by default as many as the model can read, at most 128."""
    min_new_tokens: NonNegativeInt = 0
    """Before so many tokens, no answer ends."""
    num_beams: Positive = 1
    """Beams of the search; 1: no search."""
    num_beam_groups: Positive = 1
    """Groups of as many beams each, which search one after the other (diverse beam search, arXiv
    1610.02424). With `diversity_penalty`."""
    diversity_penalty: NonNegativeFloat = 0.0
    """The log-probability of a token is lowered by it for each beam of the groups before that has
    the token at the same place."""
    length_penalty: float = 1.0
    """With several beams, the log-probability of an answer is divided by its length to this
    power."""
    early_stopping: bool | Literal["never"] = False
    """When a search ends: see `skillweave.generation.beam_search`."""
    num_return_sequences: Positive = 1
    """Answers for each input: the best of the beams, or independent samples."""
    penalty_alpha: float = Field(default=0.0, ge=0, le=1)
    """Of the `top_k` most probable tokens, take the one with the highest (1 - α) p - α s. p is its
    probability, s the highest cosine of the model's output for it to those for the tokens before
    (contrastive search, arXiv 2202.06417 section 3.2). 0: the most probable one."""
    do_sample: bool = False
    """Draw each token at random by its probability."""
    temperature: PositiveFloat = 1.0
    """Scores are divided by it before a token is drawn."""
    top_k: NonNegativeInt = 0
    """Draw among so many tokens with the highest scores; 0: among all. With `penalty_alpha`: how
    many are compared."""
    top_p: float | None = Probability
    """Draw among the most probable tokens that together have this probability (nucleus sampling,
    arXiv 1904.09751)."""
    min_p: float | None = Field(default=None, ge=0, le=1)
    """Draw among tokens with this share of the highest probability (arXiv 2407.01082)."""
    typical_p: float | None = Probability
    """Draw among the tokens whose information is nearest to the entropy, and that together have
    this probability (locally typical sampling, arXiv 2202.00666)."""
    top_h: float | None = Probability
    """Draw among the most probable tokens that together have this share of the entropy of the 100
    most probable ones (top-H, arXiv 2509.02510)."""
    epsilon_cutoff: float | None = Field(default=None, gt=0, lt=1)
    """Draw among tokens with at least this probability (arXiv 2210.15191)."""
    eta_cutoff: float | None = Field(default=None, gt=0, lt=1)
    """Draw among tokens with at least this probability η, or √η · exp(-entropy) where that is less
    (arXiv 2210.15191)."""
    sequence_bias: list[tuple[list[int], float]] = []
    """Numbers that are added to the score of the token that ends a sequence of tokens."""
    encoder_repetition_penalty: PositiveFloat = 1.0
    """Above 1, scores of tokens of the input text are raised as `repetition_penalty` lowers those
    of the answer's."""
    encoder_no_repeat_ngram_size: NonNegativeInt = 0
    """No sequence of so many tokens of the input text occurs in the answer; 0: any may."""
    repetition_penalty: PositiveFloat = 1.0
    """Scores of tokens that stand in the text already are divided by it, negative ones multiplied
    (CTRL, arXiv 1909.05858)."""
    no_repeat_ngram_size: NonNegativeInt = 0
    """No sequence of so many tokens occurs twice; 0: any may."""
    bad_words: list[str] = []
    """Words that are never written."""
    bad_words_ids: list[list[int]] = []
    """Their tokens."""
    min_length: NonNegativeInt = 0
    """As `min_new_tokens`, counted with the tokens that the answer continues."""
    forced_bos_token_id: NonNegativeInt | None = None
    """The second token of a decoder's text."""
    forced_eos_token_id: NonNegativeInt | list[int] | None = None
    """The last token of an answer that would become too long."""
    exponential_decay_length_penalty: tuple[NonNegativeInt, PositiveFloat] | None = None
    """[S, F]: after S tokens, the score x of an end grows by |x| (F^n - 1) for the n-th token
    more."""
    suppress_tokens: list[int] = []
    """Tokens that are never written."""
    begin_suppress_tokens: list[int] = []
    """Tokens that no answer begins with."""
    renormalize_logits: bool = False
    """Whether the scores after all changes are logarithms of probabilities again."""
    stop_strings: list[str] = []
    """Strings that end an answer. They are part of it."""
    choices: list[str] | None = None
    """An answer is one of these texts."""
    regex: str | None = None
    """An answer matches this regular expression as a whole. It has no look-around and no
    references."""
    json_schema: dict[str, Any] | None = None
    """An answer is JSON that satisfies this schema."""
    grammar: str | None = None
    """An answer is a text of this Lark grammar, from its rule `start`."""
    prompt_lookup_num_tokens: NonNegativeInt = 0
    """Read so many tokens at once where words of the text come again, as in a summary or in code:
    the same text in fewer passes of the model. One text at a time."""
    num_assistant_tokens: Positive = 20
    """Most tokens that an assistant guesses at once."""
    assistant_confidence_threshold: float = Field(default=0.4, ge=0, le=1)
    """An assistant guesses no more tokens after one that it finds less probable."""
    cache_implementation: Literal["dynamic", "static"] = "dynamic"
    """Room for the keys and values of the texts: it grows with them (`dynamic`), or is there from
    the beginning (`static`). On a GPU a step over static room is compiled, once for each number of
    texts and each multiple of 256 tokens: worth it where many texts are written. The text is the
    same."""
    seed: NonNegativeInt | None = None
    """Seed of the drawing; None draws anew each time."""

    @classmethod
    def search(cls, options: Mapping[str, Any], **more: Any) -> DecodingConfig:
        """The settings of a search with those of Transformers' options that it follows; those of
        sampling, limits and strings are the caller's. Raises ConfigError."""
        followed = cls.model_fields.keys() - SAMPLING - OWN
        # as in Transformers, options for drawing and for beams come before contrastive search
        every = {"num_beams": 1, "top_k": 0, **options, **more}
        if every.get("do_sample") or every["num_beams"] > 1 or (every["top_k"] or 0) < 2:
            followed -= {"penalty_alpha"}
        elif every.get("penalty_alpha"):
            followed |= {"top_k"}
        if options.get("cache_implementation") != "static":  # others change no text and no shapes
            followed -= {"cache_implementation"}
        given = {name: x for name, x in options.items() if name in followed and x is not None}
        return cls.parse({**given, **more}, "generation")

    @property
    def fixed(self) -> bool:
        """Whether texts have room of a fixed length."""
        return self.cache_implementation == "static"

    @property
    def constraint(self) -> str | None:
        """The setting that says what an answer may be; None for any text."""
        return next((name for name in CONSTRAINTS if getattr(self, name) is not None), None)

    @model_validator(mode="after")
    def _check(self) -> DecodingConfig:
        if self.do_sample and self.num_beams > 1:
            raise ValueError("do_sample draws single texts; leave num_beams at 1, or do not sample")
        if not self.do_sample and self.num_return_sequences > self.num_beams:
            raise ValueError(
                f"num_return_sequences {self.num_return_sequences}: a search has {self.num_beams}"
                " answers; raise num_beams, or set do_sample"
            )
        if self.penalty_alpha:
            self._check_contrast()
        compared = {"top_k"} if self.penalty_alpha else set()
        if not self.do_sample and (unused := sorted((SAMPLING - compared) & self.model_fields_set)):
            raise ValueError(f"{unused[0]} matters only where tokens are drawn; set do_sample")
        if self.num_beams % self.num_beam_groups:
            raise ValueError(
                f"num_beam_groups {self.num_beam_groups}: {self.num_beams} beams do not make groups"
                " of the same size; raise num_beams to a multiple"
            )
        if self.diversity_penalty and self.num_beam_groups == 1:
            raise ValueError("diversity_penalty is for several groups; raise num_beam_groups")
        if any(not ids for ids, _ in self.sequence_bias):
            raise ValueError("sequence_bias: a sequence has no tokens; remove it")
        if self.stop_strings and self.num_beams > 1:
            raise ValueError("stop_strings end single texts; leave num_beams at 1")
        given = [name for name in CONSTRAINTS if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError(f"{given[0]} and {given[1]} both say what an answer is; leave one out")
        if given and self.stop_strings:
            raise ValueError(f"stop_strings end answers before {given[0]} does; leave one out")
        if self.prompt_lookup_num_tokens and max(self.num_beams, self.num_return_sequences) > 1:
            raise ValueError(
                "prompt_lookup_num_tokens is for single texts; leave num_beams and"
                " num_return_sequences at 1"
            )
        if self.prompt_lookup_num_tokens and self.fixed:
            raise ValueError(
                "prompt_lookup_num_tokens reads tokens by different numbers; leave"
                " cache_implementation at dynamic"
            )
        if self.choices == []:
            raise ValueError("choices is empty; give at least one text, or leave it out")
        return self

    def _check_contrast(self) -> None:
        if self.top_k < 2:
            raise ValueError(
                "penalty_alpha compares the top_k most probable tokens; set top_k, such as 4"
            )
        if self.do_sample or max(self.num_beams, self.num_return_sequences) > 1:
            raise ValueError(
                "penalty_alpha chooses the tokens of single texts; leave do_sample out, and"
                " num_beams and num_return_sequences at 1, or set penalty_alpha to 0"
            )
        if self.prompt_lookup_num_tokens:
            raise ValueError(
                "penalty_alpha and prompt_lookup_num_tokens exclude each other; give one"
            )


NOT_FOLLOWED = {
    "do_sample": (False,),
    "num_return_sequences": (1,),
    "guidance_scale": (1,),
    "force_words_ids": (),
    "constraints": (),
    "stop_strings": (),
    "max_time": (),
    "dola_layers": (),
    "watermarking_config": (),
    "token_healing": (False,),
    "condition_on_prev_tokens": (False,),
}
"""Options that change which text is written, and that the search here does not have → the values
that change nothing."""


def not_followed(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options that change which text is written, and that the search here does not have."""
    return {
        name: options[name]
        for name, neutral in NOT_FOLLOWED.items()
        if options.get(name) not in (None, *neutral)
    }
