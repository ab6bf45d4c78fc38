"""lato. It sets dependencies when a transaction begins; there the scope of dishka opens, and closes at its end."""

# ruff: noqa: ARG001 - the signatures are those that the library asks for
# pyright: basic, reportMissingImports=false
# mypy: ignore-errors
# The library lives in an environment of its own, where no type checker looks.

from itertools import repeat
from types import FunctionType

from dishka import Provider, Scope, make_async_container
from lato import Application, Command, Event, TransactionContext

from benchmarks.measure import Work
from benchmarks.peers.driver import Repository, Service, run


class Ask(Command):
    number: int


class Asked(Event):
    number: int


async def answer(command: Ask) -> int:
    return command.number


async def react(event: Asked) -> None:
    assert event.number


async def send() -> Work:
    return _sent(Application("raced"), answer, {answer: 1})


async def middlewares() -> Work:
    async def first(ctx: TransactionContext, call_next):
        return await call_next()

    async def second(ctx: TransactionContext, call_next):
        return await call_next()

    async def third(ctx: TransactionContext, call_next):
        return await call_next()

    app = Application("raced")
    for middleware in (first, second, third):
        app.transaction_middleware(middleware)
    return _sent(app, answer, {first: 1, second: 1, third: 1, answer: 1})


async def published() -> Work:
    async def publish_and_answer(command: Ask, ctx: TransactionContext) -> int:
        await ctx.publish_async(Asked(number=command.number))
        return command.number

    app = Application("raced")
    app.handler(Asked)(react)
    return _sent(app, publish_and_answer, {publish_and_answer: 1, react: 1})


async def fan_out() -> Work:
    app = Application("raced")
    for _ in range(10):
        reaction = FunctionType(react.__code__, globals())
        reaction.__annotations__ = react.__annotations__
        app.handler(Asked)(reaction)
    event = Asked(number=1)

    async def loop(times: int) -> None:
        for _ in repeat(None, times):
            await app.publish_async(event)

    return Work(loop, {react: 10})


async def injected() -> Work:
    async def answer_with(command: Ask, service: Service) -> int:
        return command.number + service.offset

    provider = Provider(scope=Scope.REQUEST)
    provider.provide(Repository)
    provider.provide(Service)
    container = make_async_container(provider)
    app = Application("raced")

    @app.on_enter_transaction_context
    async def enter(ctx: TransactionContext) -> None:
        opening = container()
        scope = await opening.__aenter__()
        ctx.set_dependencies(opening=opening, service=await scope.get(Service))

    @app.on_exit_transaction_context
    async def leave(ctx: TransactionContext, exception=None) -> None:
        await ctx["opening"].__aexit__(None, exception, None)

    return _sent(app, answer_with, {answer_with: 1, Service.__init__: 1})


def _sent(app: Application, handler, runs) -> Work:
    app.handler(Ask)(handler)
    command = Ask(number=1)

    async def loop(times: int) -> None:
        for _ in repeat(None, times):
            await app.execute_async(command)

    return Work(loop, runs)


if __name__ == "__main__":
    run(send, middlewares, published, fan_out, injected)
