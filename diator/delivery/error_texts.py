"""Texts of errors that every broker can record: valid characters only, and limited in length."""

import traceback
from collections.abc import Callable

from diator._groups import members
from diator.brokers.port import Broker
from diator.containers.closing import exit_arguments
from diator.errors import BrokerUnavailableError

_MAX_SHORT, _MAX_TRACEBACK = 4_000, 32_000
"""Characters. An error may quote a whole response, and a dead letter is kept for a long time."""

_MAX_ERRORS = 10_000
"""Errors that a traceback shows, causes and members of groups included."""


def recordable(text: str, limit: int = _MAX_SHORT) -> str:
    """Return a text as any broker can record it.

    Half characters (lone surrogates, as `os.fsdecode` returns for a file name that is not UTF-8) and zeros are written
    as escapes, and what is over the limit loses its middle.
    """
    whole = str.encode(text, "utf-8", "backslashreplace").decode().replace("\0", "\\x00")
    if len(whole) <= limit:
        return whole
    half = limit // 2
    return f"{whole[:half]}\n[... {len(whole) - 2 * half:,} characters left out ...]\n{whole[-half:]}"


def no_answer(broker: Broker, timeout: float) -> BrokerUnavailableError:
    """Return the error for a call of a broker that has not ended after ``timeout`` seconds."""
    where = f" at {broker.address}" if broker.address else ""
    return BrokerUnavailableError(f"{type(broker).__name__}{where}: no answer within {timeout:g} s")


def class_name_of(error: BaseException) -> str:
    """Return the name of the class of an error."""
    return recordable(_attempt(lambda: f"{type(error).__qualname__}", "an error whose class has no name"))


def described(error: BaseException) -> str:
    """Return the class of an error and what it says, if it can say anything."""
    return recordable(f"{class_name_of(error)}{_said(error)}")


def text_of(error: BaseException) -> str:
    """Return what an error says, or its class where it says nothing."""
    text = _attempt(lambda: f"{error}", f"an error of class {class_name_of(error)}, which has no text")
    return recordable(text) or class_name_of(error)


def full_name_and_text(error: BaseException) -> str:
    """Return what `described` does, with the module of the class."""
    module = _attempt(lambda: f"{type(error).__module__}.", "")
    return recordable(f"{module}{class_name_of(error)}{_said(error)}")


def reason_of_rejection(error: BaseException) -> str:
    """Return the reason that a `Reject` gives, or what it says where it gives none."""
    reason = _attempt(lambda: str(getattr(error, "reason", None) or ""), "")
    return recordable(reason or described(error))


def traceback_of(error: BaseException) -> str:
    """Return the traceback of an error, with its causes."""
    return recordable(_attempt(lambda: _formatted(error), "its traceback could not be formatted"), _MAX_TRACEBACK)


def is_recordable(error: BaseException) -> bool:
    """Return whether the traceback of an error can be written as it is."""
    return _attempt(lambda: _formatted(error).encode().decode(), "") != ""


def _formatted(error: BaseException) -> str:
    _ensure_countable(error)
    return "".join(traceback.format_exception(type(error), error, exit_arguments(error)[2]))


def _ensure_countable(error: BaseException) -> None:
    """Raise for an error whose groups hold themselves, or each other many times: Python goes through all of it."""
    left, linked, count = [error], {id(error)}, 0
    while left:
        one = left.pop()
        count += 1
        if count > _MAX_ERRORS:
            raise ValueError(f"more than {_MAX_ERRORS} errors in one")
        left += members(one)
        for other in (one.__cause__, one.__context__):
            if other is not None and id(other) not in linked:
                linked.add(id(other))
                left.append(other)


def _said(error: BaseException) -> str:
    try:
        return f": {error}".removesuffix(": ")
    except BaseException as broken:  # noqa: BLE001 - an error that can't be shown must not be raised again forever
        return f", whose text raised {class_name_of(broken)}"


def _attempt(make: Callable[[], str], otherwise: str) -> str:
    """Return the text that is made of an error, or another where making it fails: classes of errors can do anything."""
    try:
        return make()
    except BaseException:  # noqa: BLE001 - as above
        return otherwise
