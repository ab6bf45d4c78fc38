"""Which entries of a partition may go out: random programs against a model, without a server."""

from typing import NamedTuple

from diator_redis._entries import Stream
from diator_redis._lanes import Hold, Item, Partition, Read, Where
from hypothesis import given, settings, strategies

from diator.brokers import Delivery

STREAM = Stream(b"events:0", "orders", partition=0)


class Step(NamedTuple):
    do: str
    number: int


def entry(at: int, key: bytes, *, deliveries: int = 0, stored: int = 1) -> Item:
    fields = [b"e", b"%d" % at, b"k", key, b"n", b"%d" % at]
    return Item(STREAM, 1, (b"%d-0" % at, fields), deliveries=deliveries, stored=stored)


class Play:
    """A partition, and what is known of its entries: their order by key, and which of them are out."""

    def __init__(self) -> None:
        self.partition = Partition(0, "token", 0.0)
        self.now = 0.0
        self.count = 0
        self.open: dict[bytes, list[int]] = {b"a": [], b"b": [], b"c": []}
        self.out: dict[int, Delivery] = {}

    def read(self, number: int) -> None:
        """Read some; the first ones may have been handed out by another worker before."""
        old, new = list[Item](), list[Item]()
        for _ in range(number % 5):
            key = (b"a", b"b", b"c")[(number + self.count) % 3]
            self.open[key].append(self.count)
            if self.count < number // 4:
                old.append(entry(self.count, key, deliveries=1))
            else:
                new.append(entry(self.count, key))
            self.count += 1
        self.partition.add({1: Read(old, new, is_all=bool(number % 2))})

    def take(self, number: int) -> None:
        limit = 1 + number % 4
        for item in self.partition.ready(self.now, limit):
            item.stored = item.deliveries + 1
        came = self.partition.take(limit, self.now, 100.0)
        assert len(came) <= limit
        for delivery in came:
            at = int(delivery.body)
            key = delivery.receipt.key
            earlier = self.open[key][: self.open[key].index(at)]
            assert all(one in self.out for one in earlier), f"{at} overtakes one of {earlier}"
            assert not any(one in self.out for one in self.open[key][len(earlier) :]), f"{at} comes too late"
            self.out[at] = delivery

    def settle(self, number: int) -> None:
        """Settle the first that is out of a key; if it comes back, those after it come back with it, maybe later."""
        key = (b"a", b"b", b"c")[number % 3]
        out = [at for at in self.open[key] if at in self.out]
        if not out or out[0] != self.open[key][0]:
            return
        if number % 2:
            self.partition.forget(self.hold(out[0]).item)
            self.open[key].remove(out[0])
            del self.out[out[0]]
            return
        for at in out if number % 4 else reversed(out):
            hold = self.hold(at)
            self.partition.mark([hold.item], Where.SETTLING)
            if number % 4:
                self.take(number)
            hold.item.deliveries += at == out[0]
            hold.item.stored = hold.item.deliveries
            self.partition.put_back(hold.item, self.now + number % 3 if at == out[0] else 0.0)
            del self.out[at]
            if number % 4:
                self.take(number)

    def hold(self, at: int) -> Hold:
        hold: Hold = self.out[at].receipt
        assert self.partition.is_out(hold)
        return hold

    def wait(self, number: int) -> None:
        self.now += number % 3


STEPS = strategies.builds(
    Step,
    strategies.sampled_from(["read", "read", "take", "take", "settle", "settle", "wait"]),
    strategies.integers(0, 40),
)


@settings(max_examples=300, deadline=None)
@given(strategies.lists(STEPS, max_size=60))
def test_no_entry_overtakes_another_of_its_key(program: list[Step]) -> None:
    """And none is forgotten."""
    play = Play()
    for step in program:
        getattr(play, step.do)(step.number)
    play.partition.add({1: Read([], [], is_all=True)})
    for _ in range(3 * play.count + 3):
        play.now += 1.0
        play.take(3)
        for number in (3, 1, 5):  # acknowledges the first of each key
            play.settle(number)
    assert not play.partition.size
