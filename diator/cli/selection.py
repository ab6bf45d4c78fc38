"""Which dead letters a command is about: its options, and what fits them."""

import re
from collections.abc import Collection, Sequence
from contextlib import aclosing
from datetime import timedelta
from typing import Annotated, NamedTuple

import typer

from diator.cli.app_broker import AppBroker, exit_error
from diator.cli.arguments import printable
from diator.delivery.operations import DeadLetterFilter, OpenedDeadLetter, Operations
from diator.errors import BrokerError

SubscriptionOption = Annotated[
    list[str] | None,
    typer.Option("--subscription", "-s", metavar="NAME", help="The subscription of the dead letters. Repeatable."),
]
IdOption = Annotated[
    list[str] | None, typer.Option("--id", help="The id of a dead letter, as `list` shows it. Repeatable.")
]
MessageIdOption = Annotated[list[str] | None, typer.Option("--message-id", help="The id of the event. Repeatable.")]
ErrorOption = Annotated[
    str | None,
    typer.Option("--error", metavar="TEXT", help="A part of the exception's class or text, or of the reason."),
]

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_AGE = re.compile(r"(\d+(?:\.\d+)?)([smhdw])", re.ASCII)


def age(text: str) -> timedelta:
    """Read ``90s``, ``30m``, ``2h``, ``1d12h`` or ``1w``. Raises `typer.BadParameter`."""
    parts = _AGE.findall(text)
    if not parts or "".join(map("".join, parts)) != text:
        raise typer.BadParameter(
            f"{text!r} is not an age; write a number and a unit (s, m, h, d or w), such as 30m or 1d12h"
        )
    try:
        return sum((timedelta(**{_UNITS[unit]: float(number)}) for number, unit in parts), timedelta())
    except OverflowError:
        raise typer.BadParameter(f"{text!r} is too long ago for a date") from None


OlderOption = Annotated[
    timedelta | None,
    typer.Option(
        "--older-than", metavar="AGE", parser=age, help="The minimum age since dead-lettering, such as 30m, 2h or 7d."
    ),
]
NewerOption = Annotated[
    timedelta | None,
    typer.Option(
        "--newer-than", metavar="AGE", parser=age, help="The maximum age since dead-lettering, such as 30m, 2h or 7d."
    ),
]
LimitOption = Annotated[
    int | None,
    typer.Option("--limit", min=1, metavar="N", help="The maximum number of dead letters, the oldest first."),
]


class Selection(NamedTuple):
    """The dead letters that fit."""

    letters: Sequence[OpenedDeadLetter]
    more: bool
    """Whether there are more than the limit."""
    missing_ids: Sequence[str]
    """The ids that were asked for and that none has."""
    missing_subscriptions: Sequence[str]
    """The subscriptions without a dead letter that the broker does not have."""


def select(
    target: AppBroker, subscriptions: Sequence[str] | None, wanted: DeadLetterFilter, limit: int | None
) -> Selection:
    """Read the dead letters that fit. All are read before any is touched: one that fails again is not seen twice."""
    of = target.named(subscriptions)

    async def read(operations: Operations) -> tuple[list[OpenedDeadLetter], Sequence[str]]:
        found: list[OpenedDeadLetter] = []
        async with aclosing(operations.dead_letters(of, wanted)) as letters:
            async for letter in letters:
                found.append(letter)
                if limit is not None and len(found) > limit:
                    break
        owners = {letter.config.name for letter in found}
        return found, await _missing_subscriptions(operations, {one.name for one in of} - owners)

    found, absent = target.operate(read)
    more = limit is not None and len(found) > limit
    letters = found[:limit]
    missing = [] if more else [*_missing_ids(wanted, letters)]
    return Selection(letters, more, missing, absent)


async def _missing_subscriptions(operations: Operations, names: Collection[str]) -> Sequence[str]:
    """Which of these subscriptions there are not; none where the broker does not tell."""
    if not names:
        return ()
    try:
        standing = await operations.status()
    except BrokerError:
        return ()
    return [one.name for one, status in standing if one.name in names and not status.exists]


def _missing_ids(wanted: DeadLetterFilter, letters: Sequence[OpenedDeadLetter]) -> Sequence[str]:
    ids = {letter.dead.id for letter in letters}
    message_ids = {letter.envelope.id for letter in letters if letter.envelope}
    return [
        *(f"id {one!r}" for one in wanted.ids if one not in ids),
        *(f"message id {one!r}" for one in wanted.message_ids if one not in message_ids),
    ]


def report_missing_subscriptions(chosen: Selection, target: str) -> None:
    """Say which subscriptions have no dead letters because there is no such subscription."""
    if chosen.missing_subscriptions:
        names = ", ".join(chosen.missing_subscriptions)
        typer.echo(f"the broker has no {names}; create it with: diator subscriptions apply {target}", err=True)


def report_missing_ids(chosen: Selection) -> None:
    """End with exit code 1 where something was asked for by its id, and is not there."""
    if chosen.missing_ids:
        exit_error(f"no matching dead letter has the {printable(', nor the '.join(chosen.missing_ids))}")


def reject_ambiguous(wanted: DeadLetterFilter, letters: Sequence[OpenedDeadLetter]) -> None:
    """End with exit code 1 where one id was given, and several subscriptions have a dead letter with it."""
    for one in wanted.ids:
        owners = [letter.config.name for letter in letters if letter.dead.id == one]
        if len(owners) > 1:
            exit_error(f"the id {one!r} is one of {' and of '.join(owners)}; say which: --subscription {owners[0]}")
