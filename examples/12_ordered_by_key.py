"""Order by key: events of one account one at a time and in order, those of other accounts at the same time.

`key="account"` in the contract names the field. A message that has to be tried again holds back the later ones of its
account, and nothing else, across all workers. Without a key there is no order; a handler that does not need it says
`ordered=False` and runs whatever comes.
"""

import asyncio
from dataclasses import dataclass

from diator import Context, Diator, ECSTEvent, Retry, contract

app = Diator("bank", broker="memory://", retry=Retry(delay=0.05))
balances: dict[str, int] = {}
all_booked = asyncio.Event()


@contract("bank.money-moved", key="account")
@dataclass(frozen=True)
class MoneyMoved(ECSTEvent):
    account: str
    amount: int
    balance: int


app.publishes(MoneyMoved)
booked: list[MoneyMoved] = []
MOVES = [
    MoneyMoved("ann", 50, 50),
    MoneyMoved("bob", 10, 10),
    MoneyMoved("ann", -20, 30),
    MoneyMoved("bob", 5, 15),
    MoneyMoved("ann", 70, 100),
]


@app.on_event(subscription="bank.book", concurrency=10)
async def book(event: MoneyMoved, context: Context) -> None:
    if event.amount == -20 and context.attempt == 1:
        print(f"{event.account}: {event.amount:+} fails once, and what follows of {event.account} waits")
        raise ConnectionError("the ledger is away")
    balances[event.account] = balances.get(event.account, 0) + event.amount
    print(f"{event.account}: {event.amount:+} makes {balances[event.account]}, as it should: {event.balance}")
    booked.append(event)
    if len(booked) == len(MOVES):
        all_booked.set()


async def main() -> None:
    async with app, app.worker():
        await app.publish(*MOVES)
        await all_booked.wait()


if __name__ == "__main__":
    asyncio.run(main())
