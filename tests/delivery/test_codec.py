"""What events carry, of each library: there and back unchanged, or refused at the start with field and fix."""

import collections
import dataclasses
import datetime as dt
import enum
import itertools
import math
import re
import uuid
import zoneinfo
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Generic, Literal, NamedTuple, TypeVar

import attrs
import msgspec
import pydantic
import pytest
from pydantic import AliasChoices, AliasPath, BaseModel, ConfigDict, Field, Json, SecretBytes, SecretStr
from pydantic.alias_generators import to_camel
from typing_extensions import Required, TypedDict

from diator import ConfigurationError, Diator, ECSTEvent, Event, NotificationEvent, Retry

T = TypeVar("T")
NOW = dt.datetime(2026, 1, 2, 3, 4, 5, 6)  # noqa: DTZ001 - pydantic has a class of its own for time zones


async def trip(event: Event, hint: Any = None) -> Any:
    """Publish an event to a handler of it, and give what arrives."""
    app, got = Diator("meetings", broker="memory://", retry=Retry(attempts=1)), list[Any]()

    async def take(event: Any) -> None:
        got.append(event)

    app.add_event_handler(take, hint or type(event))
    async with app.testing() as session:
        await session.publish(event)
        await session.settled()
    return got[0]


def refusal(cls: Any) -> str:
    """What the start says of a class, once, with the fix."""
    app = Diator("meetings", broker="memory://")
    app.publishes(cls)

    async def take(event: Any) -> None: ...

    app.add_event_handler(take, cls)
    (problem,) = [problem for problem in app.check() if problem.severity == "error"]
    assert problem.code == "not-serializable"
    assert cls.__name__ in problem.text
    assert problem.fix
    assert problem.location is not None
    return problem.text


# Pydantic


class Before(BaseModel, ECSTEvent):
    at: dt.datetime
    wait: tuple[dt.timedelta, ...] = ()

    @pydantic.model_validator(mode="before")
    @classmethod
    def upgrade(cls, data: Any) -> Any:
        return data


class Wrap(BaseModel, ECSTEvent):
    at: dt.datetime

    @pydantic.model_validator(mode="wrap")
    @classmethod
    def upgrade(cls, data: Any, handler: Any) -> Any:
        return handler(data)


class FieldBefore(BaseModel, ECSTEvent):
    at: Annotated[set[dt.date], pydantic.BeforeValidator(lambda value: value)]
    other: Annotated[uuid.UUID, pydantic.WrapValidator(lambda value, handler: handler(value))]


class InnerBefore(BaseModel):
    at: dt.datetime

    @pydantic.field_validator("at", mode="before")
    @classmethod
    def upgrade(cls, value: Any) -> Any:
        return value


class Nested(BaseModel, ECSTEvent):
    inner: list[InnerBefore | None]
    by_name: dict[str, InnerBefore]


class Aliased(BaseModel, ECSTEvent):
    model_config = ConfigDict(populate_by_name=True)
    meeting: int = Field(alias="meetingId")
    room: str = Field(validation_alias=AliasChoices("room", "place", AliasPath("a", 0)))
    inner: "list[AliasedInner]"


class AliasedInner(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, validate_by_name=True)
    user_id: int


Aliased.model_rebuild()


class Computed(BaseModel, ECSTEvent):
    model_config = ConfigDict(extra="forbid")
    number: int

    @pydantic.computed_field  # type: ignore[prop-decorator]  # as pydantic's documentation says
    @property
    def double(self) -> int:
        return 2 * self.number


class WithJson(BaseModel, ECSTEvent):
    numbers: Json[list[int]]


class Bytes(BaseModel, ECSTEvent):
    model_config = ConfigDict(ser_json_bytes="base64", val_json_bytes="base64")
    data: bytes


class WithPrivate(BaseModel, ECSTEvent):
    number: int
    _double: int = 0

    def model_post_init(self, context: Any) -> None:
        self._double = 2 * self.number


class Cat(BaseModel):
    kind: Literal["cat"] = "cat"
    lives: int


class Dog(BaseModel):
    kind: Literal["dog"] = "dog"
    lives: int


class Card(BaseModel):
    number: str


class Cash(BaseModel):
    amount: int


class Choices(BaseModel, ECSTEvent):
    tagged: Annotated[Cat | Dog, Field(discriminator="kind")]
    by_kind: Cat | Dog
    by_fields: Card | Cash
    scalar: int | str | float | None
    several: list[int] | list[dt.date]
    literal: Literal["a", 1] | None


class Extra(BaseModel, ECSTEvent):
    model_config = ConfigDict(extra="allow")


class UpperCase(BaseModel, ECSTEvent):
    name: str

    @pydantic.field_validator("name")
    @classmethod
    def upper(cls, value: str) -> str:
        return value.upper()


@dataclass(frozen=True)
class Plain:
    at: dt.datetime
    seats: tuple[int, ...] = ()


class HoldsPlain(BaseModel, ECSTEvent):
    inner: Plain
    several: frozenset[Plain]


class SecondsBase(BaseModel):
    model_config = ConfigDict(ser_json_timedelta="float")


class Seconds(SecondsBase, ECSTEvent):
    wait: dt.timedelta | None


class NumbersAsTexts(BaseModel, ECSTEvent):
    model_config = ConfigDict(ser_json_inf_nan="strings", extra="allow")


class Wolf(BaseModel):
    kind: Literal["wolf", "dog"]
    pack: "list[Animal]" = []


class Sheep(BaseModel):
    kind: Literal["sheep"] = "sheep"


Animal = Annotated[Wolf | Sheep, Field(discriminator="kind")]
Wolf.model_rebuild()


def kind_of(value: Any) -> str:
    kind = value.kind if isinstance(value, Wolf | Sheep) else value["kind"]
    return "s" if kind == "sheep" else "w"


class Herd(BaseModel, ECSTEvent):
    animals: list[Animal]
    by_code: Annotated[
        Annotated[Wolf, pydantic.Tag("w")] | Annotated[Sheep, pydantic.Tag("s")], pydantic.Discriminator(kind_of)
    ]


class Numbers(pydantic.RootModel[dict[int, dt.date]]):
    pass


class HoldsRoot(BaseModel, ECSTEvent):
    roots: list[Numbers | None]


class Upper(BaseModel, ECSTEvent):
    model_config = ConfigDict(alias_generator=str.upper, frozen=True, strict=True)
    at: dt.datetime
    seats: tuple[int, ...] = ()


class Level(enum.Enum):
    LOW = 1
    HIGH = 2


class EnumValues(BaseModel, ECSTEvent):
    model_config = ConfigDict(use_enum_values=True)
    level: Level


class AddsMore(BaseModel, ECSTEvent):
    number: int

    @pydantic.model_serializer(mode="wrap")
    def written(self, handler: Any) -> dict[str, Any]:
        return {**handler(self), "more": 1}


class Wrapped:
    """A class that pydantic reads and writes by its own code, and that has no equality."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __repr__(self) -> str:
        return f"Wrapped({self.number})"

    @classmethod
    def __get_pydantic_core_schema__(cls, _source: Any, _handler: Any) -> Any:
        from pydantic_core import core_schema

        number = core_schema.int_schema()
        written = core_schema.plain_serializer_function_ser_schema(lambda held: held.number, return_schema=number)
        made = core_schema.no_info_after_validator_function(cls, number)
        return core_schema.json_or_python_schema(made, core_schema.is_instance_schema(cls), serialization=written)


class HoldsWrapped(BaseModel, ECSTEvent):
    several: list[Wrapped]


# Others


@dataclass(frozen=True)
class Defaults(ECSTEvent):
    number: int = field(kw_only=True)
    made: uuid.UUID = field(default_factory=uuid.uuid4)
    double: int = field(init=False, default=0)
    day: dt.date | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "double", 2 * self.number)


@attrs.define
class Attrs(ECSTEvent):
    number: int = attrs.field(converter=int, validator=attrs.validators.gt(0), on_setattr=attrs.setters.validate)
    tags: frozenset[str] = attrs.field(converter=frozenset, factory=frozenset, alias="labels")
    total: int = attrs.field(init=False, default=3)


ATTRS: Any = Attrs  # the type checkers know the converter, and not what it gives


class Struct(ECSTEvent, msgspec.Struct, rename="camel", tag="s", omit_defaults=True, forbid_unknown_fields=True):
    meeting_id: int
    room_name: str = "none"
    others: "list[Struct]" = []


class Point(NamedTuple):
    x: int
    y: float = 0.5


@dataclass(frozen=True)
class Keys(ECSTEvent):
    by_number: dict[int, Point]
    by_day: dict[dt.date, int]
    by_float: dict[float, int]


class ArrayStruct(ECSTEvent, msgspec.Struct, array_like=True, frozen=True, gc=False):
    number: Annotated[int, msgspec.Meta(multiple_of=3, gt=0)]
    inner: "ArrayStruct | None" = None


class Unset(ECSTEvent, msgspec.Struct):
    number: int | msgspec.UnsetType = msgspec.UNSET


class PartlyRequired(TypedDict, total=False):
    day: Required[dt.date]
    more: "list[PartlyRequired]"


@dataclass(frozen=True, slots=True)
class HoldsDicts(ECSTEvent):
    inner: dict[str, PartlyRequired | None]


@dataclass(frozen=True)
class Priced(ECSTEvent):
    price: float = 0


@dataclass(frozen=True)
class Paid(ECSTEvent, Generic[T]):
    amount: T


@dataclass(frozen=True)
class DayPaid(Paid[dt.date]):
    pass


@dataclass(frozen=True)
class DatedPaid(Paid[dt.datetime]):
    pass


@dataclass(frozen=True)
class PrivateDataclass(ECSTEvent):
    _tenant: str


CARRIED: list[Event] = [
    Before(at=NOW, wait=(dt.timedelta(seconds=1),)),
    Wrap(at=NOW),
    FieldBefore(at={NOW.date()}, other=uuid.uuid4()),
    Nested(inner=[InnerBefore(at=NOW), None], by_name={"a": InnerBefore(at=NOW)}),
    Aliased.model_validate({"meeting": 1, "room": "r", "inner": [{"user_id": 2}]}),
    Computed(number=2),
    WithJson.model_validate({"numbers": "[1, 2]"}),
    Bytes(data=b"\xff"),
    WithPrivate(number=2),
    Seconds(wait=dt.timedelta(seconds=1)),
    NumbersAsTexts.model_validate({"a": 1.0}),
    Choices(
        tagged=Dog(lives=1), by_kind=Dog(lives=1), by_fields=Cash(amount=3), scalar=1.0, several=[NOW.date()], literal=1
    ),
    Choices(tagged=Cat(lives=1), by_kind=Cat(lives=1), by_fields=Card(number="4"), scalar="1", several=[], literal="a"),
    Extra.model_validate({"anything": ["a", 1]}),
    UpperCase(name="a"),
    HoldsPlain(inner=Plain(NOW, (1,)), several=frozenset({Plain(NOW)})),
    Defaults(number=2, day=NOW.date()),
    ATTRS(1, ("a",)),
    Struct(1, others=[Struct(2, "r")]),
    Keys({1: Point(1)}, {NOW.date(): 1}, {0.5: 1}),
    DayPaid(NOW.date()),
    PrivateDataclass("acme"),
    Herd(
        animals=[Wolf(kind="dog", pack=[Sheep(), Wolf(kind="wolf")])],
        by_code=Wolf(kind="wolf"),
    ),
    HoldsRoot(roots=[Numbers({1: NOW.date()}), None]),
    Upper.model_validate({"AT": NOW, "SEATS": (1,)}),
    AddsMore(number=1),
    ArrayStruct(3, ArrayStruct(6)),
    Unset(),
    Unset(1),
    HoldsDicts({"a": {"day": NOW.date(), "more": [{"day": NOW.date()}]}, "b": None}),
    Priced(0.5),
]


@pytest.mark.parametrize("event", CARRIED, ids=lambda event: type(event).__name__)
async def test_events_arrive_as_they_were_published(event: Event) -> None:
    got = await trip(event)
    assert got == event
    assert repr(got) == repr(event)


async def test_an_int_may_stand_for_a_float_as_it_does_for_type_checkers() -> None:
    assert await trip(Priced(3)) == Priced(3)


@pytest.mark.parametrize("fold", [0, 1])
async def test_times_that_clocks_show_twice_arrive_as_the_same_moment(fold: int) -> None:
    at = dt.datetime(2026, 10, 25, 2, 30, fold=fold, tzinfo=zoneinfo.ZoneInfo("Europe/Berlin"))
    assert (await trip(DatedPaid(at))).amount.isoformat() == at.isoformat()


async def test_what_has_no_equality_is_compared_by_what_it_holds() -> None:
    got = await trip(HoldsWrapped(several=[Wrapped(1)]))
    assert repr(got) == "HoldsWrapped(several=[Wrapped(1)])"


async def test_values_of_enums_arrive_as_their_model_says() -> None:
    assert (await trip(EnumValues(level=Level.LOW))).level == 1


# What is refused


class Key(BaseModel):
    token: SecretStr


class Secret(BaseModel, ECSTEvent):
    key: Key


class Secrets(BaseModel, ECSTEvent):
    keys: dict[str, list[SecretBytes | None]]


class InnerRenamed(BaseModel):
    number: int = Field(default=0, serialization_alias="N")


class Renamed(BaseModel, ECSTEvent):
    inner: dict[str, tuple[InnerRenamed, ...]]


class RenamedGeneric(BaseModel, Generic[T]):
    held: T


class RenamedInGeneric(BaseModel, ECSTEvent):
    inner: RenamedGeneric[list[InnerRenamed]]


class ReadByPath(BaseModel, ECSTEvent):
    number: int = Field(validation_alias=AliasPath("a", 0))


class ExcludedBase(BaseModel):
    note: str = Field(default="", exclude=True)


class Excluded(ExcludedBase, ECSTEvent):
    number: int = 0


class OneWayBytes(BaseModel, ECSTEvent):
    model_config = ConfigDict(ser_json_bytes="base64")
    data: list[bytes]


class Constants(BaseModel, ECSTEvent):
    model_config = ConfigDict(ser_json_inf_nan="constants")
    numbers: list[float]


class ConstantsInAny(BaseModel, ECSTEvent):
    model_config = ConfigDict(ser_json_inf_nan="constants")
    data: dict[str, Any]


class OneWay(BaseModel, ECSTEvent):
    price: float

    @pydantic.field_serializer("price")
    def rounded(self, price: float) -> str:
        return f"{price:.2f} EUR"


class OneWayModel(BaseModel):
    price: float

    @pydantic.model_serializer
    def written(self) -> dict[str, Any]:
        return {"cents": self.price * 100}


class HoldsOneWay(BaseModel, ECSTEvent):
    several: list[OneWayModel]


class Growing(BaseModel, ECSTEvent):
    number: int

    @pydantic.field_validator("number")
    @classmethod
    def grow(cls, value: int) -> int:
        return value + 1


class MadeAnew(BaseModel, ECSTEvent):
    number: int
    _made: uuid.UUID = pydantic.PrivateAttr(default_factory=uuid.uuid4)


class TupleKeys(BaseModel, ECSTEvent):
    seats: list[dict[tuple[int, str], bool]]


class NoneKeys(BaseModel, ECSTEvent):
    seats: dict[int | None, bool]


class EnumKeys(BaseModel, ECSTEvent):
    seats: dict[Level, bool]


class Size(enum.Enum):
    SMALL = (1, 2)


class TupleEnum(BaseModel, ECSTEvent):
    size: Size


class EnumLiteral(BaseModel, ECSTEvent):
    level: Literal[Level.LOW]


class Mile(BaseModel):
    length: int


class Kilometer(BaseModel):
    length: int


class Lookalikes(BaseModel, ECSTEvent):
    distance: list[Mile | Kilometer]


class DayOrText(BaseModel, ECSTEvent):
    value: dt.date | str


class ListOrTuple(BaseModel, ECSTEvent):
    value: list[int] | tuple[int, ...]


class Short(BaseModel):
    number: int


class Long(BaseModel):
    number: int
    more: int


class FirstThatFits(BaseModel, ECSTEvent):
    value: Short | Long = Field(union_mode="left_to_right")


class Iterated(BaseModel, ECSTEvent):
    numbers: Iterable[int]


@dataclass
class GrowingDataclass(ECSTEvent):
    number: int

    def __post_init__(self) -> None:
        self.number += 1


@dataclass
class GrowingInner:
    number: int

    def __post_init__(self) -> None:
        self.number += 1


@dataclass
class HoldsGrowing(ECSTEvent):
    inner: dict[str, list[GrowingInner]]


class GrowingStruct(ECSTEvent, msgspec.Struct):
    number: int

    def __post_init__(self) -> None:
        self.number += 1


@dataclass
class WithInitVar(ECSTEvent):
    number: int
    start: dataclasses.InitVar[int]


@attrs.frozen
class Private(ECSTEvent):
    user: int
    _tenant: str = "none"


@attrs.frozen
class PrivateInner:
    _tenant: str


@dataclass(frozen=True)
class HoldsPrivate(ECSTEvent):
    inner: list[PrivateInner | None]


@dataclass(frozen=True)
class TupleKeysDataclass(ECSTEvent):
    seats: dict[tuple[int, str], bool]


@dataclass(frozen=True)
class BoolKeys(ECSTEvent):
    seats: dict[bool, int]


class Rights(enum.IntFlag):
    READ = 1
    WRITE = 2


@dataclass(frozen=True)
class Granted(ECSTEvent):
    rights: Rights


@dataclass
class Unhashable:
    number: int


@dataclass(frozen=True)
class SetOfUnhashable(ECSTEvent):
    several: frozenset[Unhashable]


class EnumDefault(BaseModel, ECSTEvent):
    model_config = ConfigDict(use_enum_values=True)
    level: Level = Level.LOW


class HoldsSecret(BaseModel, ECSTEvent):
    number: pydantic.Secret[int]


class FrozenKey(BaseModel, frozen=True):
    number: int


class ModelKeys(BaseModel, ECSTEvent):
    seats: dict[FrozenKey, int]


class WithDay(BaseModel):
    day: dt.date


class DictOrModel(BaseModel, ECSTEvent):
    value: dict[str, str] | WithDay


class RootOrNumber(BaseModel, ECSTEvent):
    value: pydantic.RootModel[int] | int


class StrictBefore(BaseModel, ECSTEvent):
    model_config = ConfigDict(strict=True)
    at: dt.datetime

    @pydantic.model_validator(mode="before")
    @classmethod
    def upgrade(cls, data: Any) -> Any:
        return data


class Strange(BaseModel, ECSTEvent):
    model_config = ConfigDict(arbitrary_types_allowed=True)
    number: int
    call: Callable[[], int]


@dataclass(frozen=True)
class DefaultTuple(ECSTEvent):
    number: int
    names: Sequence[str] = ()


@dataclass(frozen=True)
class Untagged(ECSTEvent):
    number: int
    inner: Unhashable | GrowingInner


@attrs.frozen
class FromSelf(ECSTEvent):
    number: int
    double: int = attrs.field(default=attrs.Factory(lambda self: self.number * 2, takes_self=True))


REFUSED: list[tuple[Any, str]] = [
    (Secret, "Secret.key.token is SecretStr"),
    (Secrets, "Secrets.keys['a key'][0] is SecretBytes"),
    (Renamed, "Renamed.inner['a key'][0].number is 7, and arrives as 0"),
    (RenamedInGeneric, "RenamedInGeneric.inner.held[0].number is 7, and arrives as 0"),
    (ReadByPath, "can't be read as it is written: a: 0: Field required"),
    (Excluded, "Excluded.note is 'A text"),
    (OneWayBytes, "OneWayBytes.data[0] is b'"),
    (Constants, "Constants.numbers is written as what JSON has not"),
    (ConstantsInAny, "ConstantsInAny.data is written as what JSON has not"),
    (OneWay, "can't be read as it is written"),
    (HoldsOneWay, "can't be read as it is written"),
    (Growing, "Growing.number is 8, and arrives as 9"),
    (MadeAnew, "MadeAnew._made is UUID"),
    (TupleKeys, "TupleKeys.seats can be {(7, 'A text"),
    (NoneKeys, r"NoneKeys.seats can be {None: 1}, which can't be read"),
    (EnumKeys, r"EnumKeys.seats can be {<Level.LOW: 1>: 1}, which can't be read"),
    (TupleEnum, "TupleEnum.size can be <Size.SMALL: (1, 2)>, which can't be read"),
    (EnumLiteral, "EnumLiteral.level can be <Level.LOW: 1>, which can't"),
    (Lookalikes, "Lookalikes.distance is Kilometer(length=7), and arrives as Mile(length=7)"),
    (DayOrText, "DayOrText.value is '2026-01-02', and arrives as datetime.date"),
    (FirstThatFits, "FirstThatFits.value is Long(number=7, more=7), and arrives as Short(number=7)"),
    (ListOrTuple, "ListOrTuple.value is (7, 8), and arrives as [7, 8]"),
    (Iterated, "Iterated.numbers is ValidatorIterator"),
    (GrowingDataclass, "GrowingDataclass.number is 8, and arrives as 9"),
    (HoldsGrowing, "number is 8, and arrives as 9"),
    (GrowingStruct, "GrowingStruct.number is 8, and arrives as 9"),
    (WithInitVar, "InitVar"),
    (Private, "Private._tenant is 'A text"),
    (HoldsPrivate, "HoldsPrivate can't be read as it is written: Object missing required field `_tenant`"),
    (TupleKeysDataclass, r"TupleKeysDataclass.seats has keys (tuple)"),
    (BoolKeys, r"BoolKeys.seats has keys (bool)"),
    (Granted, "Granted.rights is the flag Rights"),
    (EnumDefault, "EnumDefault.level is <Level.LOW: 1>, and arrives as 1"),
    (HoldsSecret, "HoldsSecret can't be read as it is written: number: "),
    (ModelKeys, "ModelKeys.seats can be {FrozenKey(number=7): 1}, which can't be read"),
    (DictOrModel, "DictOrModel.value is WithDay(day=datetime.date(2026, 1, 2)), and arrives as {'day': "),
    (RootOrNumber, "RootOrNumber.value is RootModel[int](root=7), and arrives as 7"),
    (StrictBefore, "StrictBefore can't be read as it is written: at: Input should be a valid datetime"),
    (Strange, "pydantic says of Strange.call: "),
    (DefaultTuple, "DefaultTuple.names is (), and arrives as []"),
    (Untagged, "msgspec says of Untagged.inner: "),
    (FromSelf, "msgspec says: "),
    (SetOfUnhashable, "SetOfUnhashable has a set whose members can't be hashed when they are read"),
]


@pytest.mark.parametrize(("cls", "text"), REFUSED, ids=lambda value: getattr(value, "__name__", ""))
def test_what_events_cannot_carry_is_refused_at_the_start(cls: Any, text: str) -> None:
    assert text in refusal(cls)


# What only the event can tell


@dataclass(frozen=True)
class Anything(ECSTEvent):
    data: dict[str, Any]


class AnythingModel(BaseModel, ECSTEvent):
    data: list[Any]


@dataclass(frozen=True)
class Abstract(NotificationEvent):
    users: Sequence[int]


@dataclass(frozen=True)
class AbstractPaid(Paid[Sequence[int]]):
    pass


class AbstractModel(RenamedGeneric[Sequence[int]], ECSTEvent):
    pass


class BaseModelInside(BaseModel):
    number: int


class DerivedModel(BaseModelInside):
    more: int = 0


class HoldsBaseModel(BaseModel, ECSTEvent):
    inner: dict[str, pydantic.SerializeAsAny[BaseModelInside]]


@dataclass(frozen=True)
class BaseInside:
    number: int


@dataclass(frozen=True)
class DerivedInside(BaseInside):
    more: int = 0


@dataclass(frozen=True)
class HoldsBase(ECSTEvent):
    inner: list[BaseInside]


class Rounded(BaseModel, ECSTEvent):
    price: float

    @pydantic.field_serializer("price")
    def rounded(self, price: float) -> float:
        return round(price, 6)


@dataclass(frozen=True)
class Inner:
    number: int


@dataclass(frozen=True)
class HoldsSet(ECSTEvent):
    several: frozenset[Any]


class Status(str, enum.Enum):
    OPEN = "open"


@dataclass(frozen=True)
class Noted(ECSTEvent):
    text: str
    numbers: dict[str, int]


class Sometimes(BaseModel, ECSTEvent):
    number: int = Field(default=3, exclude_if=lambda number: number == 5)


class Patterned(BaseModel, ECSTEvent):
    pattern: re.Pattern[str]


class Late(BaseModel, ECSTEvent):
    code: str = Field(pattern="^[A-Z]{3}$")
    at: dt.datetime | None

    @pydantic.field_validator("code")
    @classmethod
    def reverse(cls, value: str) -> str:
        return value[::-1]


@pytest.mark.parametrize(
    "event",
    [
        Anything({"a": [1, None, {"b": "c"}]}),
        AnythingModel(data=["a", 1]),
        Abstract([1]),
        Rounded(price=0.25),
        HoldsBase([BaseInside(1)]),
        HoldsBaseModel(inner={"a": BaseModelInside(number=1)}),
    ],
    ids=lambda event: type(event).__name__,
)
async def test_fields_that_hold_anything_carry_what_json_can(event: Event) -> None:
    assert await trip(event) == event


@pytest.mark.parametrize(
    ("event", "text"),
    [
        (Anything({"a": NOW}), r"Anything.data\['a'\] is datetime.*arrives as '2026"),
        (Anything({"a": {"b": (1,)}}), r"Anything.data\['a'\]\['b'\] is \(1,\), and arrives as \[1\]"),
        (Anything({"a": [Inner(1)]}), r"Anything.data\['a'\]\[0\] is Inner\(number=1\)"),
        (AnythingModel(data=[NOW]), r"AnythingModel.data\[0\] is datetime"),
        (Paid((1,)), r"Paid.amount is \(1,\), and arrives as \[1\]"),
        (AbstractPaid((1,)), r"AbstractPaid.amount is \(1,\), and arrives as \[1\]"),
        (AbstractModel(held=(1,)), r".*held is \(1,\), and arrives as \[1\]"),
        (HoldsBase([DerivedInside(1)]), r"HoldsBase.inner\[0\] is DerivedInside"),
        (HoldsBaseModel(inner={"a": DerivedModel(number=1)}), r"HoldsBaseModel.inner\['a'\] is DerivedModel"),
        (Abstract((1,)), r"Abstract.users is \(1,\), and arrives as \[1\]"),
        (Rounded(price=1 / 3), r"Rounded.price is 0.333"),
        (Extra.model_validate({"at": NOW}), r"Extra.__pydantic_extra__\['at'\] is datetime"),
        (NumbersAsTexts.model_validate({"a": math.nan}), r"__pydantic_extra__\['a'\] is nan, and arrives as 'NaN'"),
        (Seconds(wait=dt.timedelta(days=99999999, microseconds=1)), "Seconds.wait is"),
        (Priced(math.nan), r"Priced.price is nan, and arrives as None"),
        (HoldsSet(frozenset({(1, 2)})), r"HoldsSet.several\[0\] is \(1, 2\), and arrives as \[1, 2\]"),
        (DayPaid(NOW), r"DayPaid can't be read as it is written: .*date - at `\$.amount`"),
        (Noted(Status.OPEN, {}), r"Noted.text is <Status.OPEN: 'open'>, and arrives as 'open'"),
        (Noted("", collections.OrderedDict(a=1)), r"Noted.numbers is OrderedDict.*, and arrives as \{'a': 1\}"),
        (Sometimes(number=5), r"Sometimes.number is 5, and arrives as 3"),
        (Patterned(pattern=re.compile("a", re.IGNORECASE)), r"Patterned.pattern is .*IGNORECASE.*, and arrives as"),
        (Computed.model_construct(number="1"), r"Computed.number is '1', and arrives as 1"),
        (Late(code="ABC", at=None), r"Late.code is 'CBA', and arrives as 'ABC'"),
    ],
    ids=lambda value: "" if isinstance(value, str) else type(value).__name__,
)
async def test_what_a_field_that_holds_anything_would_change_fails_the_command(event: Event, text: str) -> None:
    with pytest.raises(ValueError, match=text) as caught:
        await trip(event)
    assert "can't be published" in str(caught.value)


def test_a_validator_that_refuses_what_was_made_up_is_no_problem() -> None:
    class Picky(BaseModel, ECSTEvent):
        number: int

        @pydantic.field_validator("number")
        @classmethod
        def only_one(cls, value: int) -> int:
            if value != 1:
                raise KeyError(value)
            return value

    app = Diator("meetings", broker="memory://")
    app.publishes(Picky)
    assert not app.check()


def test_events_that_hold_their_like_are_tried_too() -> None:
    counter = itertools.count()

    class Tree(BaseModel, ECSTEvent):
        label: str
        inner: "list[Tree]" = []
        other: "Tree | None" = None
        number: int = Field(default_factory=lambda: next(counter), exclude=True)

    assert "Tree.number is 7, and arrives as" in refusal(Tree)


async def test_every_problem_of_an_event_that_can_not_be_started_is_raised() -> None:
    app = Diator("meetings", broker="memory://")
    for cls in (Secret, Excluded, Private):
        app.publishes(cls)
    with pytest.raises(ConfigurationError) as caught:
        async with app:
            pass
    assert len(caught.value.problems) == 3
