"""Timeouts of many calls, which share one timer of the event loop."""

import asyncio
import random
import socket
import time
from contextvars import ContextVar
from functools import partial
from unittest.mock import patch

from diator.brokers import Timeouts
from tests.virtual_time import in_virtual_time


def _now() -> float:
    return asyncio.get_running_loop().time()


@in_virtual_time
async def test_each_expires_at_its_time_and_those_that_were_stopped_never() -> None:
    timeouts, start, expired = Timeouts(asyncio.get_running_loop()), _now(), dict[int, float]()
    chance = random.Random(7)
    seconds = [chance.randrange(1, 50) / 4 for _ in range(200)]

    def expire(number: int) -> None:
        expired[number] = _now() - start

    calls = [partial(expire, number) for number in range(200)]
    for call, after in zip(calls, seconds, strict=True):
        timeouts.start(after, call)
    stopped = set(chance.sample(range(200), 120))
    for number in stopped:
        timeouts.stop(calls[number])
    await asyncio.sleep(20)
    assert expired == {number: seconds[number] for number in range(200) if number not in stopped}


@in_virtual_time
async def test_one_that_is_started_later_may_expire_earlier() -> None:
    timeouts, expired = Timeouts(asyncio.get_running_loop()), list[str]()
    timeouts.start(10, partial(expired.append, "long"))
    await asyncio.sleep(1)
    timeouts.start(2, partial(expired.append, "short"))
    await asyncio.sleep(3)
    assert expired == ["short"]
    await asyncio.sleep(10)
    assert expired == ["short", "long"]


@in_virtual_time
async def test_those_that_end_in_time_cost_one_timer_of_the_event_loop() -> None:
    loop = asyncio.get_running_loop()
    with patch.object(loop, "call_at", wraps=loop.call_at) as call_at:
        timeouts = Timeouts(loop)
        for number in range(1_000):
            call = partial(int, number)
            timeouts.start(5, call)
            timeouts.stop(call)
    assert call_at.call_count == 1
    await asyncio.sleep(6)


@in_virtual_time
async def test_what_expires_runs_in_the_context_in_which_it_was_started() -> None:
    name, seen = ContextVar[str]("name"), list[str]()
    timeouts = Timeouts(asyncio.get_running_loop())

    async def starts(own: str, after: float) -> None:
        name.set(own)
        timeouts.start(after, lambda: seen.append(name.get()))

    await asyncio.gather(starts("first", 1), starts("second", 1), starts("third", 2))
    await asyncio.sleep(3)
    assert seen == ["first", "second", "third"]


async def test_an_answer_that_came_while_the_event_loop_stood_still_is_read_first() -> None:
    timeouts, expired, answers = Timeouts(asyncio.get_running_loop()), list[str](), asyncio.Queue[bytes]()
    ours, theirs = socket.socketpair()
    with theirs:
        reader, writer = await asyncio.open_connection(sock=ours)

        async def read() -> None:
            while line := await reader.readline():
                await answers.put(line)  # as in clients, another task looks for who waits for it

        reading = asyncio.create_task(read())
        for name in ("answered", "silent"):
            timeouts.start(0.2, partial(expired.append, name))
        await asyncio.sleep(0)
        theirs.send(b"answered\n")
        time.sleep(0.5)  # noqa: ASYNC251 - the process was stopped
        assert await answers.get() == b"answered\n"
        assert expired == []
        await asyncio.sleep(0.3)
        assert expired == ["answered", "silent"]
        reading.cancel()
        writer.close()
