"""Run the server as a process: ``python -m diator_azure_servicebus.testing --queue orders``.

It writes its connection string to the standard output when it is ready, and runs until it is interrupted.
"""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from collections.abc import Sequence

from diator_azure_servicebus.testing.command_line import HELP, read_entities
from diator_azure_servicebus.testing.server import ServiceBusServer


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve until SIGINT or SIGTERM."""
    parser = argparse.ArgumentParser(
        prog="python -m diator_azure_servicebus.testing",
        description="A small Azure Service Bus for tests, over plain TCP.",
        epilog=HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--port", type=int, default=5672, help="TCP port, 0 for any that is free (default: 5672)")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1)")
    parser.add_argument("--queue", action="append", default=[], metavar="NAME[,OPTION...]", help="may be repeated")
    parser.add_argument(
        "--topic", action="append", default=[], metavar="TOPIC[/SUBSCRIPTION][,OPTION...]", help="may be repeated"
    )
    options = parser.parse_args(arguments)
    try:
        entities = read_entities(options.queue, options.topic)
    except ValueError as cause:
        parser.error(str(cause))
    ended = threading.Event()

    def end(_number: int, _frame: object) -> None:
        ended.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, end)
    with ServiceBusServer(entities, port=options.port, host=options.host) as server:
        sys.stdout.write(server.connection_string + "\n")
        sys.stdout.flush()
        ended.wait()


if __name__ == "__main__":
    main()
