"""Outcomes: what becomes of each message is decided here, and reported to hooks and in the log.

Each line about one message has what is known of it as fields of the record, whose names begin with ``diator_``.
"""

import logging
from collections.abc import Container, Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Any

from diator._groups import with_members
from diator._hooks import HookDispatcher
from diator.brokers.port import ACK, MoveToDeadLetters, Outcome, RetryAfter
from diator.delivery.catalog import ConsumerConfig
from diator.delivery.error_texts import (
    class_name_of,
    described,
    full_name_and_text,
    is_recordable,
    reason_of_rejection,
    recordable,
    traceback_of,
)
from diator.delivery.work_queue import Job
from diator.errors import Reject, RetryLater, UnreadableMessageError
from diator.hooks import DeadLettered, Handled, Received, Retried, Settled
from diator.messages import Event, contract_of
from diator.options import is_number
from diator.retry import Retry

logger = logging.getLogger("diator")
handled_logger = logging.getLogger("diator.handled")
"""One line for each message that was handled, so that these lines have a level of their own."""

_MAX_UNHANDLED = 100
"""Types that are logged; on some topics anything may come."""


_HANDLED = "%s handled %s, attempt %d, in %.3g s"
_MAX_DELAY = 365 * 24 * 3600.0
"""Maximum seconds of a retry: a broker could not store a later time, and would redeliver the message forever."""


class OutcomeReporter:
    """Decides and reports the outcomes of one subscription. ``at_most_once``: the broker delivers at most once."""

    def __init__(self, config: ConsumerConfig, hooks: HookDispatcher, *, at_most_once: bool) -> None:
        self._config = config
        self._name = config.name
        self._hooks = hooks
        self._at_most_once = at_most_once
        self._unhandled: set[str] = set()

    # What a message without a run of its handler becomes

    def poisonous(self, job: Job) -> Outcome:
        """Decide on a message that was delivered too often without an outcome."""
        why = "its worker died, or its handler outlasted its lease"
        text = f"delivered {job.delivery.deliveries} times, {job.unexplained} without an outcome: {why}"
        return self._dead_letter(job, _dead_letter_of(text, job.delivery.failures))

    def unreadable(self, job: Job, error: UnreadableMessageError) -> Outcome:
        """Decide on a message that can't be read."""
        cause = error if error.__cause__ is None else error.__cause__
        return self._dead_letter(job, _dead_letter_of(f"undecodable: {error}", job.delivery.failures, cause), cause)

    def unhandled(self, job: Job) -> Outcome:
        """Decide on a message of a type that has no handler here. Each type is logged once.

        On a topic with events of several types that is expected. Elsewhere it may be the former name of an event.
        """
        assert job.envelope is not None
        name = job.envelope.type
        if name not in self._unhandled and len(self._unhandled) < _MAX_UNHANDLED:
            self._unhandled.add(name)
            text = f"{self._name} gets messages of type {name!r}, which its handler does not handle"
            if job.delivery.topic in self._config.shared_topics:
                logger.info("%s; they are acknowledged", text)
            else:
                renamed = "if that is a former name of its event, add it to its @contract"
                logger.warning("%s; they are acknowledged and dropped; %s: aliases=(%r,)", text, renamed, name)
        return ACK

    # What a run becomes

    def handled(self, job: Job, event: Event, seconds: float, error: BaseException | None) -> None:
        """Report that a handler has ended, or that the inbox has recognized a message that was handled before."""
        assert job.context is not None
        if self._hooks.has_listener("handled"):
            details = (contract_of(type(event)).name, job.is_repeated)
            self._hooks.emit("handled", Handled(self._name, event, job.context, seconds, error, *details))
        if error is None and handled_logger.isEnabledFor(logging.INFO):
            text = "%s had handled %s before: attempt %d, in %.3g s" if job.is_repeated else _HANDLED
            values = (self._name, job.name, job.delivery.failures + 1, seconds)
            handled_logger.info(text, *values, extra=self._fields(job, "handled", seconds))

    def failed(self, job: Job, error: BaseException, seconds: float) -> Outcome:
        """Decide on a message whose handler has failed."""
        attempt = job.delivery.failures + 1
        outcome = _decide(error, attempt, self._config.retry)
        what = f"{self._name} failed on {job.message_id}, attempt {attempt}"
        if self._at_most_once:
            text = "%s; the broker delivers at most once, so it is lost"
            _log(logging.ERROR, text, what, error=error, fields=self._fields(job, "lost", seconds))
            return ACK
        if isinstance(outcome, MoveToDeadLetters):
            return self._dead_letter(job, outcome, error, seconds)
        assert isinstance(outcome, RetryAfter)
        text, values = "%s (%s); retrying in %.3g s", (what, described(error), outcome.delay)
        _log(logging.WARNING, text, *values, error=error, fields=self._fields(job, "retried", seconds))
        if self._hooks.has_listener("retried"):
            self._hooks.emit("retried", Retried(self._name, job.context, outcome.delay, error, _type_of(job)))
        return outcome

    def _dead_letter(
        self, job: Job, why: MoveToDeadLetters, error: BaseException | None = None, seconds: float | None = None
    ) -> Outcome:
        """Make a message a dead letter, if the broker keeps them."""
        text = "%s: message %s is lost: %s" if self._at_most_once else "%s: message %s becomes a dead letter: %s"
        told = None if issubclass(type(error), Reject) else error  # a rejection says all in its reason
        fields = self._fields(job, "lost" if self._at_most_once else "dead-lettered", seconds)
        values = (self._name, job.name or "that can't be read", why.reason)
        _log(logging.ERROR, text, *values, error=told, fields=fields)
        if self._hooks.has_listener("dead_lettered"):
            self._hooks.emit("dead_lettered", DeadLettered(self._name, job.context, why, _type_of(job)))
        return ACK if self._at_most_once else why

    # What else happens to messages

    def received(self, jobs: Sequence[Job]) -> None:
        """Report that messages were received."""
        if jobs and self._hooks.has_listener("received"):
            self._hooks.emit("received", Received(self._name, [job.delivery for job in jobs]))

    def released(self, job: Job) -> None:
        """Report that a message is released, if it is lost by that."""
        if self._at_most_once:
            text = (
                "%s: message %s is lost: the worker ended before it was handled, and the broker does not redeliver it"
            )
            name = job.message_id or "that was not read yet"
            logger.warning(text, self._name, name, extra=self._fields(job, "lost"))

    def cancelled_at_shutdown(self, job: Job) -> None:
        """Report that a handler did not end within the grace period."""
        text = "%s: message %s did not finish in time, and is released"
        logger.warning(text, self._name, job.message_id, extra=self._fields(job, "released"))

    def hangs_at_shutdown(self, job: Job, seconds: float) -> None:
        """Report that a handler goes on though it was cancelled."""
        text = "%s: the handler of message %s was cancelled and has not ended after %g s; the worker waits for it"
        logger.error(text, self._name, job.message_id, seconds, extra=self._fields(job, "lease-lost"))

    def lease_lost(self, job: Job) -> None:
        """Report that the lease of a message was lost after its handler had started."""
        text = "%s has lost the lease of message %s; another worker may handle it too, and this outcome is discarded"
        logger.warning(text, self._name, job.message_id, extra=self._fields(job, "lease-lost"))

    def settled(self, settled: Sequence[tuple[Job, Outcome]], lost: Container[int]) -> None:
        """Report that the broker has recorded outcomes; ``lost`` has the ids of the deliveries that it did not."""
        if self._hooks.has_listener("settled"):
            for job, outcome in settled:
                gone = id(job.delivery) in lost
                self._hooks.emit("settled", Settled(self._name, job.delivery, job.message_id, outcome, gone))

    def _fields(self, job: Job, outcome: str, seconds: float | None = None) -> dict[str, object]:
        """Return what is known of a message, as fields of a log record."""
        fields = {
            "diator_subscription": self._name,
            "diator_message_id": job.message_id,
            "diator_message_type": None if job.envelope is None else job.envelope.type,
            "diator_attempt": job.delivery.failures + 1,
            "diator_correlation_id": None if job.context is None else job.context.correlation_id,
            "diator_outcome": outcome,
            "diator_duration_seconds": seconds,
        }
        return {name: value for name, value in fields.items() if value is not None}


def _type_of(job: Job) -> str | None:
    """The wire name of an event that a handler here takes."""
    return None if job.context is None or job.envelope is None else job.envelope.type


def _log(level: int, text: str, *values: object, error: BaseException | None, fields: dict[str, object]) -> None:
    """Log an error with its traceback; as text where handlers that write UTF-8 would drop the record otherwise."""
    if error is None or not is_recordable(error):
        more = "" if error is None else "\n" + traceback_of(error)
        logger.log(level, f"{text}%s", *values, more, extra=fields)  # noqa: G004 - the text is one of a few
    else:  # not the error itself: logging would ask whether that is true
        logger.log(level, text, *values, exc_info=(type(error), error, error.__traceback__), extra=fields)


# How the policy of a handler decides on a failure


def _decide(error: BaseException, attempt: int, retry: Retry) -> Outcome:
    """Retry, as the policy or the handler wants it, or dead-letter.

    What stands in a group counts as if it had been raised by itself: `Reject` before ``never``, that before
    `RetryLater`, of which the longest counts.
    """
    errors = list(with_members(error))
    for one in errors:
        if issubclass(type(one), Reject):
            return _dead_letter_of(f"rejected: {reason_of_rejection(one)}", attempt, error)
    for one in errors:
        if issubclass(type(one), retry.never):
            return _dead_letter_of(f"never retried after {class_name_of(one)}", attempt, error)
    if attempt >= retry.attempts:
        attempts = "1 attempt" if attempt == 1 else f"{attempt} attempts"
        return _dead_letter_of(f"exhausted after {attempts}", attempt, error)
    seconds = max(_delays_asked_for(errors), default=None)
    return RetryAfter(min(retry.delay_after(attempt, seconds), _MAX_DELAY))


def _delays_asked_for(errors: Iterable[BaseException]) -> Iterator[float]:
    """The delays of all that are `RetryLater`; one that was made without its constructor may have no sensible one."""
    for error in errors:
        if issubclass(type(error), RetryLater):
            with suppress(Exception):  # it may be a property, which can do anything
                seconds: Any = getattr(error, "seconds", None)
                if is_number(seconds):
                    yield float(min(seconds, _MAX_DELAY))  # whole numbers may be larger than all others


def _dead_letter_of(reason: str, attempts: int = 0, error: BaseException | None = None) -> MoveToDeadLetters:
    """A dead letter with everything that is known of it."""
    reason = recordable(reason)
    if error is None:
        return MoveToDeadLetters(reason, attempts=attempts)
    return MoveToDeadLetters(reason, full_name_and_text(error), traceback_of(error), attempts)
