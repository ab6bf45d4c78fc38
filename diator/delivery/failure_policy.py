"""What becomes of a message after its handler has failed, or where it can't be handled at all."""

from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Any

from diator._groups import with_members
from diator.brokers.port import MoveToDeadLetters, Outcome, RetryAfter
from diator.delivery.error_texts import (
    class_name_of,
    full_name_and_text,
    reason_of_rejection,
    recordable,
    traceback_of,
)
from diator.errors import Reject, RetryLater
from diator.options import is_number
from diator.retry import Retry

_LONGEST = 365 * 24 * 3600.0
"""Seconds that a retry may wait: an outcome with a time that a broker can't write down would come back for ever."""


def decide_outcome(error: BaseException, attempt: int, retry: Retry) -> Outcome:
    """Retry, as the policy or the handler wants it, or park.

    What stands in a group counts as if it had been raised by itself: `Reject` before ``never``, that before
    `RetryLater`, of which the longest counts.
    """
    errors = list(with_members(error))
    for one in errors:
        if issubclass(type(one), Reject):
            return dead_letter_outcome(f"rejected: {reason_of_rejection(one)}", attempt, error)
    for one in errors:
        if issubclass(type(one), retry.never):
            return dead_letter_outcome(f"never retried after {class_name_of(one)}", attempt, error)
    if attempt >= retry.attempts:
        return dead_letter_outcome(f"exhausted after {attempt} attempts", attempt, error)
    seconds = max(_delays_asked_for(errors), default=None)
    return RetryAfter(min(retry.delay_after(attempt, seconds), _LONGEST))


def _delays_asked_for(errors: Iterable[BaseException]) -> Iterator[float]:
    """The delays of all that are `RetryLater`; one that was made without its constructor may have no sensible one."""
    for error in errors:
        if issubclass(type(error), RetryLater):
            with suppress(Exception):  # it may be a property, which can do anything
                seconds: Any = getattr(error, "seconds", None)
                if is_number(seconds):
                    yield float(min(seconds, _LONGEST))  # whole numbers may be larger than all others


def dead_letter_outcome(reason: str, attempts: int = 0, error: BaseException | None = None) -> MoveToDeadLetters:
    """A dead letter with everything that is known of it."""
    reason = recordable(reason)
    if error is None:
        return MoveToDeadLetters(reason, attempts=attempts)
    return MoveToDeadLetters(reason, full_name_and_text(error), traceback_of(error), attempts)
