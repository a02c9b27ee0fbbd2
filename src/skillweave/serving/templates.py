"""Chats as texts: by the template in a model's folder, or one role a paragraph."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from skillweave.serving.errors import RequestError

PLAIN = (
    "{% for message in messages %}{{ message.role }}: {{ message.content }}\n\n{% endfor %}"
    "assistant:"
)


@dataclass(frozen=True)
class ChatTemplate:
    """A template in Jinja, as Transformers writes it. `tokens`: special tokens by their names."""

    source: str
    tokens: Mapping[str, str]

    @classmethod
    @cache
    def of(cls, path: str) -> ChatTemplate:
        """The template of a model folder; one role a paragraph where it has none."""
        folder = Path(path)
        file, config = folder / "chat_template.jinja", folder / "tokenizer_config.json"
        settings: dict[str, Any] = json.loads(config.read_bytes()) if config.is_file() else {}
        source = file.read_text("utf-8") if file.is_file() else settings.get("chat_template")
        names = ("bos_token", "eos_token", "pad_token", "unk_token")
        tokens = {name: settings[name] for name in names if isinstance(settings.get(name), str)}
        return cls(source if isinstance(source, str) else PLAIN, tokens)

    def render(self, messages: Sequence[Mapping[str, str]]) -> str:
        """The text that the model goes on with. Raises RequestError for messages that the template
        refuses."""
        from jinja2 import TemplateError
        from jinja2.sandbox import ImmutableSandboxedEnvironment

        def refuse(message: str) -> None:
            raise TemplateError(message)

        environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
        try:
            template = environment.from_string(self.source)
            given: dict[str, Any] = {
                "messages": messages,
                "add_generation_prompt": True,
                **self.tokens,
            }
            given["raise_exception"] = refuse
            return template.render(**given)
        except TemplateError as error:
            raise RequestError(f"messages: {error}") from None
