"""How all resources of a container are closed, even if some of them fail."""

from collections.abc import Awaitable, Callable, Collection, Coroutine, Generator, MutableSequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from typing import Any, NoReturn, TypeVar

from diator._groups import members, with_members

T = TypeVar("T")


class _NothingToClose(Coroutine[Any, Any, None]):
    """Awaited, it ends at once."""

    def __await__(self) -> Generator[Any, Any, None]:
        yield from ()

    def send(self, _value: object, /) -> NoReturn:
        raise StopIteration

    def throw(self, kind: Any, value: Any = None, _traceback: Any = None, /) -> NoReturn:
        raise kind if value is None else value

    def close(self) -> None:
        """Do nothing."""


NOTHING_TO_CLOSE: Coroutine[Any, Any, None] = _NothingToClose()
"""A value that ``__aexit__`` of a scope may return if there is nothing to close, instead of being a coroutine function.

For plugins: Diator then neither awaits it nor shields it from cancellation, which would take as long as building three
objects.
"""


async def close_in_reverse(
    resources: MutableSequence[T],
    close: Callable[[T, BaseException | None], Awaitable[object]],
    error: BaseException | None,
) -> None:
    """Close resources in reverse order of opening, and empty the list. For plugins.

    Each is closed with the error that failed the unit of work or, without one, the first error of closing, so that none
    commits after a failure, even if a resource suppresses the error. All are closed, even if one of them raises an
    error.

    Raises the first error of closing, with the others among its causes; a cancellation takes precedence.
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
    failures.sort(key=lambda failure: issubclass(type(failure), Exception))
    for later in failures[1:]:
        add_cause(failures[0], later)
    if failures:
        raise failures[0]


class ResourceStack:
    """The open resources of a scope. Like `contextlib.AsyncExitStack`, but it closes with `close_in_reverse`.

    In an exit stack, a resource that suppresses the error hides it from those opened earlier, which then commit.
    """

    __slots__ = ("exits",)

    def __init__(self) -> None:
        # Any: the exits of context managers, and whether to await what they return.
        self.exits: list[tuple[Callable[..., Any], bool]] = []

    def enter_context(self, manager: AbstractContextManager[T]) -> T:
        """Open a resource."""
        value = manager.__enter__()
        self.exits.append((manager.__exit__, False))
        return value

    async def enter_async_context(self, manager: AbstractAsyncContextManager[T]) -> T:
        """Open a resource."""
        value = await manager.__aenter__()
        self.exits.append((manager.__aexit__, True))
        return value

    async def close(self, error: BaseException | None) -> None:
        """Close everything."""
        await close_in_reverse(self.exits, _leave, error)


async def _leave(opened: tuple[Callable[..., Any], bool], error: BaseException | None) -> None:
    leave, awaits = opened
    left = leave(*exit_arguments(error))
    if awaits:
        await left


def exit_arguments(error: BaseException | None) -> tuple[Any, Any, Any]:
    """Return the arguments of ``__exit__`` for an error, or for none. For plugins: the error's class may hide them."""
    return (None, None, None) if error is None else (type(error), error, _TRACEBACK.__get__(error))


def add_cause(error: BaseException, closing: BaseException) -> None:
    """Add an error of closing at the end of the causes of an error.

    It goes to the end because readers first look for the existing causes and contexts. References from there back to
    the error are cut, because tools that print errors would follow the cycle forever. From a group that contains the
    error, as a task group raises, the other members are added.
    """
    chain: dict[int, BaseException] = {}
    last = error
    following: BaseException | None = error
    while following is not None and id(following) not in chain:
        if following is closing or _is_alike(following, closing):
            return  # an error object that is raised again and again would get one more each time
        chain[id(following)] = last = following
        cause, context = _CAUSE.__get__(last), _CONTEXT.__get__(last)
        following = cause if cause is not None or _SUPPRESSES.__get__(last) else context
    ends = {id(member) for one in chain.values() for member in with_members(one)}
    rest = _without(closing, ends)
    if rest is not None:
        _cut(rest, ends)
        _CAUSE.__set__(last, rest)


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
            if other is not None:
                rest = _without(other, ends)
                if rest is not other:
                    link.__set__(one, rest)
                left += [rest] if rest is not None and id(rest) not in seen else []
        left += [member for member in members(one) if id(member) not in seen]


def _without(error: BaseException, ends: Collection[int]) -> Any:
    """Give an error, or what is left of a group without those with these ids, if anything is. ``Any``: or None."""
    if id(error) in ends:
        return None
    if not any(id(member) in ends for member in with_members(error)):
        return error

    def leads_back(one: BaseException) -> bool:
        return id(one) in ends

    try:
        group: Any = error  # a class of the package `exceptiongroup` until Python 3.11
        return group.split(leads_back)[1]
    except Exception:  # noqa: BLE001 - of making another group of a class of its own
        return None


# Python's own, past what a class makes of them: frozen classes do not allow setting them. Any: they are descriptors.
_CAUSE: Any = vars(BaseException)["__cause__"]
_CONTEXT: Any = vars(BaseException)["__context__"]
_SUPPRESSES: Any = vars(BaseException)["__suppress_context__"]
_TRACEBACK: Any = vars(BaseException)["__traceback__"]
