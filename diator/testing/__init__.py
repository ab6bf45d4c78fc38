"""Tests of applications: record what an app does, replace dependencies, and wait until everything is handled.

In reading order: `entries` (the record of one message), `messages` (assertions), `watch` (the hooks that record) with
`activity` (messages on the broker), `attach` (records an app and restores it) with `session_messaging` (its broker
until then), `recording` (joins them), and `session` (adds a worker and waiting) with `unsettled` (the error it raises).
`faults` chooses faults of deliveries, `faulty_broker` with `faulty_receiver` and `late_deliveries` injects them, and
`minimizing` finds the fewest that break a test. `plugin` is for pytest, and `servers` is for the tests of plugins.
"""

from diator.testing.entries import Entry
from diator.testing.faults import Faults
from diator.testing.messages import FakePublish, Messages
from diator.testing.minimizing import minimize
from diator.testing.recording import Record, record
from diator.testing.session import Session
from diator.testing.unsettled import UnsettledError

__all__ = ["Entry", "FakePublish", "Faults", "Messages", "Record", "Session", "UnsettledError", "minimize", "record"]
