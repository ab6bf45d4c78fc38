"""What becomes of a message after its handler has failed, or where it can't be handled at all."""

import traceback

from diator.brokers.port import Outcome, Park, RetryAfter
from diator.errors import Reject, RetryLater
from diator.retry import Retry


def after_failure(error: BaseException, attempt: int, retry: Retry) -> Outcome:
    """Retry, as the policy or the handler wants it, or park."""
    if isinstance(error, Reject):
        return parked(f"rejected: {error.reason}", attempt, error)
    if isinstance(error, retry.never):
        return parked(f"never retried after {type(error).__qualname__}", attempt, error)
    if attempt >= retry.attempts:
        return parked(f"exhausted after {attempt} attempts", attempt, error)
    if isinstance(error, RetryLater):
        return RetryAfter(max(0.0, float(error.seconds)))
    return RetryAfter(retry.delay_after(attempt))


def parked(reason: str, attempts: int = 0, error: BaseException | None = None) -> Park:
    """A dead letter with everything that is known of it."""
    if error is None:
        return Park(reason, attempts=attempts)
    kind = type(error)
    text = "".join(traceback.format_exception(kind, error, error.__traceback__))
    return Park(reason, f"{kind.__module__}.{kind.__qualname__}: {error}", text, attempts)
