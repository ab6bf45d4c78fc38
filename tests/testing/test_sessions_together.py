"""Sessions of several apps that share a broker: the web application and its worker, tested together."""

import asyncio
from dataclasses import dataclass

import pytest

from diator import Command, ConfigurationError, Diator, NotificationEvent, NotRunningError, Publish, Retry, contract
from diator.testing import Faults, UnsettledError


@contract("together.placed")
@dataclass(frozen=True)
class Placed(NotificationEvent):
    order_id: int


@contract("together.mailed")
@dataclass(frozen=True)
class Mailed(NotificationEvent):
    order_id: int


@dataclass(frozen=True)
class Place(Command[None]):
    order_id: int


class Shop:
    """A web application that places orders, and a worker of another app that mails customers."""

    def __init__(self, *, fails: bool = False) -> None:
        self.web = Diator("web", broker="redis://localhost:1")
        self.mailer = Diator("mailer", broker="redis://localhost:1", retry=Retry(attempts=2))
        self.mailed: list[int] = []

        @self.web.command
        async def place(command: Place, publish: Publish[Placed]) -> None:
            publish(Placed(command.order_id))

        @self.web.on_event
        async def note(event: Mailed) -> None:
            self.mailed.append(event.order_id)

        @self.mailer.on_event
        async def mail(event: Placed, publish: Publish[Mailed]) -> None:
            await asyncio.sleep(0.01)
            if fails:
                raise ValueError("no such customer")
            publish(Mailed(event.order_id))


async def test_one_session_waits_for_what_both_apps_do_and_shows_it() -> None:
    shop = Shop()
    async with shop.web.testing() as web, shop.mailer.testing(broker=web) as mailer:
        await web.send(Place(1))
        await web.settled()
        assert shop.mailed == [1]
        await mailer.publish(Placed(2))
        await mailer.settled()
    assert shop.mailed == [1, 2]
    assert str(web) == str(mailer)
    assert str(web).splitlines()[:6] == [
        "  sent Place(order_id=1)",
        "    handled by place",
        "      published Placed(order_id=1)",
        "        handled by mail",
        "          published Mailed(order_id=1)",
        "            handled by note",
    ]
    assert [entry.message.order_id for entry in web.handled.of(Placed).entries] == [1, 2]


async def test_a_failure_in_the_other_app_is_told() -> None:
    shop = Shop(fails=True)
    async with shop.web.testing() as web, shop.mailer.testing(broker=web):
        await web.send(Place(1))
        with pytest.raises(UnsettledError, match="no such customer"):
            await web.settled()


async def test_what_a_session_that_has_ended_had_to_do_is_not_waited_for() -> None:
    shop = Shop()
    async with shop.web.testing() as web:
        async with shop.mailer.testing(broker=web):
            await web.send(Place(1))
        await web.settled()
        await web.publish(Placed(2))
        await web.settled()
    assert shop.mailed == []


async def test_faults_of_the_first_session_concern_the_deliveries_of_both() -> None:
    shop = Shop()
    async with shop.web.testing(faults=Faults(seed=1, duplicates=1.0)) as web, shop.mailer.testing(broker=web):
        await web.send(Place(1))
        await web.settled()
    assert {line.rpartition(" ")[2] for line in web.faults} == {"mailer.mail", "web.note"}


async def test_the_other_session_must_be_open_and_have_the_faults() -> None:
    shop = Shop()
    web = shop.web.testing()
    with pytest.raises(NotRunningError, match="the session is not open"):
        shop.mailer.testing(broker=web)
    async with web:
        with pytest.raises(ConfigurationError, match="pass the faults to the session that has the broker"):
            shop.mailer.testing(broker=web, faults=Faults(seed=1))


async def test_an_app_in_place_of_its_session_is_an_error_that_names_the_session() -> None:
    shop = Shop()
    with pytest.raises(ConfigurationError, match=r"(?s)got the app .*worker\.testing\(broker=session\)"):
        shop.mailer.testing(broker=shop.web)
