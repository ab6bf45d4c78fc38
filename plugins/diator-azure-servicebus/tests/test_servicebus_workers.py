"""Proof with real processes: the server is one, and workers are killed in the middle of handlers.

The workers run without any haste of the SDK. ``DIATOR_KILLS`` says how often one is killed.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from diator_conformance import prove_workers

pytestmark = pytest.mark.once  # it takes long, and depends little on the Python

KILLS = int(os.environ.get("DIATOR_KILLS", "2"))
UNSETTLED = 5 + 25
"""So many messages of one handler a worker may have begun and not settled: five run, and some are done for 0.1 s."""
ENTITIES = [
    "--queue=shop.mail,lock=2,max-delivery=1000",
    "--queue=shop.mail.retry,duplicates=600,forward=shop.mail",
    "--queue=shop.book,lock=2,max-delivery=1000,sessions",
    "--topic=shop.sold,duplicates=600",
    "--topic=shop.sold/shop.mail,forward=shop.mail",
    "--topic=shop.sold/shop.book,forward=shop.book",
]

if os.environ.get("DIATOR_TEST_SERVICEBUS"):
    pytest.skip("these processes have a server of their own", allow_module_level=True)


@pytest.fixture
def address(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a server that runs."""
    command = [sys.executable, "-m", "servicebus_test_server", "--port", "0", *ENTITIES]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    monkeypatch.setenv("SHOP_SERVICEBUS", server.stdout.readline().strip())
    yield "azure-servicebus://?connection_string_env=SHOP_SERVICEBUS&lease=2&duplicate_window=600"
    server.send_signal(signal.SIGTERM)
    assert server.wait(10) == 0
    server.stdout.close()


async def test_killed_workers_lose_nothing(address: str, tmp_path: Path) -> None:
    found = await prove_workers(address, tmp_path, {}, times=KILLS, seed=3, freeze=0)
    sys.stdout.write(f"{found}\n")
    assert found.repeated <= KILLS * 2 * UNSETTLED, "so many were with those who were killed"
    assert found.repeated_dead_letters == 0
