"""The how-to pages: what is not Python in them is checked here; their Python blocks run as all do."""

import asyncio
import configparser
import json
import re
import shlex
import socket
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from diator_nats.testing import NatsServer
from diator_rabbitmq import testing as rabbitmq
from diator_redis.testing import RedisServer
from redis.asyncio import Redis

from diator import Context, Diator, NotificationEvent, Reject, Retry, contract
from diator.cli.program import program

DOCS = Path(__file__).parents[1] / "docs" / "how-to"
PAGES = sorted(DOCS.glob("*.md"))
DEPLOY = (DOCS / "deploy-workers.md").read_text()


@contract("shop.ordered", key="number")
@dataclass(frozen=True)
class Ordered(NotificationEvent):
    number: int


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_commands_on_a_page_are_those_of_the_command_line(page: Path) -> None:
    for words in commands(page.read_text()):
        assert problem_of(words) is None, " ".join(words)


def test_the_index_lists_every_page() -> None:
    linked = set(re.findall(r"\(([\w.-]+\.md)\)", (DOCS / "index.md").read_text()))
    assert linked == {page.name for page in PAGES} - {"index.md"}


def test_units_and_manifests_give_more_time_to_end_than_handlers_have() -> None:
    (unit,) = blocks(DEPLOY, "ini")
    service = read_unit(unit)["Service"]
    assert grace_of(service["ExecStart"].split()) + 12 < int(service["TimeoutStopSec"])  # what --workers adds

    deployment, job, scaled = (yaml.safe_load(block) for block in blocks(DEPLOY, "yaml"))
    pod = deployment["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert grace_of(container["command"]) + 12 < pod["terminationGracePeriodSeconds"]
    assert deployment["spec"]["selector"]["matchLabels"] == deployment["spec"]["template"]["metadata"]["labels"]
    for probe in ("livenessProbe", "readinessProbe"):
        assert container[probe]["timeoutSeconds"] > 3  # what a readiness check may take
        assert container[probe]["httpGet"]["port"] == container["ports"][0]["name"]
    port = str(container["ports"][0]["containerPort"])
    assert container["command"][container["command"].index("--health") + 1] == port
    assert job["kind"] == "Job"
    assert scaled["spec"]["scaleTargetRef"]["name"] == deployment["metadata"]["name"]


def read_unit(text: str) -> configparser.ConfigParser:
    unit = configparser.ConfigParser(interpolation=None)
    unit.optionxform = str  # type: ignore[method-assign, assignment]  # names of systemd have capitals
    unit.read_string(text)
    return unit


def grace_of(words: list[str]) -> float:
    return float(words[words.index("--grace") + 1])


def commands(text: str) -> Iterator[list[str]]:
    """Each call of `diator` on a page: at a prompt, in a unit, as a list in a manifest, or quoted in a sentence."""
    for line in re.findall(r"(?:^\$ (?:uv run )?|^ExecStart=\S*/|`)diator ([^`\n]*)", text, re.MULTILINE):
        yield line.partition("#")[0].split()
    for listed in re.findall(r"command: (\[diator, .*\])$", text, re.MULTILINE):
        yield yaml.safe_load(listed)[1:]


def problem_of(words: list[str]) -> str | None:
    """What is wrong with a command: one that does not exist, or an option that it does not have."""
    command: Any = typer.main.get_command(program)
    while words and hasattr(command, "commands"):
        if words[0] not in command.commands:
            return f"there is no command {words[0]}"
        command, words = command.commands[words[0]], words[1:]
    known = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
    unknown = [word for word in words if word.startswith("-") and word not in known | {"--help"}]
    return f"there is no option {unknown}" if unknown else None


def test_a_command_that_does_not_exist_is_found() -> None:
    (run,) = commands("text\n\n$ diator run shop:app --forever\n")
    assert problem_of(run) == "there is no option ['--forever']"
    assert problem_of(["walk", "shop:app"]) == "there is no command walk"


async def do_all_that_apps_workers_and_operators_do(url: str) -> None:
    """Publish, also with a key and later; handle, retry, dead-letter, replay, list and remove."""
    app = Diator("shop", broker=url, retry=Retry(attempts=2, delay=0.1))
    handled = set[int]()
    done = asyncio.Event()

    @app.on_event(subscription="shop.bill")
    async def bill(event: Ordered, context: Context) -> None:
        if event.number == 13:
            raise Reject("bad luck")
        if context.attempt == 1:
            raise ValueError("again")
        handled.add(event.number)
        if handled == {1, 2}:
            done.set()

    async with app, app.worker():
        await app.publish(Ordered(13), Ordered(1))
        await app.publish(Ordered(2), after=0.1)
        await asyncio.wait_for(done.wait(), 30)
    async with app.operations() as operations:
        ((_, status),) = await operations.status()
        assert status.dead_letters == 1
        letters = [letter async for letter in operations.dead_letters()]
        assert await operations.replay(letters[0])
    async with Diator("shop", broker=url).operations() as operations:
        assert not operations.can_list or await operations.remove_subscription("shop.bill")


@pytest.mark.once
async def test_redis_with_the_configuration_of_its_page_serves_an_app_and_the_command_line() -> None:
    """Its user may do all that apps, workers and the command line do, and what it says of `INFO` is there."""
    text = (DOCS / "redis-in-production.md").read_text()
    conf, acl = (block.splitlines()[1:] for block in blocks(text, "text"))
    options: dict[str, Any] = {
        name.replace("-", "_"): value for name, value in (line.split() for line in conf) if name != "aclfile"
    }
    with RedisServer(**options) as server:
        client: Any = Redis  # the types of redis-py are partly unknown
        admin = client.from_url(server.url)
        for line in reversed(acl):  # the default user goes last: it is this one
            await admin.execute_command("ACL", "SETUSER", *line.split()[1:])
        await do_all_that_apps_workers_and_operators_do(server.url.replace("redis://", "redis://shop:secret@"))
        told = await admin.info()
        assert set(re.findall(r"`(\w+)`", "".join(re.findall(r"\|([^|]*)of `INFO`", text)))) <= told.keys()
        assert (told["maxmemory_policy"], told["aof_enabled"]) == ("noeviction", 1)
        await admin.aclose()


@pytest.mark.once
@pytest.mark.skipif(rabbitmq.is_missing(), reason=rabbitmq.MISSING)
def test_rabbitmq_with_the_configuration_and_the_user_of_its_page_serves_an_app_and_the_command_line() -> None:
    text = (DOCS / "rabbitmq-in-production.md").read_text()
    (conf,) = blocks(text, "text")
    with rabbitmq.RabbitServer(dict(line.split(" = ") for line in conf.splitlines()[1:])) as server:
        for line in re.findall(r"^\$ rabbitmqctl (.*)$", text, re.MULTILINE):
            server.ctl(*shlex.split(line))
        asyncio.run(do_all_that_apps_workers_and_operators_do(f"amqp://shop:secret@127.0.0.1:{server.port}/shop"))


@pytest.mark.once
def test_nats_with_the_configuration_of_its_page_serves_an_app_and_the_command_line(tmp_path: Path) -> None:
    text = (DOCS / "nats-in-production.md").read_text()
    (conf,) = blocks(text, "text")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        monitoring = f"127.0.0.1:{free.getsockname()[1]}"
    for shown, used in {
        "listen: 0.0.0.0:4222": "",
        "127.0.0.1:8222": monitoring,
        "/var/lib/nats": str(tmp_path),
    }.items():
        assert shown in conf
        conf = conf.replace(shown, used)
    with NatsServer(conf, jetstream=False) as server:
        asyncio.run(do_all_that_apps_workers_and_operators_do(server.url.replace("nats://", "nats://shop:secret@")))
        (health,) = re.findall(r"127\.0\.0\.1:8222(/healthz\S*)`", text)
        assert b"ok" in urllib.request.urlopen(f"http://{monitoring}{health}").read()
        told = json.load(urllib.request.urlopen(f"http://{monitoring}/jsz"))
        assert told["storage"] < told["config"]["max_storage"]
