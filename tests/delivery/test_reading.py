"""Messages as other processes send them: of other versions, under former names, of unknown types, in both modes."""

import asyncio
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pydantic
import pytest

from diator import Context, Diator, NotificationEvent, contract
from diator.brokers import Delivery
from tests.brokered import Flaky, Watch, letters, put
from tests.virtual_time import in_virtual_time


@contract("meetings.joined", version=2, aliases=("joined", "meeting.joined"))
@dataclass(frozen=True)
class Joined(NotificationEvent):
    meeting: int
    late: bool = False


@contract("meetings.left", topic="shared")
@dataclass(frozen=True)
class Left(NotificationEvent):
    meeting: int = 0

    def __post_init__(self) -> None:
        if self.meeting == 13:
            raise ZeroDivisionError("unlucky")


def event(name: str, data: Any, **attributes: Any) -> bytes:
    return json.dumps(
        {"specversion": "1.0", "id": "1", "source": "other", "type": name, "data": data, **attributes}
    ).encode()


class Bench:
    """One app with a handler of each event, and what they got."""

    def __init__(self) -> None:
        self.broker, self.watch = Flaky(), Watch()
        self.app = Diator("meetings", broker=self.broker, hooks=[self.watch])
        self.got: list[Any] = []
        self.contexts: list[Context] = []

        @self.app.on_event(subscription="joined")
        async def joined(event: Joined, context: Context) -> None:
            self.got.append(event)
            self.contexts.append(context)

        @self.app.on_event(subscription="left")
        async def left(event: Left, context: Context) -> None:
            self.got.append(event)
            self.contexts.append(context)


@in_virtual_time
async def test_a_higher_version_is_tried_and_unknown_fields_are_ignored() -> None:
    bench = Bench()
    async with bench.app, bench.app.worker():
        await put(bench.broker, "meetings.joined", event("meetings.joined", {"meeting": 1, "x": []}, diatorversion=9))
        await put(bench.broker, "meetings.joined", event("meetings.joined", {"meeting": "1"}, diatorversion=9))
        await put(bench.broker, "meetings.joined", event("meetings.joined", {"meeting": 3}, diatorversion=1))
        await bench.watch.settle(3)
        assert bench.got == [Joined(1), Joined(3)]
        (letter,) = await letters(bench.broker)
        assert "of version 9, where 2 is known" in letter.failure.reason


@in_virtual_time
async def test_a_field_that_an_older_message_lacks_is_told_with_both_versions_and_the_remedy() -> None:
    @contract("meetings.moved", version=2)
    class Moved(pydantic.BaseModel, NotificationEvent):
        room: str

    bench = Bench()

    @bench.app.on_event(subscription="moved")
    async def moved(event: Moved) -> None: ...

    async with bench.app, bench.app.worker():
        await put(bench.broker, "meetings.joined", event("meetings.joined", {}, diatorversion=1))
        await put(bench.broker, "meetings.moved", event("meetings.moved", {}, diatorversion=1))
        await put(bench.broker, "meetings.joined", event("meetings.joined", {"meeting": "x"}, diatorversion=2))
        await bench.watch.settle(3)
        joined, same, other = [letter.failure.reason for letter in await letters(bench.broker)]
    for reason in (joined, other):
        assert "of version 1, where 2 is known, does not fit" in reason
        assert reason.endswith("; give the field a default to read such messages")
    assert "version" not in same
    assert "default" not in same


@in_virtual_time
async def test_former_names_are_read_and_come_from_their_own_topics_too() -> None:
    bench = Bench()
    async with bench.app, bench.app.worker():
        for number, name in enumerate(("meetings.joined", "joined", "meeting.joined")):
            await put(bench.broker, name, event(name, {"meeting": number}))
        await bench.watch.settle(3)
        assert bench.got == [Joined(0), Joined(1), Joined(2)]


@in_virtual_time
async def test_a_type_that_nobody_takes_is_warned_of_once_with_the_remedy_for_a_renamed_event(
    caplog: pytest.LogCaptureFixture,
) -> None:
    bench = Bench()
    async with bench.app, bench.app.worker():
        for _ in range(3):
            await put(bench.broker, "meetings.joined", event("meetings.entered", {"meeting": 1}))
        await bench.watch.settle(3)
    assert bench.watch.outcomes() == ["Ack"] * 3
    (record,) = [record for record in caplog.records if "meetings.entered" in record.getMessage()]
    assert record.levelname == "WARNING"
    assert "joined gets messages of type 'meetings.entered', which its handler does not handle" in record.getMessage()
    assert "dropped" in record.getMessage()
    assert "aliases=('meetings.entered',)" in record.getMessage()


@in_virtual_time
async def test_type_without_a_handler_is_logged_once_though_its_consumer_starts_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    bench = Bench()
    async with bench.app, bench.app.worker():
        for number in range(2):
            await put(bench.broker, "meetings.joined", event("meetings.entered", {"meeting": 1}))
            await bench.watch.settle(number + 1)
            bench.broker.break_down("receive", error=lambda: RuntimeError("a fault of the plugin"))
            await put(bench.broker, "meetings.joined", event("meetings.joined", {"meeting": 1}))
            await asyncio.sleep(1)
            bench.broker.mend()
            await asyncio.sleep(60)
        assert bench.watch.outcomes() == ["Ack"] * 4
        assert len(bench.watch.of("handled")) == 2
    assert "restarting it" in caplog.text
    assert caplog.text.count("gets messages of type 'meetings.entered'") == 1


@in_virtual_time
async def test_other_types_on_a_topic_that_contracts_share_are_no_reason_to_warn(
    caplog: pytest.LogCaptureFixture,
) -> None:
    bench = Bench()
    caplog.set_level("INFO")
    async with bench.app, bench.app.worker():
        await put(bench.broker, "shared", event("meetings.moved", {}))
        await bench.watch.settle(1)
    (record,) = [record for record in caplog.records if "meetings.moved" in record.getMessage()]
    assert record.levelname == "INFO"
    assert "aliases" not in record.getMessage()


@in_virtual_time
async def test_unknown_types_on_a_shared_topic_are_acknowledged() -> None:
    bench = Bench()
    async with bench.app, bench.app.worker():
        for name in ("meetings.moved", "meetings.left", "meetings.renamed"):
            await put(bench.broker, "shared", event(name, {}))
        await bench.watch.settle(3)
        assert bench.watch.outcomes() == ["Ack"] * 3
        assert bench.got == [Left()]


@in_virtual_time
async def test_unknown_types_with_data_of_another_kind_are_nobodys_dead_letters() -> None:
    bench = Bench()
    async with bench.app, bench.app.worker():
        await put(bench.broker, "shared", event("pictures.taken", "...", datacontenttype="image/png"))
        await bench.watch.settle(1)
        assert bench.watch.outcomes() == ["Ack"]
        assert not bench.watch.of("handled")


@pytest.mark.parametrize(
    "kind", ["application/json; charset=utf-8", "application/JSON", "text/json", "application/vnd.meetings+json"]
)
def test_data_that_is_json_by_any_name_is_read(kind: str) -> None:
    @in_virtual_time
    async def scenario() -> None:
        bench = Bench()
        async with bench.app, bench.app.worker():
            await put(bench.broker, "shared", event("meetings.left", {"meeting": 5}, datacontenttype=kind))
            await bench.watch.settle(1)
            assert bench.got == [Left(5)]

    scenario()


@in_virtual_time
async def test_what_the_event_class_itself_refuses_is_undecodable() -> None:
    bench = Bench()
    async with bench.app, bench.app.worker():
        await put(bench.broker, "shared", event("meetings.left", {"meeting": 13}))
        await bench.watch.settle(1)
        (letter,) = await letters(bench.broker)
        assert "unlucky" in letter.failure.reason


@in_virtual_time
async def test_events_in_binary_mode_are_read_from_headers_and_body() -> None:
    bench = Bench()
    headers: Mapping[str, str] = {
        "specversion": "1.0",
        "id": "77",
        "source": "other",
        "type": "meetings.left",
        "time": "2024-05-01T10:00:00Z",
        "diatorversion": "3",
        "diatorcorrelation": "all",
        "diatorcausation": "before",
        "diatorheaders": '{"tenant":"t"}',
        "traceparent": "00-1-2-01",
        "unknown": "ignored",
    }
    bench.broker.tamper = lambda d: Delivery(d.topic, b'{"meeting":4}', headers, receipt=d.receipt)
    async with bench.app, bench.app.worker():
        await put(bench.broker, "shared", b"-")
        await bench.watch.settle(1)
    (context,) = bench.contexts
    assert bench.got == [Left(4)]
    assert (context.message_id, context.correlation_id, context.causation_id) == ("77", "all", "before")
    assert context.headers == {"tenant": "t", "traceparent": "00-1-2-01"}
    assert context.published_at is not None
    assert context.published_at.year == 2024


@pytest.mark.parametrize(
    "wrong",
    [
        {"diatorversion": "x"},
        {"diatorversion": "9" * 5000},
        {"specversion": "2.0"},
        {"time": "yesterday"},
        {"diatorheaders": "{"},
        {"diatorheaders": '{"a":1}'},
    ],
)
def test_headers_that_make_no_sense_are_undecodable(wrong: dict[str, str]) -> None:
    @in_virtual_time
    async def scenario() -> None:
        bench = Bench()
        headers = {"specversion": "1.0", "id": "7", "source": "other", "type": "meetings.left", **wrong}
        bench.broker.tamper = lambda d: Delivery(d.topic, b"{}", headers, receipt=d.receipt)
        async with bench.app, bench.app.worker():
            await put(bench.broker, "shared", b"-")
            await bench.watch.settle(1)
            assert bench.watch.outcomes() == ["MoveToDeadLetters"]

    scenario()


@in_virtual_time
async def test_what_the_broker_calls_damaged_is_a_dead_letter_with_that_reason() -> None:
    bench = Bench()
    bench.broker.tamper = lambda d: Delivery(d.topic, b"?", read_error="the stream is torn", receipt=d.receipt)
    async with bench.app, bench.app.worker():
        await put(bench.broker, "shared", b"-")
        await bench.watch.settle(1)
        (letter,) = await letters(bench.broker)
        assert letter.failure.reason == "undecodable: the stream is torn"


@in_virtual_time
async def test_an_event_without_a_correlation_starts_one() -> None:
    bench = Bench()
    async with bench.app, bench.app.worker():
        await put(bench.broker, "shared", event("meetings.left", {}))
        await bench.watch.settle(1)
    (context,) = bench.contexts
    assert context.correlation_id == context.message_id == "1"
    assert context.causation_id is None


def test_models_that_can_not_read_what_they_write_are_refused_at_the_start() -> None:
    class Renamed(pydantic.BaseModel, NotificationEvent):
        user_id: int = pydantic.Field(serialization_alias="userId")

    class ReadAs(pydantic.BaseModel, NotificationEvent):
        user_id: int = pydantic.Field(validation_alias="userId")

    class Secret(pydantic.BaseModel, NotificationEvent):
        password: pydantic.SecretStr

    class BothWays(pydantic.BaseModel, NotificationEvent):
        user_id: int = pydantic.Field(alias="userId")
        seat: int = pydantic.Field(default=1, validation_alias=pydantic.AliasChoices("place", "seat"))

    app = Diator("meetings", broker="memory://")
    app.publishes(Renamed, ReadAs, Secret, BothWays)
    told = [problem.text for problem in app.check() if problem.code == "not-serializable"]
    alike = "is SecretStr('**********'), and arrives as another that looks the same"
    assert told == [
        "Renamed can't be serialized: Renamed can't be read as it is written: user_id: Field required",
        "ReadAs can't be serialized: ReadAs can't be read as it is written: userId: Field required",
        f"Secret can't be serialized: Secret.password {alike}",
    ]


@pytest.mark.parametrize(
    ("value", "kind"),
    [(object(), TypeError), ("\ud800", ValueError)],
    ids=["object", "text"],
)
async def test_values_that_json_lacks_are_told_with_their_event_and_field(value: Any, kind: type[Exception]) -> None:
    @contract("trips.noted")
    @dataclass
    class Noted(NotificationEvent):
        number: int
        details: Any

    app = Diator("trips", broker="memory://")
    app.publishes(Noted)
    async with app:
        with pytest.raises(kind, match=r"Noted\.details can't be published: .") as raised:
            await app.publish(Noted(1, {"a": [value]}))
        assert type(raised.value) is kind
        assert raised.value.__cause__ is not None
        await app.publish(Noted(1, {"a": []}))


async def test_values_that_pydantic_can_not_carry_are_told_with_their_event_and_field() -> None:
    class Tagged(pydantic.BaseModel, NotificationEvent):
        number: int
        tags: Any

    app = Diator("trips", broker="memory://")
    app.publishes(Tagged)
    async with app:
        with pytest.raises(ValueError, match=r"Tagged\.tags can't be published: .*object"):
            await app.publish(Tagged(number=1, tags=[object()]))


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf], ids=str)
async def test_numbers_that_json_lacks_fail_the_command_and_do_not_arrive_as_null(number: float) -> None:
    @dataclass
    class Place:
        latitude: float | None = None

    @contract("trips.moved")
    @dataclass
    class Moved(NotificationEvent):
        locations: list[Place]

    class Measured(pydantic.BaseModel, NotificationEvent):
        degrees: dict[str, float | None]

    app = Diator("trips", broker="memory://")
    app.publishes(Moved, Measured)
    async with app:
        await app.publish(Moved([Place(None), Place(1.0)]), Measured(degrees={"c": None}))
        with pytest.raises(ValueError, match=rf"Moved\.locations\[1\]\.latitude is {number}, and arrives as None"):
            await app.publish(Moved([Place(None), Place(number)]))
        with pytest.raises(ValueError, match=rf"Measured\.degrees\['c'\] is {number}, and arrives as None"):
            await app.publish(Measured(degrees={"c": number}))


class Mute(Exception):
    def __str__(self) -> str:
        raise SystemExit


@pytest.mark.parametrize("error", [Mute(), ValueError("caf\udce9"), SystemExit(1), GeneratorExit()], ids=repr)
def test_whatever_an_event_raises_when_it_is_made_of_data_becomes_a_dead_letter(error: BaseException) -> None:
    @contract("meetings.ended")
    @dataclass(frozen=True)
    class Ended(NotificationEvent):
        def __post_init__(self) -> None:
            if handling == [0]:
                raise error
            handling[:] = [one - 1 for one in handling]

    @in_virtual_time
    async def scenario() -> None:
        broker, watch = Flaky(), Watch()
        app = Diator("meetings", broker=broker, hooks=[watch])

        @app.on_event
        async def ended(event: Ended) -> None: ...

        async with app, app.worker():
            published = Ended()
            handling.append(1)  # it is read before it leaves
            await app.publish(published)
            await watch.settle(1)
            (letter,) = await letters(broker)
            assert letter.failure.reason.startswith("undecodable: the data of meetings.ended does not fit")
            assert len(broker.receivers) == 1, "the consumer broke down"

    handling: list[int] = []  # how often it may still be made
    scenario()
