"""NATS JetStream as a message broker for Diator: `NatsBroker`."""

from diator_nats._broker import NatsBroker

__all__ = ["NatsBroker"]
