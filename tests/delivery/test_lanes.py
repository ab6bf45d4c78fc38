"""Order by key: one at a time and in order, across workers, while other keys run on."""

import asyncio
from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import pytest

from diator import Context, Diator, NotificationEvent, Reject, Retry, contract
from diator.brokers import Delivery, Settlement
from tests.brokered import Flaky, Watch, die, letters, put, subscriptions_of
from tests.virtual_time import in_virtual_time


@contract("meetings.joined", key="meeting")
@dataclass(frozen=True)
class Joined(NotificationEvent):
    meeting: str | None
    number: int = 0


class Broken(Exception):
    pass


class Bench:
    """An app whose handler does what is planned for a number, and knows what ran when."""

    def __init__(self, ordered: bool | None = None) -> None:
        self.broker, self.watch = Flaky(), Watch()
        self.app = Diator(
            "meetings", broker=self.broker, hooks=[self.watch], retry=Retry(attempts=3, delay=10, jitter=0)
        )
        self.ran: dict[str | None, list[int]] = defaultdict(list)
        self.running: dict[str | None, int] = defaultdict(int)
        self.most: dict[str | None, int] = defaultdict(int)
        self.seconds: dict[int, float] = {}
        self.failures: dict[int, int] = {}
        self.rejected: set[int] = set()

        @self.app.on_event(ordered=ordered)
        async def joined(event: Joined, context: Context) -> None:
            await self.handle(event, context)

    async def handle(self, event: Joined, context: Context) -> None:
        self.ran[event.meeting].append(event.number)
        self.running[event.meeting] += 1
        self.most[event.meeting] = max(self.most[event.meeting], self.running[event.meeting])
        try:
            await asyncio.sleep(self.seconds.get(event.number, 0.01))
        finally:
            self.running[event.meeting] -= 1
        if context.attempt <= self.failures.get(event.number, 0):
            raise Broken
        if event.number in self.rejected:
            raise Reject("no")


@in_virtual_time
async def test_messages_of_one_key_run_one_at_a_time_and_in_order() -> None:
    bench = Bench()
    async with bench.app, bench.app.worker(), bench.app.worker(), bench.app.worker():
        events = [Joined(key, number) for number in range(30) for key in ("a", "b", "c")]
        await bench.app.publish(*events)
        await bench.watch.settle(90)
    for key in ("a", "b", "c"):
        assert bench.ran[key] == list(range(30))
        assert bench.most[key] == 1


@in_virtual_time
async def test_messages_without_a_key_run_at_the_same_time() -> None:
    bench = Bench()
    async with bench.app, bench.app.worker():
        await bench.app.publish(*(Joined(None, number) for number in range(10)))
        await bench.watch.settle(10)
    assert bench.most[None] == 10


@in_virtual_time
async def test_a_retry_holds_its_key_while_other_keys_run_on() -> None:
    bench = Bench()
    bench.failures[1] = 2
    async with bench.app, bench.app.worker():
        await bench.app.publish(*(Joined("held", number) for number in range(5)))
        await bench.app.publish(*(Joined("free", number + 100) for number in range(5)))
        await bench.watch.until(lambda: bench.watch.outcomes().count("Ack") == 6, within=5)
        assert bench.ran["free"] == [100, 101, 102, 103, 104]
        await asyncio.sleep(5)
        assert bench.ran["held"] == [0, 1]
        await bench.app.publish(Joined("held", 5), Joined("free", 105))
        await asyncio.sleep(1)
        assert bench.ran["held"] == [0, 1], "what is published while the key is held must not overtake"
        assert bench.ran["free"][-1] == 105
        await bench.watch.until(lambda: bench.watch.outcomes().count("Ack") == 12)
        assert bench.ran["held"] == [0, 1, 1, 1, 2, 3, 4, 5]
        assert not await letters(bench.broker)


@in_virtual_time
async def test_after_a_dead_letter_the_next_of_the_key_runs() -> None:
    bench = Bench()
    bench.rejected = {0, 2}
    bench.failures[3] = 99
    async with bench.app, bench.app.worker():
        await bench.app.publish(*(Joined("a", number) for number in range(5)))
        await bench.watch.until(lambda: bench.watch.outcomes().count("Ack") == 2, within=60)
        assert bench.ran["a"] == [0, 1, 2, 3, 3, 3, 4]
        assert len(await letters(bench.broker)) == 3


@in_virtual_time
async def test_another_worker_does_not_overtake_a_held_key() -> None:
    bench = Bench()
    bench.failures[0] = 1
    async with bench.app, bench.app.worker(), bench.app.worker():
        await bench.app.publish(*(Joined("a", number) for number in range(10)))
        await bench.watch.until(lambda: bench.watch.outcomes().count("Ack") == 10)
        assert bench.ran["a"] == [0, 0, *range(1, 10)]
        assert bench.most["a"] == 1


@in_virtual_time
async def test_a_key_with_much_to_do_does_not_keep_others_waiting() -> None:
    bench = Bench()
    bench.seconds = dict.fromkeys(range(50), 60.0)
    async with bench.app, bench.app.worker(grace=0):
        await bench.app.publish(*(Joined("hot", number) for number in range(50)))
        await asyncio.sleep(1)
        await bench.app.publish(*(Joined(f"cold {number}", 100) for number in range(5)))
        await bench.watch.settle(5, within=5)
        assert bench.ran["hot"] == [0]


@in_virtual_time
async def test_one_that_can_not_be_read_stands_in_nobodys_way() -> None:
    bench = Bench()
    async with bench.app, bench.app.worker():
        await put(bench.broker, "meetings.joined", b"rubbish", key="a")
        await bench.app.publish(Joined("a", 1))
        await bench.watch.settle(2)
        assert bench.watch.outcomes() == ["MoveToDeadLetters", "Ack"]


@pytest.mark.parametrize("failures", [0, 1])
def test_order_can_be_given_up(failures: int) -> None:
    @in_virtual_time
    async def scenario() -> None:
        bench = Bench(ordered=False)
        bench.failures = {0: failures}
        async with bench.app, bench.app.worker():
            assert not subscriptions_of(bench.broker)[0].ordered
            await bench.app.publish(*(Joined("a", number) for number in range(10)))
            await bench.watch.until(lambda: bench.watch.outcomes().count("Ack") == 10)
            assert len(bench.broker.receivers) == 1, "the consumer broke down"
        assert bench.most["a"] == 10
        assert bench.ran["a"] == list(range(10)) + [0] * failures

    scenario()


@in_virtual_time
async def test_order_holds_when_a_worker_stops_gracefully_in_the_middle() -> None:
    bench = Bench()
    bench.seconds = dict.fromkeys(range(20), 1.0)
    async with bench.app:
        async with bench.app.worker(grace=100):
            await bench.app.publish(*(Joined("a", number) for number in range(20)))
            await asyncio.sleep(4.5)
        async with bench.app.worker(grace=0):
            await asyncio.sleep(4.5)
        async with bench.app.worker():
            await bench.watch.until(lambda: bench.watch.outcomes().count("Ack") == 20)
    seen = list(dict.fromkeys(bench.ran["a"]))
    assert seen == list(range(20))
    assert len(bench.ran["a"]) == 21, "only the one that was cancelled runs twice"
    assert bench.most["a"] == 1


@in_virtual_time
async def test_order_holds_when_a_worker_dies() -> None:
    bench = Bench()
    bench.seconds = dict.fromkeys(range(20), 1.0)
    async with bench.app:
        worker = await bench.app.worker().__aenter__()
        await bench.app.publish(*(Joined("a", number) for number in range(20)))
        await asyncio.sleep(4.5)
        await die(bench.app, bench.broker, worker)
        died_at = len(bench.ran["a"])
        async with bench.app.worker():
            await bench.watch.until(lambda: len(await_of(bench)) >= 20, within=120)
    after = bench.ran["a"][died_at:]
    assert after == sorted(after)
    assert after[-1] == 19
    assert set(bench.ran["a"]) == set(range(20))


def await_of(bench: Bench) -> set[int]:
    return {number for number in bench.ran["a"] if number == 19} and set(bench.ran["a"])


@in_virtual_time
async def test_a_retry_that_the_broker_has_not_taken_down_yet_holds_its_key_too() -> None:
    bench = Bench()
    bench.failures[0] = 1
    async with bench.app, bench.app.worker():
        bench.broker.break_down("settle")
        await bench.app.publish(*(Joined("a", number) for number in range(5)))
        await asyncio.sleep(20)
        assert bench.ran["a"] == [0]
        bench.broker.mend()
        await bench.watch.until(lambda: bench.watch.outcomes().count("Ack") == 5, within=60)
        assert bench.ran["a"] == [0, 0, 1, 2, 3, 4]


@in_virtual_time
async def test_an_empty_key_is_a_key() -> None:
    bench = Bench()
    bench.failures[0] = 1
    async with bench.app, bench.app.worker():
        await bench.app.publish(*(Joined("", number) for number in range(4)))
        await bench.watch.until(lambda: bench.watch.outcomes().count("Ack") == 4)
        assert bench.ran[""] == [0, 0, 1, 2, 3]


@in_virtual_time
async def test_what_waits_behind_retries_is_not_counted_for_ever() -> None:
    """A worker that believes that much waits receives no more."""
    bench = Bench()
    bench.failures = dict.fromkeys(range(40), 2)
    async with bench.app, bench.app.worker():
        await bench.app.publish(*(Joined("a", number) for number in range(40)))
        await bench.watch.until(lambda: bench.watch.outcomes().count("Ack") == 40, within=2000)
        await bench.app.publish(*(Joined(str(number), number + 40) for number in range(10)))
        await bench.watch.until(lambda: bench.watch.outcomes().count("Ack") == 50, within=1)
    assert bench.ran["a"] == [number for number in range(40) for _ in range(3)]


@in_virtual_time
async def test_a_key_goes_on_in_the_worker_that_has_lost_it_while_it_waited(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    bench = Bench()
    bench.seconds[0] = 200.0

    async def lose(deliveries: Sequence[Delivery]) -> Sequence[Delivery]:
        return deliveries

    async with bench.app, bench.app.worker(concurrency=1):
        await bench.app.publish(*(Joined("c", number) for number in range(100, 150)))
        await bench.watch.settle(50)  # by now it takes several ahead
        await bench.app.publish(Joined("a", 0), Joined("b", 1))
        await asyncio.sleep(1)
        assert sum(len(details.deliveries) for details in bench.watch.of("received")) == 52
        with monkeypatch.context() as losing:
            losing.setattr(bench.broker.receivers[0], "renew", lose)
            await asyncio.sleep(15)
        assert caplog.text.count("has lost the lease") == 1, "of the one that runs; the other one is just not run"
        await bench.watch.until(lambda: bench.ran["b"] == [1], within=1000)


@in_virtual_time
async def test_nothing_overtakes_what_was_lost_while_it_waited(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leases are lost together, but what was received while they were renewed is not among those that are reported."""
    bench = Bench()
    bench.seconds[0] = 25.0
    async with bench.app, bench.app.worker():
        await bench.app.publish(*(Joined("a", number) for number in range(4)))
        await asyncio.sleep(1)
        assert sum(len(details.deliveries) for details in bench.watch.of("received")) == 4
        renew = bench.broker.receivers[0].renew

        async def lose_some(deliveries: Sequence[Delivery]) -> Collection[Delivery]:
            await renew(deliveries)
            return deliveries[1:3] if len(deliveries) == 4 else ()

        monkeypatch.setattr(bench.broker.receivers[0], "renew", lose_some)
        await bench.watch.until(lambda: len(bench.ran["a"]) == 4, within=1000)
    assert bench.ran["a"] == [0, 1, 2, 3]


@in_virtual_time
async def test_what_waits_behind_its_key_is_given_back_as_soon_as_a_worker_stops() -> None:
    bench = Bench()
    bench.seconds[0] = 200.0
    async with bench.app, bench.app.worker(grace=1000) as worker:
        await bench.app.publish(*(Joined("a", number) for number in range(5)))
        await asyncio.sleep(1)
        taken = sum(len(details.deliveries) for details in bench.watch.of("received"))
        assert taken > 1
        worker.stop()
        await asyncio.sleep(1)
        assert bench.watch.outcomes() == ["Release"] * (taken - 1)


@in_virtual_time
async def test_what_waited_past_its_lease_does_not_run() -> None:
    """Another worker may have it, though nobody can say so while the broker is away."""
    bench = Bench()
    bench.seconds[0] = 200.0
    async with bench.app, bench.app.worker(concurrency=1):
        await bench.app.publish(*(Joined("c", number) for number in range(100, 150)))
        await bench.watch.settle(50)  # by now it takes several ahead
        await bench.app.publish(Joined("a", 0), Joined("b", 1))
        await asyncio.sleep(1)
        bench.broker.break_down()
        await asyncio.sleep(400)
        assert (bench.ran["a"], bench.ran["b"]) == ([0], [])
        bench.broker.mend()
        await bench.watch.until(lambda: bench.ran["b"] == [1], within=1000)


@pytest.mark.parametrize("is_lost", [False, True])
@in_virtual_time
async def test_a_lease_that_settling_finds_lost_is_told(
    is_lost: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    bench = Bench()
    async with bench.app, bench.app.worker():
        await asyncio.sleep(1)
        settle = bench.broker.receivers[0].settle

        async def lose(settlements: Sequence[Settlement]) -> Collection[Delivery]:
            await settle(settlements)
            return [delivery for delivery, _ in settlements] if is_lost else []

        monkeypatch.setattr(bench.broker.receivers[0], "settle", lose)
        await bench.app.publish(Joined("a"), Joined("b"))
        await bench.watch.settle(2)
    assert caplog.text.count("has lost the lease") == 2 * is_lost


@in_virtual_time
async def test_what_is_settled_while_its_lease_is_renewed_was_not_lost(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The broker has recorded the outcome, and says so after it has said that there is no lease to be renewed."""
    bench, renewed = Bench(), 0

    async def lose(deliveries: Sequence[Delivery]) -> Collection[Delivery]:
        nonlocal renewed
        renewed += len(deliveries)
        return deliveries

    async with bench.app, bench.app.worker():
        await asyncio.sleep(1)
        settle = bench.broker.receivers[0].settle

        async def answer_late(settlements: Sequence[Settlement]) -> Collection[Delivery]:
            lost = await settle(settlements)
            await asyncio.sleep(25)
            return lost

        monkeypatch.setattr(bench.broker.receivers[0], "settle", answer_late)
        monkeypatch.setattr(bench.broker.receivers[0], "renew", lose)
        await bench.app.publish(Joined("a"), Joined("b"))
        await bench.watch.settle(2)
    assert renewed
    assert not any(details.lease_lost for details in bench.watch.of("settled"))
    assert "has lost the lease" not in caplog.text


@in_virtual_time
async def test_what_waits_for_long_runs_when_its_turn_comes() -> None:
    bench = Bench()
    bench.seconds[0] = 200.0
    async with bench.app, bench.app.worker(concurrency=1):
        await bench.app.publish(*(Joined("c", number) for number in range(100, 150)))
        await bench.watch.settle(50)  # by now it takes several ahead
        await bench.app.publish(Joined("a", 0), Joined("b", 1))
        await bench.watch.settle(52, within=300)
    assert bench.watch.outcomes() == ["Ack"] * 52


@in_virtual_time
async def test_a_lease_is_counted_from_before_it_was_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench()
    bench.seconds[0] = 50.0
    async with bench.app, bench.app.worker(concurrency=1):
        await bench.app.publish(*(Joined("c", number) for number in range(100, 150)))
        await bench.watch.settle(50)  # by now it takes several ahead
        renew = bench.broker.receivers[0].renew

        async def answer_late(deliveries: Sequence[Delivery]) -> Collection[Delivery]:
            lost = await renew(deliveries)
            await asyncio.sleep(25)
            return lost

        monkeypatch.setattr(bench.broker.receivers[0], "renew", answer_late)
        await bench.app.publish(Joined("a", 0), Joined("b", 1))
        await asyncio.sleep(37)
        bench.broker.break_down()
        await asyncio.sleep(20)
        assert bench.ran["b"] == []
        monkeypatch.undo()
        bench.broker.mend()
        await bench.watch.until(lambda: bench.ran["b"] == [1], within=1000)
