"""Brokers: the port that plugins implement (`port`), the wire format (`envelope`), and how a plugin is found (`find`).

`refusals` derives errors from the capabilities of a broker, `letters` reads all dead letters, `memory` is the broker in
memory.
"""

from diator._shielding import shielded
from diator._timeouts import Timeouts
from diator.brokers.envelope import Envelope, OutgoingMessage, parse_envelope
from diator.brokers.letters import dead_letters_of
from diator.brokers.memory import MemoryBroker
from diator.brokers.port import (
    ACK,
    RELEASE,
    Ack,
    Broker,
    BrokerCapability,
    DeadLetter,
    Delivery,
    FindsUnsubscribed,
    KeepsDeadLetters,
    ManagesSubscriptions,
    MoveToDeadLetters,
    Outcome,
    Receiver,
    Release,
    RetryAfter,
    Settlement,
    Subscription,
    SubscriptionStatus,
    Topic,
    Validates,
    ValidationIssue,
)

__all__ = [
    "ACK",
    "RELEASE",
    "Ack",
    "Broker",
    "BrokerCapability",
    "DeadLetter",
    "Delivery",
    "Envelope",
    "FindsUnsubscribed",
    "KeepsDeadLetters",
    "ManagesSubscriptions",
    "MemoryBroker",
    "MoveToDeadLetters",
    "Outcome",
    "OutgoingMessage",
    "Receiver",
    "Release",
    "RetryAfter",
    "Settlement",
    "Subscription",
    "SubscriptionStatus",
    "Timeouts",
    "Topic",
    "Validates",
    "ValidationIssue",
    "dead_letters_of",
    "parse_envelope",
    "shielded",
]
