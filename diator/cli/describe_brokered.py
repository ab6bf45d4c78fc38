"""Describing what goes over the broker: how an event is known there, and how a handler is given it."""

from diator.cli.description import ContractDescription, RetryPolicy, SubscriptionDescription
from diator.delivery.catalog import ConsumerConfig
from diator.engine.events import is_brokered
from diator.engine.hints import format_hint
from diator.messages import BROKERED_KINDS, Event, contract_of
from diator.retry import Retry


def wire_of(cls: type[Event]) -> ContractDescription | None:
    """How an event is known to other processes; none for one that stays in this process, nor for a kind itself."""
    if not is_brokered(cls) or cls in BROKERED_KINDS:
        return None
    contract = contract_of(cls)
    return ContractDescription(
        contract.name, contract.topic or contract.name, contract.version, contract.key, contract.aliases
    )


def subscription_of(one: ConsumerConfig, *, handler: str, scope: bool) -> SubscriptionDescription:
    """Describe one handler's share."""
    return SubscriptionDescription(
        name=one.name,
        handler=handler,
        topics=tuple(topic.name for topic in one.subscription.topics),
        ordered=one.subscription.ordered,
        delivery="at-most-once" if one.subscription.at_most_once else "at-least-once",
        concurrency=one.concurrency,
        timeout=one.timeout,
        retry=_policy(one.retry),
        scope=scope,
        once=one.once,
    )


def _policy(retry: Retry) -> RetryPolicy:
    never = tuple(map(format_hint, retry.never))
    return RetryPolicy(retry.attempts, retry.delay, retry.factor, retry.max_delay, retry.jitter, never)
