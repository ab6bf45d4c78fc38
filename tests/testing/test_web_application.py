"""An app that a web framework starts, recorded from outside: also in another thread and event loop."""

import asyncio
import threading
from collections.abc import AsyncGenerator, Coroutine, Generator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any

import httpx
from fastapi import FastAPI

from diator import Command, Diator, DomainEvent, Publish
from diator.testing import record


@dataclass(frozen=True)
class Join(Command[int]):
    user: int


@dataclass(frozen=True)
class Joined(DomainEvent):
    user: int


class Store:
    def __init__(self, users: int) -> None:
        self.users = users


app = Diator()
app.provides(Store)


@app.command
async def join(command: Join, store: Store, publish: Publish[Joined]) -> int:
    publish(Joined(command.user))
    return store.users


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncGenerator[None]:
    async with app:
        yield


web = FastAPI(lifespan=lifespan)


@web.post("/users/{user}")
async def post_user(user: int) -> int:
    return await app.send(Join(user))


@contextmanager
def served() -> Generator["Client"]:
    """Run the web application as test clients do: its lifespan and its requests in the event loop of a thread."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    client = Client(loop)
    running = lifespan(web)
    client.run(running.__aenter__())
    try:
        yield client
    finally:
        client.run(running.__aexit__(None, None, None))
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


class Client:
    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop

    def run(self, running: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(running, self.loop).result(10)

    def post(self, path: str) -> object:
        async def post() -> object:
            async with httpx.AsyncClient(transport=httpx.ASGITransport(web), base_url="http://test") as client:
                return (await client.post(path)).json()

        return self.run(post())


def test_the_lifespan_of_a_web_application_starts_the_app_that_is_recorded() -> None:
    with record(app, replace={Store: Store(8)}) as seen, served() as client:
        assert client.post("/users/1") == 8
    assert seen.published.one(Joined, by=join) == Joined(1)


def test_an_app_that_runs_in_another_thread_is_recorded_for_a_while() -> None:
    with served() as client:
        with record(app, replace={Store: Store(8)}) as first:
            assert client.post("/users/1") == 8
        with record(app, replace={Store: Store(9)}) as second:
            assert client.post("/users/2") == 9
    assert first.sent == [Join(1)]
    assert second.sent == [Join(2)]


async def test_a_client_without_lifespan_is_served_by_an_app_that_the_record_has_started() -> None:
    transport = httpx.ASGITransport(web)
    async with (
        record(app, replace={Store: Store(7)}) as seen,
        httpx.AsyncClient(transport=transport, base_url="http://test") as client,
    ):
        assert (await client.post("/users/3")).json() == 7
    assert seen.sent.one(Join) == Join(3)
