"""The plan: what is to be created in a namespace, as commands of the Azure CLI or as the start of the test server."""

import shlex
from collections.abc import Iterable, Iterator

from diator_azure_servicebus._entities import MAX_DELIVERIES, Entity

_COMMANDS = {"queue": "queue", "topic": "topic", "subscription": "topic subscription"}


def commands(entities: Iterable[Entity], namespace: str, group: str) -> Iterator[str]:
    """Return one command for each entity, in an order in which they can be run."""
    for entity in entities:
        words = ["az", "servicebus", *_COMMANDS[entity.kind].split(), "create"]
        words += ["--resource-group", group, "--namespace-name", namespace]
        words += ["--topic-name", entity.topic] if entity.topic else []
        yield shlex.join([*words, "--name", entity.name, *_options(entity)])


def _options(entity: Entity) -> Iterator[str]:
    if entity.kind == "queue":
        yield from ("--lock-duration", duration(entity.lock_seconds))
    if entity.kind != "topic":
        yield from ("--max-delivery-count", str(MAX_DELIVERIES))
    else:
        yield from ("--support-ordering", "true")
    if entity.sessions:
        yield from ("--enable-session", "true")
    if entity.duplicate_window:
        yield from ("--enable-duplicate-detection", "true")
        yield from ("--duplicate-detection-history-time-window", duration(entity.duplicate_window))
    if entity.forward_to is not None:
        yield from ("--forward-to", entity.forward_to)


def server_command(entities: Iterable[Entity]) -> str:
    """Return the command that starts the test server with all of them."""
    words = ["servicebus-test-server"]
    for entity in entities:
        name = f"{entity.topic}/{entity.name}" if entity.topic else entity.name
        option = "--queue" if entity.kind == "queue" else "--topic"
        words.append(",".join([f"{option}={name}", *_server_options(entity)]))
    return shlex.join(words)


def _server_options(entity: Entity) -> Iterator[str]:
    if entity.kind == "queue":
        yield f"lock={entity.lock_seconds:g}"
    if entity.kind != "topic":
        yield f"max-delivery={MAX_DELIVERIES}"
    if entity.sessions:
        yield "sessions"
    if entity.duplicate_window:
        yield f"duplicates={entity.duplicate_window:g}"
    if entity.forward_to is not None:
        yield f"forward={entity.forward_to}"


def duration(seconds: float) -> str:
    """Write seconds as ISO 8601 has them: ``PT1M30S``."""
    minutes, rest = divmod(seconds, 60)
    hours, minutes = divmod(int(minutes), 60)
    parts = [f"{hours}H" if hours else "", f"{minutes}M" if minutes else "", f"{rest:g}S" if rest else ""]
    return "PT" + ("".join(parts) or "0S")
