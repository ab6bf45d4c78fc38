"""The pipeline that ``diator show`` prints is the one that runs."""

from dataclasses import dataclass
from typing import Any

import dishka

from diator import CallNext, Command, Diator, DomainEvent, Message, Publish
from diator.cli.describe import describe

ran: list[str] = []


class Session: ...


@dataclass
class Join(Command[None]): ...


@dataclass
class Joined(DomainEvent): ...


async def in_transaction(message: Command[Any] | Joined, call_next: CallNext, session: Session) -> Any:
    ran.append("in_transaction")
    return await call_next(message)


async def logged(message: Message, call_next: CallNext) -> Any:
    ran.append("logged")
    return await call_next(message)


async def measured(message: Command[Any], call_next: CallNext) -> Any:
    ran.append("measured")
    return await call_next(message)


async def join(command: Join, publish: Publish[Joined]) -> None:
    ran.append("join")
    publish(Joined())


async def note(event: Joined) -> None:
    ran.append("note")


async def audit(event: DomainEvent) -> None:
    ran.append("audit")


async def test_middlewares_and_handlers_run_in_the_order_that_is_shown() -> None:
    ran.clear()
    provider = dishka.Provider()
    provider.provide(Session, scope=dishka.Scope.REQUEST)
    app = Diator(container=dishka.make_async_container(provider))
    for middleware in (in_transaction, logged, measured):
        app.add_middleware(middleware, inside=middleware is in_transaction)
    app.add_command(join)
    app.add_event_handler(note)
    app.add_event_handler(audit)
    description = describe(app)
    async with app:
        await app.send(Join())

    command, event = description.commands[0], description.events[0]
    around_each = [layer.name for layer in event.middlewares]
    shown = [*(layer.name for layer in command.middlewares), command.handler.name]
    for handler in event.handlers:
        shown += [*around_each, handler.name]
    assert [name.rpartition(".")[2] for name in shown] == ran
    assert ran[:4] == ["logged", "measured", "in_transaction", "join"]
