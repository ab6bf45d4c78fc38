"""How msgspec carries a class: dataclasses, attrs classes and its own structs."""

import enum
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import msgspec
from msgspec import inspect

from diator.delivery.differences import fields_of, is_a
from diator.delivery.exact import exact_check
from diator.engine.hints import format_hint

# Any throughout: a description is one of the thirty classes of msgspec.inspect, or a class of the user's.

_encoder = msgspec.json.Encoder()
_NO_KEYS = "bool none union collection list set frozenset tuple vartuple namedtuple dict typeddict struct dataclass"
"""What the keys of a JSON object can't stand for; all of them are texts there."""
NO_DATA_CLASS = "it is not a dataclass, attrs class, msgspec struct or pydantic model"


class Struct:
    """How msgspec carries one class. Raises ``TypeError`` and ``NameError`` for what it doesn't know."""

    def __init__(self, cls: Any) -> None:
        info: Any = inspect.type_info(cls)
        self._decoder = msgspec.json.Decoder(cls)
        self.write = _encoder.encode
        self.read = self._decoder.decode
        self.wrong = list(_problems(info, format_hint(cls), set()))
        self.is_exact = exact_check(info)
        """Tells of most events that they need not be read again before they leave."""
        if isinstance(info, inspect.CustomType):
            self.wrong = [NO_DATA_CLASS]
        self.schema: dict[str, Any] | None = None
        with suppress(Exception):  # any error, such as of two classes with one name: there is no trial then
            self.schema = msgspec.json.schema(cls)

    @staticmethod
    def can_carry(hint: Any) -> None:
        """Raise what msgspec raises for a hint that it doesn't know."""
        msgspec.json.Decoder(hint)

    def make(self, data: bytes) -> Any:
        """Read an event for a trial, as if its constructor had made it."""
        event = self._decoder.decode(data)
        for name in fields_of(event.__class__) or ():
            with suppress(Exception):  # msgspec leaves defaults in the class, and does not write them then
                object.__setattr__(event, name, getattr(event, name))
        return event

    def write_field(self, event: Any, name: str) -> bytes:
        """Write one field of an event."""
        return _encoder.encode(getattr(event, name))

    def plain(self, event: Any) -> Any:
        """What the JSON of an event stands for."""
        return msgspec.to_builtins(event, str_keys=True)


def _problems(info: Any, path: str, seen: set[int]) -> Iterator[str]:
    """What msgspec takes, and can't carry."""
    match info:
        case inspect.CustomType() | inspect.ExtType():
            yield f"{path} is {format_hint(getattr(info, 'cls', info))}"
        case inspect.EnumType() if issubclass(info.cls, enum.Flag):
            yield f"{path} is the flag {format_hint(info.cls)}, of which combinations can't be read"
        case inspect.DictType():
            key: Any = info.key_type.type if isinstance(info.key_type, inspect.Metadata) else info.key_type
            kind = type(key).__name__.removesuffix("Type").lower()
            if kind in _NO_KEYS.split():
                yield f"{path} has keys ({kind}) that JSON can't represent, since its keys are texts"
            yield from _problems(key, f"a key of {path}", seen)
            yield from _problems(info.value_type, path, seen)
        case _ if hasattr(info, "fields"):
            if id(info.cls) not in seen:
                seen.add(id(info.cls))
                for field in info.fields:
                    yield from _problems(field.type, f"{path}.{field.name}", seen)
        case _:
            for name in ("type", "item_type", "item_types", "types"):
                inner: Any = getattr(info, name, ())
                for one in inner if is_a(inner, tuple) else (inner,):
                    yield from _problems(one, path, seen)
