"""An app of 1,000 handlers: prints the seconds, or the bytes, that it takes beyond defining them."""

import asyncio
import gc
import sys
import tracemalloc
from collections.abc import Callable, Coroutine
from time import process_time
from types import ModuleType
from typing import Any

from diator import Diator

HEAD = """
from dataclasses import dataclass
from diator import Command, DomainEvent, Publish, Query
"""
COMMAND = """
@dataclass(frozen=True, kw_only=True)
class Change{n}(Command[int]):
    number: int

async def change_{n}(command: Change{n}) -> int:
    return command.number
"""
QUERY = """
@dataclass(frozen=True, kw_only=True)
class Find{n}(Query[str]):
    number: int

async def find_{n}(query: Find{n}) -> str:
    return str(query.number)
"""
EVENT = """
@dataclass(frozen=True, kw_only=True)
class Happened{n}(DomainEvent):
    number: int

async def on_happened_{n}(event: Happened{n}) -> None:
    ...

@dataclass(frozen=True, kw_only=True)
class Act{n}(Command[None]):
    number: int

async def act_{n}(command: Act{n}, publish: Publish[Happened{n}]) -> None:
    publish(Happened{n}(number=command.number))
"""
COUNT = 250
"""Of each: plain commands, queries, event handlers, and commands that raise an event."""


def define() -> ModuleType:
    """Make the messages and the handlers, as a module that a person might have written."""
    module = ModuleType("large_app_handlers")
    sys.modules[module.__name__] = module
    numbered = (part.format(n=n) for n in range(COUNT) for part in (COMMAND, QUERY, EVENT))
    exec(compile(HEAD + "".join(numbered), "large_app_handlers.py", "exec"), vars(module))
    return module


async def build(handlers: dict[str, Callable[..., Coroutine[Any, Any, Any]]]) -> Diator:
    """Register, check and start."""
    app = Diator()
    for name, handler in handlers.items():
        if name.startswith("find_"):
            app.query(handler)
        elif name.startswith("on_"):
            app.on_event(handler)
        else:
            app.command(handler)
    return await app.__aenter__()


def main() -> None:
    memory = sys.argv[1] == "memory"
    if memory:
        tracemalloc.start()
    module = define()
    handlers = {name: thing for name, thing in vars(module).items() if asyncio.iscoroutinefunction(thing)}
    assert len(handlers) == 4 * COUNT
    gc.collect()
    before = tracemalloc.get_traced_memory()[0] if memory else process_time()
    app = asyncio.run(build(handlers))
    if not memory:
        print(process_time() - before)
        return
    gc.collect()
    print(tracemalloc.get_traced_memory()[0] - before)
    assert len(app.requests) == 3 * COUNT


if __name__ == "__main__":
    main()
