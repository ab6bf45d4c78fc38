"""Reading all dead letters of a subscription, page by page."""

from collections.abc import AsyncGenerator

from diator.brokers.port import DeadLetter, KeepsDeadLetters, Subscription


async def dead_letters_of(
    broker: KeepsDeadLetters, subscription: Subscription, *, page: int = 100
) -> AsyncGenerator[DeadLetter, None]:
    """Read all dead letters of a subscription, oldest first, ``page`` at a time, even during replays and purges.

    Raises `~diator.BrokerError`.
    """
    after: str | None = None
    while letters := await broker.dead_letters(subscription, after=after, limit=page):
        for letter in letters:
            yield letter
        after = letters[-1].id
