"""Makes clients of a namespace from what the user passed: a new one for each event loop."""

import importlib
import inspect
import os
import ssl
from functools import cache
from typing import Any

import certifi
from azure.servicebus.aio import ServiceBusClient
from azure.servicebus.management import ServiceBusAdministrationClient

from diator.errors import ConfigurationError, Problem
from diator_azure_servicebus._namespace import NamespaceClient, default_port
from diator_azure_servicebus._settings import Settings, Variable
from diator_azure_servicebus._topology import ManagementTopology, ProbeTopology, Topology

_RETRIES: dict[str, Any] = {"retry_total": 2, "retry_backoff_factor": 0.1, "retry_backoff_max": 5}
"""Few and quick, to get over a connection that was cut: the callers that know of outages retry."""
_DOMAIN = ".servicebus.windows.net"


class ClientFactory:
    """Makes clients of one namespace."""

    def __init__(self, given: object, credential: Any, settings: Settings) -> None:
        self._given = given
        self._credential = credential
        self._settings = settings
        if isinstance(given, str) and "=" in given:
            _check(given)
        elif isinstance(given, str):
            _check_name(given)
        elif not isinstance(given, (Variable, ServiceBusClient)):
            raise _no_namespace(f"{given!r} is not a namespace")

    @property
    def namespace(self) -> str:
        """The name of the namespace, without what is secret."""
        given = self._given
        if isinstance(given, ServiceBusClient):
            return given.fully_qualified_namespace
        if isinstance(given, Variable):
            return f"${given.name}"
        name = str(given)
        return _endpoint(name) if "=" in name else name if "." in name else name + _DOMAIN

    @property
    def _string(self) -> str | None:
        """The connection string, if there is one. Raises `~diator.ConfigurationError` where it can't be used."""
        if isinstance(self._given, Variable):
            return _from_environment(self._given.name)
        return self._given if isinstance(self._given, str) and "=" in self._given else None

    def client(self) -> NamespaceClient:
        """Return a client. Raises `~diator.ConfigurationError` for a missing connection string or azure-identity."""
        if isinstance(self._given, ServiceBusClient):
            return NamespaceClient(self._given, self._settings, owned=False, port=None)
        string = self._string
        if string is not None:
            client = ServiceBusClient.from_connection_string(string, ssl_context=_tls(), **_RETRIES)
        else:
            client = ServiceBusClient(self.namespace, self._credentials(), ssl_context=_tls(), **_RETRIES)
        return NamespaceClient(client, self._settings, owned=True, port=default_port(string))

    def topology(self, client: NamespaceClient) -> Topology:
        """Make what manages entities: over the management interface, where there is one and it may be used."""
        string = self._string
        emulated = default_port(string) != default_port(None)
        if isinstance(self._given, ServiceBusClient) or emulated or not self._settings.manage:
            return ProbeTopology(client)
        if string is not None:
            return ManagementTopology(ServiceBusAdministrationClient.from_connection_string(string))
        credential = self._credential or _identity("azure.identity").DefaultAzureCredential()
        if inspect.iscoroutinefunction(getattr(credential, "get_token", None)):
            return ProbeTopology(client)
        return ManagementTopology(ServiceBusAdministrationClient(self.namespace, credential))

    def _credentials(self) -> Any:
        return self._credential or _identity("azure.identity.aio").DefaultAzureCredential()


@cache
def _tls() -> ssl.SSLContext:
    """Read the certificates once.

    The SDK reads them for each connection, even one without TLS, and each session is a connection: that stops the event
    loop for about 30 ms each time, so that locks ran out where many sessions were opened.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(certifi.where())
    return context


def _identity(module: str) -> Any:
    """Import azure-identity. Raises `~diator.ConfigurationError` where it is not installed."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        text = "a namespace without a connection string needs credentials, and azure-identity is not installed"
        fix = 'install it: uv add "diator-azure-servicebus[identity]", or pass a connection string or credential'
        raise ConfigurationError([Problem("broker", text, fix)]) from error


def _endpoint(connection_string: str) -> str:
    for part in connection_string.split(";"):
        name, _, value = part.partition("=")
        if name.strip().lower() == "endpoint":
            return value.partition("://")[2].rstrip("/")
    return ""


def _from_environment(variable: str) -> str:
    value = os.environ.get(variable, "")
    if not value:
        text = f"the broker's address names the environment variable {variable!r}, which is not set, or empty"
        raise ConfigurationError([Problem("broker-url", text, "set it to the connection string of the namespace")])
    _check(value, f" in the environment variable {variable!r}")
    return value


def _check(connection_string: str, where: str = "") -> None:
    try:
        ServiceBusClient.from_connection_string(connection_string)
    except ValueError as error:
        raise _no_namespace(f"the connection string{where} can't be used: {error}") from error
    if "entitypath=" in connection_string.lower():
        raise _no_namespace(
            f"the connection string{where} is of one entity (it has EntityPath); expected that of a namespace"
        )


def _check_name(name: str) -> None:
    if not name or any(character in name for character in "/ ?#@:"):
        raise _no_namespace(f"{name!r} is not the name of a namespace")


def _no_namespace(text: str) -> ConfigurationError:
    fix = "pass its name, such as 'my-namespace', its connection string, or an azure.servicebus.aio.ServiceBusClient"
    return ConfigurationError([Problem("broker", text, fix)])
