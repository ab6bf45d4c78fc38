"""What tools read of an app, and exchange in it. Nothing else touches what an app keeps to itself."""

# pyright: reportPrivateUsage=false

from collections.abc import Callable
from typing import TYPE_CHECKING

from diator._hooks import HookDispatcher
from diator._parts import Parts
from diator.app import Diator
from diator.engine.check import CheckResult
from diator.engine.dispatch import Dispatch
from diator.engine.registry import Registry
from diator.engine.resources import ContainerScopes
from diator.router import Router

if TYPE_CHECKING:
    from diator.delivery.messaging import Messaging


def inspect_app(app: Diator, parts: Parts | None = None) -> CheckResult:
    """Check an app with the parts that it has, or with others in their place."""
    return (parts or app._parts).check(app._registry, app, app.name)


def parts_of(app: Diator) -> Parts:
    """Return what an app is checked and compiled with."""
    return app._parts


def hooks_of(app: Diator) -> HookDispatcher:
    """Return what calls the hooks of an app."""
    return app._parts.hooks


def is_running(app: Diator) -> bool:
    """Whether an app is inside its ``async with``."""
    return app._loop is not None


def registry_of(router: Router) -> Registry:
    """Return the registry of a router or an app."""
    return router._registry


def messaging_of(app: Diator) -> "Messaging | None":
    """Return the messaging of an app. Its catalog is built by a check, or at startup."""
    return app._parts.messaging


def exchange(app: Diator, parts: Parts, dispatch: Dispatch | None) -> tuple[Parts, Dispatch | None]:
    """Have an app use other parts, and plans that were compiled with them; return those that it had.

    Without plans, an app that runs is compiled with the parts.
    """
    former = app._parts, app._dispatch
    app._parts, app._dispatch = parts, dispatch
    if is_running(app):
        app._use(dispatch or app._compiled())
    return former


def exchange_scopes(app: Diator, scopes: ContainerScopes) -> Callable[[], None]:
    """Have an app that does not run open and close another container; return what gives it its own back."""
    former = app._scopes, app._state
    app._scopes, app._state = scopes, "has not been started"

    def undo() -> None:
        app._scopes, app._state = former

    return undo
