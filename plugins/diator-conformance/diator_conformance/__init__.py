"""Test suites for the contracts of the ports. They run on pytest.

Subclass a suite in the tests of your plugin, implement its factory method, and inherit all its cases.
"""

import pytest

# Before the import: pytest rewrites the assertions of a module when it is imported, and only if it was told so.
pytest.register_assert_rewrite(
    "diator_conformance.brokers",
    "diator_conformance.containers",
    "diator_conformance.stores",
    "diator_conformance.workers",
)

from diator_conformance.brokers import BrokerOptions, BrokerSuite  # noqa: E402 - see above
from diator_conformance.containers import (  # noqa: E402 - see above
    CannotExpressError,
    ContainerSuite,
    Feature,
    RefusedByLibraryError,
    Registration,
    SourceKind,
)
from diator_conformance.stores import StoreOptions, StoreSuite  # noqa: E402 - see above
from diator_conformance.workers import WorkerFindings, prove_workers  # noqa: E402 - see above

__all__ = [
    "BrokerOptions",
    "BrokerSuite",
    "CannotExpressError",
    "ContainerSuite",
    "Feature",
    "RefusedByLibraryError",
    "Registration",
    "SourceKind",
    "StoreOptions",
    "StoreSuite",
    "WorkerFindings",
    "prove_workers",
]
