"""Readiness: whether what an app depends on is there. ``@app.readiness`` registers a check."""

import asyncio
from collections.abc import Awaitable, Callable
from inspect import Parameter, iscoroutinefunction, signature
from typing import Any, NamedTuple, TypeVar, overload

from diator._locations import caller, location_in_frame
from diator.errors import ConfigurationError, Problem
from diator.options import FLAG, NAME, optional, require

Check = Callable[[], Awaitable[None]]
CheckT = TypeVar("CheckT", bound=Check)

_TIMEOUT = 3.0
"""Seconds that a check may take: shorter than probes wait."""


class ReadinessCheck(NamedTuple):
    """One check: an async function that raises while something is not there."""

    name: str
    function: Check
    pauses: bool
    """Whether workers take no messages while it fails."""

    async def failure(self) -> str | None:
        """Run it; return what to say of its failure, or None if it passed."""
        try:
            await asyncio.wait_for(self.function(), _TIMEOUT)
        except asyncio.TimeoutError as error:
            text = str(error) or f"no answer within {_TIMEOUT:g} s"
        except Exception as error:  # noqa: BLE001 - whatever it raises means that it does not pass
            text = f"{type(error).__qualname__}: {error}".removesuffix(": ")
        else:
            return None
        return f"the readiness check {self.name} fails ({text})"


async def failures(checks: "list[ReadinessCheck]") -> list[str]:
    """Run checks at the same time; return what those say that fail."""
    found = await asyncio.gather(*(check.failure() for check in checks))
    return [text for text in found if text is not None]


_OPTIONS = {"name": optional(NAME), "pauses": FLAG}


def _readiness_check(function: Any, name: str | None, pauses: bool) -> ReadinessCheck:
    """Make a check. ``Any``: callers may be unchecked.

    Raises `ConfigurationError` for what is not an async function, or takes parameters.
    """
    wrong: tuple[str, str] | None = None
    if not iscoroutinefunction(function):
        wrong = "is not an async function", "write async def; await asyncio.to_thread(...) for blocking calls"
    elif any(one.default is Parameter.empty for one in signature(function).parameters.values()):
        fix = "remove its parameters; it can await app.send(...) with a query, whose handler gets its dependencies"
        wrong = "takes parameters", fix
    if wrong is not None:
        text = f"@app.readiness was put on {getattr(function, '__qualname__', repr(function))}, which {wrong[0]}"
        raise ConfigurationError([Problem("readiness", text, wrong[1], location_in_frame(caller()))])
    return ReadinessCheck(name or function.__name__, function, pauses)


class ReadinessChecks:
    """The decorator of an app that registers a check."""

    _readiness: list[ReadinessCheck]

    @overload
    def readiness(self, check: CheckT) -> CheckT: ...
    @overload
    def readiness(self, *, name: str | None = None, pauses: bool = False) -> Callable[[CheckT], CheckT]: ...
    def readiness(self, check: Any = None, *, name: str | None = None, pauses: bool = False) -> Any:
        """Register a check of a dependency: an async function that raises an error while it is unavailable.

        ``diator run --health`` runs it for each request of ``/readyz``, for at most 3 seconds, and reports failures.
        With ``pauses=True``, workers also run it every second, and receive no messages while it fails, so that these do
        not count as failed. ``name`` is the name of the function by default.

        Raises `ConfigurationError` if the function is not async or has parameters, and for an invalid option.
        """
        require("app.readiness", _OPTIONS, {"name": name, "pauses": pauses}, "readiness")

        def register(function: Any) -> Any:
            self._readiness.append(_readiness_check(function, name, pauses))
            return function

        return register if check is None else register(check)

    async def not_ready_reasons(self) -> list[str]:
        """Run the readiness checks at the same time; return what to say of those that fail. Empty if all pass.

        For a health route of a web application. What a worker knows is in its own ``not_ready_reasons``.
        """
        return await failures(self._readiness)
