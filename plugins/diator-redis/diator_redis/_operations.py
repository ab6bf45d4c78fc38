"""What is to be done with entries of partitions, as the script for it (partition.lua) is told."""

from collections.abc import Sequence

from diator.brokers.port import Ack, Outcome, Park, Release, RetryAfter
from diator_redis._lanes import Hold, Item, Partition
from diator_redis._link import Argument
from diator_redis._parked import reason_of

Operation = tuple[Partition, Item, str, Argument, int, int]
"""Outcome, its argument, failures, deliveries."""
Group = tuple[Partition, int, str, int]
"""Partition, number of the stream, outcome, and what else is the same for many entries."""


def operation_of(hold: Hold, outcome: Outcome) -> Operation:
    """Give what settles an entry."""
    item, partition = hold.item, hold.partition
    if isinstance(outcome, Ack):
        return (partition, item, "ack", "", 0, 0)
    if isinstance(outcome, Park):
        return (partition, item, "park", reason_of(outcome), item.failures, item.deliveries + 1)
    if isinstance(outcome, RetryAfter):
        delay = max(0, int(outcome.delay * 1000))
        return (partition, item, "retry", delay, item.failures + 1, item.deliveries + 1)
    return (partition, item, "count", "", item.failures, item.deliveries)


def comes_back(outcome: Outcome) -> bool:
    """Whether the entry is to be delivered again."""
    return isinstance(outcome, (RetryAfter, Release))


def sorted_out(operations: Sequence[Operation]) -> tuple[dict[Group, list[bytes]], list[list[int]], list[int]]:
    """Give operations that are the same for many entries, the numbers of each group, and those of the others."""
    groups: dict[Group, list[bytes]] = {}
    places: dict[Group, list[int]] = {}
    others: list[int] = []
    for at, (partition, item, outcome, _, _, deliveries) in enumerate(operations):
        if outcome in ("ack", "count"):
            group = (partition, item.number, outcome, int(item.failures > 0) if outcome == "ack" else deliveries)
            groups.setdefault(group, []).append(item.id)
            places.setdefault(group, []).append(at)
        else:
            others.append(at)
    return groups, list(places.values()), others
