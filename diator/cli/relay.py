"""``diator relay``: publishes what an app has stored in its outbox, in a process of its own."""

import asyncio
import logging
import signal
from contextlib import AsyncExitStack

from diator._inspection import inspect_app, messaging_of
from diator.app import Diator
from diator.cli.app_store import store_of
from diator.cli.arguments import AppArgument
from diator.cli.health import Address, Answer
from diator.cli.load import load
from diator.cli.logs import Level, set_up
from diator.cli.run import HealthOption, JsonLogsOption, LevelOption, read_address, run_or_exit
from diator.cli.service import CLOSE_TIMEOUT, listen, readiness, routes_of, signals
from diator.delivery.outbox import Outbox
from diator.errors import ConfigurationError

logger = logging.getLogger("diator")


def relay(
    target: AppArgument,
    health: HealthOption = None,
    json_logs: JsonLogsOption = False,
    log_level: LevelOption = Level.INFO,
) -> None:
    """Run a relay, which publishes the events in the outbox of an app. It runs no handlers.

    Each process of an app runs a relay itself, unless the app is made with Diator(..., relay=False). Then run at least
    one of these, or two for redundancy. SIGTERM or SIGINT shuts it down: it publishes the backlog for up to 5 seconds.

    The exit code is 0 after a signal, 1 if the app, its store or its broker can't start, 2 for a mistake in the
    command, 3 if the app itself failed.
    """
    where = read_address(health)
    set_up(log_level, as_json=json_logs, handled=False)

    def serve() -> None:
        app = load(target)
        if problems := inspect_app(app).errors:
            raise ConfigurationError(problems)
        asyncio.run(RelayService(app, where).run())

    run_or_exit(serve, target, as_json=json_logs)


_GRACE = 20.0
"""Seconds that publishing the remaining events may take."""


class RelayService:
    """Runs the relay of an app until a signal ends it."""

    def __init__(self, app: Diator, health: Address | None) -> None:
        store_of(app)  # raises if there is none
        self._app = app
        self._health = health
        self._routes = None if health is None else routes_of(app, self._is_ready)
        self._has_started = False

    async def run(self) -> None:
        """Run. Raises what starting and ending raise."""
        stopping = self._stopping = asyncio.Event()

        def on_signal(received: signal.Signals, _number: int) -> None:
            logger.info("%s: publishing the remaining events, then stopping", received.name)
            stopping.set()

        self._outbox.relay_here()
        with signals(on_signal, _GRACE + CLOSE_TIMEOUT):
            async with AsyncExitStack() as stack:
                await listen(stack, self._health, self._routes)
                await stack.enter_async_context(self._app)
                self._has_started = True
                logger.info("the relay has started; stop it with SIGTERM or SIGINT")
                await stopping.wait()
        logger.info("stopped")

    @property
    def _outbox(self) -> Outbox:
        messaging = messaging_of(self._app)
        assert messaging is not None
        assert messaging.outbox is not None, "seen when it was made"
        return messaging.outbox

    async def _is_ready(self) -> Answer:
        return readiness(self._reasons())

    def _reasons(self) -> list[str]:
        relay = self._outbox.relay
        if self._stopping.is_set():
            return ["it is stopping"]
        return relay.failures if relay is not None and self._has_started else ["it has not started yet"]
