"""Chats as texts: by the template that belongs to a model, or one role a paragraph."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any

from skillweave.config.streams import CHAT_TEMPLATE
from skillweave.data.processors import build_answer_processor
from skillweave.data.processors.tokenizer import KEYS
from skillweave.model.model import Model
from skillweave.serving.errors import RequestError

PLAIN = (
    "{% for message in messages %}{{ message.role }}: {{ message.content }}\n\n{% endfor %}"
    "assistant:"
)


@dataclass(frozen=True)
class ChatTemplate:
    """A template in Jinja, as Transformers writes it. `tokens`: special tokens by their names.
    `first`: the token that the model puts before each text, which a template may write too."""

    source: str
    tokens: Mapping[str, str]
    first: str = ""

    @classmethod
    def of(cls, model: Model) -> ChatTemplate:
        """The template among a model's assets; one role a paragraph where it has none."""
        asset = model.assets.get(CHAT_TEMPLATE)
        if asset is None:
            return cls(PLAIN, {})
        processor: Any = build_answer_processor(model.config, model.assets)
        named = {key: processor.names[role] for key, role in KEYS.items()}
        number = processor.tokenizer.token_to_id
        tokens = {key: name for key, name in named.items() if number(name) is not None}
        first = "".join(filter(None, map(processor.tokenizer.id_to_token, processor.frame[0])))
        return cls(asset.decode(), tokens, first)

    def render(self, messages: Sequence[Mapping[str, str]]) -> str:
        """The text that the model goes on with. Raises RequestError for messages that the template
        refuses."""
        from jinja2 import TemplateError
        from jinja2.sandbox import ImmutableSandboxedEnvironment

        def refuse(message: str) -> None:
            raise TemplateError(message)

        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
        )
        environment.filters["tojson"] = partial(json.dumps, ensure_ascii=False)
        functions: dict[str, Any] = {
            "raise_exception": refuse,
            "strftime_now": lambda form: f"{datetime.now():{form}}",
        }
        try:
            template = environment.from_string(self.source, globals=functions)
            text = template.render(messages=messages, add_generation_prompt=True, **self.tokens)
        except TemplateError as error:
            raise RequestError(f"messages: {error}") from None
        return text.removeprefix(self.first)
