"""A worker as operators see it: a lifespan, a readiness check that pauses it, probes, and metrics for Prometheus.

It runs on a Redis server of its own, or on the one that `REDIS_URL` names. The program starts `diator run` with this
file, and plays the rest: the mail server, which is down at first, Kubernetes, which asks for `/readyz`, and Prometheus.
"""

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncGenerator, Generator
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import httpx
from diator_redis.testing import RedisServer
from prometheus_client import Counter

from diator import Command, Diator, NotificationEvent, Retry, contract

MAILS = Counter("shop_mails", "Mails that were sent.")  # a metric of the application, which /metrics shows as well
HANDLED = 'diator_handled_total{subscription="shop.confirm",type="shop.order-placed"} 3.0'
templates: dict[str, str] = {}


@dataclass(frozen=True)
class LoadTemplates(Command[None]): ...


@contract("shop.order-placed")
@dataclass(frozen=True)
class OrderPlaced(NotificationEvent):
    order_id: int


@contextlib.asynccontextmanager
async def lifespan(app: Diator) -> AsyncGenerator[None]:
    await app.send(LoadTemplates())  # before the first message: the broker is connected
    yield
    print("worker: the last message is settled", flush=True)  # the worker has stopped


app = Diator("shop", broker=os.environ.get("REDIS_URL", "redis://localhost:6379"), lifespan=lifespan)


@app.command
async def load_templates(_: LoadTemplates) -> None:
    templates["confirmation"] = "thank you for order {order_id}\n"


async def mail_connection() -> asyncio.StreamWriter:
    _, writer = await asyncio.open_connection("127.0.0.1", int(os.environ["MAIL_PORT"]))
    return writer


@app.readiness(name="mail-server", pauses=True)  # while it fails, messages wait instead of becoming dead letters
async def mail_server() -> None:
    (await mail_connection()).close()


@app.on_event(retry=Retry(attempts=3, delay=0.1))
async def confirm(event: OrderPlaced) -> None:
    writer = await mail_connection()
    writer.write(templates["confirmation"].format(order_id=event.order_id).encode())
    await writer.drain()
    writer.close()
    MAILS.inc()


class MailServer:
    """What the program puts on the port that the worker sends mails to."""

    def __init__(self) -> None:
        self.mails: list[str] = []
        self.received = asyncio.Condition()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        lines = (await reader.read()).decode().splitlines()
        writer.close()
        async with self.received:
            self.mails += lines
            self.received.notify_all()

    async def wait_for(self, number: int) -> None:
        async with self.received:
            await self.received.wait_for(lambda: len(self.mails) >= number)


async def ask(probes: httpx.AsyncClient, path: str, *, until: str) -> httpx.Response:
    """Ask as Kubernetes and Prometheus do, until the answer has this text."""
    while True:
        with contextlib.suppress(httpx.TransportError):  # the process is starting
            response = await probes.get(path)
            if until in response.text:
                return response
        await asyncio.sleep(0.1)


async def watch(redis: str, mail_port: int, health_port: int) -> None:
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{health_port}", timeout=10) as probes:
        answer = await ask(probes, "/readyz", until="is paused")
        print(answer.status_code, *(reason.partition(" (")[0] for reason in answer.json()["reasons"]), sep="; ")
        async with Diator("web", broker=redis) as web:
            await web.publish(*map(OrderPlaced, range(1, 4)))
        print("3 orders are placed, and wait")

        mails = MailServer()
        async with await asyncio.start_server(mails.serve, "127.0.0.1", mail_port):
            await mails.wait_for(3)
            print(f"the mail server is up, and gets {len(mails.mails)} mails, such as: {min(mails.mails)}")
            print((await ask(probes, "/readyz", until='"ready": true')).status_code, "ready")
            scraped = await ask(probes, "/metrics", until=HANDLED)
        names = ("diator_handled_total", "diator_dead_lettered_total", "shop_mails_total")
        lines = scraped.text.splitlines()
        print(*sorted(line for line in lines if line.startswith(names) and "unknown" not in line), sep="\n")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        port: int = found.getsockname()[1]
        return port


@contextlib.contextmanager
def redis_server() -> Generator[str]:
    if url := os.environ.get("REDIS_URL"):
        yield url
        return
    with RedisServer() as server:
        yield server.url


def main() -> None:
    mail_port, health_port = free_port(), free_port()
    with redis_server() as server:
        redis, health = f"{server}?prefix=example-{uuid4()}", f"127.0.0.1:{health_port}"
        worker = subprocess.Popen(
            [sys.executable, "-m", "diator", "run", f"{Path(__file__).stem}:app", "--health", health],
            cwd=Path(__file__).parent,
            env={**os.environ, "REDIS_URL": redis, "MAIL_PORT": str(mail_port)},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # its log
            text=True,
        )
        try:
            asyncio.run(asyncio.wait_for(watch(redis, mail_port, health_port), 60))
        finally:
            worker.send_signal(signal.SIGTERM)
            out, _ = worker.communicate()
    print(
        *(line for line in out.splitlines() if line.startswith("worker:")),
        f"it ended with {worker.returncode}",
        sep="\n",
    )


if __name__ == "__main__":
    main()
