"""Azure Service Bus as a message broker for Diator."""

from diator_azure_servicebus._broker import ServiceBusBroker
from diator_azure_servicebus._entities import Entity
from diator_azure_servicebus._topology import QueueCounts, Topology

__all__ = ["Entity", "QueueCounts", "ServiceBusBroker", "Topology"]
