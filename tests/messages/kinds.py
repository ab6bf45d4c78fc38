"""One command in every way in which a message class can be written, and one generic query likewise."""

import sys
import warnings
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import attrs
import msgspec
import pydantic
import pydantic.dataclasses

from diator import Command, Query

X = TypeVar("X")


@dataclass
class Meeting:
    id: int


@dataclass
class Plain(Command[Meeting]):
    id: int


@dataclass(frozen=True)
class Frozen(Command[Meeting]):
    id: int


@dataclass(frozen=True, kw_only=True, slots=True)
class FrozenSlotsKwOnly(Command[Meeting]):
    id: int


@dataclass(frozen=True, slots=True)
class Forward(Command["Meeting"]):
    id: int


if sys.version_info >= (3, 11):

    @dataclass(frozen=True, slots=True, weakref_slot=True)
    class WeakSlots(Command[Meeting]):
        id: int

else:

    @dataclass(frozen=True, slots=True)
    class WeakSlots(Command[Meeting]):
        id: int


@attrs.define
class AttrsDefine(Command[Meeting]):
    id: int


@attrs.frozen(kw_only=True)
class AttrsFrozen(Command[Meeting]):
    id: int


with warnings.catch_warnings():  # this order makes pydantic warn, and works all the same
    warnings.simplefilter("ignore", pydantic.warnings.GenericBeforeBaseModelWarning)

    class PydanticMixinFirst(Command[Meeting], pydantic.BaseModel):
        id: int


class PydanticModel(pydantic.BaseModel, Command[Meeting]):
    id: int


class PydanticFrozen(pydantic.BaseModel, Command[Meeting], frozen=True):
    id: int


@pydantic.dataclasses.dataclass(frozen=True)
class PydanticDataclass(Command[Meeting]):
    id: int


class Struct(msgspec.Struct, Command[Meeting]):
    id: int


class StructFrozen(Command[Meeting], msgspec.Struct, frozen=True, kw_only=True):
    id: int


class StructNoGc(Command[Meeting], msgspec.Struct, frozen=True, kw_only=True, gc=False, tag=True):
    id: int


@dataclass(frozen=True)
class DataclassGeneric(Query[X], Generic[X]):
    id: int


@dataclass(frozen=True, slots=True)
class SlotsGeneric(Query[X], Generic[X]):
    id: int


@attrs.frozen
class AttrsGeneric(Query[X], Generic[X]):
    id: int


class PydanticGeneric(pydantic.BaseModel, Query[X], Generic[X]):
    id: int


class StructGeneric(Query[X], msgspec.Struct, Generic[X], frozen=True):
    id: int


class StructFirstGeneric(msgspec.Struct, Query[X], Generic[X], frozen=True):
    id: int


COMMANDS: tuple[type[Command[Meeting]], ...] = (
    Plain,
    Frozen,
    FrozenSlotsKwOnly,
    Forward,
    WeakSlots,
    AttrsDefine,
    AttrsFrozen,
    PydanticMixinFirst,
    PydanticModel,
    PydanticFrozen,
    PydanticDataclass,
    Struct,
    StructFrozen,
    StructNoGc,
)
FROZEN = (
    Frozen,
    FrozenSlotsKwOnly,
    Forward,
    WeakSlots,
    AttrsFrozen,
    PydanticFrozen,
    PydanticDataclass,
    StructFrozen,
    StructNoGc,
)
SLOTTED = (FrozenSlotsKwOnly, Forward, WeakSlots, AttrsDefine, AttrsFrozen, Struct, StructFrozen, StructNoGc)
# Any: what a generic class is, no type can say.
GENERICS: tuple[Any, ...] = (
    DataclassGeneric,
    SlotsGeneric,
    AttrsGeneric,
    PydanticGeneric,
    StructGeneric,
    StructFirstGeneric,
)
