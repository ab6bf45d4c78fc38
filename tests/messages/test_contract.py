"""``@contract`` gives a brokered event its wire name, and refuses what could not be kept."""

import pickle
from dataclasses import dataclass
from typing import Any

import attrs
import msgspec
import pydantic
import pytest

from diator import ConfigurationError, DomainEvent, ECSTEvent, NotificationEvent, SourceLocation, contract
from diator.messages import Contract, contract_of


@contract("meetings.user-joined", version=2, key="meeting_id", aliases=["joined", "user.joined"], topic="meetings")
@dataclass(frozen=True, slots=True)
class UserJoined(NotificationEvent):
    meeting_id: int


@dataclass(frozen=True)
class UserLeft(UserJoined):
    reason: str = ""


def test_a_contract_holds_what_it_was_given() -> None:
    terms = Contract("meetings.user-joined", 2, "meeting_id", ("joined", "user.joined"), "meetings")
    assert contract_of(UserJoined) == terms


def test_without_a_contract_the_class_name_serves() -> None:
    assert contract_of(UserLeft) == Contract("UserLeft", version=1, key=None, aliases=(), topic=None)


def test_a_contract_belongs_to_one_class_and_not_to_its_subclasses() -> None:
    assert contract_of(UserLeft).name == "UserLeft"


def test_a_contract_adds_nothing_to_the_event_itself() -> None:
    event = UserJoined(1)
    assert not hasattr(event, "__dict__")
    assert event == UserJoined(1)
    assert pickle.loads(pickle.dumps(event)) == event


def test_a_contract_may_stand_below_the_decorator_that_makes_a_slotted_class_anew() -> None:
    @dataclass(frozen=True, slots=True)
    @contract("meetings.closed", key="meeting_id")
    class Closed(ECSTEvent):
        meeting_id: int

    assert contract_of(Closed).name == "meetings.closed"


def test_every_kind_of_class_takes_a_contract_keyed_by_a_field() -> None:
    @attrs.frozen
    class Attrs(ECSTEvent):
        id: int

    unannotated: type[ECSTEvent] = attrs.make_class("Unannotated", {"id": attrs.field()}, bases=(ECSTEvent,))

    class Model(pydantic.BaseModel, ECSTEvent):
        id: int

    class Struct(ECSTEvent, msgspec.Struct, frozen=True):
        id: int

    class Inherited(Struct, frozen=True):
        other: int = 0

    for event in (Attrs, unannotated, Model, Struct, Inherited):
        assert contract("a.b", key="id")(event) is event
        assert contract_of(event).key == "id"


def new_event() -> type[NotificationEvent]:
    @dataclass
    class Moved(NotificationEvent):
        meeting_id: int
        user_id: int

    return Moved


# Any: terms of the wrong type are what is tried.
@pytest.mark.parametrize(
    ("terms", "found", "fix"),
    [
        ({"name": ""}, "the name ''", "meetings.user-joined"),
        ({"name": "user joined"}, "the name 'user joined'", "without white space"),
        ({"name": 5}, "the name 5", "without white space"),
        ({"topic": ""}, "the name ''", "without white space"),
        ({"topic": "a\tb"}, r"'a\tb'", "without white space"),
        ({"aliases": ["fine", "not fine"]}, "'not fine'", "without white space"),
        ({"aliases": "joined"}, "aliases='joined'", "aliases=('joined',)"),
        ({"aliases": None}, "aliases=None", "give a tuple"),
        ({"key": 1}, "key=1", "name the field"),
        ({"aliases": ("a.b",)}, "its own name among its aliases", "former names only"),
        ({"version": 0}, "version=0", "from 1"),
        ({"version": -1}, "version=-1", "from 1"),
        ({"version": True}, "version=True", "from 1"),
        ({"version": 1.5}, "version=1.5", "from 1"),
        ({"version": "2"}, "version='2'", "from 1"),
        ({"key": "meting_id"}, "'meting_id'", "meeting_id, user_id"),
    ],
)
def test_terms_that_can_not_be_kept_are_refused(terms: dict[str, Any], found: str, fix: str) -> None:
    event = new_event()
    options: dict[str, Any] = {"name": "a.b", **terms}
    with pytest.raises(ConfigurationError) as caught:
        contract(options.pop("name"), **options)(event)
    (problem,) = caught.value.problems
    assert problem.code == "contract"
    assert problem.location == SourceLocation(__file__, caught.traceback[0].lineno + 1)
    assert found in problem.text
    assert fix in problem.fix
    assert contract_of(event) == Contract("Moved")


def test_all_that_is_wrong_is_told_at_once() -> None:
    with pytest.raises(ConfigurationError) as caught:
        contract("", version=0, key="meeting_id", topic=" ", aliases="x")
    assert [problem.code for problem in caught.value.problems] == ["contract"] * 4


def test_an_event_that_never_leaves_the_process_needs_no_contract() -> None:
    class Inside(DomainEvent): ...

    with pytest.raises(ConfigurationError, match=r"@contract\('a.b'\) .*Inside'>, which never leaves the process"):
        contract("a.b")(Inside)  # type: ignore[type-var]  # pyright: ignore[reportArgumentType]  # wrong on purpose


def test_what_is_no_class_gets_no_contract() -> None:
    with pytest.raises(ConfigurationError, match="function"):
        contract("a.b")(test_an_event_that_never_leaves_the_process_needs_no_contract)  # type: ignore[type-var, arg-type]  # pyright: ignore[reportArgumentType]  # wrong on purpose


def test_a_contract_without_a_name_is_refused_at_its_line() -> None:
    with pytest.raises(ConfigurationError, match="@contract was put on UserLeft without a name"):
        contract(UserLeft)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  # wrong on purpose


def test_a_constant_of_the_class_is_no_key() -> None:
    from typing import ClassVar

    @dataclass
    class Constant(NotificationEvent):
        kind: ClassVar[str] = "meeting"
        id: int

    with pytest.raises(ConfigurationError, match="keyed by 'kind'"):
        contract("a.b", key="kind")(Constant)
