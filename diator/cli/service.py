"""One run of a worker: it starts, heeds signals, and tells probes how it stands."""

import asyncio
import logging
import os
import signal
import threading
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack
from http import HTTPStatus
from pathlib import Path
from types import FrameType

from diator._inspection import messaging_of
from diator.app import Diator
from diator.brokers.port import BrokerCapability
from diator.cli.health import Address, Answer, HealthServer, json_answer
from diator.delivery.catalog import ConsumerConfig
from diator.delivery.worker import Worker

logger = logging.getLogger("diator")

CLOSE_TIMEOUT = 10.0
"""Seconds after the grace period in which a process must close everything."""

Announce = Callable[[Sequence[ConsumerConfig]], None]
OnSignal = Callable[[signal.Signals, int], None]


class Service:
    """Runs the worker of an app until a signal ends it."""

    def __init__(
        self,
        app: Diator,
        only: Sequence[str] | None,
        *,
        concurrency: int | None,
        grace: float,
        health: Address | Path | None,
    ) -> None:
        self._app = app
        self._only = only
        self._concurrency = concurrency
        self._grace = grace
        self._health = health
        self._routes = None if health is None else routes_of(app, self._is_ready)
        self.announce: Announce | None = None
        """Tells what is consumed."""
        self._worker: Worker | None = None
        self._main: asyncio.Task[None] | None = None
        self._stopping = False

    async def run(self) -> None:
        """Run. Raises what starting and ending raise: `ConfigurationError`, `BrokerError`, and what the app does."""
        self._main = asyncio.current_task()
        with signals(self._on_signal, self._grace + CLOSE_TIMEOUT):
            try:
                async with AsyncExitStack() as stack:
                    await listen(stack, self._health, self._routes)
                    await stack.enter_async_context(self._app)
                    await self._work()
            except asyncio.CancelledError:
                if not self._stopping:
                    raise
        logger.info("stopped")

    async def _work(self) -> None:
        worker = self._app.worker(subscriptions=self._only, concurrency=self._concurrency, grace=self._grace)
        if self.announce is not None:
            self.announce(worker.configs)
        self._warn_of_memory()
        async with worker:
            self._worker = worker
            logger.info("the worker has started; stop it with SIGTERM or SIGINT")
            await worker.wait()

    def _warn_of_memory(self) -> None:
        if is_in_process(self._app):
            text = "the broker is in the memory of this process: only this process can publish to it, and its messages"
            logger.warning("%s are lost when it ends; use a broker such as redis:// to reach other processes", text)

    def _on_signal(self, received: signal.Signals, number: int) -> None:
        self._stopping = True
        worker = self._worker
        if worker is None:
            logger.info("%s: ending before the worker has started", received.name)
            assert self._main is not None
            self._main.cancel()
        elif number == 1:
            text = "%s: receiving no more messages; running handlers have %g s to finish; a second signal cancels them"
            logger.info(text, received.name, self._grace)
            worker.stop()
        else:
            logger.warning("%s again: running handlers are cancelled, and their messages released", received.name)
            worker.cancel()

    async def _is_ready(self) -> Answer:
        return readiness([*self._reasons(), *await self._app.not_ready_reasons()])

    def _reasons(self) -> list[str]:
        """Why it is not ready; nothing where it is."""
        worker = self._worker
        if self._stopping:
            return ["it is stopping"]
        if worker is None:
            return ["it has not started yet"]
        return worker.not_ready_reasons


def is_in_process(app: Diator) -> bool:
    """Whether the broker of an app exists in this process only: it keeps nothing longer, and there is no server."""
    messaging = messaging_of(app)
    if messaging is None:
        return False
    broker = messaging.broker
    return BrokerCapability.DURABLE not in broker.capabilities and broker.address is None


Routes = Mapping[str, Callable[[], Awaitable[Answer]]]


async def listen(stack: AsyncExitStack, health: Address | Path | None, routes: Routes | None) -> None:
    """Answer probes and scrapes until the stack closes, if there is an address to do it at."""
    if health is None or routes is None:
        return
    server = await HealthServer(routes).start(health)
    stack.callback(server.close)
    if isinstance(health, Path):
        return
    for socket in server.sockets:
        host, port, *_ = socket.getsockname()
        logger.info("answering probes on %s, port %s", host, port, extra={"host": host, "port": port})


def routes_of(app: Diator, is_ready: Callable[[], Awaitable[Answer]]) -> Routes:
    """Return what answers probes and scrapes for a process that runs an app."""
    return {"/healthz": _is_alive, "/readyz": is_ready, "/metrics": metrics_route(app)}


def readiness(reasons: Sequence[str]) -> Answer:
    """Answer ``/readyz``: ready if nothing keeps it from being so."""
    status = HTTPStatus.SERVICE_UNAVAILABLE if reasons else HTTPStatus.OK
    return json_answer(status, {"ready": not reasons, "reasons": list(reasons)})


async def _is_alive() -> Answer:
    return json_answer(HTTPStatus.OK, {"alive": True})


def metrics_route(app: Diator) -> Callable[[], Awaitable[Answer]]:
    """Return what answers ``/metrics``; without prometheus-client, what to install."""
    try:
        from diator.cli.metrics import MetricsEndpoint  # noqa: PLC0415 - prometheus-client is an extra
    except ImportError:
        return _no_metrics
    return MetricsEndpoint(app).answer


async def _no_metrics() -> Answer:
    text = 'metrics need prometheus-client; install it: uv add "diator[prometheus]"'
    return json_answer(HTTPStatus.NOT_FOUND, {"error": text})


def signals(heed: OnSignal, timeout: float) -> ExitStack:
    """Have SIGTERM and SIGINT told to the event loop until the block ends; the third ends the process.

    A process that still runs ``timeout`` seconds after the first signal is ended, too. Both work while something blocks
    the event loop, because they do not depend on it.
    """
    loop = asyncio.get_running_loop()
    came = 0

    def caught(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - as signal.signal wants it
        nonlocal came
        came += 1
        if came == 1:
            threading.Thread(target=_end_late, args=(number, timeout), name="diator end", daemon=True).start()
        if came > 2:
            os._exit(128 + number)
        loop.call_soon_threadsafe(heed, signal.Signals(number), came)

    before = {number: signal.signal(number, caught) for number in (signal.SIGINT, signal.SIGTERM)}
    stack = ExitStack()  # no generator: `contextlib` sets the traceback of what passes through one
    for number, handler in before.items():
        stack.callback(signal.signal, number, handler)
    return stack


def _end_late(number: int, timeout: float) -> None:
    """End a process that a handler, a driver or a thread keeps alive."""
    time.sleep(timeout)
    text = "%s came %g s ago, and something still hangs: the process ends now; its unsettled messages are redelivered"
    logger.error(text, signal.Signals(number).name, timeout)
    os._exit(128 + number)
