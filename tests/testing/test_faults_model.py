"""Any app, any faults: everything is handled, in its order, no more often than the faults say; and the same again."""

import asyncio
from collections import Counter
from dataclasses import dataclass
from random import Random

from hypothesis import example, given, settings
from hypothesis import strategies as st

from diator import Diator, NotificationEvent, Publish, PublishError, contract
from diator.testing import Faults
from tests.virtual_time import run


@contract("model.moved", key="thing")
@dataclass(frozen=True)
class Moved(NotificationEvent):
    thing: int
    step: int


@contract("model.seen", key="thing")
@dataclass(frozen=True)
class Seen(NotificationEvent):
    thing: int
    step: int


Runs = dict[str, list[tuple[int, int]]]


@dataclass(frozen=True)
class Program:
    """What is published, with pauses of so many turns of the loop, and what fails how often, or takes so long."""

    events: list[tuple[int, int]]
    failing: dict[int, int]
    slow: int
    concurrency: int


programs = st.builds(
    Program,
    events=st.lists(st.tuples(st.integers(0, 2), st.integers(0, 3)), min_size=1, max_size=8),
    failing=st.dictionaries(st.integers(0, 7), st.integers(1, 2), max_size=2),
    slow=st.integers(0, 3),
    concurrency=st.integers(1, 4),
)
shares = st.sampled_from([0.0, 0.3, 1.0])
drawn = st.builds(
    Faults, seed=st.integers(0, 1000), duplicates=shares, crashes=shares, reorder=st.booleans(), broker_outages=shares
)


async def pause(pauses: Random | None) -> None:
    if pauses is not None:
        await asyncio.sleep(pauses.random() / 20)


async def play(program: Program, faults: Faults, pauses: Random | None = None) -> tuple[tuple[str, ...], Runs]:
    """Play a program; with ``pauses``, handlers take as long as they say, as those that wait for a server."""
    app = Diator("model", broker="memory://", concurrency=program.concurrency)
    runs: Runs = {name: [] for name in ("track", "note", "look", "published")}
    failed, published = Counter[int](), runs["published"]

    @app.on_event(ordered=True)
    async def track(event: Moved, publish: Publish[Seen]) -> None:
        await pause(pauses)
        for _ in range(event.step % (program.slow + 1)):
            await asyncio.sleep(0)
        if failed[event.step] < program.failing.get(event.step, 0):
            failed[event.step] += 1
            raise ConnectionError("no route")
        runs["track"].append((event.thing, event.step))
        publish(Seen(event.thing, event.step))

    @app.on_event
    async def note(event: Moved) -> None:
        await pause(pauses)
        runs["note"].append((event.thing, event.step))

    @app.on_event(ordered=True)
    async def look(event: Seen) -> None:
        runs["look"].append((event.thing, event.step))

    async with app.testing(faults=faults) as session:
        for step, (thing, turns) in enumerate(program.events):
            try:
                await session.publish(Moved(thing, step))
            except PublishError:
                pass  # in an outage
            else:
                published.append((thing, step))
            for _ in range(turns):
                await asyncio.sleep(0)
        await session.settled()
    return session.faults, runs


@settings(max_examples=25, deadline=None)
@given(program=programs, faults=drawn)
def test_everything_is_handled_in_its_order_and_the_same_again(program: Program, faults: Faults) -> None:
    injected, runs = run(play(program, faults))
    published = runs["published"]
    lines = Counter(line.partition(":")[0] for line in injected)
    for handler in ("track", "note", "look"):
        assert set(runs[handler]) == set(published)
        if faults.duplicates == 1.0:
            assert min(Counter(runs[handler]).values(), default=2) >= 2
    assert len(runs["note"]) <= 3 * len(published)
    for handler in ("track", "look"):
        for thing in range(3):
            steps = [step for other, step in runs[handler] if other == thing]
            first = list(dict.fromkeys(steps))
            assert first == sorted(first)
            assert handler == "look" or steps == sorted(steps)  # also those that come again
    for again in (faults, Faults(plan=injected)):
        faults_again, runs_again = run(play(program, again))
        assert sorted(faults_again) == sorted(injected)
        if not lines["outage"]:  # in which the app waits for random times
            assert (faults_again, runs_again) == (injected, runs)


@settings(max_examples=25, deadline=None)
@example(
    Program([(number % 3, 0) for number in range(8)], {}, slow=0, concurrency=4),
    Faults(seed=2, duplicates=0.3, reorder=False),
)
@given(program=programs, faults=drawn)
def test_handlers_that_take_another_time_have_the_same_faults(program: Program, faults: Faults) -> None:
    (injected, runs), (again, runs_again) = (run(play(program, faults, Random(seed))) for seed in range(2))
    assert sorted(again) == sorted(injected)
    for handler, seen in runs.items():
        assert Counter(runs_again[handler]) == Counter(seen)
