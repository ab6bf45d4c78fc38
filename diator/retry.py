"""The number of attempts for a message, and the delays between them."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from diator.options import SECONDS, Rule, are_errors, is_a, is_count, is_iterable, is_number, is_share, require


@dataclass(frozen=True, slots=True, init=False)
class Retry:
    """A retry policy for brokered events: ``Retry(attempts=5, delay=1.0, never=(ValidationError,))``.

    Set the policy of the app with ``Diator(..., retry=Retry(...))``; a handler may have its own::

        @app.on_event(retry=Retry(attempts=3, delay=10.0))  # retries after about 10 s and 20 s
        async def send_welcome(event: UserJoined, mailer: Mailer) -> None: ...

    After the last attempt, or an error that is never retried, the message becomes a dead letter. A handler can also
    raise `RetryLater` to set the delay, or `Reject` to dead-letter the message immediately.

    Args:
        attempts: The maximum number of attempts, including the first.
        delay: Seconds before the first retry.
        factor: The factor by which each delay is longer than the one before.
        max_delay: The maximum delay in seconds.
        jitter: The share by which each delay is randomly shortened or lengthened, so that messages that failed together
            are not all retried at the same time.
        never: Classes of errors that are not retried, even inside an `ExceptionGroup`.

    Raises `ConfigurationError` for numbers out of range.
    """

    attempts: int
    delay: float
    factor: float
    max_delay: float
    jitter: float
    never: tuple[type[Exception], ...]

    def __init__(
        self,
        attempts: int = 5,
        delay: float = 1.0,
        factor: float = 2.0,
        max_delay: float = 300.0,
        jitter: float = 0.1,
        never: Iterable[type[Exception]] = (),
    ) -> None:
        given: dict[str, Any] = {  # Any: callers may be unchecked
            "attempts": attempts,
            "delay": delay,
            "factor": factor,
            "max_delay": max_delay,
            "jitter": jitter,
            "never": tuple(never) if is_iterable(never) else never,
        }
        require("Retry", _RULES, given, "retry")
        for name, value in given.items():
            object.__setattr__(self, name, value)  # as frozen dataclasses do

    @property
    def longest(self) -> float:
        """The longest delay of this policy, in seconds."""
        return 0.0 if self.attempts < 2 else min(self.max_delay, self._before_jitter(self.attempts - 1) * self._most)

    def delay_after(self, attempt: int, asked: float | None = None) -> float:
        """Return the seconds to wait after a failed attempt, from 1; ``asked`` is the delay of a `RetryLater`."""
        if asked is not None:
            return asked
        from random import uniform  # noqa: PLC0415 - slow to import, and needed after a failure only

        delay = self._before_jitter(attempt)
        # A limit on the result would have all that fail at once come back at once, when their delay is at its limit.
        return uniform(delay * (1 - self.jitter), min(self.max_delay, delay * self._most))  # noqa: S311 - hides nothing

    @property
    def _most(self) -> float:
        return 1 + self.jitter

    def _before_jitter(self, attempt: int) -> float:
        try:
            return float(min(self.max_delay, self.delay * self.factor ** (attempt - 1)))
        except OverflowError:
            return float(self.max_delay)


def _is_factor(value: Any) -> bool:
    return is_number(value) and bool(value >= 1)


RETRY = Rule(is_a(Retry), "a policy, such as Retry(attempts=3)")
_RULES = {
    "attempts": Rule(is_count, "a whole number from 1 up (the first attempt counts)"),
    "delay": SECONDS,
    "factor": Rule(_is_factor, "a number from 1 up"),
    "max_delay": SECONDS,
    "jitter": Rule(is_share, "a share of the delay, from 0 to 1"),
    "never": Rule(are_errors, "classes of exceptions, such as (ValueError,)"),
}
