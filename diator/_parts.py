"""What an app is made of once its registrations are complete: it is checked and compiled with these."""

from typing import TYPE_CHECKING, NamedTuple

from diator._hooks import HookDispatcher
from diator.containers.port import Container
from diator.engine.check import CheckResult, check_registry, unfinished
from diator.engine.dispatch import Dispatch
from diator.engine.registry import Registry
from diator.engine.resources import ContainerScopes

if TYPE_CHECKING:
    from diator.delivery.messaging import Messaging


class Parts(NamedTuple):
    """The container and the messaging of an app. Tests exchange them."""

    container: Container | None
    resources: ContainerScopes
    messaging: "Messaging | None"

    def check(self, registry: Registry, app: object, name: str | None) -> CheckResult:
        """Look an app through: what is registered, how it is wired, what is wrong. Runs none of its code."""
        checked = check_registry(registry, self.container, app, self.messaging is not None)
        try:
            return checked if self.messaging is None else self.messaging.add_broker_problems(checked, name)
        except Exception as error:  # noqa: BLE001 - classes of events, and brokers, may raise anything here
            return checked._replace(problems=(*checked.problems, unfinished("brokered events", error)))

    def compile(self, checked: CheckResult, app: object, name: str | None, hooks: HookDispatcher) -> Dispatch:
        """Compile the plans of an app that was checked with the same parts, and with its hooks as they are now."""
        sender = None if self.messaging is None else self.messaging.create_sender(name)
        wrapping = None
        if hooks.is_compiled:
            from diator.engine.wrapping import Wrapping  # noqa: PLC0415 - apps without hooks need none of it

            wrapping = Wrapping(hooks, None if self.messaging is None else self.messaging.broker)
        return Dispatch(checked, self.resources, app, sender, wrapping)
