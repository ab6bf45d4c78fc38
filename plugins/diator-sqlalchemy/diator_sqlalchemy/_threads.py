"""Threads for engines whose drivers block."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

_executor = ThreadPoolExecutor(10_000, "sqlalchemy-store")
"""With a limit that is never reached: one that waits for a row may wait for a unit that needs a thread to commit."""


async def in_thread(function: Callable[P, T], /, *arguments: P.args, **options: P.kwargs) -> T:
    """Run a function in a thread. A cancel waits for its end: the connection that it uses is closed next."""
    call = copy_context().run
    future = asyncio.get_running_loop().run_in_executor(_executor, lambda: call(function, *arguments, **options))
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        while not future.done():
            try:
                await asyncio.wait([future])
            except asyncio.CancelledError:
                continue
        raise
