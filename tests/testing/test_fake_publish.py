"""`FakePublish`: a handler called by hand, and what it has published."""

from dataclasses import dataclass

import pytest

from diator import Command, DomainEvent, InvalidMessageError, NotificationEvent, Publish
from diator.testing import FakePublish


@dataclass(frozen=True)
class Join(Command[None]):
    user: int


@dataclass(frozen=True)
class Joined(DomainEvent):
    user: int


@dataclass(frozen=True)
class Warned(DomainEvent):
    user: int


async def join(command: Join, publish: Publish[Joined | Warned]) -> None:
    publish(Joined(command.user))
    publish(Warned(command.user))


async def test_what_a_handler_publishes_is_kept_in_order() -> None:
    publish = FakePublish()
    assert publish == []
    await join(Join(1), publish)
    assert publish == [Joined(1), Warned(1)]
    assert publish.one(Warned).user == 1
    assert publish.of(Joined) == [Joined(1)]
    assert repr(publish) == "[Joined(user=1), Warned(user=1)]"
    assert len(publish) == 2
    publish.none(LoudlyWarned)


@dataclass(frozen=True)
class LoudlyWarned(Warned):
    pass


async def test_what_fails_shows_everything_that_was_published() -> None:
    publish = FakePublish()
    await join(Join(1), publish)
    with pytest.raises(AssertionError) as found:
        publish.one(LoudlyWarned)
    assert str(found.value).splitlines() == [
        "expected one LoudlyWarned to be published, found none; what happened:",
        "  published Joined(user=1)",
        "  published Warned(user=1)",
    ]


def test_what_is_no_event_is_refused_as_a_running_app_refuses_it() -> None:
    publish = FakePublish()
    for wrong in (Joined, Join(1), None):
        with pytest.raises(InvalidMessageError, match="which is not an event"):
            publish(wrong)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  # wrong on purpose
    assert publish == []


@dataclass(frozen=True)
class Reminded(NotificationEvent):
    user: int


async def test_what_was_published_has_an_id_and_can_be_cancelled() -> None:
    async def remind(command: Join, publish: Publish[Reminded]) -> bool:
        first, second = publish(Reminded(1), after=60), publish(Reminded(2), after=60)
        assert first != second
        return await publish.cancel(first)

    publish = FakePublish()
    assert await remind(Join(1), publish) is True
    assert len(publish.cancelled) == 1
    assert publish == [Reminded(1), Reminded(2)]
