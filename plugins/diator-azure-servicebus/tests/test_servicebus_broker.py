"""The suite for brokers, on the server for tests.

With ``DIATOR_TEST_SERVICEBUS`` set to a connection string it runs on that namespace instead; see `test_servicebus_live.py`.
"""

from collections.abc import Iterator

import pytest
from diator_azure_servicebus import ServiceBusBroker
from diator_azure_servicebus.testing import ServerTopology, ServiceBusServer, Topic, hasty_sdk

from diator.brokers import Broker
from diator.conformance.brokers import BrokerSuite, Wanted


@pytest.fixture(scope="module")
def server() -> Iterator[ServiceBusServer]:
    with ServiceBusServer() as running, hasty_sdk():
        yield running


class TestServiceBusBroker(BrokerSuite):
    """What every broker plugin must do."""

    short_lease = 1.0
    messages = 300
    examples = 5

    @pytest.fixture(autouse=True)
    def _server(self, server: ServiceBusServer) -> None:
        self.server = server

    def make_broker(self, space: str, wanted: Wanted) -> Broker:
        """Make a broker; the topics of its space are there already, so that one may publish before anybody listens."""
        for name in (f"{space}.orders", f"{space}.bills"):
            try:
                self.server.counts(name)
            except LookupError:
                self.server.add(Topic(name, duplicate_window=wanted.duplicate_window or None))
        return ServiceBusBroker(
            self.server.connection_string,
            lease=wanted.lease,
            duplicate_window=wanted.duplicate_window,
            socket_timeout=0.02,
            topology=ServerTopology(self.server),
        )

    async def cut_connections(self) -> None:
        self.server.cut()

    async def stop_server(self) -> None:
        self.server.go_away()

    async def start_server(self) -> None:
        self.server.come_back()
