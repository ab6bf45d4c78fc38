"""Tests of applications: record what an app does, replace what its handlers ask for, call a handler by hand.

In reading order: `entries` (what is written down), `messages` (what tests assert on), `watch` (who writes it down),
`attach` (how an app is watched, and left as it was) and `recording` (which joins them). `plugin` is for pytest.
"""

from diator.testing.entries import Entry
from diator.testing.messages import FakePublish, Messages
from diator.testing.recording import Record, record

__all__ = ["Entry", "FakePublish", "Messages", "Record", "record"]
