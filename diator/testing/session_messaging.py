"""The messaging of an app in a test, which may use another broker."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, NamedTuple

from diator._hooks import HookDispatcher
from diator._keys import Key
from diator.brokers.find import find_broker
from diator.brokers.memory import MemoryBroker
from diator.brokers.port import BrokerCapability
from diator.containers.port import Container
from diator.delivery.catalog import Catalog, ConsumerConfig
from diator.delivery.follow_up import FollowUpSender
from diator.delivery.messaging import Messaging
from diator.delivery.outbox import Outbox
from diator.delivery.publisher import Publisher
from diator.delivery.store_sender import StoreSender
from diator.engine.check import CheckResult
from diator.engine.outbound import EventPublisher, Outbound, SendingUnit
from diator.engine.unit import Delay
from diator.messages import Event
from diator.retry import Retry
from diator.stores.port import Store
from diator.testing.activity import ActivityTracker
from diator.testing.faults import Injection
from diator.testing.faulty_broker import FaultyBroker


class SessionOptions(NamedTuple):
    """What brokered events find while an app is tested."""

    broker: object | None = None
    """The broker in place of the app's own; ``None`` for a new one in memory, ``"keep"`` for the app's own."""
    delays: bool = False
    """Whether retries and events with a delay wait as they do outside tests."""
    injection: Injection | None = None
    """The faults of deliveries."""
    keeps_store: bool = False
    """Whether events pass through the store of the app."""
    relays: bool = False
    """Whether the session itself publishes what is stored, to its broker."""
    container: object | None = None
    """The container in place of the app's own."""


AS_IT_IS = SessionOptions("keep", delays=True, keeps_store=True)


class _AtOnce(Publisher):
    """Sends events that were published with a delay without it."""

    def outbound(self, event: Event, event_id: str, after: Delay | None, headers: Mapping[str, str] | None) -> Outbound:
        """Make what a unit of work owns of an event."""
        outbound = super().outbound(event, event_id, after, headers)
        outbound.after = None
        return outbound


class _RetryAtOnce(Retry):
    """Waits for nothing, also where a handler asks for a later retry."""

    def delay_after(self, attempt: int, asked: float | None = None) -> float:  # noqa: ARG002 - not used
        """No time."""
        return 0.0


class SessionMessaging(Messaging):
    """A brokerage like that of the app, with the same hooks. It reports to ``activity`` who gets what."""

    def __init__(self, own: Messaging, stage: SessionOptions, activity: ActivityTracker) -> None:
        super().__init__(_broker(own, stage, activity), own.defaults, own.hooks)
        self._store = own.outbox
        self.outbox = own.outbox if stage.keeps_store else None
        if self.outbox is not None and stage.relays:
            self.outbox = _SessionOutbox(self.outbox.store, own.hooks, activity)
        self._activity = activity
        self._at_once = not stage.delays
        if self._at_once:
            self.publisher = _AtOnce

    @property
    def catalog(self) -> Catalog:
        """What the app publishes and handles; retries come at once, unless they are to wait."""
        catalog = super().catalog
        return catalog._replace(configs=tuple(map(_tried_at_once, catalog.configs))) if self._at_once else catalog

    def session_in(self, container: Container | None) -> Key | None:
        """Return what the store of the app writes through, also where the session goes without the store."""
        return None if self._store is None else self._store.session_in(container)

    def create_sender(self, name: str | None) -> EventPublisher:
        """Return the sender of the app; one that can cancel if that of the app can."""
        sender = super().create_sender(name)
        if self.outbox is None and self._store is not None:
            assert isinstance(sender, Publisher)
            sender.cancel = _cancel_unsent
        return sender

    async def cancel(self, message_id: str) -> bool:
        """Cancel a delayed event; without the store it is too late, as what is published leaves at once."""
        return False if self.outbox is None and self._store else await super().cancel(message_id)

    def add_broker_problems(self, checked: CheckResult, name: str | None) -> CheckResult:
        """Add what is wrong with brokered events, and report who gets what."""
        checked = super().add_broker_problems(checked, name)
        deduplicates = BrokerCapability.DUPLICATE_DETECTION in self.broker.capabilities
        self._activity.consumes(self.catalog.configs, deduplicates=deduplicates)
        return checked


class _SessionOutbox(Outbox):
    """The store of an app with a relay of the session, which reports what it cancels."""

    def __init__(self, store: Store, hooks: HookDispatcher, activity: ActivityTracker) -> None:
        super().__init__(store, hooks, relays=True)
        self._activity = activity

    def create_sender(self, sealing: Publisher | FollowUpSender, config: ConsumerConfig | None = None) -> StoreSender:
        """Make what writes to the outbox what another sender seals."""
        return _SessionStoreSender(self, sealing, config, self._activity)

    async def cancel(self, message_id: str) -> bool:
        """Cancel a delayed event in a transaction of its own."""
        return self._activity.cancelled(message_id, in_time=await super().cancel(message_id))


class _SessionStoreSender(StoreSender):
    def __init__(
        self,
        outbox: Outbox,
        sealing: Publisher | FollowUpSender,
        config: ConsumerConfig | None,
        activity: ActivityTracker,
    ) -> None:
        super().__init__(outbox, sealing, config)
        self._activity = activity

    async def cancel(self, unit: SendingUnit, message_id: str) -> bool:
        """Cancel a delayed event in the transaction of the unit."""
        return self._activity.cancelled(message_id, in_time=await super().cancel(unit, message_id))


def _broker(own: Messaging, stage: SessionOptions, activity: ActivityTracker) -> object:
    given = MemoryBroker() if stage.broker is None else own.broker if stage.broker == "keep" else stage.broker
    return given if stage.injection is None else FaultyBroker(find_broker(given), stage.injection, activity)


async def _cancel_unsent(unit: SendingUnit, message_id: str) -> bool:
    """Cancel what a unit of work has published itself; the rest has left."""
    found = [one for one in unit.outbound if one.id == message_id]
    unit.outbound = [one for one in unit.outbound if one not in found]
    return bool(found)


def _tried_at_once(config: ConsumerConfig) -> ConsumerConfig:
    policy: dict[str, Any] = {field.name: getattr(config.retry, field.name) for field in fields(Retry)}
    policy["delay"] = 0.0
    return config._replace(retry=_RetryAtOnce(**policy))
