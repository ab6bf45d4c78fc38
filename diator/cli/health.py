"""The answers for probes and scrapes, over as little HTTP as they need."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from pathlib import Path
from typing import NamedTuple

from diator.errors import ConfigurationError, Problem

_MAX_REQUEST_BYTES = 8192
"""Bytes of the request line and the headers."""
_READ_TIMEOUT = 5.0
"""Seconds that one connection may take in all."""
_MAX_CONNECTIONS = 100


class Answer(NamedTuple):
    """The response to one request."""

    status: HTTPStatus
    body: bytes
    content_type: str


class Address(NamedTuple):
    """Where probes ask."""

    host: str | None
    """None for all interfaces."""
    port: int


def address(text: str) -> Address:
    """Read ``HOST:PORT`` or ``PORT``. Raises `ValueError`."""
    host, _, port = text.rpartition(":")
    if not (port.isascii() and port.isdigit() and int(port) < 2**16) or (":" in host) != (host[:1] + host[-1:] == "[]"):
        raise ValueError(
            f"{text!r} is not an address; write a port, such as 8080, or HOST:PORT, such as 127.0.0.1:8080"
        )
    return Address(host.strip("[]") or None, int(port))


class HealthServer:
    """Answers GET requests, one on each connection."""

    def __init__(self, routes: Mapping[str, Callable[[], Awaitable[Answer]]]) -> None:
        self._routes = routes
        self._open = 0

    async def start(self, where: "Address | Path") -> asyncio.Server:
        """Listen, at a path on a Unix socket. Raises `ConfigurationError` where that is not possible."""
        if isinstance(where, Path):
            return await asyncio.start_unix_server(self._serve, where, limit=_MAX_REQUEST_BYTES)
        try:
            return await asyncio.start_server(self._serve, where.host, where.port, limit=_MAX_REQUEST_BYTES)
        except OSError as error:
            text = f"can't listen on {where.host or 'all interfaces'}, port {where.port}, for --health: {error}"
            raise ConfigurationError(
                [Problem("health", text, "choose another address, or stop the process that listens there")]
            ) from error

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open += 1
        try:
            if self._open <= _MAX_CONNECTIONS:
                await asyncio.wait_for(self._exchange(reader, writer), _READ_TIMEOUT)
        except (OSError, EOFError, asyncio.TimeoutError):
            pass  # the client no longer listens
        except asyncio.CancelledError:
            pass  # the process ends; up to Python 3.12 the server logs an error for a cancelled connection
        finally:
            self._open -= 1
            writer.close()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            request = await reader.readuntil(b"\r\n\r\n")
        except asyncio.LimitOverrunError:
            answer = _failure(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
        else:
            answer = await self._answer(request.partition(b"\r\n")[0].decode("latin-1").split(" "))
        writer.write(_written(answer))
        await writer.drain()

    async def _answer(self, request: list[str]) -> Answer:
        if len(request) != 3 or not request[2].startswith("HTTP/1."):
            return _failure(HTTPStatus.BAD_REQUEST)
        if request[0] != "GET":
            return _failure(HTTPStatus.METHOD_NOT_ALLOWED)
        route = self._routes.get(request[1].partition("?")[0])
        return await route() if route else _failure(HTTPStatus.NOT_FOUND, paths=list(self._routes))


async def ask(socket: Path, route: str) -> Answer:
    """Ask a `HealthServer` that listens on a Unix socket. Raises `OSError` if it does not, or ends meanwhile."""
    reader, writer = await asyncio.open_unix_connection(socket)
    try:
        writer.write(f"GET {route} HTTP/1.1\r\n\r\n".encode())
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    finally:
        writer.close()
    if not head:
        raise ConnectionResetError("it has closed the connection without an answer")
    status, content_type, *_ = head.decode().split("\r\n")
    return Answer(HTTPStatus(int(status.split(" ")[1])), body, content_type.partition(": ")[2])


def json_answer(status: HTTPStatus, body: Mapping[str, object]) -> Answer:
    """Answer with one JSON object."""
    return Answer(status, json.dumps(body).encode() + b"\n", "application/json")


def _failure(status: HTTPStatus, **more: object) -> Answer:
    return json_answer(status, {"error": status.phrase, **more})


def _written(answer: Answer) -> bytes:
    lines = (
        f"HTTP/1.1 {answer.status.value} {answer.status.phrase}",
        f"Content-Type: {answer.content_type}",
        f"Content-Length: {len(answer.body)}",
        "Cache-Control: no-store",
        *(["Allow: GET"] if answer.status is HTTPStatus.METHOD_NOT_ALLOWED else []),
        "Connection: close",
    )
    return "\r\n".join((*lines, "", "")).encode() + answer.body
