"""A handler that blocks the event loop is named in a warning."""

import asyncio
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from diator import Diator, NotificationEvent, contract
from diator.delivery import watchdog
from tests.brokered import Flaky, Watch


@contract("meetings.joined")
@dataclass(frozen=True)
class Joined(NotificationEvent):
    pass


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(watchdog, "_BEAT", 0.02)
    monkeypatch.setattr(watchdog, "_PATIENCE", 0.05)
    yield
    assert not [thread for thread in threading.enumerate() if thread.name == "diator watchdog"]


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if "blocks the event loop" in record.getMessage()]


async def test_a_handler_that_blocks_is_named_once(impatient: None, caplog: pytest.LogCaptureFixture) -> None:
    broker, watch = Flaky(), Watch()
    app = Diator("meetings", broker=broker, hooks=[watch])

    def helper() -> None:
        time.sleep(0.4)

    @app.on_event(subscription="greedy")
    async def greedy(event: Joined) -> None:
        helper()

    async with app, app.worker():
        await app.publish(Joined())
        await watch.settle(1)
    (text,) = warnings(caplog)
    assert text.startswith("greedy blocks")
    assert "thread=True" in text
    assert "in helper" in text


async def test_sync_classes_and_methods_are_named_too(impatient: None, caplog: pytest.LogCaptureFixture) -> None:
    broker, watch = Flaky(), Watch()
    app = Diator("meetings", broker=broker, hooks=[watch])

    @app.on_event(subscription="by-class")
    class ByClass:
        def handle(self, event: Joined) -> None:
            time.sleep(0.3)

    class Service:
        def handle(self, event: Joined) -> None:
            time.sleep(0.3)

    app.add_event_handler(Service().handle, subscription="by-method")
    async with app, app.worker():
        await app.publish(Joined())
        await watch.settle(2)
    assert {text.split(" blocks")[0] for text in warnings(caplog)} == {"by-class", "by-method"}


async def test_a_handler_that_waits_or_has_a_thread_blocks_nothing(
    impatient: None, caplog: pytest.LogCaptureFixture
) -> None:
    broker, watch = Flaky(), Watch()
    app = Diator("meetings", broker=broker, hooks=[watch])

    @app.on_event
    async def waits(event: Joined) -> None:
        await asyncio.sleep(0.3)

    @app.on_event(thread=True)
    def in_thread(event: Joined) -> None:
        time.sleep(0.3)

    async with app, app.worker():
        await app.publish(Joined())
        await watch.settle(2)
    blamed = [text for text in warnings(caplog) if "waits" in text or "in_thread" in text]
    assert not blamed  # a busy machine may stop the whole process, which is nobody's fault
