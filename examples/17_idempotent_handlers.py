"""Idempotent handlers: a brokered event may be delivered more than once, and a test finds out who can't bear it.

Both handlers add points for a paid order. The first adds them again at each delivery; the second writes them down by
the id of the message, which is the same each time. `minimize` runs a test with deliveries that come twice, late, or
again after a crash, and shows the fewest faults that break it.
"""

import asyncio
from dataclasses import dataclass, field

import punq

from diator import Context, Diator, NotificationEvent, contract
from diator.testing import Faults, minimize


@contract("shop.order-paid")
@dataclass(frozen=True)
class OrderPaid(NotificationEvent):
    order: int
    customer: str
    points: int


@dataclass
class Points:
    """Stands for a table with a unique column."""

    rows: dict[object, int] = field(default_factory=dict[object, int])

    def add(self, points: int) -> None:
        self.rows[len(self.rows)] = points

    def add_once(self, message_id: str, points: int) -> None:
        self.rows.setdefault(message_id, points)

    def total(self) -> int:
        return sum(self.rows.values())


container = punq.Container()
container.register(Points)
hasty = Diator("hasty", container=container, broker="memory://")
careful = Diator("careful", container=container, broker="memory://")


@hasty.on_event
async def add_points(event: OrderPaid, points: Points) -> None:
    points.add(event.points)


@careful.on_event
async def add_points_once(event: OrderPaid, points: Points, context: Context) -> None:
    points.add_once(context.message_id, event.points)


async def play(app: Diator, faults: Faults) -> None:
    points = Points()
    async with app.testing(replace={Points: points}, faults=faults) as session:
        for order in range(5):
            await session.publish(OrderPaid(order, "ada", 10))
        await session.settled()
    assert points.total() == 50, f"expected 50 points, found {points.total()}"


async def hasty_points(faults: Faults) -> None:
    await play(hasty, faults)


async def careful_points(faults: Faults) -> None:
    await play(careful, faults)


async def main() -> None:
    for test in (hasty_points, careful_points):
        try:
            await minimize(test)
        except AssertionError as error:
            print(error)
            print("because:", error.__cause__)


if __name__ == "__main__":
    asyncio.run(main())
