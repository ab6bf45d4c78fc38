"""Tests of applications: record what an app does, replace what its handlers ask for, wait until all is handled.

In reading order: `entries` (what is written down), `messages` (what tests assert on), `watch` (the hooks that write it
down) with `activity` (what goes over the broker), `attach` (how an app is watched, and left as it was) with
`session_messaging` (its broker until then), `recording` (which joins them), and `session` (which adds a worker, and
waiting) with `unsettled` (what it raises). `faults` says what may happen to deliveries, `faulty_broker` with
`faulty_receiver` and `late_deliveries` has it happen, and `minimizing` finds the fewest that break a test. `plugin` is
for pytest, and `servers` for the tests of plugins.
"""

from diator.testing.entries import Entry
from diator.testing.faults import Faults
from diator.testing.messages import FakePublish, Messages
from diator.testing.minimizing import minimize
from diator.testing.recording import Record, record
from diator.testing.session import Session
from diator.testing.unsettled import UnsettledError

__all__ = ["Entry", "FakePublish", "Faults", "Messages", "Record", "Session", "UnsettledError", "minimize", "record"]
