"""Unions of configuration classes, of which the settings name one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, get_args

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

from skillweave.config.base import Config


class Variant(Config):
    """A member of a union of configuration classes."""

    @classmethod
    def named_in(cls, settings: Mapping[str, Any]) -> str | None:
        """The name in settings of any class of the union; None if they name none."""
        return settings.get(cls.discriminator)


class Tagged:
    """Annotation of a union of `Variant` classes: `Annotated[A | B, Tagged()]`.

    Settings that name no class are those of the first.
    """

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        """A tagged union."""
        members: tuple[type[Variant], ...] = get_args(source)
        default = members[0].names()[0]

        def tag(value: Any) -> Any:
            if isinstance(value, Variant):
                return value.names()[0]
            return (isinstance(value, Mapping) and members[0].named_in(value)) or default

        tag.__name__ = members[0].discriminator  # named in the error for a value that is not valid
        choices = {
            name: handler.generate_schema(member) for member in members for name in member.names()
        }
        return core_schema.tagged_union_schema(choices, tag)


def remaining(
    below: Mapping[str, Any], above: Mapping[str, Any], classes: Iterable[Any]
) -> dict[str, Any]:
    """What is left of the settings `below` when `above` is merged over them.

    If `above` names another member of a union, the options that this one does not have are removed.
    `classes`: the members of the union, or any other classes.
    """
    members = [kind for kind in classes if isinstance(kind, type) and issubclass(kind, Variant)]
    wanted, given = (
        next((kind for kind in members if members[0].named_in(settings) in kind.names()), default)
        for settings, default in ((above, None), (below, next(iter(members), None)))
    )
    if wanted in (None, given):
        return {**below}
    removed = set().union(*(kind.model_fields for kind in members)) - wanted.model_fields.keys()
    removed.add(wanted.discriminator)
    return {option: value for option, value in below.items() if option not in removed}
