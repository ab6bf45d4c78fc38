"""Building the catalog of an app: inspects what is brokered, before the first message."""

from collections.abc import Iterable, Iterator
from typing import Any

from typing_extensions import Format, get_annotations

from diator._keys import Key
from diator._locations import SourceLocation
from diator.brokers.port import Broker, BrokerCapability, Subscription, Topic
from diator.brokers.refusals import refusals_of
from diator.containers.port import InspectableContainer
from diator.delivery.catalog import Catalog, ConsumerConfig, Defaults, EventType, describe_event, topics_of
from diator.engine.arguments import fits, say, spelled_out
from diator.engine.check import CheckResult
from diator.engine.events import is_brokered
from diator.engine.hints import format_hint
from diator.engine.registrations import HandlerKind, Registration
from diator.engine.wiring import WiredCallable, publish_hints
from diator.errors import ConfigurationError, Problem
from diator.messages import BROKERED_KINDS, Event, contract_of


class CatalogBuilder:
    """Draws up the catalog of an app; ``session`` is what the app's store writes through, if it has one."""

    def __init__(
        self, checked: CheckResult, name: str | None, broker: Broker, defaults: Defaults, session: Key | None
    ) -> None:
        self.session = session
        self.checked = checked
        self.app_name = name
        self.broker = broker
        self.defaults = defaults
        self.problems: list[Problem] = []
        self.entries: dict[type[Event], EventType] = {}
        self.rejected: set[type[Event]] = set()
        self.spelled: dict[type, tuple[Any, SourceLocation]] = {}
        """Generic classes with their type arguments in this app, and where. ``Any``: `Paid[Money]` is not a class."""

    def catalog(self) -> Catalog:
        """Draw it up, with everything that the broker can't do."""
        handlers = [
            (registration, wired)
            for registration, wired in self.checked.handlers.items()
            if registration.kind is HandlerKind.EVENT and any(map(is_brokered, self.checked.classes[registration]))
        ]
        for hint, record in self._spelled(registration for registration, _ in handlers):
            self._spell(hint, record)
        published = list(self._published())
        for registration, _ in handlers:
            for cls in self._classes(registration):
                self._describe(cls, registration)
        self._names_are_unique()
        configs = tuple(self._config(registration, wired) for registration, wired in handlers)
        topics = self._topics(entry for cls in published if (entry := self.entries.get(cls)))
        self._subscriptions_are_unique(configs)
        self.problems.extend(self._refusals(configs, topics))
        return Catalog(
            self.entries, configs, topics, frozenset(published), self._handled(configs), tuple(self.problems)
        )

    def _handled(self, configs: Iterable[ConsumerConfig]) -> dict[Any, Registration]:
        found: dict[Any, Registration] = {}
        for one in configs:
            for hint in self._hints(one.registration):
                found.setdefault(hint, one.registration)
        return found

    def _hints(self, registration: Registration) -> list[Any]:
        """The events that a handler names, with their type arguments. ``Any``: `Paid[Money]` is not a class."""
        spelled = spelled_out(registration.message_hint)
        return [spelled.get(cls, cls) for cls in self.checked.classes[registration] if issubclass(cls, Event)]

    def _spelled(self, handlers: Iterable[Registration]) -> Iterator[tuple[Any, SourceLocation]]:
        """The hints of brokered events with type arguments, where the app handles and publishes them, each once."""
        for registration in handlers:
            yield from ((hint, registration.location) for hint in self._hints(registration))
        for registration in self.checked.registry.handlers:
            yield from ((hint, registration.location) for hint in publish_hints(registration.signature))
        yield from self.checked.registry.published_as.items()

    def _spell(self, hint: Any, location: SourceLocation) -> None:
        for cls, spelled in spelled_out(hint).items():
            former, there = self.spelled.setdefault(cls, (spelled, location))
            if former != spelled and issubclass(cls, BROKERED_KINDS):
                text = (
                    f"{format_hint(spelled)} and {format_hint(former)}, at {there}, are both the event "
                    f"{contract_of(cls).name!r}"
                )
                text = f"{text}, which does not say its type arguments"
                self.problems.append(Problem("type-arguments", text, say(spelled), location))

    def _published(self) -> Iterator[type[Event]]:
        declared = [
            (cls, registration) for registration, wired in self.checked.handlers.items() for cls in wired.publishes
        ]
        for declared_class, registration in declared:
            if declared_class is Event:
                continue  # any: each class is judged when it is published first
            for cls in self._family(declared_class):
                self._describe(cls, registration)
                yield cls
        for event in self.checked.registry.declared_events:
            for cls in self._family(event):
                self._describe(cls, None)
                yield cls

    def _family(self, cls: type[Event]) -> list[type[Event]]:
        """The brokered classes among a class and its subclasses, in a stable order."""
        members = self.checked.reach.with_subclasses(cls)
        family = [member for member in members if is_brokered(member) and not _is_only_a_base(member)]
        return sorted(family, key=lambda member: (member is not cls, member.__module__, member.__qualname__))

    def _classes(self, registration: Registration) -> list[type[Event]]:
        found = [
            member
            for cls, hint in zip(self.checked.classes[registration], self._hints(registration), strict=True)
            if issubclass(cls, Event)
            for member in self._family(cls)
            if fits(member, hint)
        ]
        return list(dict.fromkeys(found))

    def _describe(self, cls: type[Event], registration: Registration | None) -> None:
        if cls in self.entries or cls in self.rejected:
            return
        try:
            self.entries[cls] = describe_event(cls, self.spelled.get(cls, (None,))[0])
        except ConfigurationError as error:
            self.rejected.add(cls)
            location = registration.location if registration else self.checked.registry.declared_events.get(cls)
            self.problems.extend(Problem(p.code, p.text, p.fix, location) for p in error.problems)

    def _names_are_unique(self) -> None:
        owners: dict[str, EventType] = {}
        for entry in self.entries.values():
            for name in entry.names:
                other = owners.setdefault(name, entry)
                if other.cls is not entry.cls:
                    text = f"{_full(entry.cls)} and {_full(other.cls)} both have the wire name {name!r}"
                    self.problems.append(Problem("wire-name", text, 'give one another name: @contract("...")'))

    def _config(self, registration: Registration, wired: WiredCallable) -> ConsumerConfig:
        entries = [entry for cls in self._classes(registration) if (entry := self.entries.get(cls))]
        said = registration.options
        retry = said.retry or self.defaults.retry
        keyed = any(entry.contract.key for entry in entries)
        subscription = Subscription(
            name=self._name(registration),
            topics=self._topics(entries, reading=True),
            ordered=keyed if said.ordered is None else said.ordered and keyed,
            at_most_once=said.delivery == "at-most-once",
            max_delay=retry.longest,
            max_deliveries=self.defaults.max_deliveries,
        )
        if said.ordered and not keyed:
            self._add(
                registration,
                "missing-key",
                f"{registration.name} sets ordered=True, but none of its events has a key",
                'name the field that orders them: @contract("...", key="meeting_id")',
            )
        if not self._classes(registration):
            text = f"{registration.name} handles {', '.join(map(format_hint, self.checked.classes[registration]))}"
            self._add(registration, "no-events", f"{text}, but no such class is defined", "name classes of events")
        names = {name: entry for entry in entries for name in entry.names}
        return ConsumerConfig(
            registration,
            wired,
            subscription,
            names,
            retry,
            said.concurrency or self.defaults.concurrency,
            said.timeout or self.defaults.timeout,
            frozenset(entry.topic for entry in self.entries.values() if entry.contract.topic),
            self._once(registration, wired),
        )

    def _once(self, registration: Registration, wired: WiredCallable) -> bool:
        """Whether a handler has an inbox: if it says so, or if what it or its middlewares ask for uses the session."""
        said = registration.options.once
        if self.session is None:
            if said:
                text = f"{registration.name} sets once=True, but the app has no store to record handled messages in"
                fix = 'pass one: Diator("meetings", store=...), or remove once=True and make the handler idempotent'
                self._add(registration, "no-store", text, fix)
            return False
        return self._reaches(self.session, registration, wired) if said is None else said

    def _reaches(self, session: Key, registration: Registration, wired: WiredCallable) -> bool:
        reach, container = self.checked.reach, self.checked.container
        following = reach.reachable_from(wired.publishes)
        around = reach.middlewares_for(*self.checked.classes[registration])
        inside = (wired, *following.handlers, *(one for one in (*around, *following.middlewares) if not one.is_outer))
        keys = {key for one in inside for key in one.keys}
        if session in keys:
            return True
        return bool(keys) and isinstance(container, InspectableContainer) and container.reaches(keys, session)

    def _name(self, registration: Registration) -> str:
        prefix = self.checked.registry.prefixes.get(registration, "")
        given = registration.options.subscription
        if given is not None:
            return prefix + given
        if self.app_name is None:
            text = f"{registration.name} handles brokered events, but the app has no name for its subscription"
            self._add(registration, "unnamed-app", text, 'name the app: Diator("meetings", broker=...)')
        return f"{self.app_name}.{prefix}{registration.name}"

    def _topics(self, entries: Iterable[EventType], reading: bool = False) -> tuple[Topic, ...]:
        found: dict[str, dict[str, None]] = {}
        for entry in entries:
            for topic in topics_of(entry) if reading else (entry.topic,):
                found.setdefault(topic, {}).update(dict.fromkeys(entry.names))
        return tuple(Topic(name, tuple(types)) for name, types in found.items())

    def _subscriptions_are_unique(self, configs: Iterable[ConsumerConfig]) -> None:
        owners: dict[str, ConsumerConfig] = {}
        for one in configs:
            other = owners.setdefault(one.name, one)
            if other is not one:
                text = f"{one.registration.name} and {other.registration.name}, registered at"
                text = f"{text} {other.registration.registered_at}, both have the subscription {one.name!r}"
                fix = "give each its own name: @app.on_event(subscription='...')"
                self._add(one.registration, "duplicate-subscription", text, fix)

    def _refusals(self, configs: tuple[ConsumerConfig, ...], topics: tuple[Topic, ...]) -> Iterator[Problem]:
        locations = {one.name: one.registration.location for one in configs}
        handlers = {one.name: one.registration.name for one in configs}
        for refusal in refusals_of(self.broker, [one.subscription for one in configs], topics):
            who = f"{handlers[refusal.subscription]}: " if refusal.subscription in handlers else ""
            location = locations.get(refusal.subscription or "")
            yield Problem("broker", f"{who}{refusal.text}", refusal.fix, location)
        acknowledged = BrokerCapability.ACKNOWLEDGED in self.broker.capabilities
        for one in configs:
            if one.subscription.at_most_once and acknowledged:
                text = (
                    f"{one.registration.name} accepts delivery='at-most-once', but this broker delivers at least once"
                )
                yield Problem(
                    "broker",
                    text,
                    "drop it: messages may be delivered more than once",
                    one.registration.location,
                    "warning",
                )

    def _add(self, registration: Registration, code: str, text: str, fix: str) -> None:
        self.problems.append(Problem(code, text, fix, registration.location))


def _is_only_a_base(cls: type[Event]) -> bool:
    """Whether a class only gathers others: it has no fields and could not be sent itself."""
    if cls in BROKERED_KINDS:
        return True
    carries = any(hasattr(cls, mark) for mark in _DATA) or bool(get_annotations(cls, format=Format.FORWARDREF))
    return not carries and bool(cls.__subclasses__())


_DATA = ("__dataclass_fields__", "__attrs_attrs__", "__struct_fields__", "__pydantic_validator__")
"""What classes that carry data have, in any library."""


def _full(cls: type[Any]) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"
