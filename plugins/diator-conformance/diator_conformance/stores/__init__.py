"""The suite for store plugins.

In reading order: `bench` (what the author of a plugin writes, and how a case gets its store), then the cases:
`lifecycle` (and what a store says of itself), `units` (the transaction of a unit of work), what relays need (`leases`,
`reading` rows in order, and `scheduling` them), and `operating` (old rows of the inbox, dead letters, the status).
"""

from diator_conformance.stores.bench import StoreOptions
from diator_conformance.stores.leases import Leases
from diator_conformance.stores.lifecycle import Claims, Life, WakeUps
from diator_conformance.stores.operating import Inbox, Rejecting, Status
from diator_conformance.stores.reading import Reading
from diator_conformance.stores.scheduling import Delayed
from diator_conformance.stores.units import Units

__all__ = ["StoreOptions", "StoreSuite"]


# pytest runs the cases of the last base first: the simple ones, whose failures are easy to read.
class StoreSuite(WakeUps, Status, Inbox, Rejecting, Delayed, Leases, Reading, Units, Claims, Life):
    """The contract of store plugins. Subclass it as ``Test...``, and implement the four required methods.

    These are ``make_store``, ``session``, ``commit`` and ``rollback``.

    A case is skipped if it needs an optional protocol that the store does not have, or a hook that the author has not
    written, such as ``stop_server``; `bench.StoreSuiteBase` has all of them. A case may be overridden only with a
    ``pytest.mark.xfail`` that has a reason.
    """
