"""Proof with real processes: workers are killed, frozen and cut off, and the server is killed, while events flow.

``DIATOR_KILLS`` says how many faults there are, ``DIATOR_SEED`` which workers they meet.
"""

import os
import sys
import time
from pathlib import Path

import pytest
from diator_conformance import prove_workers
from diator_nats.testing import NatsServer, Proxy

pytestmark = pytest.mark.once  # it takes long, and depends little on the Python

KILLS = int(os.environ.get("DIATOR_KILLS", "4"))
SEED = int(os.environ.get("DIATOR_SEED", "7"))
LEASE = 2.0
HELD = 2 * (5 + 100)
"""So many messages a worker may have, of both handlers, that are delivered again after a fault."""


async def test_no_fault_loses_or_reorders_events(tmp_path: Path) -> None:
    with NatsServer() as server, Proxy(server.port) as proxy:

        def kill_server() -> None:
            server.kill()
            time.sleep(0.3)
            server.start()

        found = await prove_workers(
            f"{proxy.url}?lease={LEASE:g}&timeout=2",
            tmp_path,
            {"cut": proxy.cut, "server": kill_server},
            times=KILLS,
            seed=SEED,
            freeze=LEASE * 2.5,
        )
    sys.stdout.write(f"{found}\n")
    assert found.repeated <= found.faults * HELD
    assert found.repeated_dead_letters == 0
    assert found.recovery < 120
