"""dramatiq: an actor, and a worker with its eight threads in the same process."""

# pyright: basic, reportMissingImports=false
# mypy: ignore-errors
# ruff: noqa: ARG001 - handlers are called, that is all
# The library lives in an environment of its own, where no type checker looks.

import threading

import dramatiq
from dramatiq.brokers.redis import RedisBroker

from benchmarks.peers.over_broker import COUNT, MESSAGE, URL, Countdown


def main() -> None:
    countdown, done = Countdown(), threading.Event()
    broker = RedisBroker(url=URL)
    broker.flush_all()
    dramatiq.set_broker(broker)

    @dramatiq.actor
    def handle(meeting_id: int, user_id: int, name: str, tags: list, note: str) -> None:
        if countdown.handled():
            done.set()

    for _ in range(COUNT):
        handle.send(**MESSAGE)
    worker = dramatiq.Worker(broker, worker_threads=8)
    countdown.begin()
    worker.start()
    done.wait()
    countdown.tell()


if __name__ == "__main__":
    main()
