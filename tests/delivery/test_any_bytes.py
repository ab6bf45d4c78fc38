"""Whatever stands on the wire ends as a dead letter, or is nobody's business: nothing crashes or goes in circles."""

import logging
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
import pydantic
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from diator import Diator, ECSTEvent, NotificationEvent, Retry, contract
from diator.brokers import Delivery
from diator.brokers.envelope import ATTRIBUTES
from tests.brokered import Flaky, Watch, letters, put
from tests.virtual_time import run

PROOFS = int(os.environ.get("DIATOR_PROOFS", "1"))
"""How much of a long proof is done: a short version in every run of the tests, more where there is more time."""


@contract("fuzz.data-class", key="number", topic="fuzz")
@dataclass(frozen=True)
class AsDataClass(NotificationEvent):
    number: int
    texts: tuple[str, ...] = ()
    inner: "AsDataClass | None" = None


@contract("fuzz.struct", topic="fuzz")
class AsStruct(msgspec.Struct, ECSTEvent, frozen=True):
    number: float
    more: dict[str, list[int]] = {}


@contract("fuzz.model", topic="fuzz")
class AsModel(pydantic.BaseModel, NotificationEvent):
    number: int
    more: Any = None


TYPES = ["fuzz.data-class", "fuzz.struct", "fuzz.model", "fuzz.unknown", ""]

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
texts = st.text(max_size=10) | st.sampled_from(["1.0", "application/json", "{}", '{"a":"b"}', "null", "2020-01-01"])
data = st.dictionaries(st.sampled_from(["number", "texts", "inner", "more"]), values, max_size=4) | values


@st.composite
def events(draw: st.DrawFn) -> dict[str, Any]:
    event: dict[str, Any] = {
        "specversion": "1.0",
        "id": draw(st.text(max_size=3)),
        "source": "fuzz",
        "type": draw(st.sampled_from(TYPES)),
        "data": draw(data),
    }
    odd = st.sampled_from([*ATTRIBUTES, "data", "other"])
    event.update(draw(st.dictionaries(odd, texts | values, max_size=3)))
    for name in draw(st.lists(st.sampled_from(list(event)), max_size=1)):
        del event[name]
    return event


bodies = st.binary(max_size=60) | events().map(msgspec.json.encode) | values.map(msgspec.json.encode)
headers = st.dictionaries(texts, texts, max_size=3) | events().map(
    lambda event: {name: str(value) for name, value in event.items() if name != "data"}
)


@st.composite
def deliveries(draw: st.DrawFn) -> Mapping[str, Any]:
    return {
        "body": draw(bodies),
        "headers": draw(st.one_of(st.none(), headers)),
        "failures": draw(st.integers(0, 4)),
        "deliveries": draw(st.integers(-1, 12)),
        "read_error": draw(st.one_of(st.none(), st.none(), st.text(max_size=5))),
    }


@pytest.fixture(autouse=True, scope="module")
def silence() -> Iterator[None]:
    logger = logging.getLogger("diator")
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    yield
    logger.setLevel(level)


@settings(max_examples=60 * PROOFS, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(deliveries(), min_size=1, max_size=6), st.booleans())
def test_any_bytes_headers_and_counts_end(rubbish: list[Mapping[str, Any]], ordered: bool) -> None:
    async def scenario() -> None:
        broker, watch = Flaky(), Watch()
        app = Diator("fuzz", broker=broker, hooks=[watch], retry=Retry(attempts=2, delay=0.1), concurrency=3)
        got: list[Any] = []

        @app.on_event(ordered=None if ordered else False)
        async def take(event: AsDataClass | AsStruct | AsModel) -> None:
            assert isinstance(event, (AsDataClass, AsStruct, AsModel))
            got.append(event)

        waiting = list(rubbish)

        def tamper(delivery: Delivery) -> Delivery:
            if delivery.body != b"rubbish" or not waiting:
                return delivery
            return Delivery(delivery.topic, receipt=delivery.receipt, **waiting.pop(0))

        broker.tamper = tamper
        async with app, app.worker():
            for _ in rubbish:
                await put(broker, "fuzz", b"rubbish")
            await watch.until(lambda: sum(name != "Release" for name in watch.outcomes()) >= len(rubbish), within=100)
            assert set(watch.outcomes()) <= {"Ack", "MoveToDeadLetters", "Release"}
            parked, acked = watch.outcomes().count("MoveToDeadLetters"), watch.outcomes().count("Ack")
            assert acked + parked == len(rubbish)
            assert len(got) == len(watch.of("handled"))
            assert len(await letters(broker)) == parked
            assert len(broker.receivers) == 1, "the consumer broke down"
            assert broker.times["receive"] < 50
            await app.publish(AsDataClass(1), AsStruct(2.0), AsModel(number=3))
            await watch.until(lambda: watch.outcomes().count("Ack") >= acked + 3)

    run(scenario())


@settings(max_examples=60 * PROOFS, deadline=None)
@given(
    st.one_of(
        st.builds(AsDataClass, st.integers(-(2**63), 2**63 - 1), st.lists(st.text(), max_size=3).map(tuple)),
        st.builds(
            AsStruct,
            st.floats(allow_nan=False, allow_infinity=False),
            st.dictionaries(st.text(), st.lists(st.integers(-(2**63), 2**63 - 1), max_size=3), max_size=3),
        ),
        st.builds(AsModel, number=st.integers(-(2**63), 2**63 - 1), more=st.text()),
    )
)
def test_what_is_published_is_what_is_handled(event: Any) -> None:
    async def scenario() -> None:
        broker, watch = Flaky(), Watch()
        app = Diator("fuzz", broker=broker, hooks=[watch])
        got: list[Any] = []

        @app.on_event
        async def take(event: AsDataClass | AsStruct | AsModel) -> None:
            got.append(event)

        async with app, app.worker():
            await app.publish(event)
            await watch.settle(1)
        assert got == [event]

    run(scenario())
