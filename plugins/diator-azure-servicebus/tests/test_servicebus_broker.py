"""The suite for brokers, on the server for tests.

With ``DIATOR_TEST_SERVICEBUS`` set to the connection string of a namespace, the suite runs there: its key must have the
right *Manage*, since each case creates entities and deletes them. The SDK is not hurried then. The emulator can't be
told to create any: for it there is `test_servicebus_live.py`.
"""

import asyncio
import os
from collections.abc import Iterator

import pytest
from azure.servicebus.management import ServiceBusAdministrationClient
from diator_azure_servicebus import ServiceBusBroker
from diator_azure_servicebus.testing import ServerTopology
from diator_conformance.brokers import BrokerOptions, BrokerSuite
from servicebus_test_server import ServiceBusServer, Topic, shorten_sdk_sleeps

from diator.brokers import Broker

NAMESPACE = os.environ.get("DIATOR_TEST_SERVICEBUS", "")
SHORTEST_LOCK = 5.0
"""Seconds: of a real queue."""

if "usedevelopmentemulator" in NAMESPACE.lower():
    pytest.skip("the emulator can't be told to create entities", allow_module_level=True)


@pytest.fixture(scope="module")
def server() -> Iterator[ServiceBusServer]:
    with ServiceBusServer() as running, shorten_sdk_sleeps():
        yield running


if not NAMESPACE:

    class TestServiceBusBroker(BrokerSuite):
        """What every broker plugin must do."""

        case_timeout = 120.0  # for a busy machine: the case that lasts longest takes a few seconds
        short_lease = 1.0
        message_count = 500
        max_examples = 8
        lives = 4

        @pytest.fixture(autouse=True)
        def _server(self, server: ServiceBusServer) -> None:
            self.server = server

        def make_broker(self, space: str, wanted: BrokerOptions) -> Broker:
            """Make a broker. The topics of its space are there already: some publish before anybody listens."""
            for name in (f"{space}-{space}.orders", f"{space}-{space}.bills"):
                try:
                    self.server.counts(name)
                except LookupError:
                    self.server.add(Topic(name, duplicate_window=wanted.duplicate_window or None))
            return ServiceBusBroker(
                self.server.connection_string,
                prefix=f"{space}-",
                lease=wanted.lease,
                duplicate_window=wanted.duplicate_window,
                topology=ServerTopology(self.server),
            )

        @pytest.mark.xfail(reason="the lock duration is that of the queue; a longer lease is an error in the log")
        def test_a_lease_is_that_of_the_process_that_asked(self) -> None:
            """What happens is on the README."""
            super().test_a_lease_is_that_of_the_process_that_asked()

        async def cut_connections(self) -> None:
            """Break all connections."""
            self.server.reset_connections()

        async def stop_server(self) -> None:
            """Be away."""
            self.server.take_offline()

        async def start_server(self) -> None:
            """Be there again, with everything that was stored."""
            self.server.bring_online()

else:

    class TestNamespace(BrokerSuite):
        """The same on a real namespace, which can't be cut off."""

        case_timeout = 180.0
        receive_timeout = 30.0
        short_lease = SHORTEST_LOCK
        message_count = 200
        max_examples = 2
        lives = 1

        def make_broker(self, space: str, wanted: BrokerOptions) -> Broker:
            """Make a broker; topics that are published to before anybody listens are created."""
            with ServiceBusAdministrationClient.from_connection_string(NAMESPACE) as management:
                there = {topic.name for topic in management.list_topics()}
                for name in {f"{space}-{space}.orders", f"{space}-{space}.bills"} - there:
                    management.create_topic(name, requires_duplicate_detection=bool(wanted.duplicate_window))
            lease = max(SHORTEST_LOCK, wanted.lease)
            return ServiceBusBroker(
                NAMESPACE, prefix=f"{space}-", lease=lease, duplicate_window=wanted.duplicate_window
            )

        async def clean_up(self, space: str) -> None:
            """Delete what was created."""
            await asyncio.to_thread(_delete, space)


def _delete(space: str) -> None:
    with ServiceBusAdministrationClient.from_connection_string(NAMESPACE) as management:
        for topic in management.list_topics():
            if topic.name.startswith(space):
                management.delete_topic(topic.name)
        for queue in management.list_queues():
            if queue.name.startswith(space):
                management.delete_queue(queue.name)
