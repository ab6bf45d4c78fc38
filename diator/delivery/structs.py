"""What msgspec can't carry there and back: found in its own description of a class, before the first message."""

import dataclasses
import enum
from collections.abc import Iterator
from typing import Any

import msgspec
from msgspec import inspect

from diator.delivery.hinted import has_subclasses, is_abstract
from diator.engine.hints import generic_origin, show

# Any throughout: a description is one of the thirty classes of msgspec.inspect, or a class of the user's.

_KEYS = (
    inspect.AnyType,
    inspect.StrType,
    inspect.IntType,
    inspect.FloatType,
    inspect.BytesType,
    inspect.DateType,
    inspect.DateTimeType,
    inspect.TimeType,
    inspect.TimeDeltaType,
    inspect.UUIDType,
    inspect.DecimalType,
    inspect.EnumType,
    inspect.LiteralType,
)
"""What the keys of a JSON object can stand for; all of them are texts there."""


class Look:
    """One look at a class: what is wrong with it, each with the field, and what only a trip can tell."""

    def __init__(self, cls: Any) -> None:
        self.info: Any = inspect.type_info(cls)
        self.untyped = False
        """Whether something in it may be anything, so that each event has to be tried."""
        self.has_code = False
        """Whether code of the user's runs when one is made."""
        self._seen: set[int] = set()
        self.wrong: list[str] = list(self._problems(self.info, show(cls)))

    def _problems(self, info: Any, path: str) -> Iterator[str]:
        match info:
            case inspect.CustomType() | inspect.ExtType():
                yield f"{path} is {show(getattr(info, 'cls', info))}"
            case inspect.AnyType() | inspect.RawType():
                self.untyped = True
            case inspect.EnumType():
                if issubclass(info.cls, enum.Flag):
                    yield f"{path} is the flag {show(info.cls)}, of which combinations can't be read"
            case inspect.SetType() | inspect.FrozenSetType():
                if not _is_hashable(info.item_type):
                    yield f"{path} is a set of what can't be hashed when it is read"
                yield from self._problems(info.item_type, path)
            case inspect.DictType():
                yield from self._key(info.key_type, path)
                yield from self._problems(info.value_type, path)
            case _:
                yield from self._fields(info, path) if hasattr(info, "fields") else self._inner(info, path)

    def _key(self, info: Any, path: str) -> Iterator[str]:
        inner: Any = info.type if isinstance(info, inspect.Metadata) else info
        if not isinstance(inner, _KEYS):
            kind = type(inner).__name__.removesuffix("Type").lower()
            yield f"{path} has keys ({kind}) that JSON, where every key is a text, can't tell"
        yield from self._problems(inner, f"a key of {path}")

    def _inner(self, info: Any, path: str) -> Iterator[str]:
        for one in (
            *(getattr(info, name) for name in ("type", "item_type") if hasattr(info, name)),
            *(one for name in ("item_types", "types") for one in getattr(info, name, ())),
        ):
            yield from self._problems(one, path)

    def _fields(self, info: Any, path: str) -> Iterator[str]:
        cls: Any = info.cls
        if id(cls) in self._seen:
            return
        self._seen.add(id(cls))
        origin = generic_origin(cls) or cls
        self.untyped = self.untyped or is_abstract(cls) or (info is not self.info and has_subclasses(origin))
        self.has_code = self.has_code or any(hasattr(origin, name) for name in _CODE)
        if hasattr(origin, "__attrs_attrs__") and not dataclasses.is_dataclass(origin):
            for field in origin.__attrs_attrs__:
                if field.name.startswith("_"):
                    yield f"{path}.{field.name} is private, which is not written of attrs classes"
        for field in info.fields:
            yield from self._problems(field.type, f"{path}.{field.name}")


_CODE = ("__post_init__", "__attrs_post_init__", "__attrs_pre_init__")


def _is_hashable(info: Any) -> bool:
    match info:
        case inspect.ListType() | inspect.SetType() | inspect.DictType() | inspect.TypedDictType():
            return False
        case inspect.ByteArrayType():
            return False
        case inspect.TupleType():
            return all(map(_is_hashable, info.item_types))
        case inspect.VarTupleType():
            return _is_hashable(info.item_type)
        case inspect.UnionType():
            return all(map(_is_hashable, info.types))
        case inspect.NamedTupleType():
            return all(_is_hashable(field.type) for field in info.fields)
        case inspect.StructType() | inspect.DataclassType():
            cls: Any = generic_origin(info.cls) or info.cls
            return cls.__hash__ is not None and all(_is_hashable(field.type) for field in info.fields)
        case _:
            return True


def schema_of(cls: Any) -> dict[str, Any] | None:
    """The JSON schema of a class, for a trial; none where msgspec has none, as for keys that are no texts."""
    try:
        return msgspec.json.schema(cls)
    except Exception:  # noqa: BLE001 - whatever it raises, there is no trial then
        return None
