"""Topics without a subscription and subscriptions without a handler, found if the broker may manage the namespace."""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
from azure.core.exceptions import ClientAuthenticationError, ResourceNotFoundError
from diator_azure_servicebus import ServiceBusBroker
from diator_azure_servicebus._names import subscription_of
from diator_azure_servicebus._topology import ManagementTopology, ProbeTopology
from diator_azure_servicebus.testing import ServerTopology
from servicebus_test_server import ServiceBusServer, shorten_sdk_sleeps

from diator import BrokerError, Diator, NotificationEvent, contract
from diator.brokers import Subscription


@contract("unsubscribed.sold")
@dataclass(frozen=True)
class Sold(NotificationEvent):
    number: int = 1


class Management:
    """What is asked of the management client."""

    def get_topic_runtime_properties(self, name: str) -> Any:
        if name == "gone":
            raise ResourceNotFoundError
        if name == "secret":
            raise ClientAuthenticationError("no right to manage")
        return SimpleNamespace(subscription_count=int(name == "taken"))


async def test_topics_are_looked_up_over_the_management_interface() -> None:
    client: Any = Management()
    topology = ManagementTopology(client)
    assert list(await topology.unsubscribed(["empty", "taken", "gone"])) == ["empty", "gone"]
    with pytest.raises(BrokerError):
        await topology.unsubscribed(["secret"])


class Removal:
    """The management client of a namespace with subscriptions of Diator and of other programs."""

    def __init__(self) -> None:
        self.deleted: list[str] = []
        self.failing = ""
        long = "shop." + "x" * 60
        self.forwards = {
            "shop.bill": "sb://test.servicebus.windows.net/shop.bill",
            subscription_of(long): f"sb://test.servicebus.windows.net/{long}",
            "audit": "sb://test.servicebus.windows.net/audit-archive",
            "readers": None,
        }

    def list_topics(self) -> list[Any]:
        return [SimpleNamespace(name="sold"), SimpleNamespace(name="gone")]

    def list_subscriptions(self, topic: str) -> list[Any]:
        if topic == "gone":
            raise ResourceNotFoundError
        return [SimpleNamespace(name=name, forward_to=target) for name, target in self.forwards.items()]

    def get_queue_runtime_properties(self, _name: str) -> Any:
        return SimpleNamespace(active_message_count=3, scheduled_message_count=1, dead_letter_message_count=2)

    def delete_queue(self, name: str) -> None:
        self._delete(name)

    def delete_subscription(self, topic: str, name: str) -> None:
        self._delete(f"{topic}/{name}")

    def _delete(self, path: str) -> None:
        if path.endswith(".retry"):
            raise ResourceNotFoundError
        if path == self.failing:
            raise ClientAuthenticationError("no right to delete")
        self.deleted.append(path)

    def close(self) -> None:
        """Nothing is open."""


@pytest.fixture
async def managed() -> AsyncIterator[tuple[ServiceBusBroker, Removal]]:
    client: Any = Removal()
    with ServiceBusServer() as server, shorten_sdk_sleeps():
        broker = ServiceBusBroker(server.connection_string, topology=ManagementTopology(client))
        await broker.connect()
        yield broker, client
        await broker.aclose()


async def test_subscriptions_of_other_programs_are_not_listed(managed: tuple[ServiceBusBroker, Removal]) -> None:
    broker, client = managed
    found = await broker.other_subscriptions([])
    assert [(one.name, one.backlog, one.dead_letters) for one in found] == [
        ("shop.bill", 4, 2),
        ("shop." + "x" * 60, 4, 2),
    ]
    used = [Subscription("Shop.Bill", ())]  # the service ignores case
    assert [one.name for one in await broker.other_subscriptions(used)] == ["shop." + "x" * 60]
    for name in ("audit", "audit-archive", "readers", "shop.bill.retry", "sold"):
        assert not await broker.remove_subscription(name)
    assert client.deleted == []


async def test_removing_deletes_the_queue_last(managed: tuple[ServiceBusBroker, Removal]) -> None:
    broker, client = managed
    assert await broker.remove_subscription("shop.bill")
    assert client.deleted == ["sold/shop.bill", "shop.bill"]


async def test_a_removal_that_fails_names_what_is_left(managed: tuple[ServiceBusBroker, Removal]) -> None:
    broker, client = managed
    client.failing = "shop.bill"
    with pytest.raises(BrokerError, match=r"of subscription 'shop.bill' this is left to delete: shop.bill$"):
        await broker.remove_subscription("shop.bill")


async def test_a_connection_that_cannot_manage_says_so() -> None:
    with ServiceBusServer() as server, shorten_sdk_sleeps():
        broker = ServiceBusBroker(server.connection_string)
        await broker.connect()
        with pytest.raises(BrokerError, match="can neither list nor remove subscriptions"):
            await broker.other_subscriptions([])
        with pytest.raises(BrokerError, match="can neither list nor remove subscriptions"):
            await broker.remove_subscription("shop.bill")
        await broker.aclose()


async def test_nothing_is_said_where_it_can_not_be_known() -> None:
    link: Any = None
    assert list(await ProbeTopology(link).unsubscribed(["empty", "gone"])) == []


@pytest.mark.skipif("DIATOR_TEST_SERVICEBUS" in os.environ, reason="about the server for tests")
async def test_publishing_to_a_topic_without_a_subscription_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    with ServiceBusServer() as server, shorten_sdk_sleeps(), caplog.at_level(logging.WARNING, "diator"):
        app = Diator("shop", broker=ServiceBusBroker(server.connection_string, topology=ServerTopology(server)))
        app.publishes(Sold)
        async with app:
            async with app.operations() as operations:
                await operations.apply()  # creates the topic
            await app.publish(Sold(1))
            await app.publish(Sold(2))
    texts = [record.getMessage() for record in caplog.records if "no subscription" in record.getMessage()]
    assert len(texts) == 1
    assert "'unsubscribed.sold'" in texts[0]
