"""The project that ``diator new`` writes: what can be chosen, and the files that come of it."""

from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from string import Template
from typing import Literal


@dataclass(frozen=True)
class ContainerSetUp:
    """How a project makes a container that builds its ``Mailer``."""

    imports: tuple[str, ...]
    code: str
    checker_note: str = ""
    """Where the library leaves out type arguments, what keeps pyright, strict, content."""


@dataclass(frozen=True)
class BrokerSetUp:
    """The address that a project starts with, and the extra of Diator that has the broker."""

    url: str
    extra: str | None
    needs: str = ""
    """What must be there before a worker can run."""


_TEMPLATES = Path(__file__).parent / "project_template"
_UNTYPED = "\n# pyright: reportUnknownMemberType=false\n# ({} leaves out type arguments in its own signatures)\n"

ContainerName = Literal["none", "punq", "dishka", "di", "rodi", "svcs", "wireup"]
CONTAINERS: dict[ContainerName, ContainerSetUp] = {
    "punq": ContainerSetUp(
        ("import punq",),
        "container = punq.Container()\ncontainer.register(Mailer, scope=punq.Scope.singleton)",
    ),
    "dishka": ContainerSetUp(
        ("from dishka import Provider, Scope, make_async_container",),
        "provider = Provider()\nprovider.provide(Mailer, scope=Scope.APP)\ncontainer = make_async_container(provider)",
    ),
    "di": ContainerSetUp(
        ("from di import Container, bind_by_type", "from di.dependent import Dependent"),
        'container = Container()\ncontainer.bind(bind_by_type(Dependent(Mailer, scope="app"), Mailer))',
    ),
    "rodi": ContainerSetUp(
        ("import rodi",),
        "container = rodi.Container()\ncontainer.add_singleton(Mailer)",
        _UNTYPED.format("rodi"),
    ),
    "svcs": ContainerSetUp(
        ("from svcs import Registry",),
        "container = Registry()\ncontainer.register_value(Mailer, Mailer())",
        _UNTYPED.format("svcs"),
    ),
    "wireup": ContainerSetUp(
        ("from wireup import create_async_container, injectable",),
        "\n\n@injectable\ndef make_mailer() -> Mailer:\n"
        '    """Make the one mailer of the app."""\n    return Mailer()\n\n\n'
        "container = create_async_container(injectables=[make_mailer])",
    ),
}

BrokerName = Literal["memory", "redis", "nats", "rabbitmq", "azure"]
BROKERS: dict[BrokerName, BrokerSetUp] = {
    "memory": BrokerSetUp("memory://", None),
    "redis": BrokerSetUp("redis://localhost:6379", "redis", "Redis at localhost:6379"),
    "nats": BrokerSetUp("nats://localhost:4222", "nats", "NATS with JetStream at localhost:4222"),
    "rabbitmq": BrokerSetUp("amqp://guest:guest@localhost:5672", "rabbitmq", "RabbitMQ at localhost:5672"),
    "azure": BrokerSetUp(
        "azure-servicebus://?connection_string_env=SERVICEBUS_CONNECTION_STRING",
        "azure",
        "the connection string of a namespace in the environment variable SERVICEBUS_CONNECTION_STRING",
    ),
}


def render(name: str, package: str, container: ContainerName, broker: BrokerName) -> dict[str, str]:
    """Return the text of each file of the project, by its path in the folder of the project."""
    places = _places(name, package, container, broker)
    found: dict[str, str] = {}
    for template in _TEMPLATES.rglob("*.template"):
        path = template.relative_to(_TEMPLATES).as_posix().removesuffix(".template")
        target = path.replace("package/", f"{package}/").replace("gitignore", ".gitignore")
        found[target] = Template(template.read_text(encoding="utf-8")).substitute(places)
    if container == "none":
        del found[f"{package}/mail.py"]
    return dict(sorted(found.items()))


def _places(name: str, package: str, container: ContainerName, broker: BrokerName) -> dict[str, str]:
    chosen = BROKERS[broker]
    in_memory = broker == "memory"
    extras = ["cli", *([] if container == "none" else [container]), *([chosen.extra] if chosen.extra else [])]
    return {
        "name": name,
        "package": package,
        "broker_url": chosen.url,
        "requirement": f"diator[{','.join(extras)}]{_compatible(version('diator'))}",
        "running": "app, app.worker()" if in_memory else "app",
        "wait": "        await asyncio.sleep(1)  # meanwhile the worker handles the events\n" if in_memory else "",
        "commands": _commands(package, chosen, in_memory=in_memory),
        **(_without_container(package, name) if container == "none" else _with_container(package, name, container)),
    }


def _compatible(installed: str) -> str:
    """The versions that may break nothing: before 1.0, those of the same minor version."""
    major, minor = map(int, installed.split(".")[:2])
    return f">={major}.{minor},<{major}.{minor + 1}" if major == 0 else f">={major}.{minor},<{major + 1}"


def _commands(package: str, broker: BrokerSetUp, *, in_memory: bool) -> str:
    if in_memory:
        return f"| `uv run python -m {package} ann bob` | signs two users up, and handles the events |"
    return (
        f"| `uv run diator run {package}.app:app` | runs a worker, which handles the events |\n"
        f"| `uv run python -m {package} ann bob` | signs two users up |\n\n"
        f"The last two need {broker.needs}."
    )


def _without_container(package: str, name: str) -> dict[str, str]:
    return {
        "set_up_summary": "its broker and its handlers",
        "checker_note": "",
        "imports": "from diator import Diator, Publish\n\n" + _app_imports(package),
        "set_up": f'app = Diator("{name}", broker=broker_url)\n',
        "parameters": "event: UserSignedUp",
        "send": 'print(f"mail to {event.user}: thank you for signing up")',
        "test_imports": _test_imports(package, "app, send_welcome"),
        "helpers": "",
        "arrange": "async with app.testing() as session:",
        "assertion": "session.handled.one(UserSignedUp, by=send_welcome)",
    }


def _with_container(package: str, name: str, container: ContainerName) -> dict[str, str]:
    chosen = CONTAINERS[container]
    plain = [line for line in chosen.imports if line.startswith("import ")]
    lines = [*plain, *sorted({*chosen.imports, "from diator import Diator, Publish"} - {*plain}, key=str.casefold)]
    mail = f"from {package}.mail import Mailer\n"
    return {
        "set_up_summary": "its container, its broker and its handlers",
        "checker_note": chosen.checker_note,
        "imports": "\n".join(lines) + "\n\n" + mail + _app_imports(package),
        "set_up": f'{chosen.code}\napp = Diator("{name}", container=container, broker=broker_url)\n',
        "parameters": "event: UserSignedUp, mailer: Mailer",
        "send": 'await mailer.send(event.user, "thank you for signing up")',
        "test_imports": _test_imports(package, "app", mail),
        "helpers": _FAKE_MAILER,
        "arrange": "mailer = FakeMailer()\n    async with app.testing(replace={Mailer: mailer}) as session:",
        "assertion": 'assert mailer.mails == [("ann", "thank you for signing up")]',
    }


_FAKE_MAILER = '''
class FakeMailer(Mailer):
    """Keeps the mails instead of sending them."""

    def __init__(self) -> None:
        self.mails: list[tuple[str, str]] = []

    async def send(self, user: str, text: str) -> None:
        self.mails.append((user, text))

'''


def _app_imports(package: str) -> str:
    return f"from {package}.messages import SignUp, UserSignedUp"


def _test_imports(package: str, names: str, mail: str = "") -> str:
    return f"from {package}.app import {names}\n{mail}{_app_imports(package)}"
