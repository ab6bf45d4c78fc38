"""What an app is made of once its registrations are complete: it is checked and compiled with these."""

from inspect import isasyncgenfunction, iscoroutinefunction
from typing import TYPE_CHECKING, Any, NamedTuple

from diator._hooks import HookDispatcher, are_hooks, ensure_plain_hooks
from diator._shielding import shielded
from diator.containers.find import find_container
from diator.containers.port import Container, ContainerCapability
from diator.engine.check import CheckResult, check_registry
from diator.engine.dispatch import Dispatch
from diator.engine.registry import Registry
from diator.engine.resources import ContainerScopes
from diator.engine.unreadable import unfinished
from diator.errors import ConfigurationError, Problem
from diator.options import COUNT, FLAG, NAME, POSITIVE, Rule, is_iterable, optional, require
from diator.retry import RETRY, Retry

if TYPE_CHECKING:
    from diator.delivery.messaging import Messaging


class Parts(NamedTuple):
    """The container and the messaging of an app. Tests exchange them."""

    container: Container | None
    scopes: ContainerScopes
    messaging: "Messaging | None"
    hooks: HookDispatcher

    @property
    def is_reusable(self) -> bool:
        """Whether the app may be entered again."""
        return self.container is None or ContainerCapability.REUSABLE in self.container.capabilities

    def check(self, registry: Registry, app: object, name: str | None) -> CheckResult:
        """Look an app through: what is registered, how it is wired, what is wrong. Runs none of its code."""
        checked = check_registry(registry, self.container, app, self.messaging is not None)
        try:
            return checked if self.messaging is None else self.messaging.add_broker_problems(checked, name)
        except Exception as error:  # noqa: BLE001 - classes of events, and brokers, may raise anything here
            return checked._replace(problems=(*checked.problems, unfinished("brokered events", error)))

    def compile(self, checked: CheckResult, app: object, name: str | None) -> Dispatch:
        """Compile the plans of an app that was checked with the same parts, and with its hooks as they are now."""
        sender = None if self.messaging is None else self.messaging.create_sender(name)
        wrapping = None
        if self.hooks.is_compiled:
            from diator.engine.wrapping import Wrapping  # noqa: PLC0415 - apps without hooks need none of it

            wrapping = Wrapping(self.hooks, None if self.messaging is None else self.messaging.broker)
        return Dispatch(checked, self.scopes, app, sender, wrapping)

    async def start(self, scopes: ContainerScopes, name: str | None) -> None:
        """Open the container's one scope, if it has one, then connect the broker."""
        await scopes.start()
        if self.messaging is not None:
            try:
                await self.messaging.connect(name, self.container)
            except BaseException:
                await scopes.stop()
                raise

    async def stop(self, scopes: ContainerScopes) -> None:
        """Wait for the units of work, and close everything, also if something fails on the way."""
        try:
            try:
                await scopes.wait()
                if self.messaging is not None:
                    await self.messaging.drain()
            finally:
                await scopes.stop()
        finally:
            if self.messaging is not None:
                await shielded(self.messaging.close())

    def need_messaging(self, text: str) -> "Messaging":
        """Return the messaging. Raises `ConfigurationError` with this text where the app has no broker."""
        if self.messaging is None:
            raise ConfigurationError([_no_broker(text)])
        return self.messaging


def _is_lifespan(value: object) -> bool:
    return callable(value) and not isasyncgenfunction(value) and not iscoroutinefunction(value)


_OPTIONS = {
    "name": optional(NAME),
    "retry": optional(RETRY),
    "concurrency": COUNT,
    "event_timeout": POSITIVE,
    "max_deliveries": COUNT,
    "publish_timeout": POSITIVE,
    "relay": FLAG,
    "lifespan": optional(
        Rule(_is_lifespan, "an async context manager: decorate it with contextlib.asynccontextmanager")
    ),
    "hooks": Rule(are_hooks, "a list of instances of subclasses of diator.Hooks, such as [MyHooks()]"),
}


def create_parts(options: dict[str, Any], container: object, broker: object, store: object) -> Parts:
    """Make the parts of an app from its options; see `Diator`. ``Any``: each option has a type of its own."""
    given = options["hooks"]
    options["hooks"] = tuple(given) if is_iterable(given) else given
    require("Diator", _OPTIONS, options)
    ensure_plain_hooks(options["hooks"])
    if store is not None:
        _ensure_store_fits(broker, container)
    hooks = HookDispatcher(options["hooks"])
    messaging: Messaging | None = None
    if broker is not None:
        from diator.delivery import catalog  # noqa: PLC0415 - apps without a broker need none of it
        from diator.delivery import messaging as module  # noqa: PLC0415 - as above

        defaults = catalog.Defaults(
            options["retry"] or Retry(),
            options["concurrency"],
            options["event_timeout"],
            options["max_deliveries"],
            options["publish_timeout"],
        )
        messaging = module.Messaging(broker, defaults, hooks, store, relays=options["relay"])
    found = None if container is None else find_container(container)
    return Parts(found, ContainerScopes(found), messaging, hooks)


def _no_broker(text: str) -> Problem:
    return Problem("no-broker", text, 'pass one: Diator("meetings", broker="redis://localhost:6379") or "memory://"')


def _ensure_store_fits(broker: object, container: object) -> None:
    """Raise `ConfigurationError` for a store without a broker, to which it relays, or without a container."""
    problems: list[Problem] = []
    if broker is None:
        problems.append(_no_broker("Diator got a store but no message broker to publish its events to"))
    if container is None:
        text = "Diator got a store but no container, which must provide one session to handlers and the store"
        problems.append(Problem("no-container", text, "pass one: Diator(..., container=..., store=...)"))
    if problems:
        raise ConfigurationError(problems)
