"""From the name of an app to its broker: what the commands for operators share. None of them runs the app."""

import asyncio
from collections.abc import Callable, Collection, Coroutine, Iterable, Sequence
from typing import Any, NoReturn, TypeVar

import typer

from diator._inspection import inspect_app
from diator.cli.arguments import codes_text, count, load_or_exit, plugin_text, problem_text
from diator.delivery.catalog import ConsumerConfig
from diator.delivery.operations import Operations, select
from diator.errors import BrokerError, BrokerUnavailableError, ConfigurationError, Problem

T = TypeVar("T")


class AppBroker:
    """An app whose broker is to be worked at; ends with exit code 1 where it has none.

    With ``changing`` it must have no errors: what no handler could consume is neither created nor replayed.
    """

    def __init__(self, name: str, *, changing: bool) -> None:
        self._name = name
        try:
            app = load_or_exit(name)
            self.app_name = app.name
            problems = inspect_app(app).errors
            if problems and changing:
                raise ConfigurationError(problems)  # noqa: TRY301 - told in one place
            self._operations = app.operations()
        except ConfigurationError as error:
            end_with_problems(error.problems)
        if problems:
            typer.echo(f"{count(len(problems), 'problem')}; see: diator check {name}", err=True)

    def named(self, names: Sequence[str] | None) -> Sequence[ConsumerConfig]:
        """Give the handlers of these subscriptions, or all; ends with exit code 1 for one that there is not."""
        try:
            return select(self._operations.configs, names or ())
        except ConfigurationError as error:
            end_with_problems(error.problems)

    @property
    def subscription_names(self) -> Collection[str]:
        """The names of the subscriptions that the app's handlers use."""
        return [one.name for one in self._operations.configs]

    def operate(self, work: Callable[[Operations], Coroutine[Any, Any, T]]) -> T:
        """Do something at the broker; ends with exit code 1 where that is away or refuses, or can't be used so."""

        async def connected() -> T:
            async with self._operations as operations:
                return await work(operations)

        try:
            return asyncio.run(connected())
        except ConfigurationError as error:  # such as a library that connecting needs
            end_with_problems(error.problems)
        except BrokerUnavailableError as error:
            exit_error(f"{plugin_text(error, self._name)}\n    -> start the broker, or correct the app's broker=...")
        except BrokerError as error:
            exit_error(plugin_text(error, self._name))


def end_with_problems(problems: Iterable[Problem]) -> NoReturn:
    """End with exit code 1 and these problems on stderr."""
    for problem in problems:
        typer.echo(problem_text(problem), err=True)
    typer.echo(codes_text(), err=True)
    raise typer.Exit(1)


def exit_error(text: str) -> NoReturn:
    """End with exit code 1."""
    typer.echo(f"Error: {text}", err=True)
    raise typer.Exit(1)
