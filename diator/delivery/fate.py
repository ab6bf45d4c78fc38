"""Fate: what becomes of a message is decided here, and told: to hooks, and to whoever reads the log."""

import asyncio
import logging
from collections.abc import Collection, Iterable
from typing import Any

from diator.brokers.port import ACK, Outcome, Park, RetryAfter
from diator.context import Context
from diator.delivery.error_texts import described, is_recordable, traceback_of
from diator.delivery.lanes import Job
from diator.delivery.outcomes import after_failure
from diator.delivery.telling import Telling
from diator.errors import Reject
from diator.hooks import Handled, Parked, Retried, Settled
from diator.retry import Retry

logger = logging.getLogger("diator")


class Fate:
    """For the messages of one subscription. ``lossy`` is a broker that delivers at most once."""

    def __init__(self, name: str, retry: Retry, telling: Telling, *, lossy: bool) -> None:
        self._name = name
        self._retry = retry
        self._telling = telling
        self._lossy = lossy
        self._loop = asyncio.get_running_loop()

    def handled(self, event: Any, context: Context, began: float, error: BaseException | None) -> None:
        """Tell that a handler has ended."""
        if self._telling.hears("handled"):
            details = Handled(self._name, event, context, self._loop.time() - began, error)
            self._telling.tell("handled", details)

    def failed(self, job: Job, error: BaseException) -> Outcome:
        """Decide what becomes of a message whose handler has failed."""
        attempt = job.delivery.failures + 1
        outcome = after_failure(error, attempt, self._retry)
        what = f"{self._name} failed on {job.message_id}, attempt {attempt}"
        if self._lossy:
            _log_error("%s; the broker delivers at most once, so it is lost", what, error=error)
            return ACK
        if isinstance(outcome, Park):
            return self.park(job, outcome, error)
        assert isinstance(outcome, RetryAfter)
        logger.warning("%s (%s); again in %.3g s", what, described(error), outcome.delay)
        if self._telling.hears("retried"):
            self._telling.tell("retried", Retried(self._name, job.context, outcome.delay, error))
        return outcome

    def park(self, job: Job, why: Park, error: BaseException | None = None) -> Outcome:
        """Make a message a dead letter, where the broker keeps such."""
        text = "%s: message %s is lost: %s" if self._lossy else "%s: message %s becomes a dead letter: %s"
        told = None if issubclass(type(error), Reject) else error  # a rejection says all in its reason
        _log_error(text, self._name, job.name or "that can't be read", why.reason, error=told)
        if self._telling.hears("parked"):
            self._telling.tell("parked", Parked(self._name, job.context, why))
        return ACK if self._lossy else why

    def released(self, job: Job) -> None:
        """Say so where a message that is given back is lost."""
        if self._lossy:
            text = "%s: message %s is lost: the worker ended before it was handled, and the broker takes nothing back"
            logger.warning(text, self._name, job.message_id or "that was not read yet")

    def cut_short(self, job: Job) -> None:
        """Say that a message did not finish in time."""
        logger.warning("%s: message %s did not finish in time, and is given back", self._name, job.message_id)

    def lost(self, job: Job) -> None:
        """Say that the lease of a message was lost."""
        text = (
            "%s has lost the lease of message %s; another worker may handle it too, and its outcome here does not count"
        )
        logger.warning(text, self._name, job.message_id)

    def settled(self, settled: Iterable[tuple[Job, Outcome]], lost: Collection[int]) -> None:
        """Tell that the broker has taken outcomes down."""
        if self._telling.hears("settled"):
            for job, outcome in settled:
                gone = id(job.delivery) in lost
                self._telling.tell("settled", Settled(self._name, job.delivery, job.message_id, outcome, gone))


def _log_error(text: str, *values: object, error: BaseException | None) -> None:
    """Log an error with its traceback; as text where handlers that write UTF-8 would drop the record otherwise."""
    if error is None or not is_recordable(error):
        more = "" if error is None else "\n" + traceback_of(error)
        logger.error(f"{text}%s", *values, more)  # noqa: G004 - the text is one of two
    else:  # not the error itself: logging would ask whether that is true
        logger.error(text, *values, exc_info=(type(error), error, error.__traceback__))
