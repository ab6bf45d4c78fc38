"""Codecs: one event class to JSON and back, chosen and built when the app starts.

Pydantic models are read and written by pydantic, everything else by msgspec. What can't be carried there and back
unchanged is told at the start, from what the library says of the class (`structs`, `models`) and from a trial
(`trial`); where only the event can tell, because a field may hold anything, it fails its command.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import msgspec

from diator.delivery import models, structs
from diator.delivery.trial import differences, trial
from diator.engine.hints import show

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


def codec_of(cls: Any) -> Codec:
    """Build the codec of a class, or of a generic one with its arguments. Raises `UnserialisableError`.

    A trial with values made up shows what validators and ``__post_init__`` of the class do to them.
    """
    # Any: `Paid[Money]` is no class.
    if hasattr(cls, "__pydantic_validator__") and hasattr(cls, "model_dump_json"):
        return _pydantic(cls)
    return _msgspec(cls)


def _msgspec(cls: Any) -> Codec:
    try:
        look = structs.Look(cls)
        decoder = msgspec.json.Decoder(cls)
    except (TypeError, NameError) as error:
        raise UnserialisableError(f"msgspec says: {error}", _REMEDY) from error
    if look.wrong == [f"{show(cls)} is {show(cls)}"]:
        text = "it is no data class"
        raise UnserialisableError(text, "make it a dataclass, an attrs class, a msgspec struct or a pydantic model")
    if look.wrong:
        raise UnserialisableError(", ".join(look.wrong), _REMEDY)

    def field_of(event: Any, name: str) -> bytes:
        return _encoder.encode(getattr(event, name))

    encode = _naming(cls, _encoder.encode, [field.name for field in getattr(look.info, "fields", ())], field_of)
    codec = Codec(_refusing(cls, encode, msgspec.to_builtins), decoder.decode)
    return _tried(cls, codec, structs.schema_of(cls), look)


def _tried(cls: Any, codec: Codec, schema: dict[str, Any] | None, look: "structs.Look | models.Look") -> Codec:
    """Try a codec. Raises `UnserialisableError` where something arrives that was not published."""
    outcome = trial(show(cls), schema, codec)
    if outcome.changed:
        raise UnserialisableError(", ".join(outcome.changed), _CHANGED)
    if look.untyped or (look.has_code and not outcome.tried):
        return codec._replace(encode=_proving(cls, codec))
    return codec


def _proving(cls: Any, codec: Codec) -> Callable[[Any], bytes]:
    """Read each event before it leaves, where the class does not tell what its fields hold: ``Any`` for example."""

    def proving(event: Any) -> bytes:
        data = codec.encode(event)
        try:
            after = codec.decode(data)
        except Exception as error:
            raise ValueError(f"{show(cls)} can't be published: its handlers could not read it: {error}") from error
        for _, text in differences(event, after, show(cls)):
            raise ValueError(f"{show(cls)} can't be published: {text}; hint the field as what it holds")
        return data

    return proving


def _naming(
    cls: Any,
    encode: Callable[[Any], bytes],
    fields: Iterable[str],
    field_of: Callable[[Any, str], bytes],
) -> Callable[[Any], bytes]:
    """Have what can't be encoded told with the class of events and the field; the libraries name neither."""

    def naming(event: Any) -> bytes:
        try:
            return encode(event)
        except _VALUES as error:
            what = ", ".join(f"{show(cls)}.{name}" for name in fields if _fails(field_of, event, name))
            kind = TypeError if isinstance(error, TypeError) else ValueError
            raise kind(f"{what or show(cls)} can't be published: {error}") from error

    return naming


_VALUES = (TypeError, ValueError)
"""What encoders raise for values that JSON can't carry."""


def _fails(field_of: Callable[[Any, str], bytes], event: Any, name: str) -> bool:
    try:
        field_of(event, name)
    except _VALUES:
        return True
    return False


def _refusing(cls: Any, encode: Callable[[Any], bytes], plain: Callable[[Any], Any]) -> Callable[[Any], bytes]:
    """Refuse NaN and infinity: JSON has neither, and both libraries write null for them, which nobody has meant."""

    def refusing(event: Any) -> bytes:
        data = encode(event)
        if b"null" in data:
            for path, number in _not_finite(plain(event), show(cls)):
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
    "give the field a type that JSON can carry (text, numbers, dates, UUID, Decimal, enums, collections, data classes)"
    " and a name without underscore in front; a union of classes needs msgspec structs with a tag, or a pydantic model"
)
_CHANGED = (
    "have the field read as it is written: look at the validators, serialisers and `__post_init__` of its class, at"
    " aliases, and at defaults that are made anew"
)
_MODEL_REMEDY = (
    "write and read the field alike: one `Field(alias=...)` for both ways, a discriminator for a union, no `exclude`,"
    " SecretStr or iterator; keys of a dict must be texts, numbers, dates or enums of texts"
)


def _pydantic(cls: Any) -> Codec:
    from pydantic.errors import PydanticInvalidForJsonSchema, PydanticUserError  # noqa: PLC0415 - may not be installed

    try:
        cls.model_json_schema(mode="serialization")
    except (PydanticInvalidForJsonSchema, PydanticUserError) as error:
        raise UnserialisableError(f"pydantic says: {error.message}", _REMEDY) from error
    except NameError as error:
        raise UnserialisableError(f"pydantic says: {error}", _REMEDY) from error
    look = models.Look(cls)
    if look.wrong:
        raise UnserialisableError(", ".join(look.wrong), _MODEL_REMEDY)
    dump: Callable[..., bytes] = cls.__pydantic_serializer__.to_json
    validate: Callable[..., Any] = cls.__pydantic_validator__.validate_json
    strict = not look.is_early

    def encode(event: Any) -> bytes:
        return dump(event, by_alias=True, round_trip=True)

    def field_of(event: Any, name: str) -> bytes:
        return dump(event, include={name}, round_trip=True)

    def decode(raw: bytes | msgspec.Raw) -> Any:
        return validate(bytes(raw), strict=strict)

    naming = _naming(cls, encode, list(cls.model_fields), field_of)
    codec = Codec(_refusing(cls, naming, lambda event: event.model_dump()), decode)
    return _tried(cls, codec, models.schema_of(cls), look)
