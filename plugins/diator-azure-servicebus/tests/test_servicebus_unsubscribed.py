"""Topics of Service Bus without a subscription: found where the broker may manage the namespace."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
from azure.core.exceptions import ClientAuthenticationError, ResourceNotFoundError
from diator_azure_servicebus import ServiceBusBroker
from diator_azure_servicebus._topology import Managing, Probing
from diator_azure_servicebus.testing import ServerTopology
from servicebus_test_server import ServiceBusServer, hasty_sdk

from diator import BrokerError, Diator, NotificationEvent, contract


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
    topology = Managing(client)
    assert list(await topology.unsubscribed(["empty", "taken", "gone"])) == ["empty", "gone"]
    with pytest.raises(BrokerError):
        await topology.unsubscribed(["secret"])


async def test_nothing_is_said_where_it_can_not_be_known() -> None:
    link: Any = None
    assert list(await Probing(link).unsubscribed(["empty", "gone"])) == []


@pytest.mark.skipif("DIATOR_TEST_SERVICEBUS" in os.environ, reason="about the server for tests")
async def test_publishing_to_a_topic_without_a_subscription_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    with ServiceBusServer() as server, hasty_sdk(), caplog.at_level(logging.WARNING, "diator"):
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
