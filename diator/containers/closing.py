"""Closing: how everything that a container has opened is closed, whatever fails meanwhile."""

from collections.abc import Awaitable, Callable, Collection, MutableSequence
from typing import Any, TypeVar

T = TypeVar("T")


async def close_in_reverse(
    resources: MutableSequence[T],
    close: Callable[[T, BaseException | None], Awaitable[object]],
    error: BaseException | None,
) -> None:
    """Close resources, the last one opened first, and empty the list. For plugins.

    Each is closed with the error that failed the unit of work or, where there is none, with the first one of closing:
    so none commits after a failure, also where a resource swallows the error. All are closed, whatever one of them
    raises.

    Raises the first error of closing, with the others among its causes; a cancellation comes before other errors.
    """
    failures: list[BaseException] = []
    try:
        while resources:
            seen = error if error is not None or not failures else failures[0]
            try:
                await close(resources.pop(), seen)
            except BaseException as raised:  # noqa: BLE001 - raised below
                if raised is not seen and raised is not error:
                    failures.append(raised)
        _raise_together(failures)
    finally:
        failures.clear()  # this frame is among theirs, and they would keep each other alive
        del error


def _raise_together(failures: list[BaseException]) -> None:
    failures.sort(key=lambda failure: isinstance(failure, Exception))
    for later in failures[1:]:
        add_cause(failures[0], later)
    if failures:
        raise failures[0]


def add_cause(error: BaseException, closing: BaseException) -> None:
    """Put an error of closing at the end of what has led to an error.

    At the end, since the causes and contexts that an error has already are what its reader looks for first. What would
    lead from there back to the error is cut: who follows a circle, as tools that print errors do, never ends.
    """
    chain: dict[int, BaseException] = {}
    last = error
    following: BaseException | None = error
    while following is not None and id(following) not in chain:
        if following is closing or _is_alike(following, closing):
            return  # an error object that is raised again and again would get one more each time
        chain[id(following)] = last = following
        cause, context = _CAUSE.__get__(last), _CONTEXT.__get__(last)
        following = cause if cause is not None or last.__suppress_context__ else context
    _cut(closing, chain)
    _CAUSE.__set__(last, closing)


def _is_alike(error: BaseException, other: BaseException) -> bool:
    try:
        return type(error) is type(other) and bool(error.args == other.args)
    except Exception:  # noqa: BLE001 - of comparing whatever the arguments are
        return False


def _cut(error: BaseException, ends: Collection[int]) -> None:
    """Cut what leads from an error to one of those with these ids."""
    seen: set[int] = set()
    left = [error]
    while left:
        one = left.pop()
        seen.add(id(one))
        for link in (_CAUSE, _CONTEXT):
            other = link.__get__(one)
            if id(other) in ends:
                link.__set__(one, None)
            elif other is not None and id(other) not in seen:
                left.append(other)


# Python's own, past what a class makes of them: frozen ones let nobody set them. Any: they are descriptors.
_CAUSE: Any = vars(BaseException)["__cause__"]
_CONTEXT: Any = vars(BaseException)["__context__"]
