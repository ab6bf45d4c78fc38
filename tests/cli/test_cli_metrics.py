"""``/metrics`` of a worker, and the dashboard and the page that name its metrics."""

import json
import re
import signal
import subprocess
import sys
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from diator import NotificationEvent, Retry, contract
from diator.app import Diator
from diator.prometheus import PrometheusMetrics
from tests.cli.prompt import write
from tests.cli.workers import get, running

ROOT = Path(__file__).parents[2]
HOW_TO = ROOT / "docs" / "how-to"
REFERENCE = ROOT / "docs" / "reference"

APP = '''
import asyncio, os
from dataclasses import dataclass
from diator import Diator, NotificationEvent, Retry, contract, BrokerUnavailableError
from diator.brokers.memory import MemoryBroker
from prometheus_client import Counter

Counter("orders_of_my_own", "A metric of the application.").inc()

class Fed(MemoryBroker):
    """Publishes events as soon as there is a subscription to get them."""
    async def subscribe(self, subscription, /):
        receiver = await super().subscribe(subscription)
        self.task = asyncio.ensure_future(app.publish(*map(Joined, range(3))))
        return receiver
    async def status(self, subscriptions, /):
        if os.path.exists("away"):
            raise BrokerUnavailableError("connection refused")
        return await super().status(subscriptions)

app = Diator("meetings", broker=Fed(), retry=Retry(attempts=2, delay=0.01))

@contract("meetings.joined")
@dataclass
class Joined(NotificationEvent):
    number: int

left = 5

@app.on_event
async def note(event: Joined) -> None:
    global left
    left -= 1
    if not left:
        print("all have run")
    if event.number == 1:
        raise ValueError("not that one")
    if event.number == 2 and left > 1:
        raise ValueError("not yet")
'''


def scraped(port: int) -> dict[tuple[str, str], float]:
    """What a scrape gives, by the name of the sample and the labels that tell it from others."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as response:
        assert response.headers["Content-Type"].startswith("text/plain; version=")
        families = list(text_string_to_metric_families(response.read().decode()))
    return {
        (sample.name, ",".join(sample.labels.values())): sample.value
        for family in families
        for sample in family.samples
    }


def test_a_scrape_tells_what_happened_and_how_the_subscriptions_stand(tmp_path: Path) -> None:
    write(tmp_path, APP)
    with running(tmp_path, "--health", "127.0.0.1:0") as worker:
        worker.wait_for("all have run")
        worker.wait_for("becomes a dead letter")
        found = scraped(int(worker.wait_for("answering probes on").rpartition(" ")[2]))
        worker.signal(signal.SIGTERM)
        assert worker.ended() == 0
    joined = "meetings.note,meetings.joined"
    expected = {
        ("diator_handled_total", joined): 2,
        ("diator_failed_total", joined): 3,
        ("diator_retried_total", joined): 2,
        ("diator_dead_lettered_total", joined): 1,
        ("diator_handler_duration_seconds_count", joined): 5,
        ("diator_in_flight", "meetings.note"): 0,
        ("diator_published_total", "meetings.joined"): 3,
        ("diator_publish_errors_total", ""): 0,
        ("diator_broker_up", ""): 1,
        ("diator_waiting", "meetings.note"): 0,
        ("diator_dead_letters_waiting", "meetings.note"): 1,
        ("diator_oldest_unhandled_seconds", "meetings.note"): 0,
        ("orders_of_my_own_total", ""): 1,
    }
    assert {name: found.get(name) for name in expected} == expected


def test_a_broker_that_is_away_does_not_fail_a_scrape(tmp_path: Path) -> None:
    write(tmp_path, APP)
    (tmp_path / "away").touch()
    with running(tmp_path, "--health", "127.0.0.1:0") as worker:
        found = scraped(int(worker.wait_for("answering probes on").rpartition(" ")[2]))
    assert found["diator_broker_up", ""] == 0
    assert not [name for name, _ in found if name == "diator_waiting"]


def test_counters_begin_at_zero_so_that_the_first_dead_letter_is_an_increase(tmp_path: Path) -> None:
    never = '@contract("meetings.left")\n@dataclass\nclass Left(NotificationEvent): ...\n'
    write(tmp_path, f"{APP}\n{never}\n@app.on_event\nasync def wave(event: Left) -> None: ...\n")
    with running(tmp_path, "--health", "127.0.0.1:0") as worker:
        found = scraped(int(worker.wait_for("answering probes on").rpartition(" ")[2]))
    names = ["handled_total", "failed_total", "retried_total", "dead_lettered_total", "handler_duration_seconds_count"]
    assert [found[f"diator_{name}", "meetings.wave,meetings.left"] for name in names] == [0] * 5
    assert found["diator_lease_losses_total", "meetings.wave"] == 0


def test_without_prometheus_client_the_answer_says_what_to_install(tmp_path: Path) -> None:
    write(tmp_path, "".join(line for line in APP.splitlines(True) if "Counter" not in line))
    (tmp_path / "prometheus_client.py").write_text("raise ImportError('not installed')")
    with running(tmp_path, "--health", "127.0.0.1:0") as worker:
        port = int(worker.wait_for("answering probes on").rpartition(" ")[2])
        status, body = get(port, "/metrics")
    assert status == 404
    assert body == {"error": 'metrics need prometheus-client; install it: uv add "diator[prometheus]"'}


def test_without_prometheus_client_the_import_says_what_to_install() -> None:
    program = "import sys; sys.modules['prometheus_client'] = None; import diator.prometheus"
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert 'diator.prometheus needs it; install it with: uv add "diator[prometheus]"' in ended.stderr


@contract("meetings.left")
@dataclass(frozen=True)
class Left(NotificationEvent):
    pass


async def test_the_hook_counts_in_a_registry_of_ones_own() -> None:
    registry = CollectorRegistry()
    app = Diator("web", broker="memory://", hooks=[PrometheusMetrics(registry)], retry=Retry(attempts=1))

    @app.on_event
    async def count(event: Left) -> None:
        labels = {"subscription": "web.count"}
        assert registry.get_sample_value("diator_in_flight", labels) == 1

    async with app.testing() as session:
        await session.publish(Left())
        await session.settled()
    labels = {"subscription": "web.count", "type": "meetings.left"}
    assert registry.get_sample_value("diator_handled_total", labels) == 1
    assert registry.get_sample_value("diator_handler_duration_seconds_count", labels) == 1


# What is written about them


@pytest.fixture(scope="module")
def documented() -> set[str]:
    """The metrics in the table of the page."""
    return set(re.findall(r"^\| `(diator_\w+)` \|", (REFERENCE / "metrics.md").read_text(), re.MULTILINE))


def test_the_page_lists_every_metric(documented: set[str]) -> None:
    source = "".join((ROOT / "diator" / path).read_text() for path in ("prometheus.py", "cli/metrics.py"))
    made = {
        f"{name}_total" if kind == "Counter" else name
        for kind, name in re.findall(r"(Counter|Gauge|Histogram)(?:MetricFamily)?\(\s*\"(diator_\w+)\"", source)
    }
    assert made == documented


def test_the_dashboard_uses_metrics_that_exist(documented: set[str]) -> None:
    dashboard: dict[str, Any] = json.loads((HOW_TO / "grafana" / "diator-workers.json").read_text())
    panels = dashboard["panels"]
    used = [re.findall(r"diator_\w+", target["expr"]) for panel in panels for target in panel["targets"]]
    assert all(used)
    names = {re.sub(r"_(bucket|count|sum)$", "", name) for found in used for name in found}
    assert names == documented
    assert all(panel["title"] and panel["description"] for panel in panels)


def test_the_alarms_use_metrics_that_exist(documented: set[str]) -> None:
    alarms = (HOW_TO / "operations.md").read_text().partition("## Alarms")[2].partition("## Read the log")[0]
    names = {re.sub(r"_(bucket|count|sum)$", "", name) for name in re.findall(r"diator_\w+", alarms)}
    assert names
    assert names <= documented


def test_the_page_quotes_log_lines_as_they_are_written() -> None:
    table = (HOW_TO / "operations.md").read_text().partition("## Read the log")[2].partition("\n## ")[0]
    lines = re.findall(r"^\| `(.+?)` \|", table, re.MULTILINE)
    assert len(lines) > 15
    source = "".join(path.read_text() for part in ("delivery", "cli") for path in (ROOT / "diator" / part).glob("*.py"))
    source = re.sub(r'"\n\s+f?"', "", source)  # texts that go on in the next line
    parts = [part.strip(" ,.;:()") for line in lines for part in line.split("...")]
    assert not [part for part in parts if part and part not in source]
