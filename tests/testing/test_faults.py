"""Sessions with faults: which happen, that they are the same each time, and what a test that fails shows."""

import asyncio
import subprocess
import sys
import textwrap
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from diator import (
    Command,
    ConfigurationError,
    Context,
    Diator,
    DiatorError,
    NotificationEvent,
    Publish,
    PublishError,
    Reject,
    contract,
)
from diator.brokers import MemoryBroker
from diator.testing import Faults, Session, UnsettledError

NONE = Faults(duplicates=0, crashes=0, reorder=False)


@dataclass(frozen=True)
class Pay(Command[None]):
    orders: tuple[int, ...]


@contract("shop.paid", key="order")
@dataclass(frozen=True)
class Paid(NotificationEvent):
    order: int
    step: int = 0


@contract("shop.booked")
@dataclass(frozen=True)
class Booked(NotificationEvent):
    order: int


class Shop:
    """An app that pays orders, books what was paid, and writes down what its handlers have seen."""

    def __init__(self, **options: Any) -> None:
        self.app = app = Diator("shop", broker="memory://", **options)
        self.booked: list[Paid] = []
        self.mailed: list[int] = []
        self.ids: list[str] = []

        @app.command
        async def pay(command: Pay, publish: Publish[Paid]) -> None:
            for order in command.orders:
                publish(Paid(order))

        @app.on_event
        async def book(event: Paid, context: Context, publish: Publish[Booked]) -> None:
            self.booked.append(event)
            self.ids.append(context.message_id)
            publish(Booked(event.order))

        @app.on_event
        async def mail(event: Booked) -> None:
            self.mailed.append(event.order)

    async def play(self, faults: Faults | None, *orders: int) -> Session:
        async with self.app.testing(faults=faults) as session:
            await session.send(Pay(orders))
            await session.settled()
        return session


def only(**shares: Any) -> Faults:
    given: dict[str, Any] = {"duplicates": 0, "crashes": 0, "reorder": False, **shares}
    return Faults(**given)


# What happens


async def test_without_a_fault_nothing_differs() -> None:
    shop = Shop()
    session = await shop.play(NONE, 1, 2, 3)
    assert shop.mailed == [1, 2, 3]
    assert session.faults == ()


async def test_duplicates_come_after_all_others_have_ended() -> None:
    shop = Shop()
    session = await shop.play(only(plan=["duplicate: shop.paid #1 at shop.book"]), 1, 2, 3)
    assert [event.order for event in shop.booked] == [1, 2, 3, 1]
    assert shop.ids[0] == shop.ids[3]
    assert shop.mailed == [1, 2, 3, 1]  # the follow-up of the second run is published again
    assert session.faults == ("duplicate: shop.paid #1 at shop.book",)


async def test_crashes_come_again_at_once() -> None:
    shop = Shop(concurrency=1)
    await shop.play(only(crashes=1.0), 1)
    assert [event.order for event in shop.booked] == [1, 1]
    assert shop.ids[0] == shop.ids[1]
    # Two runs have published the same follow-up, and the first of these crashes too.
    assert shop.mailed == [1, 1, 1]


async def test_every_message_has_each_fault_once_with_a_share_of_one() -> None:
    shop = Shop()
    session = await shop.play(only(duplicates=1.0, crashes=1.0, reorder=False), 1, 2)
    assert Counter(event.order for event in shop.booked) == {1: 3, 2: 3}
    assert Counter(line.partition(" #")[0] for line in session.faults) == {
        "crash: shop.paid": 2,
        "duplicate: shop.paid": 2,
        "crash: shop.booked": 2,
        "duplicate: shop.booked": 2,
    }


async def test_late_messages_come_after_the_others() -> None:
    shop = Shop()
    plan = ["late: shop.paid #2 at shop.book", "late: shop.paid #1 at shop.book"]
    session = await shop.play(Faults(plan=plan), 1, 2, 3)
    assert [event.order for event in shop.booked] == [3, 2, 1]
    assert shop.mailed == [3, 2, 1]
    assert list(session.faults) == plan


async def test_messages_that_were_published_one_after_the_other_change_places() -> None:
    shop = Shop()
    async with shop.app.testing(faults=Faults(plan=["late: shop.paid #1 at shop.book"])) as session:
        for order in (1, 2):
            await session.send(Pay((order,)))
            await asyncio.sleep(0.05)
        await session.settled()
    assert [event.order for event in shop.booked] == [2, 1]


async def test_a_late_message_comes_also_if_another_waits_for_it() -> None:
    app, came, ended = Diator("shop", broker="memory://"), asyncio.Event(), list[int]()

    @app.on_event
    async def book(event: Paid) -> None:
        came.set() if event.order == 1 else await came.wait()
        ended.append(event.order)

    async with app.testing(faults=Faults(plan=["late: shop.paid #1 at shop.book"])) as session:
        await session.publish(Paid(1), Paid(2))
        await session.settled()
    assert ended == [1, 2]


@pytest.mark.parametrize("seed", range(8))
async def test_what_is_ordered_by_key_keeps_its_order(seed: int) -> None:
    app, seen, failed = Diator("shop", broker="memory://"), list[Paid](), set[Paid]()

    @app.on_event(ordered=True)
    async def book(event: Paid) -> None:
        await asyncio.sleep(0)
        if event.step % 3 == 1 and event not in failed:
            failed.add(event)
            raise ConnectionError("once")
        seen.append(event)

    events = [Paid(order, step) for step in range(6) for order in range(3)]
    async with app.testing(faults=Faults(seed=seed, duplicates=0.5, crashes=0.5)) as session:
        for event in events:
            await session.publish(event)
        await session.settled()
    for order in range(3):
        steps = [event.step for event in seen if event.order == order]
        assert steps == sorted(steps)
        assert set(steps) == set(range(6))
    assert len(seen) > len(events)
    assert list(dict.fromkeys(seen)) != events  # of other keys they change places


async def test_a_crash_counts_as_a_delivery_and_not_as_a_failure() -> None:
    shop = Shop()
    session = await shop.play(only(crashes=1.0), 1)
    assert {run.attempt for run in session.handled.entries} == {1}


async def test_a_failed_message_may_crash_and_come_twice_and_keeps_its_attempts() -> None:
    app, attempts = Diator("shop", broker="memory://"), list[int]()

    @app.on_event
    async def book(event: Paid, context: Context) -> None:
        attempts.append(context.attempt)
        if len(attempts) in (1, 3, 5):
            raise ConnectionError("no route")

    async with app.testing(faults=only(crashes=1.0, duplicates=1.0)) as session:
        await session.publish(Paid(1))
        await session.settled()
    # fails, is handled and crashes, fails, is handled and comes twice, fails, is handled
    assert attempts == [1, 2, 2, 3, 1, 2]


async def test_a_crash_makes_no_dead_letter_where_one_delivery_is_allowed() -> None:
    shop = Shop(max_deliveries=1)
    session = await shop.play(Faults(crashes=1.0, duplicates=0, reorder=False), 1)
    assert len(shop.booked) == 1
    assert session.dead_letters == []


async def test_rejected_messages_are_dead_letters_once() -> None:
    app = Diator("shop", broker="memory://")

    @app.on_event
    async def book(event: Paid) -> None:
        raise Reject("no such order")

    async with app.testing(faults=Faults(duplicates=1.0, crashes=1.0)) as session:
        await session.publish(Paid(1))
        await session.settled(allow_failures=True)
    assert session.dead_letters == [Paid(1)]


async def test_a_broker_that_is_away_fails_the_command_after_it_was_handled() -> None:
    shop = Shop()
    async with shop.app.testing(faults=Faults(plan=["outage: shop.paid #2"])) as session:
        await session.send(Pay((1,)))
        with pytest.raises(PublishError, match=r"injected fault: the broker is unavailable: .* shop\.paid #2"):
            await session.send(Pay((2, 3)))
        await session.send(Pay((4,)))
        await session.settled()
    assert sorted(shop.mailed) == [1, 4]


async def test_messages_that_are_published_together_have_one_outage() -> None:
    """Those that the relay of a store publishes would otherwise wait longer and longer for the end of each."""
    shop = Shop()
    async with shop.app.testing(faults=Faults(plan=["outage: shop.paid #3", "outage: shop.paid #1"])) as session:
        with pytest.raises(PublishError, match=r"the broker is unavailable: outage: shop\.paid #1"):
            await session.send(Pay((1, 2, 3)))
        await session.send(Pay((4,)))
        await session.settled()
    assert session.faults == ("outage: shop.paid #1", "outage: shop.paid #3")
    assert shop.mailed == [4]


async def test_follow_ups_outlast_an_outage(caplog: pytest.LogCaptureFixture) -> None:
    shop = Shop()
    plan = [f"outage: shop.booked #1 from shop.book of shop.paid #{number}" for number in (1, 2, 3)]
    session = await shop.play(Faults(plan=plan), 1, 2, 3)
    assert sorted(shop.mailed) == [1, 2, 3]
    assert len(shop.booked) == 3
    assert sorted(session.faults) == plan
    assert "the broker can't publish for shop.book" in caplog.text


async def test_the_same_faults_in_a_session_over_a_broker_that_the_app_uses_already() -> None:
    shop, broker = Shop(), MemoryBroker()
    app = Diator("shop", broker=broker)
    seen: list[int] = []

    @app.on_event
    async def book(event: Paid) -> None:
        seen.append(event.order)

    async with app:
        async with app.testing(broker="keep", faults=only(duplicates=1.0)) as session:
            await session.publish(Paid(1))
            await session.settled()
        await app.publish(Paid(2))  # the session has not closed it
        async with app.testing(broker="keep") as session:
            await session.settled()
    assert seen[:2] == [1, 1]
    assert shop.booked == []


# Reproducible


async def played(faults: Faults) -> tuple[tuple[str, ...], list[int], list[int]]:
    shop = Shop()
    session = await shop.play(faults, *range(12))
    return session.faults, [event.order for event in shop.booked], shop.mailed


def comparable(run: tuple[tuple[str, ...], list[int], list[int]]) -> tuple[list[str], list[int], list[int]]:
    """Return the same with sorted faults: subscriptions take turns as the event loop has it."""
    return sorted(run[0]), *run[1:]


async def test_the_same_seed_gives_the_same_faults() -> None:
    first = await played(Faults(seed=3))
    assert comparable(first) == comparable(await played(Faults(seed=3)))
    assert {line.partition(":")[0] for line in first[0]} == {"duplicate", "crash", "late"}
    assert comparable(first) != comparable(await played(Faults(seed=4)))


async def test_a_plan_of_the_faults_that_happened_repeats_them() -> None:
    first = await played(Faults(seed=5, duplicates=0.4, crashes=0.4))
    assert comparable(first) == comparable(await played(Faults(plan=first[0])))


SCRIPT = """
    import asyncio
    import sys

    sys.path.insert(0, {folder!r})
    from test_faults import Faults, comparable, played

    print(comparable(asyncio.run(played(Faults(seed=3)))))
"""


@pytest.mark.once
def test_other_processes_have_the_same_faults() -> None:
    source = textwrap.dedent(SCRIPT.format(folder=str(Path(__file__).parent)))
    for seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", source], env={"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True
        )
        assert done.stdout.strip() == repr(comparable(asyncio.run(played(Faults(seed=3)))))


# What a test that fails shows


async def test_an_error_in_the_block_has_a_note_of_the_faults() -> None:
    shop = Shop()
    with pytest.raises(AssertionError) as found:
        async with shop.app.testing(faults=only(seed=7, duplicates=1.0)) as session:
            await session.send(Pay((1,)))
            await session.settled()
            assert shop.mailed == [1]
    assert vars(found.value)["__notes__"] == [
        "injected by Faults(seed=7, duplicates=1.0, crashes=0, reorder=False, broker_outages=0.0); exactly these, to "
        "paste into the test:\n"
        "  Faults(plan=[\n"
        '      "duplicate: shop.paid #1 at shop.book",  # Paid(order=1, step=0)\n'
        '      "duplicate: shop.booked #1 from shop.book of shop.paid #1 at shop.mail",  # Booked(order=1)\n'
        "  ])"
    ]


async def test_an_error_after_the_block_finds_the_faults_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    await Shop().play(Faults(plan=["crash: shop.paid #1 at shop.book"]), 1)
    assert '      "crash: shop.paid #1 at shop.book",  # Paid(order=1, step=0)' in caplog.text


async def test_a_handler_that_fails_the_second_time_fails_its_test() -> None:
    app, seen = Diator("shop", broker="memory://"), set[int]()

    @app.on_event
    async def book(event: Paid) -> None:
        if event.order in seen:
            raise Reject("there is a booking already")
        seen.add(event.order)

    with pytest.raises(UnsettledError, match="there is a booking already") as found:
        async with app.testing(faults=only(crashes=1.0)) as session:
            await session.publish(Paid(1))
            await session.settled()
    assert "crash: shop.paid #1 at shop.book" in vars(found.value)["__notes__"][0]


async def test_a_plan_of_which_something_does_not_happen_fails() -> None:
    with pytest.raises(
        DiatorError, match=r"did not happen: late: shop\.paid #9 at shop\.book\. Published were shop\.p"
    ):
        await Shop().play(Faults(plan=["late: shop.paid #1 at shop.book", "late: shop.paid #9 at shop.book"]), 1)


async def test_a_plan_that_is_wrong_lists_some_of_what_was_published() -> None:
    orders = (*range(20),)
    kinds = (
        r"Published were shop\.paid #1 to #20, (shop\.booked #1 to #1 from shop\.book of shop\.paid #\d+, ){9}and 11 m"
    )
    with pytest.raises(DiatorError, match=kinds):
        await Shop(concurrency=1).play(Faults(plan=["late: shop.booked #1 at shop.mail"]), *orders)


# Bad input


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"seed": "1"}, "Faults got seed='1'; expected a whole number"),
        ({"seed": True}, "Faults got seed=True; expected a whole number"),
        ({"duplicates": 20}, "Faults got duplicates=20; expected a share of the messages, a number from 0 to 1"),
        ({"crashes": -0.1}, "Faults got crashes=-0.1; expected a share"),
        ({"broker_outages": float("nan")}, "Faults got broker_outages=nan; expected a share"),
        ({"reorder": 1}, "Faults got reorder=1; expected True or False"),
        ({"plan": "late: shop.paid #1 at shop.book"}, "expected None, or a list of lines"),
        (
            {"plan": ["late: shop.paid #1 at shop.book", "late: shop.paid #1"]},
            "Faults got plan=['late: shop.paid #1']; expected None, or a list of lines as a failed session prints them",
        ),
        ({"plan": ["late: shop.booked #1 from shop.book at shop.mail"]}, "a follow-up is 'TYPE #NUMBER from SUBSCR"),
        ({"plan": ["outage: shop.paid #0"]}, "expected None, or a list of lines"),
    ],
)
def test_options_that_make_no_sense_are_rejected_where_they_are_set(given: dict[str, Any], expected: str) -> None:
    with pytest.raises(ConfigurationError) as found:
        Faults(**given)
    assert expected in str(found.value)
    assert "test_faults.py" in str(found.value)


def test_faults_are_rejected_if_they_are_none() -> None:
    with pytest.raises(ConfigurationError, match=r"faults=0\.2; expected an instance of diator.testing.Faults"):
        Shop().app.testing(faults=0.2)  # type: ignore[arg-type]  # wrong on purpose


async def test_an_app_without_a_broker_has_no_faults() -> None:
    with pytest.raises(ConfigurationError, match="has no message broker, so it has no deliveries to disturb"):
        async with Diator("shop").testing(faults=Faults()):
            pass
