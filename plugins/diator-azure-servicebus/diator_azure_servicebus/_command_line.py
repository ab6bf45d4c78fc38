"""The command line, ``diator-azure``: prints what an app needs in its namespace."""

import argparse
import sys
from collections.abc import Sequence

from diator._inspection import inspect_app, messaging_of
from diator.app import Diator
from diator.cli.load import LoadError, load
from diator.errors import ConfigurationError
from diator_azure_servicebus._broker import ServiceBusBroker
from diator_azure_servicebus._entities import Entity
from diator_azure_servicebus._plan import commands, server_command


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it; gives 0, or 2 where the app can't be loaded or has no such broker."""
    options = _parser().parse_args(arguments)
    try:
        entities = entities_of(load(options.app))
    except (LoadError, ConfigurationError) as error:
        sys.stderr.write(f"Error: {error}\n")
        return 2
    if options.for_test_server:
        lines = [server_command(entities)]
    else:
        lines = list(commands(entities, options.namespace_name, options.resource_group))
    sys.stdout.writelines(f"{line}\n" for line in lines)
    return 0


def entities_of(app: Diator) -> Sequence[Entity]:
    """Return what an app needs. Raises `LoadError` if it has another broker, or none."""
    inspect_app(app)
    brokerage = messaging_of(app)
    if brokerage is None or not isinstance(brokerage.broker, ServiceBusBroker):
        raise LoadError(f"{app!r} has no ServiceBusBroker, so it needs no entities in Service Bus")
    catalog = brokerage.catalog
    return brokerage.broker.entities([one.subscription for one in catalog.configs], catalog.topics)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="diator-azure", description="Diator on Azure Service Bus.")
    verbs = parser.add_subparsers(dest="verb", required=True)
    verb = verbs.add_parser("plan", help="print the commands of the Azure CLI that create what an app needs")
    verb.add_argument("app", metavar="MODULE:APP", help="the app, such as meetings.application:app")
    verb.add_argument("--namespace-name", default="NAMESPACE", help="the namespace, which must exist")
    verb.add_argument("--resource-group", default="RESOURCE_GROUP", help="its resource group")
    verb.add_argument(
        "--for-test-server",
        action="store_true",
        help="print the one command that starts the test server with the same entities instead",
    )
    return parser
