"""Faults: what a session does to deliveries, and how that is drawn.

A fault is one line of text that says all of it, such as ``crash: shop.paid #2 at shop.book``. Whether it happens
depends on the seed and this line alone, so that it is the same in every run, regardless of other messages.
"""

import logging
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import dataclass
from random import Random
from typing import Any, Literal, NamedTuple, cast

from diator.brokers.envelope import OutgoingMessage
from diator.errors import DiatorError
from diator.messages import Message
from diator.options import FLAG, Rule, is_share, is_whole, require
from diator.testing.activity import DeliveryKey
from diator.testing.entries import short_repr

logger = logging.getLogger("diator")

FaultKind = Literal["duplicate", "crash", "late", "outage"]

_LATE = 0.5
"""The share of messages that come late where their order may change."""
_MAX_SHOWN = 10
"""Kinds of published messages that an error lists."""
_NAME = r"\S+ #[1-9]\d*( from \S+ of \S+ #[1-9]\d*)*"
_LINE = re.compile(rf"(duplicate|crash|late): {_NAME} at \S+|outage: {_NAME}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Faults:
    """Simulates faults of production in a session: ``app.testing(faults=Faults(seed=1))``.

    - ``duplicates``: the share of messages that are redelivered after they were acknowledged, as if published twice.
    - ``crashes``: the share of deliveries that are handled, with all follow-ups, but never acknowledged, as if the
      process had died in between: they are redelivered immediately, with a higher delivery count.
    - ``reorder``: whether some deliveries come after all other waiting messages. Messages ordered by key stay in order.
    - ``broker_outages``: the share of messages for which the broker is unavailable: publishing the message, and the
      next receive and settlement of each subscription, raise `~diator.BrokerUnavailableError` once.

    Each share is a number from 0 to 1. A message has the same fault at most once in each subscription. The same
    ``seed`` injects the same faults: messages are counted by type, in the order of publishing, and those that a handler
    of a brokered event publishes are counted for each message that it handles.

    ``plan`` lists the faults instead, as printed by a failed session; no others are injected.

    Raises `ConfigurationError` for invalid options.
    """

    seed: int = 0
    duplicates: float = 0.2
    crashes: float = 0.2
    reorder: bool = True
    broker_outages: float = 0.0
    plan: Sequence[str] | None = None

    def __post_init__(self) -> None:
        """Check the options."""
        given = {name: getattr(self, name) for name in _RULES}
        if isinstance(self.plan, list | tuple):
            given["plan"] = [line for line in self.plan if not _is_line(line)]
        require("Faults", _RULES, given)

    def __repr__(self) -> str:
        if self.plan is not None:
            return f"Faults(plan={[*self.plan]!r})"
        drawn = ("seed", "duplicates", "crashes", "reorder", "broker_outages")
        return f"Faults({', '.join(f'{name}={getattr(self, name)!r}' for name in drawn)})"


def _is_line(value: object) -> bool:
    return isinstance(value, str) and _LINE.fullmatch(value) is not None


def _is_plan(value: Any) -> bool:
    if value is None:
        return True
    if isinstance(value, str) or not isinstance(value, Sequence):
        return False
    return all(map(_is_line, cast("Sequence[object]", value)))


_SHARE = Rule(is_share, "a share of the messages, a number from 0 to 1")
_RULES = {
    "seed": Rule(is_whole, "a whole number"),
    "duplicates": _SHARE,
    "crashes": _SHARE,
    "reorder": FLAG,
    "broker_outages": _SHARE,
    "plan": Rule(
        _is_plan,
        "None, or a list of lines as a failed session prints them: 'duplicate: TYPE #NUMBER at SUBSCRIPTION', the same "
        "with 'crash' or 'late', and 'outage: TYPE #NUMBER'; a follow-up is 'TYPE #NUMBER from SUBSCRIPTION of TYPE "
        "#NUMBER'",
    ),
}


class Fault(NamedTuple):
    """One fault that is to happen."""

    line: str
    rank: float
    """Of those that wait for all others to end, the lowest comes first."""
    message_id: str


collecting: ContextVar["dict[str, str] | None"] = ContextVar("diator.testing.faults", default=None)
"""Where `minimize` has the faults of its runs written down. Then a plan may name some that do not happen, and nothing
is reported."""


class Injection:
    """The faults of one session: draws them, and keeps those that have happened."""

    def __init__(self, faults: Faults) -> None:
        self._faults = faults
        self._planned = None if faults.plan is None else {line: place for place, line in enumerate(faults.plan)}
        self._shares: dict[FaultKind, float] = {
            "duplicate": faults.duplicates,
            "crash": faults.crashes,
            "late": _LATE if faults.reorder else 0.0,
            "outage": faults.broker_outages,
        }
        self._published: Counter[tuple[str, str]] = Counter()
        """The messages of each type and origin."""
        self._names: dict[str, str] = {}
        """By the id of a message, its type, number and origin: ids are others in every run."""
        collected = collecting.get()
        self.is_reported = collected is None
        self._injected: dict[str, str] = {} if collected is None else collected
        """Those that have happened, each with how a plan shows it."""
        self._begun: set[str] = set()

    def number(self, messages: Iterable[OutgoingMessage], cause_of: Callable[[str], DeliveryKey | None]) -> None:
        """Count messages as they are published. One that is published again keeps its number.

        Follow-ups are counted for each delivery that causes them: handlers that run at the same time publish in any
        order.
        """
        for message in messages:
            if message.id not in self._names:
                cause = cause_of(message.id)
                origin = "" if cause is None else f" from {cause[1]} of {self._names.get(cause[0], 'another process')}"
                counted = (message.envelope.type, origin)
                self._published[counted] += 1
                self._names[message.id] = f"{counted[0]} #{self._published[counted]}{origin}"

    def fault(self, kind: FaultKind, message_id: str, subscription: str | None = None) -> Fault | None:
        """Give the fault of this kind that is to happen to a message, and has not happened yet."""
        name = self._names.get(message_id)
        if name is None:
            return None  # published by another process
        line = f"{kind}: {name}" if subscription is None else f"{kind}: {name} at {subscription}"
        if line in self._begun:
            return None
        if self._planned is not None:
            return Fault(line, self._planned[line], message_id) if line in self._planned else None
        drawn = Random(f"{self._faults.seed} {line}").random()  # noqa: S311 - reproducible; texts are hashed the same
        return Fault(line, drawn, message_id) if drawn < self._shares[kind] else None

    def begin(self, fault: Fault) -> None:
        """Give a fault no more: it happens now, or soon."""
        self._begun.add(fault.line)

    def give_up(self, fault: Fault) -> None:
        """Give a fault again, since it could not happen yet."""
        self._begun.discard(fault.line)

    def happened(self, fault: Fault, message: Message | None) -> None:
        """Write down that a fault has happened."""
        self._begun.add(fault.line)
        self._injected[fault.line] = plan_line(fault.line, message)

    @property
    def lines(self) -> tuple[str, ...]:
        """The faults that have happened, in order."""
        return tuple(self._injected)

    def __str__(self) -> str:
        if not self._injected:
            return f"{self._faults!r} injected no fault"
        if self._planned is not None:
            return "\n".join(("the faults of the plan that were injected:", *plan_text(self._injected.values())))
        text = f"injected by {self._faults!r}; exactly these, to paste into the test:"
        return "\n".join((text, *plan_text(self._injected.values())))

    def ensure_complete(self) -> None:
        """Raise `DiatorError` if something in the plan has not happened: the test would test less than it says."""
        missing = [line for line in self._planned or () if line not in self._injected]
        if missing:
            counts = [f"{name} #1 to #{count}{origin}" for (name, origin), count in self._published.items()]
            published = ", ".join(counts[:_MAX_SHOWN]) or "nothing"
            published += f", and {len(counts) - _MAX_SHOWN} more" if len(counts) > _MAX_SHOWN else ""
            raise DiatorError(
                f"the plan of faults has some that did not happen: {'; '.join(missing)}. Published were {published}. "
                f"Call `await session.settled()` before the session ends, or take them out of the plan"
            )


def report(injection: Injection, error: BaseException | None) -> None:
    """Tell of the faults of a session: with the error that ends it, or in the log, for what the test finds afterwards.

    Raises `DiatorError` as `Injection.ensure_complete` does.
    """
    if not injection.is_reported:
        return
    if error is None:
        injection.ensure_complete()
        logger.warning("%s", injection)
        return
    notes: list[str] = getattr(error, "__notes__", [])
    with suppress(Exception):  # not every error can be changed; pytest shows notes on Python 3.10 too
        error.__notes__ = [*notes, str(injection)]  # type: ignore[attr-defined]  # since Python 3.11


def plan_line(line: str, message: Message | None) -> str:
    """One line of a plan, as it is printed: with the message as a comment, which a plan that is pasted may keep."""
    return f'"{line}",' + ("" if message is None else f"  # {' '.join(short_repr(message).split())}")


def plan_text(lines: Iterable[str]) -> Iterator[str]:
    """The lines of a plan as Python source."""
    yield "  Faults(plan=["
    yield from (f"      {line}" for line in lines)
    yield "  ])"
