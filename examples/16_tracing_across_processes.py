"""One trace from an HTTP request to the SQL statement of a worker in another process, with OpenTelemetry.

It runs on a Redis server of its own, or on the one that `REDIS_URL` names. The worker is this program, started a second
time. Both write their spans to the console, as an exporter would send them to a collector; at the end they are drawn as
the tree that a tracing backend shows.
"""

import asyncio
import contextlib
import io
import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import AsyncGenerator, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TextIO

import httpx
from diator_opentelemetry import OpenTelemetry
from diator_redis.testing import RedisServer
from fastapi import FastAPI
from opentelemetry import trace
from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
from opentelemetry.instrumentation.sqlite3 import SQLite3Instrumentor
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor

from diator import Command, Diator, Hooks, NotificationEvent, Publish, contract
from diator.hooks import Settled


@dataclass(frozen=True)
class JoinMeeting(Command[None]):
    meeting_id: int
    user_id: int


@contract("meetings.user-joined")
@dataclass(frozen=True)
class UserJoined(NotificationEvent):
    meeting_id: int
    user_id: int


def make_app(redis: str, *hooks: Hooks) -> Diator:
    app = Diator("meetings", broker=redis, hooks=[OpenTelemetry(), *hooks])

    @app.command
    async def join_meeting(command: JoinMeeting, publish: Publish[UserJoined]) -> None:
        publish(UserJoined(command.meeting_id, command.user_id))

    @app.on_event
    async def count_members(event: UserJoined) -> None:
        with contextlib.closing(sqlite3.connect(":memory:")) as database:
            cursor = database.cursor()
            cursor.execute("CREATE TABLE members (meeting_id, user_id)")
            cursor.execute("INSERT INTO members VALUES (?, ?)", (event.meeting_id, event.user_id))

    return app


def make_web(app: Diator) -> FastAPI:
    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncGenerator[None]:
        async with app:
            yield

    web = FastAPI(lifespan=lifespan)

    @web.post("/meetings/{meeting_id}/members/{user_id}")
    async def join(meeting_id: int, user_id: int) -> None:
        await app.send(JoinMeeting(meeting_id, user_id))

    FastAPIInstrumentor.instrument_app(web, exclude_spans=["receive", "send"])
    return web


async def serve(redis: str) -> None:
    """The first process: answer one request."""
    web = make_web(make_app(redis))
    client = httpx.AsyncClient(transport=httpx.ASGITransport(web), base_url="http://example")
    async with web.router.lifespan_context(web), client:
        (await client.post("/meetings/1/members/7")).raise_for_status()


class Handled(Hooks):
    """Knows when a message has been handled."""

    def __init__(self) -> None:
        self.event = asyncio.Event()

    def settled(self, _: Settled) -> None:
        self.event.set()


async def work(redis: str) -> None:
    """The second process: handle one event."""
    SQLite3Instrumentor().instrument()
    handled = Handled()
    app = make_app(redis, handled)
    async with app, app.worker():
        print("ready", flush=True)
        await handled.event.wait()


def as_line(span: ReadableSpan) -> str:
    context = span.get_span_context()
    assert context is not None
    parent = span.parent.span_id if span.parent else None
    return json.dumps({"name": span.name, "id": context.span_id, "parent": parent, "began": span.start_time}) + "\n"


def export_spans(out: TextIO) -> None:
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(ConsoleSpanExporter(out=out, formatter=as_line)))
    trace.set_tracer_provider(provider)


def draw(spans: Sequence[Mapping[str, Any]], parent: int | None = None, depth: int = 0) -> None:
    for span in sorted(spans, key=lambda span: span["began"]):
        if span["parent"] == parent:
            print(f"{span['process']:<8}{'  ' * depth}{span['name']}")
            draw(spans, span["id"], depth + 1)


@contextlib.contextmanager
def redis_server() -> Generator[str]:
    if url := os.environ.get("REDIS_URL"):
        yield url
        return
    with RedisServer() as server:
        yield server.url


def main() -> None:
    own = io.StringIO()
    export_spans(own)
    with (
        redis_server() as redis,
        subprocess.Popen([sys.executable, __file__, redis], stdout=subprocess.PIPE, text=True) as worker,
    ):
        assert worker.stdout is not None
        worker.stdout.readline()  # it is ready
        asyncio.run(serve(redis))
        theirs = worker.stdout.read()
    written = {"web": own.getvalue(), "worker": theirs}
    draw([{"process": name, **json.loads(line)} for name, lines in written.items() for line in lines.splitlines()])


if __name__ == "__main__":
    if sys.argv[1:]:
        export_spans(sys.stdout)
        asyncio.run(work(sys.argv[1]))
    else:
        main()
