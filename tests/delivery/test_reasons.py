"""Where the reason of something is shown, it is never empty: an error without a text is named by its class."""

import asyncio
import logging
import re
from dataclasses import dataclass

import pytest

from diator import BrokerUnavailableError, Diator, NotificationEvent, PublishError, Retry, contract
from diator.brokers import Receiver, Subscription
from tests.brokered import Flaky, letters
from tests.virtual_time import in_virtual_time


@contract("reasons.joined")
@dataclass(frozen=True)
class Joined(NotificationEvent):
    number: int = 1


class SlowToClose(Flaky):
    """Its receivers take longer to close than a worker waits."""

    seconds = 100.0

    async def subscribe(self, subscription: Subscription, /) -> Receiver:
        receiver = await super().subscribe(subscription)
        close = receiver.aclose

        async def close_slowly() -> None:
            await asyncio.sleep(self.seconds)
            await close()

        receiver.aclose = close_slowly  # type: ignore[method-assign]  # the object is one of this test alone
        return receiver


def shop(broker: Flaky) -> Diator:
    app = Diator("shop", broker=broker, retry=Retry(attempts=2, delay=0.1), publish_timeout=1)

    @app.on_event
    async def handle(event: Joined) -> None:
        raise ValueError

    return app


def told(caplog: pytest.LogCaptureFixture) -> str:
    """All that was logged; fails for reasons that say nothing."""
    texts = [one.getMessage() for one in caplog.records if one.levelno >= logging.WARNING]
    empty = [text for text in texts if re.search(r"\(\)|: *(\)|;|$)", text)]
    assert empty == []
    return "\n".join(texts)


@in_virtual_time
async def test_a_receiver_that_does_not_close_in_time_is_told_with_the_time(caplog: pytest.LogCaptureFixture) -> None:
    app = shop(SlowToClose())
    async with app, app.worker():
        await asyncio.sleep(1)
    assert "did not end cleanly (its receiver did not close within 5 s)" in told(caplog)


@pytest.mark.parametrize("operation", ["connect", "apply", "subscribe", "receive", "settle", "renew", "publish"])
@in_virtual_time
async def test_an_outage_without_a_text_is_told_by_its_class(operation: str, caplog: pytest.LogCaptureFixture) -> None:
    broker = Flaky()
    app = shop(broker)
    if operation in ("connect", "apply", "subscribe"):
        broker.break_down(operation, error=BrokerUnavailableError)
    async with app, app.worker():
        if operation == "publish":
            broker.break_down("publish", error=BrokerUnavailableError)
            with pytest.raises(
                PublishError, match=r"could not publish 1 event \(Joined\): BrokerUnavailableError;"
            ) as raised:
                await app.publish(Joined())
            assert str(raised.value.__cause__) == "messages: 1 not published: BrokerUnavailableError"
        elif operation in ("receive", "settle", "renew"):
            await app.publish(Joined())
            broker.break_down(operation, error=BrokerUnavailableError)
            await asyncio.sleep(20)
        await asyncio.sleep(1)
        broker.mend()
        await asyncio.sleep(10)
    text = told(caplog)
    assert operation in ("publish", "renew") or "(BrokerUnavailableError)" in text


@pytest.mark.parametrize("operation", ["connect", "apply"])
@in_virtual_time
async def test_a_start_that_is_not_answered_is_told_with_the_time(
    operation: str, caplog: pytest.LogCaptureFixture
) -> None:
    broker = Flaky()
    broker.slow[operation] = 1000
    broker.address = "broker.example:1234"
    app = shop(broker)
    async with app, app.worker():
        pass
    assert "Flaky at broker.example:1234: no answer within 1 s" in told(caplog)


@in_virtual_time
async def test_a_failure_without_a_text_is_told_by_its_class(caplog: pytest.LogCaptureFixture) -> None:
    broker = Flaky()
    app = shop(broker)
    async with app, app.worker():
        await app.publish(Joined())
        await asyncio.sleep(2)
        (letter,) = await letters(broker)
    assert "(ValueError); retrying in" in told(caplog)
    assert letter.failure.error == "builtins.ValueError"
