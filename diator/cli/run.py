"""``diator run``: a worker, from its start to its clean end."""

import asyncio
import logging
import sys
from collections.abc import Callable, Sequence
from typing import Annotated, NoReturn, TypeVar

import typer

from diator._inspection import inspect_app
from diator.app import Diator
from diator.cli.arguments import AppArgument, codes_text, exit_usage_error, plugin_text, problem_text, retry_text
from diator.cli.health import Address, address
from diator.cli.load import LoadError, load
from diator.cli.logs import Level, set_up
from diator.cli.reload import run_reloading
from diator.cli.service import Service, is_in_process
from diator.cli.tables import new_table, print_tables
from diator.cli.workers import Supervisor, WorkerProcess, end_with_parent
from diator.delivery.catalog import ConsumerConfig
from diator.delivery.operations import select
from diator.errors import BrokerError, ConfigurationError, Problem, StoreError

T = TypeVar("T")

logger = logging.getLogger("diator")

SubscriptionOption = Annotated[
    list[str] | None,
    typer.Option(
        "--subscription",
        metavar="SUBSCRIPTION",
        help="The name of a subscription to consume; all by default. Repeatable.",
    ),
]
ConcurrencyOption = Annotated[
    int | None,
    typer.Option(min=1, help="Messages per handler at a time; overrides the app and its handlers."),
]
GraceOption = Annotated[
    float,
    typer.Option(min=0.0, metavar="SECONDS", help="The seconds that running handlers have to finish after a signal."),
]
JsonLogsOption = Annotated[bool, typer.Option("--json-logs", help="Log JSON to stderr, one object on each line.")]
HealthOption = Annotated[
    str | None,
    typer.Option(
        metavar="[HOST:]PORT",
        help="The address that answers GET /healthz, /readyz and /metrics; all interfaces without a host.",
    ),
]
HandledOption = Annotated[bool, typer.Option(help="Log a line for each handled message.")]
ReloadOption = Annotated[
    bool, typer.Option("--reload", help="Restart when a Python file below the current directory changes.")
]
WorkersOption = Annotated[
    int, typer.Option(min=1, metavar="N", help="The number of processes; one that ends is replaced.")
]
AsWorkerOption = Annotated[WorkerProcess | None, typer.Option(hidden=True, parser=WorkerProcess.read)]
LevelOption = Annotated[Level, typer.Option("--log-level", help="The lowest level that is logged.")]


def run(
    target: AppArgument,
    only: SubscriptionOption = None,
    concurrency: ConcurrencyOption = None,
    grace: GraceOption = 20.0,
    health: HealthOption = None,
    json_logs: JsonLogsOption = False,
    log_level: LevelOption = Level.INFO,
    log_handled: HandledOption = True,
    reload: ReloadOption = False,
    workers: WorkersOption = 1,
    as_worker: AsWorkerOption = None,
) -> None:
    """Run a worker, which handles the notification and ECST events of an app.

    SIGTERM or SIGINT shuts it down: it receives no more messages, running handlers have the grace period to finish,
    and other messages are released. A second signal cancels the handlers, a third one ends the process immediately.
    A process that hangs ends 10 seconds after the grace period.

    The exit code is 0 after a signal (130 or 143 if the process hung), 1 if the app or its broker can't start, 2 for a
    mistake in the command, 3 if the app itself failed.
    """
    _ensure_possible(workers, reload=reload)
    if reload:
        run_reloading(sys.argv[1:], grace)
    if as_worker is not None:
        end_with_parent(as_worker, grace)
    where = read_address(health)
    set_up(log_level, as_json=json_logs, handled=log_handled, worker=as_worker and as_worker.number)

    def serve() -> int:
        app = load(target)
        _require_work(app, only or ())
        if workers > 1 and as_worker is None:
            _require_other_processes(app)
            return asyncio.run(Supervisor(sys.argv[2:], workers, grace=grace, health=where).run())
        probes = where if where is None or as_worker is None else as_worker.socket
        service = Service(app, only or None, concurrency=concurrency, grace=grace, health=probes)
        if as_worker is None or as_worker.number == 1:
            service.announce = _announce_json if json_logs else _announce
        asyncio.run(service.run())
        return 0

    raise typer.Exit(run_or_exit(serve, target, as_json=json_logs))


def _ensure_possible(workers: int, *, reload: bool) -> None:
    """End with exit code 2 where several workers are not possible."""
    if workers == 1:
        return
    if reload:
        exit_usage_error("--reload is for one worker; leave out --workers, or --reload")
    if sys.platform == "win32":
        exit_usage_error("--workers needs signals that Windows does not have; start diator run several times instead")


def run_or_exit(serve: Callable[[], T], target: str, *, as_json: bool) -> T:
    """Run something; end with the exit code of what it raises, and say why."""
    try:
        return serve()
    except LoadError as error:
        _end(2, str(error), as_json)
    except ConfigurationError as error:
        _end_with_problems(error.problems, as_json)
    except BrokerError as error:
        _end(1, f"the broker rejects {target}: {plugin_text(error, target)}", as_json)
    except StoreError as error:
        _end(1, f"the store of {target} can't be used: {plugin_text(error, target)}", as_json)
    except Exception:
        logger.critical("%s has broken down", target, exc_info=True)
        raise typer.Exit(3) from None


def read_address(text: str | None) -> Address | None:
    """Read where probes are answered; ends with exit code 2 if it is not an address."""
    try:
        return None if text is None else address(text)
    except ValueError as error:
        exit_usage_error(f"--health: {error}")


def _require_work(app: Diator, only: Sequence[str]) -> None:
    """Raise `ConfigurationError` for an app that can't start or has nothing to consume, and for unknown names."""
    if problems := inspect_app(app).errors:
        raise ConfigurationError(problems)
    operations = app.operations()
    if not operations.configs:
        text = f"{app!r} handles no events that come over a broker, so a worker has nothing to do"
        raise ConfigurationError([Problem("nothing-to-do", text, _HANDLE)])
    select(operations.configs, only)


def _require_other_processes(app: Diator) -> None:
    """Raise `ConfigurationError` if no other process could reach the broker of the app."""
    if is_in_process(app):
        text = f"the broker of {app!r} is in the memory of one process, so several workers can't share its messages"
        raise ConfigurationError([Problem("workers", text, "leave out --workers, or use a broker such as redis://")])


_HANDLE = "register a handler of a NotificationEvent or an ECSTEvent with @app.on_event, or include its router"


def _announce(configs: Sequence[ConsumerConfig]) -> None:
    """Tell people what is consumed."""
    table = new_table("Subscription", "Events", "Topics", "Concurrency", "Retry", "Timeout", "Order")
    for one in configs:
        table.add_row(
            one.name,
            "\n".join(dict.fromkeys(entry.contract.name for entry in one.entries.values())),
            "\n".join(topic.name for topic in one.subscription.topics),
            str(one.concurrency),
            retry_text(one.retry),
            f"{one.timeout:g} s",
            "by key" if one.subscription.ordered else "none",
        )
    print_tables(table, otherwise="")


def _announce_json(configs: Sequence[ConsumerConfig]) -> None:
    """Tell tools what is consumed."""
    for one in configs:
        extra = {
            "subscription": one.name,
            "events": list(dict.fromkeys(entry.contract.name for entry in one.entries.values())),
            "topics": [topic.name for topic in one.subscription.topics],
            "concurrency": one.concurrency,
            "retry": retry_text(one.retry),
            "timeout": one.timeout,
            "ordered": one.subscription.ordered,
        }
        logger.info("to be consumed: %s", one.name, extra=extra)


def _end(code: int, text: str, as_json: bool) -> NoReturn:
    if as_json:
        logger.critical("%s", text)
    else:
        typer.echo(f"Error: {text}", err=True)
    raise typer.Exit(code)


def _end_with_problems(problems: Sequence[Problem], as_json: bool) -> NoReturn:
    for problem in problems:
        if as_json:
            location = str(problem.location) if problem.location else None
            extra = {"code": problem.code, "url": problem.url, "fix": problem.fix, "location": location}
            logger.critical("%s", problem.text, extra=extra)
        else:
            typer.echo(problem_text(problem), err=True)
    if not as_json:
        typer.echo(codes_text(), err=True)
    raise typer.Exit(1)
