"""What must be right with a store before its app starts."""

from collections.abc import Iterator

from diator._keys import Key
from diator.containers.port import Container, ContainerCapability, InspectableContainer, Lifetime
from diator.engine.check import CheckResult, factory_location
from diator.engine.hints import key_of
from diator.engine.registrations import HandlerKind
from diator.errors import ConfigurationError, Problem
from diator.stores.port import Store


def find_store(given: object) -> Store:
    """Return the store that an app was given. Raises `ConfigurationError` for anything else."""
    if isinstance(given, Store) and not isinstance(given, type):
        return given
    text = f"Diator got store={given!r}, which is not a store"
    fix = 'pass one, such as SQLAlchemyStore(AsyncSession); install it: uv add "diator[sqlalchemy]"'
    raise ConfigurationError([Problem("store", text, fix)])


def store_problems(store: Store, checked: CheckResult, app: str | None) -> Iterator[Problem]:
    """Find what would keep a store from being part of the units of work of an app."""
    container = checked.container
    if container is None:
        return  # reported where the app is made
    if app is None:
        text = "the app has a store but no name, which identifies it in the tables"
        yield Problem("unnamed-app", text, 'name the app: Diator("meetings", store=...)')
    session = key_of(store.session, container)
    yield from _session_problems(session, checked, container)
    if store.is_blocking:
        yield from _blocking_handlers(session, checked, container)
    for issue in store.validate(container, app or "unnamed"):
        yield Problem("store", issue.text, issue.fix)


def _blocking_handlers(session: Key, checked: CheckResult, container: Container) -> Iterator[Problem]:
    """Reject handlers that wait for locks in the event loop, which those that hold them need for their commit."""
    for record, wired in checked.handlers.items():
        keys = list(wired.keys)
        uses = session in keys or (isinstance(container, InspectableContainer) and container.reaches(keys, session))
        if not keys or not uses or wired.thread:
            continue
        fix = "add thread=True" if wired.call_kind == "sync" else "write it with plain `def`, and add thread=True"
        text = f"{record.title} uses {session}, whose statements block the event loop"
        if record.kind is HandlerKind.QUERY:  # which waits for no lock, unless it takes one
            yield record.problem("blocking-session", text, fix, "warning")
        else:
            text = f"{text}: one that waits for a row that another unit of work has locked would wait forever"
            yield record.problem("blocking-session", text, f"{fix}, or use a session of asyncio")


def _session_problems(session: Key, checked: CheckResult, container: Container) -> Iterator[Problem]:
    fix = f"register {session} as scoped, so that handlers and the store share one in each unit of work"
    if not container.can_resolve(session):
        text = f"the store writes through {session}, which the container does not know"
        yield Problem("store-session", text, fix)
        return
    location = factory_location(container, session)
    if ContainerCapability.SCOPED not in container.capabilities:
        text = f"the store writes through {session}, but the container has no scopes: all units of work would share one"
        yield Problem("store-session", text, "use a container with scopes, such as dishka or svcs", location)
    elif (lifetime := container.lifetime(session)) is not Lifetime.SCOPED:
        text = f"the store writes through {session}, which is registered as {lifetime.value}"
        yield Problem("store-session", text, fix, location)
    else:
        for error in container.validate([session], checked.registry.provided.keys()).errors:
            yield Problem(
                "store-session", f"the container can't provide the session of the store: {error}", fix, location
            )
