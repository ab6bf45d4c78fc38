"""Errors that follow from the capabilities of a broker, so that plugins don't need to write them."""

from collections.abc import Iterator, Sequence

from diator.brokers.port import Broker, BrokerCapability, Subscription, Topic, Validates, ValidationIssue

_SAFE = BrokerCapability.ACKNOWLEDGED | BrokerCapability.DEAD_LETTERS
_OTHER = "use a broker that can, such as redis://"


def refusals_of(
    broker: Broker, subscriptions: Sequence[Subscription], topics: Sequence[Topic]
) -> Iterator[ValidationIssue]:
    """Return what the broker does not support of these subscriptions and published topics."""
    for one in subscriptions:
        yield from _unsupported(broker, one)
    if isinstance(broker, Validates):
        yield from broker.validate(subscriptions, topics)


def _unsupported(broker: Broker, one: Subscription) -> Iterator[ValidationIssue]:
    name, can = type(broker).__name__, broker.capabilities
    if one.ordered and BrokerCapability.ORDER_BY_KEY not in can:
        text = f"{one.name!r} is ordered by key, and {name}, as it is set up, keeps no order by key across workers"
        yield ValidationIssue(text, f"{_OTHER}, or do without it with ordered=False", one.name)
    if one.at_most_once:
        return
    if _SAFE not in can:
        lacks = "keeps nothing" if BrokerCapability.ACKNOWLEDGED not in can else "keeps no dead letters"
        text = f"{name} {lacks}, so subscription {one.name!r} can lose messages"
        yield ValidationIssue(text, f'{_OTHER}, or accept it with delivery="at-most-once"', one.name)
    elif one.max_delay and BrokerCapability.DELAYED_RETRY not in can:
        text = f"{one.name!r} retries after up to {one.max_delay:g} s, and {name} can't delay a message"
        yield ValidationIssue(text, f"{_OTHER}, or retry at once with retry=Retry(delay=0)", one.name)
