"""Describing what goes over the broker: how an event is known there, and how a handler is given it."""

from diator.cli.description import RetryPolicy, Subscription, Wire
from diator.delivery.catalog import Consumed
from diator.engine.events import is_brokered
from diator.engine.hints import show
from diator.messages import BROKERED, Event, contract_of
from diator.retry import Retry


def wire_of(cls: type[Event]) -> Wire | None:
    """How an event is known to other processes; none for one that stays in this process, nor for a kind itself."""
    if not is_brokered(cls) or cls in BROKERED:
        return None
    contract = contract_of(cls)
    return Wire(contract.name, contract.topic or contract.name, contract.version, contract.key, contract.aliases)


def subscription_of(one: Consumed, *, handler: str, scope: bool) -> Subscription:
    """Describe one handler's share."""
    return Subscription(
        name=one.name,
        handler=handler,
        topics=tuple(topic.name for topic in one.subscription.topics),
        ordered=one.subscription.ordered,
        delivery="at-most-once" if one.subscription.at_most_once else "at-least-once",
        concurrency=one.concurrency,
        timeout=one.timeout,
        retry=_policy(one.retry),
        scope=scope,
    )


def _policy(retry: Retry) -> RetryPolicy:
    never = tuple(map(show, retry.never))
    return RetryPolicy(retry.attempts, retry.delay, retry.factor, retry.max_delay, retry.jitter, never)
