"""What becomes of a message that fails: retried by its policy, or a dead letter with everything that is known."""

import asyncio
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from importlib import import_module
from typing import Any

import pytest

from diator import Context, Diator, NotificationEvent, Reject, Retry, RetryLater, contract
from diator.brokers import MoveToDeadLetters, RetryAfter, Subscription
from tests.brokered import Flaky, Watch, letters, put, subscriptions_of
from tests.virtual_time import in_virtual_time


@contract("meetings.joined")
@dataclass(frozen=True)
class Joined(NotificationEvent):
    meeting: int = 1


class Broken(Exception):
    pass


class Worse(Broken):
    pass


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise ValueError("no words")


class NotAnException(BaseException):
    pass


class Wordless(Reject):
    def __init__(self) -> None:
        Exception.__init__(self)


class Timeless(RetryLater):
    def __init__(self) -> None:
        Exception.__init__(self)


class Silent(Exception):
    def __str__(self) -> Any:
        return None  # noqa: PLE0307 - that is what is wrong with it

    __repr__ = __str__


class Leaving(Exception):
    def __str__(self) -> str:
        raise SystemExit

    __repr__ = __str__


class Untrue(Exception):
    def __bool__(self) -> bool:
        return False

    def __eq__(self, other: object) -> bool:
        raise ValueError("not to be compared")

    __hash__: Any = None


class Grudging(Reject):
    def __init__(self) -> None:
        Exception.__init__(self)

    @property
    def reason(self) -> str:  # type: ignore[override]  # odd on purpose
        raise ValueError("no reason")


@dataclass(frozen=True)
class Frozen(Exception):
    meeting: int


def circle() -> Exception:
    first, second = Broken("first"), Broken("second")
    first.__cause__, second.__cause__ = second, first
    return first


class Unclassed(Exception):
    @property  # type: ignore[misc]  # odd on purpose
    def __class__(self) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]  # odd on purpose
        raise TypeError("no class")


class Secretive(Exception):
    def __getattribute__(self, name: str) -> Any:
        raise TypeError(name)


HALF = "caf\udce9.txt"  # as os.fsdecode returns it for a name that is not UTF-8
Nameless = type("Nameless", (Exception,), {"__module__": HALF, "__qualname__": HALF})
Unplaced = type("Unplaced", (Exception,), {"__module__": None})

ODD: list[BaseException] = [
    Unspeakable(),
    Silent(),
    Leaving(),
    Untrue(),
    Grudging(),
    Frozen(1),
    circle(),
    Nameless(),
    Unplaced(),
    NotAnException("odd"),
    Wordless(),
    Timeless(),
    StopIteration(),
    StopAsyncIteration(),
    GeneratorExit(),
    SystemExit(3),
    asyncio.CancelledError("nobody has asked for that"),
    Broken(HALF),
    Broken("before\0after"),
    Broken("x" * 300_000),
    Reject(HALF),
    Reject(Unspeakable()),  # type: ignore[arg-type]  # wrong on purpose
]


def failing_app(broker: Flaky, watch: Watch, error: BaseException, **options: Any) -> Diator:
    app = Diator("meetings", broker=broker, hooks=[watch])

    @app.on_event(**options)
    async def joined(event: Joined) -> None:
        raise error

    return app


@in_virtual_time
async def test_retries_wait_longer_each_time_up_to_the_longest_delay() -> None:
    broker, watch = Flaky(), Watch()
    retry = Retry(attempts=6, delay=2.0, factor=3.0, max_delay=20.0, jitter=0.0)
    app = failing_app(broker, watch, Broken(), retry=retry)
    async with app, app.worker():
        await app.publish(Joined())
        await watch.until(lambda: bool(watch.of("dead_lettered")), within=200)
        assert [details.delay for details in watch.of("retried")] == [2, 6, 18, 20, 20]
        assert [details.context.attempt for details in watch.of("handled")] == [1, 2, 3, 4, 5, 6]


@in_virtual_time
async def test_jitter_stays_within_its_share() -> None:
    broker, watch = Flaky(), Watch()
    app = failing_app(broker, watch, Broken(), retry=Retry(attempts=2, delay=10, jitter=0.5))
    async with app, app.worker():
        await app.publish(*(Joined(number) for number in range(50)))
        await watch.settle(100)
        delays = [details.delay for details in watch.of("retried")]
        assert all(5 <= delay <= 15 for delay in delays)
        assert max(delays) - min(delays) > 3


@in_virtual_time
async def test_exhausted_becomes_a_dead_letter_with_everything_that_is_known(caplog: pytest.LogCaptureFixture) -> None:
    broker, watch = Flaky(), Watch()
    app = failing_app(broker, watch, Broken("no such meeting"), retry=Retry(attempts=2, delay=1))
    async with app, app.worker():
        await app.publish(Joined(42))
        await watch.settle(2)
        ((message,), _, _) = broker.publications[0]
        (letter,) = await letters(broker)
        assert letter.subscription == "meetings.joined"
        assert letter.topic == "meetings.joined"
        assert letter.body == message.structured
        assert letter.deliveries == 2
        assert letter.dead_lettered_at.tzinfo is not None
        assert letter.failure.reason == "exhausted after 2 attempts"
        assert letter.failure.attempts == 2
        assert letter.failure.error is not None
        assert letter.failure.error.endswith("Broken: no such meeting")
        assert letter.failure.traceback is not None
        assert "in joined" in letter.failure.traceback
        assert "raise error" in letter.failure.traceback
        assert watch.of("dead_lettered")[0].failure == letter.failure
    assert "becomes a dead letter: exhausted after 2 attempts" in caplog.text


@in_virtual_time
async def test_an_error_of_a_class_in_never_is_not_retried() -> None:
    broker, watch = Flaky(), Watch()
    app = failing_app(broker, watch, Worse("bad data"), retry=Retry(never=(Broken,)))
    async with app, app.worker():
        await app.publish(Joined())
        await watch.settle(1)
        (letter,) = await letters(broker)
        assert "Worse" in letter.failure.reason
        assert letter.failure.attempts == 1


@in_virtual_time
async def test_rejected_becomes_a_dead_letter_at_once_with_its_reason() -> None:
    broker, watch = Flaky(), Watch()
    app = failing_app(broker, watch, Reject("the meeting is over"))
    async with app, app.worker():
        await app.publish(Joined())
        await watch.settle(1)
        (letter,) = await letters(broker)
        assert letter.failure.reason == "rejected: the meeting is over"


@in_virtual_time
async def test_retry_later_takes_the_place_of_the_delay_and_counts_as_an_attempt() -> None:
    broker, watch = Flaky(), Watch()
    app = failing_app(broker, watch, RetryLater(70), retry=Retry(attempts=3, delay=1))
    loop = asyncio.get_running_loop()
    async with app, app.worker():
        began = loop.time()
        await app.publish(Joined())
        await watch.settle(3, within=200)
        assert loop.time() - began == pytest.approx(140, abs=0.5)
        (letter,) = await letters(broker)
        assert letter.failure.attempts == 3
        assert [details.delay for details in watch.of("retried")] == [70, 70]


@pytest.mark.parametrize(
    ("delay", "seconds"), [(timedelta(minutes=2), 120.0), (0, 0.0), (-5, 0.0), (timedelta(seconds=-1), 0.0), (2.5, 2.5)]
)
@in_virtual_time
async def test_retry_later_takes_seconds_or_a_timedelta(delay: Any, seconds: float) -> None:
    broker, watch = Flaky(), Watch()
    app = failing_app(broker, watch, RetryLater(delay), retry=Retry(attempts=2, delay=9))
    async with app, app.worker():
        await app.publish(Joined())
        await watch.settle(1)
        assert [details.delay for details in watch.of("retried")] == [seconds]


@pytest.mark.parametrize("delay", ["soon", None, True, float("nan"), float("inf"), -float("inf"), 1e400, object()])
def test_retry_later_refuses_what_is_no_time(delay: Any) -> None:
    with pytest.raises((TypeError, ValueError), match=r"^RetryLater got .*; pass a number of seconds or a timedelta"):
        RetryLater(delay)


class Unmade(RetryLater):
    def __init__(self, seconds: Any) -> None:
        self.seconds = seconds


@pytest.mark.parametrize("seconds", ["soon", None, float("nan"), float("inf"), -5, 1e400])
def test_a_retry_later_that_its_constructor_has_not_checked_is_a_retry_all_the_same(seconds: Any) -> None:
    @in_virtual_time
    async def scenario() -> None:
        broker, watch = Flaky(), Watch()
        app = failing_app(broker, watch, Unmade(seconds), retry=Retry(attempts=2, delay=3, jitter=0))
        async with app, app.worker():
            await app.publish(Joined())
            await watch.settle(2, within=60)
            assert watch.outcomes() == ["RetryAfter", "MoveToDeadLetters"]
            assert len(broker.receivers) == 1

    scenario()


@pytest.mark.parametrize(
    ("error", "retry"),
    [(RetryLater(1e300), Retry()), (RetryLater(10**400), Retry()), (Broken(), Retry(delay=1e9, max_delay=1e9))],
)
@in_virtual_time
async def test_a_delay_is_never_longer_than_brokers_can_write_down(error: Exception, retry: Retry) -> None:
    broker, watch = Flaky(), Watch()
    app = failing_app(broker, watch, error, retry=retry)
    async with app, app.worker():
        await app.publish(Joined())
        await watch.settle(1)
    (details,) = watch.of("settled")
    assert details.outcome.delay == 365 * 24 * 3600


@pytest.mark.parametrize("error", ODD, ids=lambda error: type(error).__name__)
def test_whatever_a_handler_raises_ends_as_a_dead_letter(
    error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    @in_virtual_time
    async def scenario() -> None:
        broker, watch = Flaky(), Watch()
        app = failing_app(broker, watch, error, retry=Retry(attempts=2, delay=1))
        async with app, app.worker():
            await app.publish(Joined())
            await watch.until(lambda: "MoveToDeadLetters" in watch.outcomes())
            (letter,) = await letters(broker)
            assert letter.failure.error
            assert letter.failure.traceback
            for text in (letter.failure.reason, letter.failure.error, letter.failure.traceback):
                assert "\0" not in text
                assert len(text.encode()) < 40_000
            assert len(broker.receivers) == 1, "the consumer broke down"
            assert not watch.of("settled")[-1].lease_lost

    scenario()
    assert "becomes a dead letter" in caplog.text
    assert caplog.text.encode(), "handlers of logs that write UTF-8 would drop a record"


def without_end() -> BaseException:
    base: Any = import_module("builtins").ExceptionGroup
    endless: Any = type("Endless", (base,), {"exceptions": property(lambda self: (self,))})
    error: BaseException = endless("holds itself", [Broken()])
    return error


@pytest.mark.parametrize("make", [Unclassed, Secretive, without_end])
def test_an_error_that_hides_what_it_is_ends_as_a_dead_letter(
    make: Callable[[], BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    if make is without_end and sys.version_info < (3, 11):
        pytest.skip("Python has no groups of errors yet")
    test_whatever_a_handler_raises_ends_as_a_dead_letter(make(), caplog)


@in_virtual_time
async def test_a_message_is_not_acknowledged_while_it_can_not_be_made_a_dead_letter() -> None:
    broker, watch = Flaky(), Watch()
    app = failing_app(broker, watch, Reject("bad"))
    async with app, app.worker():
        broker.break_down("settle")
        await app.publish(Joined())
        await asyncio.sleep(120)
        assert not watch.of("settled")
        (status,) = await broker.status(subscriptions_of(broker))
        assert status.backlog == 1
        broker.mend()
        await watch.settle(1)
        assert len(await letters(broker)) == 1
        assert len(watch.of("handled")) == 1
        (status,) = await broker.status(subscriptions_of(broker))
        assert (status.backlog, status.dead_letters) == (0, 1)


@in_virtual_time
async def test_a_replay_addresses_one_subscription_and_begins_anew() -> None:
    broker, watch = Flaky(), Watch()
    app = Diator("meetings", broker=broker, hooks=[watch])
    attempts: dict[str, list[int]] = {"fails": [], "works": []}

    @app.on_event(retry=Retry(attempts=2, delay=1))
    async def fails(event: Joined, context: Context) -> None:
        attempts["fails"].append(context.attempt)
        if len(attempts["fails"]) < 3:
            raise Broken

    @app.on_event
    async def works(event: Joined, context: Context) -> None:
        attempts["works"].append(context.attempt)

    async with app, app.worker():
        await app.publish(Joined())
        await watch.settle(3)
        (letter,) = await letters(broker)
        (subscription,) = (one for one in subscriptions_of(broker) if one.name == "meetings.fails")
        assert await broker.replay(subscription, [letter.id])
        await watch.settle(4)
        await asyncio.sleep(60)
        assert attempts == {"fails": [1, 2, 1], "works": [1]}
        assert not await letters(broker)
        assert not await broker.replay(subscription, [letter.id])


@in_virtual_time
async def test_retries_and_replays_are_no_duplicates() -> None:
    from diator.brokers import MemoryBroker

    broker, watch = Flaky(MemoryBroker(duplicate_window=10_000)), Watch()
    app = failing_app(broker, watch, Broken(), retry=Retry(attempts=2, delay=1))
    async with app, app.worker():
        await app.publish(Joined())
        await watch.settle(2)
        (letter,) = await letters(broker)
        await broker.replay(subscriptions_of(broker)[0], [letter.id])
        await watch.settle(4)
        assert watch.outcomes() == ["RetryAfter", "MoveToDeadLetters"] * 2


@in_virtual_time
async def test_the_policy_of_the_app_holds_for_handlers_that_have_none() -> None:
    broker, watch = Flaky(), Watch()
    app = Diator("meetings", broker=broker, hooks=[watch], retry=Retry(attempts=2, delay=1))

    @app.on_event(retry=Retry(attempts=1))
    async def own(event: Joined) -> None:
        raise Broken

    @app.on_event
    async def of_the_app(event: Joined) -> None:
        raise Broken

    async with app, app.worker():
        await app.publish(Joined())
        await watch.settle(3)
        assert watch.outcomes("meetings.own") == ["MoveToDeadLetters"]
        assert watch.outcomes("meetings.of_the_app") == ["RetryAfter", "MoveToDeadLetters"]


@in_virtual_time
async def test_the_longest_delay_is_told_to_the_broker() -> None:
    broker, watch = Flaky(), Watch()
    app = failing_app(broker, watch, Broken(), retry=Retry(attempts=3, delay=4, factor=2, jitter=0.25))
    async with app:
        found: list[Subscription] = subscriptions_of(broker)
        assert [one.max_delay for one in found] == [10.0]


# ------------------------------------------------------------------------------------------ messages that can't be read


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "not a CloudEvent"),
        (b"\xff\xfe", "not a CloudEvent"),
        (b"[" * 5000, "not a CloudEvent"),
        (b"null", "not a CloudEvent"),
        (b"{}", "not a CloudEvent"),
        (b'{"specversion":"0.3","id":"1","source":"x","type":"meetings.joined"}', "not a CloudEvent"),
        (b'{"specversion":"1.0","id":1,"source":"x","type":"meetings.joined"}', "not a CloudEvent"),
        (b'{"specversion":"1.0","id":"1","source":"x","type":"meetings.joined"}', "does not fit Joined"),
        (b'{"specversion":"1.0","id":"1","source":"x","type":"meetings.joined","data":[]}', "does not fit Joined"),
        (
            b'{"specversion":"1.0","id":"1","source":"x","type":"meetings.joined","data":{"meeting":"x"}}',
            "does not fit Joined",
        ),
        (
            b'{"specversion":"1.0","id":"1","source":"x","type":"meetings.joined","data":{},"diatorheaders":"[]"}',
            "diatorheaders",
        ),
        (
            b'{"specversion":"1.0","id":"1","source":"x","type":"meetings.joined","datacontenttype":"text/xml",'
            b'"data":{}}',
            "text/xml",
        ),
    ],
)
def test_undecodable_becomes_a_dead_letter_with_the_original_bytes(body: bytes, says: str) -> None:
    @in_virtual_time
    async def scenario() -> None:
        broker, watch = Flaky(), Watch()
        app = Diator("meetings", broker=broker, hooks=[watch])

        @app.on_event
        async def joined(event: Joined) -> None: ...

        async with app, app.worker():
            await put(broker, "meetings.joined", body)
            await watch.settle(1)
            (letter,) = await letters(broker)
            assert letter.body == body
            assert letter.failure.reason.startswith("undecodable: ")
            assert says in letter.failure.reason
            assert not watch.of("handled")
            assert isinstance(watch.of("settled")[0].outcome, MoveToDeadLetters)
            await app.publish(Joined())
            await watch.settle(2)
            assert watch.outcomes() == ["MoveToDeadLetters", "Ack"]

    scenario()


def test_a_policy_never_asks_for_more_than_its_longest_delay() -> None:
    for retry in (
        Retry(attempts=2000, delay=1e9, factor=1e300, max_delay=50, jitter=1),
        Retry(attempts=10**9, factor=1.5),
        Retry(attempts=2, delay=0),
    ):
        for attempt in (1, 2, 5, 1000, 10**8):
            if attempt < retry.attempts:
                assert 0 <= retry.delay_after(attempt) <= retry.longest
    assert Retry(attempts=1).longest == 0
    assert RetryAfter(Retry(jitter=0).delay_after(1)) == RetryAfter(1.0)


def test_jitter_never_asks_for_more_than_the_longest_delay_and_still_spreads_there() -> None:
    retry = Retry(attempts=20, delay=10, max_delay=20, jitter=0.5)
    delays = [retry.delay_after(10) for _ in range(200)]
    assert all(10 <= delay <= 20 for delay in delays)
    assert max(delays) - min(delays) > 5
    assert retry.longest == 20


# ------------------------------------------------------------------------------------------------- groups of errors


def group(*errors: BaseException) -> BaseException:
    """A group as task groups raise it; of the package ``exceptiongroup``, before Python has them."""
    module: Any = import_module("builtins" if sys.version_info >= (3, 11) else "exceptiongroup")
    made: BaseException = module.BaseExceptionGroup("unhandled errors in a TaskGroup", errors)
    return made


NEVER = Retry(attempts=3, delay=7, jitter=0, never=(KeyError,))


@pytest.mark.parametrize(
    ("errors", "outcome"),
    [
        ([Reject("over")], "rejected: over"),
        ([group(Broken(), group(Reject("over")))], "rejected: over"),
        ([KeyError("no")], "never retried after KeyError"),
        ([Broken(), group(KeyError("no"))], "never retried after KeyError"),
        ([KeyError("no"), Reject("over")], "rejected: over"),
        ([RetryLater(30), KeyError("no")], "never retried after KeyError"),
        ([RetryLater(30)], RetryAfter(30.0)),
        ([RetryLater(30), group(RetryLater(40)), Broken()], RetryAfter(40.0)),
        ([Broken(), ValueError()], RetryAfter(7.0)),
        ([asyncio.CancelledError()], RetryAfter(7.0)),
    ],
)
def test_what_stands_in_a_group_counts_as_if_it_were_raised_by_itself(
    errors: list[BaseException], outcome: RetryAfter | str
) -> None:
    @in_virtual_time
    async def scenario() -> None:
        broker, watch = Flaky(), Watch()
        app = failing_app(broker, watch, group(*errors), retry=NEVER)
        async with app, app.worker():
            await app.publish(Joined())
            await watch.settle(1)
            settled = watch.of("settled")[0].outcome
            if isinstance(outcome, str):
                assert settled.reason == outcome
                assert "unhandled errors in a TaskGroup" in settled.error
            else:
                assert settled == outcome

    scenario()


@pytest.mark.skipif(sys.version_info < (3, 11), reason="asyncio has no task groups")
@in_virtual_time
async def test_a_rejection_in_a_task_group_is_seen() -> None:
    broker, watch = Flaky(), Watch()
    app = Diator("meetings", broker=broker, hooks=[watch])

    async def reject() -> None:
        raise Reject("over")

    @app.on_event
    async def joined(event: Joined) -> None:
        newer: Any = asyncio
        async with newer.TaskGroup() as tasks:
            tasks.create_task(asyncio.sleep(100))
            tasks.create_task(reject())

    async with app, app.worker():
        await app.publish(Joined())
        await watch.settle(1)
        assert [letter.failure.reason for letter in await letters(broker)] == ["rejected: over"]


# ------------------------------------------------------------------------------------- what no handler may do to others


@pytest.mark.parametrize(
    "error", [GeneratorExit(), SystemExit(1), asyncio.CancelledError(), StopIteration(), StopAsyncIteration()], ids=repr
)
@pytest.mark.parametrize("in_a_thread", [False, True])
def test_no_error_of_a_handler_silences_its_subscription(error: BaseException, in_a_thread: bool) -> None:
    async def scenario() -> None:
        broker, watch = Flaky(), Watch()
        app = Diator("meetings", broker=broker, hooks=[watch], concurrency=2, retry=Retry(attempts=1))
        handled: list[int] = []

        def take(event: Joined) -> None:
            if event.meeting < 5:
                raise error
            handled.append(event.meeting)

        app.on_event(thread=in_a_thread)(take)
        async with app, app.worker():
            await app.publish(*(Joined(number) for number in range(10)))
            await watch.settle(10)
            assert sorted(handled) == [5, 6, 7, 8, 9]
            assert len(await letters(broker)) == 5
            assert len(broker.receivers) == 1, "the consumer broke down"

    asyncio.run(scenario())
