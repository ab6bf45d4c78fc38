"""The page on guarantees is made of what brokers declare, and contributors have a list of tests for each of its lines.

``python -m tests.test_guarantees_page`` writes both again.
"""

from pathlib import Path
from typing import NamedTuple

import pytest
from diator_azure_servicebus import ServiceBusBroker
from diator_conformance import BrokerSuite
from diator_nats import NatsBroker
from diator_rabbitmq import RabbitBroker
from diator_redis import RedisBroker, RedisPubSubBroker

from diator.brokers import Broker, BrokerCapability, MemoryBroker

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "explanation" / "guarantees.md"
TESTS_PAGE = ROOT / "docs" / "contributing" / "guarantee-tests.md"
BEGIN, END = "<!-- written by python -m tests.test_guarantees_page -->", "<!-- end -->"

BROKERS: dict[str, Broker] = {
    "memory": MemoryBroker(),
    "Redis Streams": RedisBroker(),
    "Redis Pub/Sub": RedisPubSubBroker(),
    "NATS JetStream": NatsBroker(),
    "Azure Service Bus": ServiceBusBroker("Endpoint=sb://localhost;SharedAccessKeyName=a;SharedAccessKey=b"),
    "RabbitMQ": RabbitBroker(),
}


class Line(NamedTuple):
    """One promise: what is kept with a capability, what without, and the tests that prove the first."""

    promise: str
    capability: BrokerCapability
    kept: str
    else_: str
    proof: tuple[str, ...]


A = BrokerCapability.ACKNOWLEDGED
LINES = (
    Line(
        "a message is acknowledged",
        A,
        "after its handler has succeeded",
        "when it is sent: at most once",
        (
            "test_what_is_acknowledged_is_gone",
            "test_a_message_is_acknowledged_only_after_its_handler_has_succeeded",
            "test_the_scope_closes_well_before_follow_ups_are_sent_and_these_before_the_ack",
        ),
    ),
    Line(
        "each handler is independent",
        BrokerCapability.CONSUMER_GROUPS,
        "a subscription each, shared by its workers",
        "every worker gets every message",
        (
            "test_every_subscription_of_a_topic_gets_each_message",
            "test_each_message_is_with_one_of_the_receivers",
            "test_a_failing_handler_never_reruns_delays_or_hides_another",
        ),
    ),
    Line(
        "a handler fails",
        A,
        "only its message is retried",
        "its message is lost, with a line in the log",
        ("test_a_retry_comes_back_to_its_own_subscription_only", "test_failures_add_up"),
    ),
    Line(
        "delays of retries",
        BrokerCapability.DELAYED_RETRY,
        "kept by the broker",
        "none",
        ("test_a_retry_comes_back_after_its_delay", "test_delays_are_each_messages_own"),
    ),
    Line(
        "dead letters",
        BrokerCapability.DEAD_LETTERS,
        "kept, read, replayed, purged",
        "none",
        (
            "test_a_dead_letter_keeps_all_that_is_known",
            "test_a_replay_hands_one_out_as_new",
            "test_a_purge_deletes_one_and_no_other",
            "test_what_one_subscription_goes_through_is_not_seen_by_another",
        ),
    ),
    Line(
        "order by key",
        BrokerCapability.ORDER_BY_KEY,
        "one at a time, in order",
        "none",
        (
            "test_messages_of_one_key_come_in_the_order_given",
            "test_one_key_is_with_one_receiver_at_a_time",
            "test_a_retry_holds_its_key_and_no_other",
            "test_messages_of_one_key_run_one_at_a_time_and_in_order",
        ),
    ),
    Line(
        "an event is published twice",
        BrokerCapability.DUPLICATE_DETECTION,
        "the second is dropped",
        "delivered twice",
        ("test_a_duplicate_is_dropped", "test_duplicate_detection_recognizes_the_follow_ups_of_a_second_run"),
    ),
    Line(
        "an event is published with `after=`",
        BrokerCapability.SCHEDULES,
        "delivered when it is due",
        "rejected",
        (
            "test_a_scheduled_message_is_delivered_when_it_is_due",
            "test_a_scheduled_message_takes_its_place_when_it_is_due",
        ),
    ),
    Line(
        "a worker crashes",
        A,
        "its messages are redelivered",
        "its messages are lost",
        ("test_what_is_not_settled_in_time_is_delivered_again", "test_a_worker_that_dies_loses_nothing"),
    ),
    Line(
        "a message crashes its workers",
        A,
        "only it becomes a dead letter",
        "it is lost in the first crash",
        (
            "test_a_message_that_kills_its_worker_becomes_a_dead_letter_in_the_end",
            "test_innocents_are_not_parked_with_the_killer",
        ),
    ),
    Line(
        "a worker is stopped",
        A,
        "unfinished messages are released at once",
        "its messages are lost",
        (
            "test_a_receiver_that_is_closed_gives_back_at_once",
            "test_what_does_not_finish_in_time_is_given_back_without_an_attempt",
        ),
    ),
    Line(
        "the broker crashes",
        BrokerCapability.DURABLE,
        "stored messages are kept",
        "its messages are lost",
        ("test_what_is_stored_survives", "test_goes_on_by_itself_after_its_connections_broke"),
    ),
    Line(
        "a queue is full",
        BrokerCapability.BACKPRESSURE,
        "publishing waits, except in handlers",
        "the broker rejects messages, or grows",
        (
            "test_publishing_waits_for_room",
            "test_who_does_not_wait_for_room_never_waits",
            "test_a_full_queue_whose_consumers_publish_to_it_empties",
        ),
    ),
)


def table() -> str:
    head = ["", *BROKERS]
    rows = [
        [
            line.promise,
            *(line.kept if line.capability in broker.capabilities else line.else_ for broker in BROKERS.values()),
        ]
        for line in LINES
    ]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows))


def proofs() -> str:
    return "\n".join(f"- **{line.promise}**: {', '.join(f'`{name}`' for name in line.proof)}" for line in LINES)


GENERATED = {PAGE: table, TESTS_PAGE: proofs}


def part_of(page: Path) -> str:
    return page.read_text().partition(BEGIN)[2].partition(END)[0].strip()


@pytest.mark.parametrize("page", GENERATED, ids=lambda page: page.stem)
def test_the_pages_show_what_brokers_declare(page: Path) -> None:
    assert part_of(page) == GENERATED[page](), "run python -m tests.test_guarantees_page"


def test_each_promise_names_tests_that_there_are() -> None:
    sources = [path.read_text() for path in (ROOT / "tests" / "delivery").glob("test_*.py")]
    for line in LINES:
        for name in line.proof:
            in_suite = hasattr(BrokerSuite, name)
            assert in_suite or any(f"def {name}(" in source for source in sources), f"{line.promise}: {name}"


def test_every_capability_has_a_line() -> None:
    assert {line.capability for line in LINES} == set(BrokerCapability)


if __name__ == "__main__":
    for page, generate in GENERATED.items():
        before, _, rest = page.read_text().partition(BEGIN)
        page.write_text(f"{before}{BEGIN}\n\n{generate()}\n\n{END}{rest.partition(END)[2]}")
