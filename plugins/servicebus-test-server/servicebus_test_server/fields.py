"""Reading the fields of performatives and sections, which are lists in AMQP."""

from __future__ import annotations

from typing import TypeVar

from servicebus_test_server.amqp.values import CodecError, Value

T = TypeVar("T")


class Fields:
    """The positional fields of a list. A field that is null or left out has its default.

    Every accessor raises ``CodecError`` where the field has another type.
    """

    def __init__(self, owner: str, values: list[Value]) -> None:
        self._owner = owner
        self._values = values

    def raw(self, index: int) -> Value:
        """The field as it came."""
        return self._values[index] if index < len(self._values) else None

    def number(self, index: int, default: int | None = None) -> int:
        """A field that must be a number, unless there is a default."""
        value = self.maybe_number(index)
        return self._required(index, default) if value is None else value

    def maybe_number(self, index: int) -> int | None:
        """A number, or None."""
        return self._typed(index, int)

    def text(self, index: int, default: str | None = None) -> str:
        """A field that must be a string or symbol, unless there is a default."""
        value = self._typed(index, str)
        return self._required(index, default) if value is None else value

    def maybe_text(self, index: int) -> str | None:
        """A string or symbol, or None."""
        return self._typed(index, str)

    def flag(self, index: int, default: bool | None = False) -> bool:
        """A boolean."""
        value = self._typed(index, bool)
        return self._required(index, default) if value is None else value

    def data(self, index: int) -> bytes | None:
        """A binary, or None."""
        return self._typed(index, bytes)

    def mapping(self, index: int) -> dict[Value, Value]:
        """A map, empty by default."""
        value = self.raw(index)
        if value is None:
            return {}
        if not isinstance(value, dict):
            raise CodecError(f"field {index} of {self._owner} must be a map, not {value!r}")
        return value

    def _typed(self, index: int, kind: type[T]) -> T | None:
        value = self.raw(index)
        if value is None:
            return None
        if not isinstance(value, kind):
            raise CodecError(f"field {index} of {self._owner} must be {kind.__name__}, not {value!r}")
        return value

    def _required(self, index: int, default: T | None) -> T:
        if default is None:
            raise CodecError(f"field {index} of {self._owner} is missing")
        return default
