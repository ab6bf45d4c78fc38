"""The twin: what an app has to do with its broker, once more for a test, and maybe with another broker."""

from dataclasses import replace
from typing import NamedTuple

from diator.brokers.memory import MemoryBroker
from diator.brokers.port import Capability
from diator.delivery.brokerage import Brokerage
from diator.delivery.catalog import Consumed
from diator.engine.check import Checked
from diator.testing.activity import Activity


class Stage(NamedTuple):
    """What brokered events find while an app is tested."""

    broker: object | None = None
    """The broker in place of the app's own; ``None`` for a new one in memory, ``"keep"`` for the app's own."""
    delays: bool = False
    """Whether retries wait as they do outside of tests."""


AS_IT_IS = Stage("keep", delays=True)


class Twin(Brokerage):
    """A brokerage like that of the app, whose hooks are told too. It tells ``activity`` who gets what."""

    def __init__(self, own: Brokerage, stage: Stage, activity: Activity) -> None:
        said = own.defaults
        super().__init__(
            _broker(own, stage.broker),
            retry=said.retry,
            concurrency=said.concurrency,
            timeout=said.timeout,
            max_deliveries=said.max_deliveries,
            publish_timeout=said.publish_timeout,
            telling=own.telling,
        )
        self._stage = stage
        self._activity = activity

    def check(self, checked: Checked, name: str | None) -> Checked:
        """Look through an app. The first time counts: later ones do not know what was replaced."""
        kept = self._catalog
        checked = super().check(checked, name)
        self._catalog = kept or self.catalog
        if kept is None:
            consumed = self.catalog.consumed
            self._catalog = self.catalog._replace(
                consumed=consumed if self._stage.delays else tuple(map(_tried_at_once, consumed))
            )
            deduplicates = Capability.DEDUPLICATES in self.broker.capabilities
            self._activity.consumes(self.catalog.consumed, deduplicates=deduplicates)
        return checked


def _broker(own: Brokerage, broker: object | None) -> object:
    if broker is None:
        return MemoryBroker()
    return own.broker if broker == "keep" else broker


def _tried_at_once(consumed: Consumed) -> Consumed:
    return consumed._replace(retry=replace(consumed.retry, delay=0.0))
