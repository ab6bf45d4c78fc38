"""Proof with real processes: workers are killed, frozen and cut off, and the server is killed, while events flow.

``DIATOR_KILLS`` says how many faults there are, ``DIATOR_SEED`` which workers they meet.
"""

import os
import sys
import time
from pathlib import Path
from typing import Any

import aiormq
import pytest
from diator_conformance import prove_workers
from diator_rabbitmq.testing import MISSING, Proxy, RabbitServer, is_missing

pytestmark = [pytest.mark.skipif(is_missing(), reason=MISSING), pytest.mark.once]

KILLS = int(os.environ.get("DIATOR_KILLS", "4"))
SEED = int(os.environ.get("DIATOR_SEED", "7"))
HEARTBEAT = 2
FROZEN = 8.0
"""Seconds: longer than three heartbeats, after which the server has given away what a worker had."""
HELD = 2 * (5 + 100)
"""So many messages a worker may have, of both handlers, that are delivered again after a fault."""
QUEUES = ["diator:queue:shop.mail", *(f"diator:part{number}:shop.book" for number in range(8))]
NOTES = [f"diator:notes{number}:shop.book" for number in range(8)]


async def sizes(server: RabbitServer, queues: list[str]) -> list[int]:
    """Ask the server how many messages each queue has."""
    connect: Any = aiormq.connect
    connection = await connect(server.url)
    channel = await connection.channel()
    found = [(await channel.queue_declare(name, passive=True)).message_count for name in queues]
    await connection.close()
    return found


async def test_no_fault_loses_or_reorders_events(tmp_path: Path) -> None:
    with RabbitServer() as server, Proxy(server.port) as proxy:

        def kill_server() -> None:
            server.kill()
            time.sleep(0.3)
            server.start()

        found = await prove_workers(
            f"{proxy.url}?heartbeat={HEARTBEAT}",
            tmp_path,
            {"cut": proxy.cut, "server": kill_server},
            times=KILLS,
            seed=SEED,
            freeze=FROZEN,
            max_deliveries=1_000,  # each lost connection counts as a delivery of what was on its way
        )
        assert await sizes(server, QUEUES) == [0] * len(QUEUES), "something is stranded"
        assert max(await sizes(server, NOTES)) < 10, "notes of what is done pile up"
    sys.stdout.write(f"{found}\n")
    assert found.repeated <= found.faults * HELD
    assert found.repeated_dead_letters <= found.faults  # one is stored before its message is acknowledged
