"""Codecs: one event class to JSON and back, chosen and built when the app starts.

Pydantic models are read and written by pydantic, everything else by msgspec. What neither can carry is told at the
start, not when the command has taken effect.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import msgspec

from diator.engine.hints import show
from diator.messages import Event

_encoder = msgspec.json.Encoder()


class Codec(NamedTuple):
    """Both directions for one class of events."""

    encode: Callable[[Any], bytes]
    decode: Callable[[bytes | msgspec.Raw], Any]
    """Raises ``msgspec.DecodeError`` or pydantic's ``ValidationError``, both a ``ValueError``."""


class UnserialisableError(Exception):
    """A class that can't be carried: what of it, and what to do."""

    def __init__(self, what: str, remedy: str) -> None:
        super().__init__(what, remedy)
        self.what, self.remedy = what, remedy


def codec_of(cls: type[Event]) -> Codec:
    """Build the codec of a class. Raises `UnserialisableError`."""
    if hasattr(cls, "__pydantic_validator__") and hasattr(cls, "model_dump_json"):
        return _pydantic(cls)
    return _msgspec(cls)


def _msgspec(cls: type[Event]) -> Codec:
    try:
        info: Any = msgspec.inspect.type_info(cls)
        found = list(_unknown(info, cls.__qualname__, set()))
        decoder = msgspec.json.Decoder(cls)
    except (TypeError, NameError) as error:
        raise UnserialisableError(f"msgspec says: {error}", _REMEDY) from error
    if found == [f"{cls.__qualname__} is {show(cls)}"]:
        text = "it is no data class"
        raise UnserialisableError(text, "make it a dataclass, an attrs class, a msgspec struct or a pydantic model")
    if found:
        raise UnserialisableError(", ".join(found), _REMEDY)

    def field_of(event: Any, name: str) -> bytes:
        return _encoder.encode(getattr(event, name))

    encode = _naming(cls, _encoder.encode, [field.name for field in getattr(info, "fields", ())], field_of)
    return Codec(_refusing(cls, encode, msgspec.to_builtins), decoder.decode)


def _naming(
    cls: type[Event],
    encode: Callable[[Any], bytes],
    fields: Iterable[str],
    field_of: Callable[[Any, str], bytes],
) -> Callable[[Any], bytes]:
    """Have what can't be encoded told with the class of events and the field; the libraries name neither."""

    def naming(event: Any) -> bytes:
        try:
            return encode(event)
        except _VALUES as error:
            what = ", ".join(f"{cls.__qualname__}.{name}" for name in fields if _fails(field_of, event, name))
            kind = TypeError if isinstance(error, TypeError) else ValueError
            raise kind(f"{what or cls.__qualname__} can't be published: {error}") from error

    return naming


_VALUES = (TypeError, ValueError)
"""What encoders raise for values that JSON can't carry."""


def _fails(field_of: Callable[[Any, str], bytes], event: Any, name: str) -> bool:
    try:
        field_of(event, name)
    except _VALUES:
        return True
    return False


def _refusing(cls: type[Event], encode: Callable[[Any], bytes], plain: Callable[[Any], Any]) -> Callable[[Any], bytes]:
    """Refuse NaN and infinity: JSON has neither, and both libraries write null for them, which nobody has meant."""

    def refusing(event: Any) -> bytes:
        data = encode(event)
        if b"null" in data:
            for path, number in _not_finite(plain(event), cls.__qualname__):
                raise ValueError(f"{path} is {number}, which JSON can't carry; publish a number, or leave it out")
        return data

    return refusing


def _not_finite(value: Any, path: str) -> Iterator[tuple[str, float]]:
    """The numbers that are none, and where they stand. ``Any``: what an event consists of."""
    several: Any = value  # the checkers can't agree on what a dict of anything is
    if isinstance(value, float) and not math.isfinite(value):
        yield path, value
    elif isinstance(value, dict):
        for name, one in several.items():
            yield from _not_finite(one, f"{path}.{name}")
    elif isinstance(value, (list, tuple, set, frozenset)):
        for at, one in enumerate(several):
            yield from _not_finite(one, f"{path}[{at}]")


_REMEDY = (
    "give the field a type that JSON can carry (text, numbers, dates, UUID, Decimal, enums, collections, data classes);"
    " a union of classes needs msgspec structs with a tag, or a pydantic model"
)


def _unknown(info: Any, path: str, seen: set[int]) -> Iterator[str]:
    """The fields whose type msgspec knows nothing of. ``Any``: its descriptions of types are many."""
    if isinstance(info, msgspec.inspect.CustomType):
        yield f"{path} is {show(info.cls)}"
        return
    described: type | None = getattr(info, "cls", None)
    if described is not None and hasattr(info, "fields"):
        if id(described) in seen:
            return
        seen.add(id(described))
        for field in info.fields:
            yield from _unknown(field.type, f"{path}.{field.name}", seen)
        return
    for inner in _inner(info):
        yield from _unknown(inner, path, seen)


def _inner(info: Any) -> Iterator[Any]:
    for name in ("item_type", "key_type", "value_type"):
        if hasattr(info, name):
            yield getattr(info, name)
    for name in ("item_types", "types"):
        yield from getattr(info, name, ())


def _unread(cls: Any) -> Iterator[str]:
    """The fields that pydantic writes in a way that it does not read. ``Any``: pydantic may not be installed."""
    by_name = any(cls.model_config.get(option) for option in ("populate_by_name", "validate_by_name"))
    secret = _secrets(cls)
    for name, field in cls.model_fields.items():
        written = field.serialization_alias or name
        aliases = getattr(field.validation_alias, "choices", [field.validation_alias])
        if written not in aliases and not (written == name and (by_name or field.validation_alias is None)):
            yield f"{show(cls)}.{name} is written as {written!r}, and not read by that name"
        elif written in secret:
            yield f"{show(cls)}.{name} is a secret, which is written as stars"


def _secrets(cls: Any) -> set[str]:
    properties: dict[str, Any] = cls.model_json_schema(mode="serialization").get("properties", {})
    return {name for name, schema in properties.items() if schema.get("writeOnly")}


def _pydantic(cls: Any) -> Codec:
    from pydantic.errors import PydanticInvalidForJsonSchema, PydanticUserError  # noqa: PLC0415 - may not be installed

    try:
        cls.model_json_schema(mode="serialization")
    except (PydanticInvalidForJsonSchema, PydanticUserError) as error:
        raise UnserialisableError(f"pydantic says: {error.message}", _REMEDY) from error
    except NameError as error:
        raise UnserialisableError(f"pydantic says: {error}", _REMEDY) from error
    unread = list(_unread(cls))
    if unread:
        remedy = "give the field one alias for both ways, `Field(alias=...)`, or let it be read by its name too"
        raise UnserialisableError(", ".join(unread), remedy)
    dump: Callable[..., bytes] = cls.__pydantic_serializer__.to_json
    validate: Callable[..., Any] = cls.__pydantic_validator__.validate_json

    def encode(event: Any) -> bytes:
        return dump(event, by_alias=True)

    def field_of(event: Any, name: str) -> bytes:
        return dump(event, include={name})

    def decode(raw: bytes | msgspec.Raw) -> Any:
        return validate(bytes(raw), strict=True)

    naming = _naming(cls, encode, list(cls.model_fields), field_of)
    return Codec(_refusing(cls, naming, lambda event: event.model_dump()), decode)
