"""Hooks: wrap what an app sends, handles and publishes, and observe it, for traces, metrics, logs and tests."""

from diator._hook_details import (
    Collected,
    Handled,
    Handling,
    Parked,
    Published,
    Publishing,
    Received,
    Retried,
    Sending,
    Settled,
)
from diator._hooks import Hooks

__all__ = [
    "Collected",
    "Handled",
    "Handling",
    "Hooks",
    "Parked",
    "Published",
    "Publishing",
    "Received",
    "Retried",
    "Sending",
    "Settled",
]
