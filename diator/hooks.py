"""Hooks: wrap what an app sends, handles and publishes, and observe it, for traces, metrics, logs and tests."""

from diator._hook_details import (
    Collected,
    DeadLettered,
    Handled,
    Handling,
    Published,
    Publishing,
    Received,
    Relayed,
    Retried,
    Sending,
    Settled,
    Stored,
)
from diator._hooks import Hooks

__all__ = [
    "Collected",
    "DeadLettered",
    "Handled",
    "Handling",
    "Hooks",
    "Published",
    "Publishing",
    "Received",
    "Relayed",
    "Retried",
    "Sending",
    "Settled",
    "Stored",
]
