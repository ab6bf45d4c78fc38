"""What all drivers share: the direct call that is the unit of every figure, and how one work is run.

A driver is a process of its own for each work, since some libraries keep their registrations in global tables.
"""

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from itertools import repeat

from benchmarks.measure import QUICK, SHARE, Work, compare

WORKS = {
    "send": "send to an async handler",
    "middlewares": "three middlewares",
    "collected": "event raised, handled after the return",
    "published": "event published by the handler",
    "fan_out": "event to ten handlers",
    "injected": "a scope of dishka, two objects injected",
}
"""What is raced. A library that lacks the feature has no function of that name in its driver."""


@dataclass
class Ask:
    number: int


async def answer(message: Ask) -> int:
    return message.number


class Repository:
    """Built by the container for each message."""


class Service:
    """Built by the container for each message, from a repository."""

    def __init__(self, repository: Repository) -> None:
        self.repository = repository
        self.offset = 0


def run(*works: Callable[[], Awaitable[Work]]) -> None:
    """Measure the work that the command line names; print how many direct calls it takes, null where it is missing."""
    named = {work.__name__: work for work in works}
    assert named.keys() <= WORKS.keys()
    work = named.get(sys.argv[1])
    print(json.dumps(None if work is None else asyncio.run(_measure(work, quick=sys.argv[2] == "quick"))))


async def _measure(work: Callable[[], Awaitable[Work]], quick: bool) -> float:
    return (await compare(await work(), _direct(), QUICK if quick else SHARE)).median


def _direct() -> Work:
    message = Ask(1)

    async def loop(times: int) -> None:
        for _ in repeat(None, times):
            await answer(message)

    return Work(loop, {answer: 1})
