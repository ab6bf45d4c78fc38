"""Run the server as a process: ``servicebus-test-server --queue orders``.

It writes its connection string to the standard output when it is ready, and runs until it is interrupted.
"""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from collections.abc import Sequence
from typing import NoReturn

from servicebus_test_server.command_line import HELP, read_entities
from servicebus_test_server.server import ServiceBusServer


class _Parser(argparse.ArgumentParser):
    """Says in one line what is wrong."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"Error: {message}\n")


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve until SIGINT or SIGTERM.

    The exit code is 0 after a signal, 1 where it can't listen, 2 for a mistake in the command.
    """
    ended = threading.Event()

    def end(_number: int, _frame: object) -> None:
        ended.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, end)
    server = _started(_parser(), arguments)
    sys.stdout.write(server.connection_string + "\n")
    sys.stdout.flush()
    ended.wait()
    server.stop()


def _parser() -> _Parser:
    parser = _Parser(
        prog="servicebus-test-server",
        description="A small Azure Service Bus for tests, over plain TCP.",
        epilog=HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--port", type=_port, default=5672, help="TCP port, 0 for any that is free (default: 5672)")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1)")
    parser.add_argument("--queue", action="append", default=[], metavar="NAME[,OPTION...]", help="may be repeated")
    parser.add_argument(
        "--topic", action="append", default=[], metavar="TOPIC[/SUBSCRIPTION][,OPTION...]", help="may be repeated"
    )
    return parser


def _started(parser: _Parser, arguments: Sequence[str] | None) -> ServiceBusServer:
    options = parser.parse_args(arguments)
    try:
        entities = read_entities(options.queue, options.topic)
        server = ServiceBusServer(entities, port=options.port, host=options.host)
        server.start()
    except (OSError, UnicodeError) as cause:  # UnicodeError: the host is no name
        reason = getattr(cause, "strerror", None) or cause
        parser.exit(1, f"Error: can't listen on --host {options.host} --port {options.port}: {reason}\n")
    except ValueError as cause:
        parser.error(str(cause))
    return server


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65_535:
        raise argparse.ArgumentTypeError(f"{text!r} is no port: a number from 0 to 65535 is expected")
    return int(text)


if __name__ == "__main__":
    main()
