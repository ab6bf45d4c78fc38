"""Haste: the fixed pauses of the SDK, cut short for tests."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from contextlib import contextmanager
from importlib import import_module
from typing import Any
from unittest.mock import patch

_PAUSING = (
    "azure.servicebus.aio._servicebus_sender_async",
    "azure.servicebus.aio._servicebus_receiver_async",
    "azure.servicebus._pyamqp.aio._client_async",
    "azure.servicebus._pyamqp.aio._session_async",
    "azure.servicebus._pyamqp.aio._connection_async",
)
"""The modules of version 7.15 that sleep while a link opens or closes."""
_HANDSHAKE, _KEEP_ALIVE = 0.005, 0.05


class _Hasty:
    """Stands for ``asyncio`` in those modules, with a ``sleep`` that is short."""

    def __getattr__(self, name: str) -> Any:
        return getattr(asyncio, name)

    async def sleep(self, delay: float) -> None:
        """Sleep for at most 5 ms between frames, and 50 ms in a keep-alive task."""
        await asyncio.sleep(_KEEP_ALIVE if delay >= 1 else min(delay, _HANDSHAKE))


@contextmanager
def shorten_sdk_sleeps() -> Generator[None, None, None]:
    """Let links open in about 0.05 s instead of 0.55 s, and close at once instead of within 1 s.

    The SDK waits 50 ms between the frames of a handshake, and for its keep-alive task, which sleeps a second at a
    time. Nothing but the time is changed, and only for tests.
    """
    patches = [patch.object(import_module(name), "asyncio", _Hasty()) for name in _PAUSING]
    for one in patches:
        one.start()
    try:
        yield
    finally:
        for one in patches:
            one.stop()
