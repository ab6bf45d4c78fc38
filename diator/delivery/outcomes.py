"""What becomes of a message after its handler has failed, or where it can't be handled at all."""

import math
import traceback

from diator.brokers.port import Outcome, Park, RetryAfter
from diator.errors import Reject, RetryLater
from diator.retry import Retry

_LONGEST = 365 * 24 * 3600.0
"""Seconds that a retry may wait: an outcome with a time that a broker can't write down would come back for ever."""


def after_failure(error: BaseException, attempt: int, retry: Retry) -> Outcome:
    """Retry, as the policy or the handler wants it, or park."""
    if isinstance(error, Reject):
        return parked(f"rejected: {getattr(error, 'reason', None) or in_words(error)}", attempt, error)
    if isinstance(error, retry.never):
        return parked(f"never retried after {type(error).__qualname__}", attempt, error)
    if attempt >= retry.attempts:
        return parked(f"exhausted after {attempt} attempts", attempt, error)
    if isinstance(error, RetryLater):
        seconds = _seconds(getattr(error, "seconds", None))
        if seconds is not None:
            return RetryAfter(min(seconds, _LONGEST))
    return RetryAfter(min(retry.delay_after(attempt), _LONGEST))


def _seconds(value: object) -> float | None:
    """A delay that a handler has asked for; none where it makes no sense, since handlers are not checked."""
    if not isinstance(value, (int, float)):
        return None
    try:
        return max(0.0, float(value)) if math.isfinite(value) else None
    except OverflowError:  # whole numbers may be larger than all others
        return None


def in_words(error: BaseException) -> str:
    """The class of an error and what it says, if it can say anything."""
    try:
        return f"{type(error).__qualname__}: {error}"
    except Exception as broken:  # noqa: BLE001 - an error that can't be shown must not come back for ever
        return f"{type(error).__qualname__}, whose text raised {type(broken).__qualname__}"


def parked(reason: str, attempts: int = 0, error: BaseException | None = None) -> Park:
    """A dead letter with everything that is known of it."""
    if error is None:
        return Park(reason, attempts=attempts)
    kind = type(error)
    text = "".join(traceback.format_exception(kind, error, error.__traceback__))
    return Park(reason, f"{kind.__module__}.{in_words(error)}", text, attempts)
