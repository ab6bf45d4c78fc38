"""Opening: from what the user gave to a client of the SDK, new for each event loop."""

import importlib
import inspect
from typing import Any

from azure.servicebus.aio import ServiceBusClient
from azure.servicebus.management import ServiceBusAdministrationClient

from diator.errors import ConfigurationError, Problem
from diator_azure_servicebus._link import Link, default_port
from diator_azure_servicebus._settings import Settings
from diator_azure_servicebus._topology import Managing, Probing, Topology

_RETRIES: dict[str, Any] = {"retry_total": 2, "retry_backoff_factor": 0.1, "retry_backoff_max": 5}
"""Few and quick, to get over a connection that was cut: outages are ridden out by those who know of them."""
_DOMAIN = ".servicebus.windows.net"


class Opening:
    """Makes links to one namespace."""

    def __init__(self, given: object, credential: Any, settings: Settings) -> None:
        self._given = given
        self._credential = credential
        self._settings = settings
        self._string = given if isinstance(given, str) and "=" in given else None
        if self._string is not None:
            _check(self._string)
        elif isinstance(given, str):
            self._given = given if "." in given else given + _DOMAIN
            _check_name(given)
        elif not isinstance(given, ServiceBusClient):
            raise _no_namespace(f"{given!r} is no namespace")

    @property
    def namespace(self) -> str:
        """The name of the namespace, without what is secret."""
        if isinstance(self._given, ServiceBusClient):
            return self._given.fully_qualified_namespace
        return str(self._given) if self._string is None else _endpoint(self._string)

    def link(self) -> Link:
        """Make a link. Raises `~diator.ConfigurationError` where azure-identity is needed and not there."""
        if isinstance(self._given, ServiceBusClient):
            return Link(self._given, self._settings, owned=False, port=None)
        if self._string is not None:
            client = ServiceBusClient.from_connection_string(self._string, **_RETRIES)
        else:
            client = ServiceBusClient(self.namespace, self._credentials(), **_RETRIES)
        return Link(client, self._settings, owned=True, port=default_port(self._string))

    def topology(self, link: Link) -> Topology:
        """Make what looks after entities: over the management interface, where there is one and it may be used."""
        emulated = self._string is not None and default_port(self._string) != default_port(None)
        if isinstance(self._given, ServiceBusClient) or emulated or not self._settings.manage:
            return Probing(link)
        if self._string is not None:
            return Managing(ServiceBusAdministrationClient.from_connection_string(self._string))
        credential = self._credential or _identity("azure.identity").DefaultAzureCredential()
        if inspect.iscoroutinefunction(getattr(credential, "get_token", None)):
            return Probing(link)
        return Managing(ServiceBusAdministrationClient(self.namespace, credential))

    def _credentials(self) -> Any:
        return self._credential or _identity("azure.identity.aio").DefaultAzureCredential()


def _identity(module: str) -> Any:
    """Import azure-identity. Raises `~diator.ConfigurationError` where it is not installed."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        text = "a namespace without a connection string needs credentials, and azure-identity is not installed"
        remedy = (
            'install it: pip install "diator-azure-servicebus[identity]", or give a connection string or credential'
        )
        raise ConfigurationError([Problem("broker", text, remedy)]) from error


def _endpoint(connection_string: str) -> str:
    for part in connection_string.split(";"):
        name, _, value = part.partition("=")
        if name.strip().lower() == "endpoint":
            return value.partition("://")[2].rstrip("/")
    return ""


def _check(connection_string: str) -> None:
    try:
        ServiceBusClient.from_connection_string(connection_string)
    except ValueError as error:
        raise _no_namespace(f"the connection string can't be used: {error}") from error


def _check_name(name: str) -> None:
    if not name or any(character in name for character in "/ ?#@"):
        raise _no_namespace(f"{name!r} is no name of a namespace")


def _no_namespace(text: str) -> ConfigurationError:
    remedy = "give its name, such as 'my-namespace', its connection string, or an azure.servicebus.aio.ServiceBusClient"
    return ConfigurationError([Problem("broker", text, remedy)])
