"""The consumer: one subscription in one worker, subscribed again and again until the worker stops."""

import asyncio
import logging
from collections.abc import Callable
from functools import partial

from diator._shielding import shielded
from diator.brokers.port import Receiver
from diator.delivery.catalog import ConsumerConfig
from diator.delivery.follow_up import FollowUpSender
from diator.delivery.outage import UNEXPECTED_CANCEL, Backoff, unless_stopped
from diator.delivery.outcome_reporter import OutcomeReporter
from diator.delivery.pause import Pause
from diator.delivery.publisher import Publisher
from diator.delivery.receiver_loop import ReceiverLoop
from diator.delivery.work_queue import NEVER
from diator.delivery.worker_state import WorkerState
from diator.engine.dispatch import Dispatch
from diator.errors import BrokerError, BrokerUnavailableError

logger = logging.getLogger("diator")


class Consumer:
    """Handles the messages of one subscription, ``concurrency`` at a time."""

    def __init__(self, config: ConsumerConfig, dispatch: Dispatch, publisher: Publisher, state: WorkerState) -> None:
        self.name = config.name
        self._config = config
        self._state = state
        follow_ups = FollowUpSender(publisher, config.name, state.outage)
        sender = follow_ups if publisher.outbox is None else publisher.outbox.create_sender(follow_ups, config)
        classes = {entry.cls for entry in config.entries.values()}
        self._calls = {cls: dispatch.delivered(config.registration, config.wired, cls, sender) for cls in classes}
        self._reporter = OutcomeReporter(config, state.hooks, at_most_once=state.at_most_once)
        self._loop: ReceiverLoop | None = None

    @property
    def is_receiving(self) -> bool:
        """Whether it is connected and receives messages."""
        return self._loop is not None and self._loop.is_receiving

    async def run(
        self, created: "asyncio.Future[bool]", stopping: asyncio.Event, pause: Pause, grace: Callable[[], float]
    ) -> None:
        """Handle messages from when the subscription is ``created`` until ``stopping`` is set, also through outages.

        Handlers that run then may finish within ``grace()`` seconds.
        """
        await asyncio.wait({created})
        backoff = Backoff()
        while not stopping.is_set():
            await pause.wait()
            try:
                await self._run_apart(pause.halted, partial(_time_left, stopping, pause.halted, grace))
            except BrokerError as error:
                self._state.outage.record_failure("be used", self.name, error)
                await backoff.wait(stopping)
            except Exception:
                logger.exception("the consumer of %s has failed; restarting it", self.name)
                await backoff.wait(stopping)

    async def _run_apart(self, stopping: asyncio.Event, grace: Callable[[], float]) -> None:
        """Run once; in a task of its own, so that a cancel by a driver is told from one that is meant."""
        running = asyncio.ensure_future(self._run(stopping, grace))
        try:
            await asyncio.wait({running})
        except BaseException as ended:  # with the event loop, which cancels both
            await shielded(asyncio.wait({running}), ended)
            raise
        if not running.cancelled() and (error := running.exception()) is not None:
            raise error
        if not stopping.is_set():
            raise BrokerUnavailableError(UNEXPECTED_CANCEL)

    async def _run(self, stopping: asyncio.Event, grace: Callable[[], float]) -> None:
        receiver = await self._subscribe(stopping)
        if receiver is not None:
            self._loop = ReceiverLoop(self._config, self._calls, self._reporter, self._state, receiver)
            try:
                await self._loop.run(stopping, grace)
            finally:
                self._loop = None

    async def _subscribe(self, stopping: asyncio.Event) -> Receiver | None:
        backoff, broker, outage = Backoff(), self._state.broker, self._state.outage
        while not stopping.is_set():
            try:
                receiver = await unless_stopped(broker.subscribe(self._config.subscription), stopping)
            except BrokerError as error:
                outage.record_failure("subscribe", self.name, error)
                await backoff.wait(stopping)
            else:
                if receiver is not None:
                    outage.record_success("be used", self.name)
                    outage.record_success("subscribe", self.name)
                    logger.info("consuming %s", self.name, extra={"diator_subscription": self.name})
                return receiver
        return None


def _time_left(stopping: asyncio.Event, halted: asyncio.Event, grace: Callable[[], float]) -> float:
    """Return the seconds that handlers may go on: those of a paused consumer until their own timeouts."""
    if stopping.is_set():
        return grace()
    return NEVER if halted.is_set() else 0.0
