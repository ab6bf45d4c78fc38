"""Hooks wrap and observe what an app sends, handles and publishes, for traces, metrics, logs and tests."""

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
