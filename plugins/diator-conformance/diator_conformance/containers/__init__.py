"""The suite for container plugins.

In reading order: `registration` (what a case asks the plugin's author to register), `bench` (how a case gets its
container, and what happens if the container can't do it), `services` and `resources` (what the cases register), then
the cases: `lifetimes`, `concurrency`, `factories`, `teardown`, `closing`, `failures`, `startup`, `keys`, `immediate`.
"""

from diator_conformance.containers.closing import Closing
from diator_conformance.containers.concurrency import Concurrency
from diator_conformance.containers.factories import Factories
from diator_conformance.containers.failures import Failures
from diator_conformance.containers.immediate import Immediate
from diator_conformance.containers.keys import Keys
from diator_conformance.containers.lifetimes import Lifetimes
from diator_conformance.containers.registration import (
    CannotExpressError,
    Feature,
    RefusedByLibraryError,
    Registration,
    SourceKind,
)
from diator_conformance.containers.startup import Startup
from diator_conformance.containers.teardown import Teardown

__all__ = ["CannotExpressError", "ContainerSuite", "Feature", "RefusedByLibraryError", "Registration", "SourceKind"]


class ContainerSuite(Lifetimes, Concurrency, Factories, Teardown, Closing, Failures, Startup, Keys, Immediate):
    """The contract of container plugins. Subclass it as ``Test...``, and implement ``container``.

    List in ``lacks`` what the library does not support. A case that needs it, or a capability that the plugin does not
    declare, checks that ``validate`` rejects the registration. All other cases must pass. If the library has no syntax
    for a registration, ``container`` raises `CannotExpressError`; the case is then an expected failure with this reason
    (``pytest -rx``). A case may be overridden only with a ``pytest.mark.xfail`` that has a reason.
    """
