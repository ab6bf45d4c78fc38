"""Codecs: one event class to JSON and back, chosen and built when the app starts.

Pydantic models are read and written by pydantic, everything else by msgspec. One question is asked of each: is an event
that was written and read again what it was? At startup it is asked of events that are made up, and of parts of them
(`structs`, `models`); what can't be carried is an error there. Before an event leaves it is asked of this event, so
that what startup could not see fails its command, and never becomes other data or a dead letter for its handlers.
"""

import re
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NamedTuple, get_origin

import msgspec
from typing_extensions import get_type_hints

from diator.delivery.differences import differences, fields_of, reason_of
from diator.delivery.models import Model
from diator.delivery.samples import samples
from diator.delivery.structs import NO_DATA_CLASS, Struct
from diator.engine.hints import format_hint

ENCODABLE = "publish text that UTF-8 can encode: replace half characters, such as those that os.fsdecode() returns"
"""What to do about a lone surrogate."""


class Codec(NamedTuple):
    """Both directions for one class of events."""

    encode: Callable[[Any], bytes]
    """Raises ``TypeError`` or ``ValueError``, naming the field, for an event that would not arrive as it is."""
    decode: Callable[[bytes | msgspec.Raw], Any]
    """Raises ``msgspec.DecodeError`` or pydantic's ``ValidationError``, both a ``ValueError``, and what code of the
    class raises."""


class UnserializableError(Exception):
    """A class that can't be carried: what of it, and what to do."""

    def __init__(self, what: str, fix: str) -> None:
        super().__init__(what, fix)
        self.what, self.fix = what, fix


def codec_of(cls: Any) -> Codec:
    """Build the codec of a class, or of a generic one with its arguments. Raises `UnserializableError`.

    Validators and ``__post_init__`` of the class run, with values that are made up.
    """
    # Any: `Paid[Money]` is not a class.
    is_model = hasattr(cls, "__pydantic_validator__") and hasattr(cls, "model_dump_json")
    try:
        library = Model(cls) if is_model else Struct(cls)
    except Exception as error:
        text = f"{'pydantic' if is_model else 'msgspec'} says{_of_fields(cls, is_model)}: {reason_of(error)}"
        raise UnserializableError(text, _REMEDY) from error
    wrong = library.wrong or _trial(format_hint(cls), library)
    if wrong:
        is_plain = wrong == [NO_DATA_CLASS]
        fix = f"put @dataclass(frozen=True) above class {(get_origin(cls) or cls).__name__}" if is_plain else _REMEDY
        raise UnserializableError(", ".join(wrong), fix)
    return Codec(_proving(format_hint(cls), library), library.read)


def _of_fields(cls: Any, is_model: bool) -> str:
    """Which fields a library can't do anything with; it may name none."""
    can_carry = Model.can_carry if is_model else Struct.can_carry
    try:
        hints = get_type_hints(get_origin(cls) or cls, include_extras=True)
    except Exception:  # noqa: BLE001 - the library tells of what can't be evaluated
        return ""
    names = [name for name in fields_of(get_origin(cls) or cls) or () if not _does(can_carry, hints.get(name, int))]
    return " of " + ", ".join(f"{format_hint(cls)}.{name}" for name in names) if names else ""


def _does(work: Callable[..., Any], *arguments: Any) -> bool:
    try:
        work(*arguments)
    except Exception:  # noqa: BLE001 - libraries and code of the class raise anything
        return False
    return True


_REMEDY = (
    "give the field a type that JSON can carry (text, numbers, dates, UUID, Decimal, enums, collections, data classes),"
    " and have it read as it is written: look at the validators, serializers and `__post_init__` of its class, at"
    " aliases, excluded and private fields, and at default factories; a union of classes needs a tag"
)


def _trial(name: str, library: Model | Struct) -> list[str]:
    """Send made-up events there and back, and tell what of them does not arrive."""
    changed: dict[str, str] = {}
    for sample in samples(library.schema):
        try:
            event = library.make(msgspec.json.encode(sample))
        except Exception as error:  # noqa: BLE001 - the validators of the class reject it, with any error
            if isinstance(error, TypeError) and "unhashable" in str(error):
                changed.setdefault("", f"{name} has a set whose members can't be hashed when they are read: {error}")
            continue
        try:
            found = _lost(event, library.write(event), library)
        except Exception as error:  # noqa: BLE001 - raised by serializers of the class
            found = {"": f" can't be written: {reason_of(error)}"}
        for path, text in found.items():
            changed.setdefault(_IN_BRACKETS.sub("", path), f"{name}{text}")
    return list(changed.values())


def _lost(event: Any, data: bytes, library: Model | Struct) -> dict[str, str]:
    """What of an event does not arrive, by path."""
    try:
        after = library.read(data)
    except Exception as error:  # noqa: BLE001 - raised by validators of the class
        lost = {"": f" can't be read as it is written: {reason_of(error)}"}
        with suppress(Exception):  # as above
            # NaN and infinity are null as JSON, and a tuple in a set is a list, of which the libraries name no field
            found = differences(library.plain(event), msgspec.json.decode(data))
            odd = [one for one in found if one[1].endswith(" as None") or isinstance(error, TypeError)]
            lost = {path: _NAME.sub(r".\1", path) + f" {text}" for path, text in odd} or lost
        return lost
    return {path: f"{path} {text}" for path, text in differences(event, after)}


_NAME = re.compile(r"\['(\w+)'\]")
_IN_BRACKETS = re.compile(r"\[.*?\]")
"""Which item it is: one of them is enough to tell."""


def _proving(name: str, library: Model | Struct) -> Callable[[Any], bytes]:
    """Read each event before it leaves, unless its types say enough: only the event can tell what it holds."""
    is_exact = library.is_exact

    def proving(event: Any) -> bytes:
        try:
            data = library.write(event)
        except Exception as error:
            fields = [
                field for field in fields_of(event.__class__) or () if not _does(library.write_field, event, field)
            ]
            where = ", ".join(f"{name}.{field}" for field in fields) or name
            kind = TypeError if isinstance(error, TypeError) else ValueError
            fix = f"; {ENCODABLE}" if isinstance(error, UnicodeEncodeError) else ""
            raise kind(f"{where} can't be published: {error}{fix}") from error
        if is_exact is not None and is_exact(event):
            return data
        if lost := _lost(event, data, library):
            text = ", ".join(f"{name}{one}" for one in lost.values())
            raise ValueError(
                f"{name} can't be published: {text}; publish a value of the annotated type that JSON can represent"
            )
        return data

    return proving
