"""Names that a configuration may use, each with what it stands for; other packages can add their
own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from importlib.metadata import entry_points
from typing import Any, TypeVar, cast

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler, ValidationError
from pydantic_core import CoreSchema, InitErrorDetails, PydanticCustomError, core_schema

from skillweave.config.base import Config, ConfigError, nearest

T = TypeVar("T")
Registered = TypeVar("Registered")

PLUGINS = "skillweave.plugins"
"""Group of the entry points under which a package names the modules that register its own
classes."""


class Registry(dict[str, T]):
    """Name → class or object of one kind, such as `target`. Insertion order is the order of tables.

    A package adds to it by importing this registry and calling `register`. If the package names
    that module as an entry point of the group `skillweave.plugins`, the module is imported when a
    name is not found.
    """

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def register(self, name: str) -> Callable[[Registered], Registered]:
        """Decorator that adds a class or object under a name. Raises ValueError for a name that is
        taken."""

        def add(value: Registered) -> Registered:
            if name in self:
                raise ValueError(f"{self.kind} {name!r} is registered already")
            self[name] = cast(T, value)
            return value

        return add

    def find(self, name: str) -> T:
        """What is registered under a name. Raises ConfigError with the nearest valid name."""
        if name not in self:
            load_plugins()
        if name not in self:
            raise ConfigError(f"unknown {self.kind} {name!r}{nearest(name, self)}")
        return self[name]


@cache
def load_plugins() -> None:
    """Import the modules that installed packages name as entry points of the group
    `skillweave.plugins`, once."""
    for point in entry_points(group=PLUGINS):
        point.load()


class OneOf:
    """Annotation of a field that holds one of the configuration classes of a registry.

    `Annotated[Base, OneOf(REGISTRY)]` reads a mapping by the class that its `kind` names, now or
    registered later; pydantic's own unions are closed when the class is defined.
    """

    def __init__(self, registry: Registry[type[Any]]) -> None:
        self.registry = registry

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        """How a value is validated and written."""
        return core_schema.no_info_plain_validator_function(
            self.read,
            serialization=core_schema.plain_serializer_function_ser_schema(
                lambda value, info: value.model_dump(mode=info.mode), info_arg=True
            ),
        )

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        """The classes that are registered now, told apart by `kind`."""
        return {
            "oneOf": [
                kind.__get_pydantic_json_schema__(kind.__pydantic_core_schema__, handler)
                for kind in self.registry.values()
            ],
            "discriminator": {"propertyName": "kind"},
        }

    def read(self, value: Any) -> Config:
        """A mapping as the class of its `kind`. Faults inside it keep their paths."""
        if isinstance(value, Config):
            return value
        if not isinstance(value, Mapping):
            raise PydanticCustomError("dict_type", "expected a mapping of settings by name")
        kind = str(value.get("kind"))
        if kind not in self.registry:
            load_plugins()
        if kind not in self.registry:
            expected = ", ".join(self.registry)
            raise PydanticCustomError(
                "literal_error", "unknown kind", {"expected": expected, "tag": kind}
            )
        try:
            return self.registry[kind].model_validate(value)
        except ValidationError as error:
            faults = [
                InitErrorDetails(
                    type=fault["type"],
                    loc=(kind, *fault["loc"]),  # as in pydantic's own unions
                    input=fault["input"],
                    ctx=fault.get("ctx", {}),
                )
                for fault in error.errors()
            ]
            raise ValidationError.from_exception_data(error.title, faults) from None
