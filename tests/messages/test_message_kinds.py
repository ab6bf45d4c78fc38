"""Messages are data: every usual way to write a data class makes a message, and stays what it was."""

import copy
import pickle
import re
from typing import Any

import pydantic
import pytest

from diator import Command, Diator, Message, Query, Request
from tests.messages import kinds
from tests.messages.kinds import Meeting

every_kind = pytest.mark.parametrize("kind", kinds.COMMANDS)
every_generic = pytest.mark.parametrize("generic", kinds.GENERICS)


def made(kind: Any) -> Any:
    return kind(id=1)


@every_kind
def test_a_message_is_an_instance_of_its_kind(kind: type[Command[Meeting]]) -> None:
    assert isinstance(made(kind), (Command, Request, Message))
    assert not isinstance(made(kind), Query)


@every_kind
async def test_a_message_is_sent_and_arrives_as_it_was(kind: type[Command[Meeting]]) -> None:
    app = Diator()

    async def handler(command: Any) -> Meeting:
        assert command is message
        return Meeting(command.id)

    app.add_command(handler, kind)
    message = made(kind)
    async with app:
        assert await app.send(message) == Meeting(1)


@every_kind
def test_the_promised_result_is_known_of_every_kind(kind: type[Command[Meeting]]) -> None:
    async def right(command: Any) -> Meeting: ...  # never called

    async def wrong(command: Any) -> str: ...

    app = Diator()
    app.add_command(right, kind)
    assert app.check() == []
    app = Diator()
    app.add_command(wrong, kind)
    (problem,) = app.check()
    assert problem.code == "return-type"
    assert "wrong returns str" in problem.text
    assert f"{kind.__name__} declares the result Meeting" in problem.text


@every_kind
def test_a_message_compares_copies_and_pickles_by_value(kind: type[Command[Meeting]]) -> None:
    message = made(kind)
    assert message == made(kind)
    assert message != kind(id=2)  # type: ignore[call-arg]  # the field of each kind
    assert copy.copy(message) == message
    assert copy.deepcopy(message) == message
    assert pickle.loads(pickle.dumps(message)) == message


@pytest.mark.parametrize("kind", kinds.FROZEN)
def test_a_frozen_message_stays_frozen_and_hashable(kind: Any) -> None:
    message = made(kind)
    with pytest.raises((AttributeError, pydantic.ValidationError)):  # dataclasses and attrs derive theirs from it
        message.id = 2
    assert message.id == 1
    assert hash(message) == hash(made(kind))


@pytest.mark.parametrize("kind", kinds.SLOTTED)
def test_a_slotted_message_gets_no_dict(kind: Any) -> None:
    message = made(kind)
    assert not hasattr(message, "__dict__")
    with pytest.raises((AttributeError, TypeError)):  # a frozen slotted dataclass raises TypeError (CPython 105936)
        message.other = 1


@every_generic
async def test_a_generic_message_is_sent_plain_and_subscripted(generic: Any) -> None:
    app = Diator()

    async def handler(query: Any) -> Meeting:
        return Meeting(query.id)

    app.add_query(handler, generic)
    async with app:
        assert await app.send(generic(id=1)) == Meeting(1)
        if generic is not kinds.SlotsGeneric:
            assert await app.send(generic[Meeting](id=2)) == Meeting(2)


@every_generic
def test_the_promised_result_of_a_generic_message_is_its_argument(generic: Any) -> None:
    async def right(query: Any) -> Meeting: ...

    async def wrong(query: Any) -> str: ...

    app = Diator()
    app.add_query(right, generic[Meeting])
    assert app.check() == []
    app = Diator()
    app.add_query(wrong, generic[Meeting])
    assert re.search(r"wrong returns str, but .* declares the result Meeting", app.check()[0].text)


@every_generic
def test_a_generic_message_without_argument_declares_no_result(generic: Any) -> None:
    async def handler(query: Any) -> str: ...

    app = Diator()
    app.add_query(handler, generic)
    assert app.check() == []


@every_generic
def test_an_argument_goes_through_a_subclass(generic: Any) -> None:
    class OfMeeting(generic[Meeting]): ...  # type: ignore[misc]  # mypy wants to know the base

    async def wrong(query: Any) -> str: ...

    app = Diator()
    app.add_query(wrong, OfMeeting)
    assert "wrong returns str, but OfMeeting declares the result Meeting" in app.check()[0].text


@pytest.mark.parametrize("generic", [kind for kind in kinds.GENERICS if kind is not kinds.PydanticGeneric])
def test_a_generic_class_has_one_handler_whatever_its_argument(generic: Any) -> None:
    async def first(query: Any) -> Meeting: ...

    async def second(query: Any) -> str: ...

    app = Diator()
    app.add_query(first, generic[Meeting])
    app.add_query(second, generic[str])
    assert any("has a second handler, second" in problem.text for problem in app.check())


async def test_pydantic_arguments_choose_the_handler_and_the_generic_class_takes_the_rest() -> None:
    app = Diator()
    generic: Any = kinds.PydanticGeneric  # Any: type checkers allow one subscript, and no plain one

    async def meeting(query: Any) -> Meeting:
        return Meeting(query.id)

    async def text(query: Any) -> str:
        return "text"

    async def rest(query: Any) -> Any:
        return "rest"

    app.add_query(meeting, generic[Meeting])
    app.add_query(text, generic[str])
    app.add_query(rest, generic)
    async with app:
        assert await app.send(generic[Meeting](id=3)) == Meeting(3)
        assert await app.send(generic[str](id=3)) == "text"
        assert await app.send(generic[int](id=3)) == "rest"
        assert await app.send(generic(id=3)) == "rest"


async def test_a_frozen_slotted_generic_dataclass_is_made_without_subscript() -> None:
    """On some versions of Python ``G[X](...)`` fails for these classes, before Diator sees them; ``G(...)`` works."""
    app = Diator()

    @app.query(kinds.SlotsGeneric[Meeting])
    async def handler(query: kinds.SlotsGeneric[Meeting]) -> Meeting:
        return Meeting(query.id)

    async with app:
        query: kinds.SlotsGeneric[Meeting] = kinds.SlotsGeneric(id=4)
        assert await app.send(query) == Meeting(4)
