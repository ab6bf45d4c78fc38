"""Brokers: the port that plugins implement (`port`), what travels (`envelope`), and how a plugin is found (`find`).

`refusals` is what follows from a broker's capabilities, `letters` reads all dead letters, `memory` keeps messages in
this process.
"""

from diator._shielding import shielded
from diator.brokers.envelope import Envelope, Outgoing, read
from diator.brokers.letters import dead_letters_of
from diator.brokers.memory import MemoryBroker
from diator.brokers.port import (
    ACK,
    RELEASE,
    Ack,
    Broker,
    Capability,
    DeadLetter,
    Delivery,
    FindsUnsubscribed,
    KeepsDeadLetters,
    Outcome,
    Park,
    Receiver,
    Refusal,
    Release,
    RetryAfter,
    Settlement,
    Status,
    Subscription,
    Topic,
    Validates,
)

__all__ = [
    "ACK",
    "RELEASE",
    "Ack",
    "Broker",
    "Capability",
    "DeadLetter",
    "Delivery",
    "Envelope",
    "FindsUnsubscribed",
    "KeepsDeadLetters",
    "MemoryBroker",
    "Outcome",
    "Outgoing",
    "Park",
    "Receiver",
    "Refusal",
    "Release",
    "RetryAfter",
    "Settlement",
    "Status",
    "Subscription",
    "Topic",
    "Validates",
    "dead_letters_of",
    "read",
    "shielded",
]
