"""Random programs of publishing, failing, stopping, dying and outages, in virtual time, against what was promised.

What becomes of a message depends on its own plan alone: what its handler does at each attempt. Whatever happens around
it, it ends as its plan says, in each subscription by itself.
"""

import asyncio
import logging
import os
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from diator import Context, Diator, NotificationEvent, PublishError, Reject, Retry, RetryLater, contract
from diator.brokers import MemoryBroker
from diator.delivery.worker import Worker
from diator.hooks import DeadLettered
from tests.brokered import Flaky, Watch, die, letters, subscriptions_of
from tests.virtual_time import run

PROOFS = int(os.environ.get("DIATOR_PROOFS", "1"))
"""How much of a long proof is done: a short version in every run of the tests, more where there is more time."""

ATTEMPTS = 3
TIMEOUT = 20.0
NAMES = ("ordered", "loose", "both")


@contract("model.keyed", key="key")
@dataclass(frozen=True)
class Keyed(NotificationEvent):
    number: int
    key: str | None


@contract("model.plain")
@dataclass(frozen=True)
class Plain(NotificationEvent):
    number: int


class Act(NamedTuple):
    """What a handler does at one attempt: how, and after how many seconds."""

    how: Literal["well", "fails", "later", "rejects", "cancelled", "cancels", "hangs", "leaves a cancel", "stubborn"]
    seconds: float = 0.0

    def __repr__(self) -> str:
        return f"Act{tuple(self)}"


WELL = Act("well")
FAILURES = ("fails", "later", "cancelled", "cancels", "hangs")


class Message(NamedTuple):
    key: str | None
    plain: bool
    plans: Sequence[Sequence[Act]]
    """For each subscription, what is done at the first attempt, the second, and so on; well after those."""

    def __repr__(self) -> str:
        return f"Message{tuple(self)}"

    def names(self) -> Sequence[str]:
        """The subscriptions that get it."""
        return ("both",) if self.plain else NAMES

    def act(self, name: str, attempt: int) -> Act:
        plan = self.plans[NAMES.index(name)]
        return plan[attempt - 1] if attempt <= len(plan) else WELL

    def ends_well(self, name: str) -> bool:
        """Whether it is handled in the end, or becomes a dead letter."""
        for attempt in range(1, ATTEMPTS + 1):
            how = self.act(name, attempt).how
            if how == "rejects":
                return False
            if how not in FAILURES:
                return True
        return False

    def tries(self, name: str) -> int:
        """How often its handler runs if nothing disturbs it."""
        tried = 0
        for attempt in range(1, ATTEMPTS + 1):
            tried += 1
            if self.act(name, attempt).how not in FAILURES:
                break
        return tried


class Step(NamedTuple):
    do: Literal["publish", "wait", "restart", "die", "outage", "second"]
    messages: Sequence[Message] = ()
    seconds: float = 0.0
    broken: Sequence[str] = ()


class Program(NamedTuple):
    concurrency: int
    steps: Sequence[Step]

    @property
    def is_calm(self) -> bool:
        """Whether nothing happens that makes a message run more often than its plan says."""
        return all(step.do in ("publish", "wait") for step in self.steps)

    @property
    def leases_hold(self) -> bool:
        """Whether no outage is so long that leases run out; those of workers that die do, which run no more then."""
        return all(step.seconds <= 8 for step in self.steps if step.do == "outage")


seconds = st.sampled_from([0.0, 0.01, 0.3, 2.0, 15.0])
acts = st.builds(
    Act,
    st.sampled_from(["well", *FAILURES, "well", "fails", "rejects", "leaves a cancel", "stubborn"]),
    seconds,
)
plans = st.lists(acts, max_size=3)
messages = st.builds(
    Message,
    key=st.sampled_from([None, "a", "a", "b"]),
    plain=st.booleans(),
    plans=st.tuples(plans, plans, plans),
)
steps = st.one_of(
    st.builds(Step, st.just("publish"), messages=st.lists(messages, min_size=1, max_size=6)),
    st.builds(Step, st.just("publish"), messages=st.lists(messages, min_size=1, max_size=6)),
    st.builds(Step, st.just("wait"), seconds=st.sampled_from([0.001, 0.05, 1.0, 12.0, 40.0])),
    st.builds(Step, st.just("restart"), seconds=st.sampled_from([0.0, 1.0, 100.0])),
    st.builds(Step, st.just("die")),
    st.builds(Step, st.just("second")),
    st.builds(
        Step,
        st.just("outage"),
        seconds=st.sampled_from([0.01, 1.0, 8.0, 90.0]),
        broken=st.lists(
            st.sampled_from(["receive", "settle", "renew", "subscribe", "publish", "apply", "status"]), min_size=1
        ),
    ),
)


def not_too_deadly(taken: Sequence[Step]) -> bool:
    return sum(step.do == "die" for step in taken) <= 3


programs = st.builds(Program, st.integers(1, 10), st.lists(steps, min_size=1, max_size=7).filter(not_too_deadly))


class Model:
    """Runs a program, and looks at every moment whether the promises are kept."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.broker, self.watch = Flaky(MemoryBroker(lease=30.0)), Watch()
        self.app = Diator(
            "model",
            broker=self.broker,
            hooks=[self.watch, _Ends(self)],
            retry=Retry(attempts=ATTEMPTS, delay=1.0, factor=3.0),
            event_timeout=TIMEOUT,
            concurrency=program.concurrency,
            max_deliveries=5,
        )
        self.messages: list[Message] = []
        self.published: list[int] = []
        self.numbers: dict[str, int] = {}
        """By the id of the message."""
        self.ran: Counter[tuple[str, int]] = Counter()
        self.well: set[tuple[str, int]] = set()
        self.ended: set[tuple[str, int]] = set()
        """Those whose handling had an end: well, or as a dead letter."""
        self.running: Counter[str] = Counter()
        self.keys: Counter[str] = Counter()
        self.workers = 0
        self.errors: list[str] = []

        @self.app.on_event(subscription="ordered")
        async def ordered(event: Keyed, context: Context) -> None:
            self.order("ordered", event)
            await self.handle("ordered", event, context)

        @self.app.on_event(subscription="loose", ordered=False)
        async def loose(event: Keyed, context: Context) -> None:
            await self.handle("loose", event, context)

        @self.app.on_event(subscription="both")
        async def both(event: Keyed | Plain, context: Context) -> None:
            if isinstance(event, Keyed):
                self.order("both", event)
            await self.handle("both", event, context)

    def wrong(self, text: str) -> None:
        self.errors.append(text)

    def order(self, name: str, event: Keyed) -> None:
        if event.key is None:
            return
        for number in range(event.number):
            message = self.messages[number]
            same = not message.plain and message.key == event.key and number in self.published
            if same and (name, number) not in self.ended:
                self.wrong(f"{name}: {event.number} of key {event.key} begins before {number} has ended")

    async def handle(self, name: str, event: Keyed | Plain, context: Context) -> None:
        message = self.messages[event.number]
        lane = f"{name} {message.key}" if name != "loose" and not message.plain and message.key is not None else None
        self.ran[name, event.number] += 1
        self.numbers[context.message_id] = event.number
        self.running[name] += 1
        if lane is not None:
            self.keys[lane] += 1
        try:
            if name not in message.names():
                self.wrong(f"{name} got {event}")
            if context.attempt > ATTEMPTS:
                self.wrong(f"{name}: attempt {context.attempt} of {event.number}")
            if context.subscription != name:
                self.wrong(f"{name} has the context of {context.subscription}")
            if self.running[name] > self.program.concurrency * max(1, self.workers):
                self.wrong(f"{name}: {self.running[name]} at a time")
            if lane is not None and self.keys[lane] > 1 and self.program.leases_hold:
                self.wrong(f"{lane}: {self.keys[lane]} at a time")
            await perform(message.act(name, context.attempt))
        finally:
            self.running[name] -= 1
            if lane is not None:
                self.keys[lane] -= 1
        self.well.add((name, event.number))
        self.ended.add((name, event.number))

    async def play(self) -> None:
        async with self.app:
            workers: list[Worker] = [await self.start(20.0)]
            try:
                for step in self.program.steps:
                    await self.take(step, workers)
                self.broker.mend()
                await self.wait_for_the_end()
            finally:
                for worker in workers:
                    await self.stop(worker)
            await self.judge()

    async def take(self, step: Step, workers: list[Worker]) -> None:
        match step.do:
            case "publish":
                await self.publish(step.messages)
            case "wait":
                await asyncio.sleep(step.seconds)
            case "restart":
                await self.stop(workers.pop(0))
                workers.append(await self.start(step.seconds))
            case "die":
                await die(self.app, self.broker, workers.pop(0))
                self.workers -= 1
                workers.append(await self.start(20.0))
            case "outage":
                self.broker.break_down(*step.broken)
                await asyncio.sleep(step.seconds)
                self.broker.mend()
                await asyncio.sleep(16.0)
            case "second":
                if len(workers) == 1:
                    workers.append(await self.start(20.0))

    async def publish(self, new: Sequence[Message]) -> None:
        events: list[Keyed | Plain] = []
        for message in new:
            number = len(self.messages)
            self.messages.append(message)
            events.append(Plain(number) if message.plain else Keyed(number, message.key))
        try:
            await self.app.publish(*events)
        except PublishError as error:
            if error.unsent != tuple(events):
                self.wrong(f"{error}")
        else:
            self.published += [event.number for event in events]

    async def start(self, grace: float) -> Worker:
        worker = self.app.worker(grace=grace)
        self.workers += 1
        return await worker.__aenter__()

    async def stop(self, worker: Worker) -> None:
        """End a worker well."""
        await worker.__aexit__(None, None, None)
        self.workers -= 1

    async def wait_for_the_end(self) -> None:
        for _ in range(5000):
            if self.errors or not any(
                status.backlog for status in await self.broker.status(subscriptions_of(self.broker))
            ):
                return
            await asyncio.sleep(1.0)
        self.wrong("some messages never end")

    async def judge(self) -> None:
        assert not self.errors, self.errors
        dead = {(letter.subscription, number_in(letter.body)): letter for letter in await letters(self.broker)}
        for number in self.published:
            message = self.messages[number]
            for name in message.names():
                what = f"{number} of {name}"
                if message.ends_well(name):
                    assert (name, number) not in dead, f"{what} is dead: {dead[name, number].failure}"
                    assert (name, number) in self.well, f"{what} is lost"
                else:
                    assert (name, number) in dead, f"{what} is lost"
                    assert (name, number) not in self.well
                    assert 1 <= dead[name, number].failure.attempts <= ATTEMPTS
                if self.program.is_calm:
                    assert self.ran[name, number] == message.tries(name), f"{what} ran {self.ran[name, number]} times"
        assert len(dead) == sum(
            not self.messages[number].ends_well(name)
            for number in self.published
            for name in self.messages[number].names()
        )


class _Ends(Watch):
    """Notes that a message became a dead letter."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.model = model

    def dead_lettered(self, details: DeadLettered, /) -> None:
        if details.context is None:
            self.model.wrong(f"{details.subscription} parks {details.failure}")
        else:
            self.model.ended.add((details.subscription, self.model.numbers[details.context.message_id]))


async def perform(act: Act) -> None:
    task = asyncio.current_task()
    assert task is not None
    if act.how == "hangs":
        await asyncio.sleep(10_000)
    if act.how == "cancels":
        task.cancel()
    await asyncio.sleep(act.seconds)
    if act.how == "fails":
        raise ZeroDivisionError
    if act.how == "later":
        raise RetryLater(act.seconds)
    if act.how == "rejects":
        raise Reject("no")
    if act.how == "cancelled":
        raise asyncio.CancelledError
    if act.how == "leaves a cancel":
        task.cancel()
    if act.how == "stubborn":
        try:
            await asyncio.sleep(0.5)
        except asyncio.CancelledError:
            await asyncio.sleep(0.01)


def number_in(body: bytes) -> int:
    import json

    number: int = json.loads(body)["data"]["number"]
    return number


@pytest.fixture(autouse=True, scope="module")
def silence() -> Iterator[None]:
    """What a thousand programs log is of no use to anybody."""
    logger = logging.getLogger("diator")
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    yield
    logger.setLevel(level)


def simple(*hows: Any, key: str | None = "a") -> Message:
    plan = [Act(how, 0.3) for how in hows]
    return Message(key, False, (plan, plan, plan))


@settings(max_examples=50 * PROOFS, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(programs)
@example(Program(3, [Step("publish", [simple("fails"), simple(), simple("rejects"), simple()])]))
@example(Program(10, [Step("publish", [simple("hangs")] * 6), Step("wait", seconds=1), Step("die")]))
@example(Program(1, [Step("publish", [simple(key=None), simple("fails", key=None), simple("later", key=None)] * 2)]))
@example(Program(1, [Step("publish", [simple("later")] * 6), Step("restart"), Step("die"), Step("die"), Step("die")]))
def test_every_message_ends_as_planned_whatever_happens(program: Program) -> None:
    async def scenario() -> None:
        async with AsyncExitStack():
            await asyncio.wait_for(Model(program).play(), 100_000)

    run(scenario())


def test_the_model_tells_what_is_lost() -> None:
    """A model that finds nothing wrong proves nothing."""

    class Lossy(Model):
        async def wait_for_the_end(self) -> None:
            self.well.discard(("ordered", 0))

    with pytest.raises(AssertionError, match="is lost"):
        run(Lossy(Program(1, [Step("publish", [simple()]), Step("wait", seconds=12)])).play())


def test_the_model_tells_what_runs_out_of_order() -> None:
    class Forgetful(Model):
        async def wait_for_the_end(self) -> None:
            self.ended.clear()
            await self.publish([simple()])
            await super().wait_for_the_end()

    with pytest.raises(AssertionError, match="begins before"):
        run(Forgetful(Program(1, [Step("publish", [simple()]), Step("wait", seconds=12)])).play())


def test_counts_of_the_model_are_those_of_its_plans() -> None:
    counts: dict[bool, int] = defaultdict(int)
    for hows, well, tries in (
        ((), True, 1),
        (("fails",), True, 2),
        (("fails", "fails", "fails"), False, 3),
        (("fails", "rejects"), False, 2),
        (("leaves a cancel",), True, 1),
    ):
        message = simple(*hows)
        assert (message.ends_well("loose"), message.tries("loose")) == (well, tries)
        counts[well] += 1
    assert counts == {True: 3, False: 2}
