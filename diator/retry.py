"""How often, and after what delays, a message is tried again."""

from collections.abc import Iterable
from typing import Any

from diator._places import caller, place_in
from diator.errors import ConfigurationError, Problem


class Retry:
    """A policy for brokered events: ``Retry(attempts=5, delay=1.0, never=(ValidationError,))``.

    A handler is tried at most ``attempts`` times. The first retry waits ``delay`` seconds, each later one ``factor``
    times as long; each wait is shortened or lengthened at random by up to ``jitter`` of itself, so that many failures
    at once do not come back at once, and none is longer than ``max_delay`` seconds. After an error of a class in
    ``never`` there is no retry, also where it stands in an `ExceptionGroup`. Then the message is parked as a dead
    letter.

    Raises `ConfigurationError` for numbers that make no sense.
    """

    __slots__ = ("attempts", "delay", "factor", "jitter", "max_delay", "never")

    def __init__(
        self,
        attempts: int = 5,
        delay: float = 1.0,
        factor: float = 2.0,
        max_delay: float = 300.0,
        jitter: float = 0.1,
        never: Iterable[type[Exception]] = (),
    ) -> None:
        self.attempts = attempts
        self.delay = delay
        self.factor = factor
        self.max_delay = max_delay
        self.jitter = jitter
        given: Any = never  # callers may be unchecked
        self.never: tuple[type[Exception], ...] = tuple(given) if _is_iterable(given) else _NO_CLASSES
        wrong = self._wrong()
        if wrong:
            text, remedy = wrong
            raise ConfigurationError([Problem("retry", f"Retry got {text}", remedy, place_in(caller()))])

    def _wrong(self) -> tuple[str, str] | None:
        if not is_count(self.attempts):
            return f"attempts={self.attempts!r}", "count the first try too: give a whole number from 1 up"
        for name, least in (("delay", 0), ("factor", 1), ("max_delay", 0)):
            value: Any = getattr(self, name)  # callers may be unchecked
            if not is_seconds(value) or value < least:
                return f"{name}={value!r}", f"give a number from {least} up"
        if not is_seconds(self.jitter) or not 0 <= self.jitter <= 1:
            return f"jitter={self.jitter!r}", "give a share of the delay, from 0 to 1"
        never: tuple[Any, ...] = self.never
        if not all(isinstance(cls, type) and issubclass(cls, BaseException) for cls in never):
            return "a never that holds no classes", "give classes of exceptions, as in never=(ValueError,)"
        return None

    @property
    def longest(self) -> float:
        """The longest delay that this policy can ask for, in seconds."""
        return 0.0 if self.attempts < 2 else min(self.max_delay, self._before_jitter(self.attempts - 1) * self._most)

    def delay_after(self, attempt: int) -> float:
        """The seconds to wait after an attempt, counted from 1, has failed."""
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

    def __repr__(self) -> str:
        return f"Retry({', '.join(f'{name}={getattr(self, name)!r}' for name in self.__slots__)})"


_NO_CLASSES: Any = (None,)


def _is_iterable(value: object) -> bool:
    return isinstance(value, Iterable)


def is_count(value: Any) -> bool:
    """Whether something is a whole number from 1 up. ``Any``: callers may be unchecked."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def is_seconds(value: Any) -> bool:
    """Whether something is a finite number from 0 up. ``Any``: callers may be unchecked."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < float("inf")
