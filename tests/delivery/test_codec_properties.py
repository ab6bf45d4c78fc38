"""Of any class of events: it is refused at the start, or its events arrive as they were published.

Classes are made up of all kinds of data classes and of fields of all types, some of which no library carries.
"""

import collections
import dataclasses
import datetime as dt
import enum
import pathlib
import uuid
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Annotated, Any, Generic, Literal, NamedTuple, NewType, TypeVar, Union

import attrs
import msgspec
import pydantic
from hypothesis import HealthCheck, given, reject, settings
from hypothesis import strategies as st
from typing_extensions import TypedDict

from diator import ECSTEvent
from diator.delivery.codec import UnserializableError, codec_of

T = TypeVar("T")


class Texts(enum.Enum):
    A = "a"
    B = "b"


class Numbers(enum.Enum):
    ONE = 1
    TWO = 2


class IntLike(enum.IntEnum):
    ONE = 1
    TWO = 2


class TextLike(str, enum.Enum):
    A = "a"


class Mixed(enum.Enum):
    ONE = 1
    TEXT = "1"
    NOTHING = None


class Tuples(enum.Enum):
    A = (1, 2)


class Flags(enum.Flag):
    A = 1
    B = 2


class Pair(NamedTuple):
    first: int
    second: dt.date = dt.date(2026, 1, 1)


class Typed(TypedDict, total=False):
    day: dt.date
    number: int


@dataclasses.dataclass(frozen=True)
class Holder(Generic[T]):
    held: T


class PydanticHolder(pydantic.BaseModel, Generic[T], frozen=True):
    held: T


UserId = NewType("UserId", int)

zones = st.integers(-14 * 60, 14 * 60).map(lambda minutes: dt.timezone(dt.timedelta(minutes=minutes)))
texts = st.text(st.characters(codec="utf-8"), max_size=8)
finite = st.floats(allow_nan=False, allow_infinity=False)

Field = tuple[Any, st.SearchStrategy[Any]]
"""A hint, and values for it."""

LEAVES: tuple[Field, ...] = (
    (int, st.integers()),
    (float, finite),
    (bool, st.booleans()),
    (str, texts),
    (bytes, st.binary(max_size=8)),
    (dt.date, st.dates()),
    (dt.datetime, (st.datetimes() | st.datetimes(timezones=zones)).map(lambda at: at.replace(fold=0))),
    (dt.time, st.times() | st.times(timezones=st.just(dt.timezone.utc))),
    (dt.timedelta, st.timedeltas(dt.timedelta(days=-9999), dt.timedelta(days=9999))),
    (uuid.UUID, st.uuids()),
    (Decimal, st.decimals(allow_nan=False, allow_infinity=False)),
    (Texts, st.sampled_from(Texts)),
    (Numbers, st.sampled_from(Numbers)),
    (IntLike, st.sampled_from(IntLike)),
    (TextLike, st.sampled_from(TextLike)),
    (Mixed, st.sampled_from(Mixed)),
    (Tuples, st.sampled_from(Tuples)),
    (Flags, st.sampled_from([Flags.A, Flags.A | Flags.B])),
    (Literal["a", 1], st.sampled_from(["a", 1])),
    (Literal[True, 2], st.sampled_from([True, 2])),
    (Literal[Texts.A], st.just(Texts.A)),
    (UserId, st.integers()),
    (Annotated[int, "a note"], st.integers()),
    (None, st.none()),
    (Any, st.none() | texts | st.integers() | st.dates() | st.tuples(texts)),
    (object, texts | st.dates()),
    (complex, st.complex_numbers(allow_nan=False, allow_infinity=False)),
    (pathlib.PurePosixPath, st.just(pathlib.PurePosixPath("/a"))),
    (Pair, st.builds(Pair, st.integers(), st.dates())),
    (Typed, st.fixed_dictionaries({}, optional={"day": st.dates(), "number": st.integers()})),
)


# As values: type checkers take no variables in a hint.
LIST: Any = list
SEQUENCE: Any = Sequence
TUPLE: Any = tuple
DEQUE: Any = collections.deque
SET: Any = set
FROZEN_SET: Any = frozenset
DICT: Any = dict
UNION: Any = Union
HOLDER: Any = Holder
MODEL_HOLDER: Any = PydanticHolder


def composed(inner: st.SearchStrategy[Field]) -> st.SearchStrategy[Field]:
    """Fields that hold others."""
    leaf = st.sampled_from(LEAVES)
    two = st.tuples(inner, inner)
    return st.one_of(
        inner.map(lambda one: (LIST[one[0]], st.lists(one[1], max_size=3))),
        inner.map(lambda one: (SEQUENCE[one[0]], st.lists(one[1], max_size=2) | st.tuples(one[1]))),
        inner.map(lambda one: (TUPLE[one[0], ...], st.lists(one[1], max_size=3).map(tuple))),
        inner.map(lambda one: (DEQUE[one[0]], st.lists(one[1], max_size=3).map(collections.deque))),
        two.map(lambda both: (TUPLE[both[0][0], both[1][0]], st.tuples(both[0][1], both[1][1]))),
        two.map(lambda both: (UNION[both[0][0], both[1][0]], both[0][1] | both[1][1])),
        inner.map(lambda one: (UNION[one[0], None], one[1] | st.none())),
        leaf.map(lambda one: (SET[one[0]], _sets(one[1]))),
        leaf.map(lambda one: (FROZEN_SET[one[0]], _sets(one[1]).map(frozenset))),
        st.tuples(leaf, inner).map(lambda both: (DICT[both[0][0], both[1][0]], _dicts(both[0][1], both[1][1]))),
        inner.map(lambda one: (HOLDER[one[0]], st.builds(Holder, one[1]))),
        inner.map(_pydantic_holder),
        st.tuples(st.sampled_from(KINDS), st.lists(inner, min_size=1, max_size=2)).map(_nested),
    )


def _hashable(value: Any) -> bool:
    try:
        hash(value)
    except TypeError:
        return False
    return True


def _sets(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.lists(values.filter(_hashable), max_size=2).map(set)


def _dicts(keys: st.SearchStrategy[Any], values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.lists(st.tuples(keys.filter(_hashable), values), max_size=2).map(dict)


def _pydantic_holder(one: Field) -> Field:
    try:
        made: Any = MODEL_HOLDER[one[0]]
    except Exception:  # noqa: BLE001 - pydantic itself refuses such a field
        reject()
    return made, one[1].map(lambda held: _object_of(made, {"held": held}))


def _nested(made_of: tuple[Any, list[Field]]) -> Field:
    kind, fields = made_of
    hints = {f"field{at}": hint for at, (hint, _) in enumerate(fields)}
    cls = class_of(kind, hints)
    values = st.tuples(*(values for _, values in fields))
    return cls, values.map(lambda given: _object_of(cls, dict(zip(hints, given, strict=True))))


def class_of(kind: "Kind", hints: Mapping[str, Any], bases: tuple[type, ...] = ()) -> Any:
    try:
        return kind(hints, bases)
    except Exception:  # noqa: BLE001 - the library itself refuses such a field
        reject()


def _object_of(cls: Any, values: Mapping[str, Any]) -> Any:
    try:
        return cls(**values)
    except Exception:  # noqa: BLE001 - the library itself refuses such a value
        reject()


Kind = Callable[[Mapping[str, Any], tuple[type, ...]], Any]


def dataclass(hints: Mapping[str, Any], bases: tuple[type, ...], **options: Any) -> Any:
    namespace = {"__annotations__": dict(hints), "__module__": __name__}
    return dataclasses.dataclass(frozen=True, **options)(type("Made", bases, namespace))


def slotted(hints: Mapping[str, Any], bases: tuple[type, ...]) -> Any:
    return dataclass(hints, bases, slots=True, kw_only=True)


def attrs_class(hints: Mapping[str, Any], bases: tuple[type, ...]) -> Any:
    return attrs.frozen(type("Made", bases, {"__annotations__": dict(hints), "__module__": __name__}))


def struct(hints: Mapping[str, Any], bases: tuple[type, ...]) -> Any:
    options: Any = {"frozen": True, "rename": "camel", "omit_defaults": True, "forbid_unknown_fields": True}
    return msgspec.defstruct("Made", list(hints.items()), bases=(*bases, msgspec.Struct), tag=True, **options)


def array_struct(hints: Mapping[str, Any], bases: tuple[type, ...]) -> Any:
    return msgspec.defstruct("Made", list(hints.items()), bases=(*bases, msgspec.Struct), frozen=True, array_like=True)


def model(hints: Mapping[str, Any], bases: tuple[type, ...]) -> Any:
    fields: Any = {name: (hint, ...) for name, hint in hints.items()}
    base = type("Base", (pydantic.BaseModel, *bases), {"model_config": {"frozen": True}, "__module__": __name__})
    return pydantic.create_model("Made", __base__=base, **fields)


KINDS: tuple[Kind, ...] = (
    dataclass,
    slotted,
    attrs_class,
    struct,
    array_struct,
    model,
)

FIELDS = st.recursive(st.sampled_from(LEAVES), composed, max_leaves=4)


def form(value: Any) -> Any:
    """A value with the types of all its parts, to be compared."""
    kind: Any = value.__class__
    if issubclass(kind, (set, frozenset)):
        return kind, collections.Counter(repr(form(one)) for one in value)
    if issubclass(kind, dict):
        return kind, collections.Counter(repr((form(key), form(one))) for key, one in value.items())
    if issubclass(kind, (list, tuple, collections.deque)):
        return kind, [form(one) for one in value]
    if issubclass(kind, (dt.datetime, dt.time)):
        return kind, value.isoformat()
    if issubclass(kind, pydantic.BaseModel):
        return kind, [(name, form(one)) for name, one in value]
    attributes = (*getattr(kind, "__attrs_attrs__", ()), *_fields(kind))
    names = getattr(kind, "__struct_fields__", None) or [field.name for field in attributes]
    return (kind, [(name, form(getattr(value, name))) for name in names]) if names else (kind, value)


def _fields(kind: Any) -> tuple[Any, ...]:
    return dataclasses.fields(kind) if dataclasses.is_dataclass(kind) else ()


def carried(event: Any, cls: Any) -> str:
    """What becomes of an event."""
    try:
        codec = codec_of(cls)
    except UnserializableError:
        return "refused at the start"
    try:
        data = codec.encode(event)
    except (TypeError, ValueError):
        return "fails its command"
    return "arrives" if form(codec.decode(data)) == form(event) else f"changes: {codec.decode(data)!r}"


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
@given(st.data(), st.sampled_from(KINDS), st.lists(FIELDS, min_size=1, max_size=3))
def test_an_event_is_refused_at_the_start_or_fails_its_command_or_arrives_unchanged(
    data: st.DataObject, kind: Kind, fields: list[Field]
) -> None:
    hints = {f"field{at}": hint for at, (hint, _) in enumerate(fields)}
    cls = class_of(kind, hints, (ECSTEvent,))
    event = _object_of(cls, {name: data.draw(values) for name, (_, values) in zip(hints, fields, strict=True)})
    assert carried(event, cls) in ("refused at the start", "fails its command", "arrives")
