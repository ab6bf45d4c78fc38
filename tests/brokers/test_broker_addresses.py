"""Addresses that lead to no broker: told with the way out, and never with a key or a password."""

import traceback

import pytest

from diator import ConfigurationError, Diator
from diator.errors import Problem

CONNECTION_STRING = "Endpoint=sb://shop.servicebus.windows.net/;SharedAccessKeyName=Root;SharedAccessKey=SECRET="


class Dsn:
    """An address as settings libraries have it, which is no text."""

    def __repr__(self) -> str:
        return "Dsn('redis://user:SECRET@localhost:6379/0')"


def refused(broker: object) -> Problem:
    """What is wrong with a broker; no word of it, nor of what led to it, may have a secret."""
    with pytest.raises(ConfigurationError) as raised:
        Diator("shop", broker=broker)
    assert "SECRET" not in "".join(traceback.format_exception(raised.value))
    (problem,) = raised.value.problems
    return problem


@pytest.mark.parametrize("address", [CONNECTION_STRING, f"azure-servicebus://{CONNECTION_STRING}"])
def test_a_connection_string_is_not_shown_and_belongs_into_the_environment(address: str) -> None:
    problem = refused(address)
    assert "looks like a connection string" in problem.text
    assert "environment variable" in problem.remedy
    assert "azure-servicebus://?connection_string_env=NAME" in problem.remedy


@pytest.mark.parametrize(
    "address",
    [
        "user:SECRET@localhost:6379",
        "SECRET=;x",
        "smoke://user:SECRET@localhost",
        "smoke://localhost?password=SECRET",
        "memory://user:SECRET@localhost",
        "memory://user:SEC/SECRET@localhost",
        "memory://localhost?password=SECRET",
        "redis://user:SECRET@[localhost",
        "redis://user:SECRET@ho\u2100st",
        Dsn(),
        b"redis://user:SECRET@localhost",
        {"url": "redis://:SECRET@localhost"},
    ],
    ids=str,
)
def test_what_may_be_a_password_is_not_shown(address: object) -> None:
    refused(address)


def test_what_is_not_secret_is_shown() -> None:
    assert "broker='localhost:6379' has no scheme" in refused("localhost:6379").text
    assert "'memory://***@localhost'" in refused("memory://user:SECRET@localhost").text
    assert "redis://***@localhost:6379/0" in refused(Dsn()).text


@pytest.mark.parametrize(
    ("scheme", "meant"),
    [
        ("sb", "azure-servicebus"),
        ("servicebus", "azure-servicebus"),
        ("azure_servicebus", "azure-servicebus"),
        ("azure-service-bus", "azure-servicebus"),
        ("redis+tls", "rediss"),
        ("redis+ssl", "rediss"),
        ("reddis", "redis"),
        ("redis-pubsub", "redis+pubsub"),
        ("inmemory", "memory"),
    ],
)
def test_schemes_that_nearly_exist_lead_to_the_one_that_is_meant(scheme: str, meant: str) -> None:
    problem = refused(f"{scheme}://shop")
    assert f"did you mean '{meant}://...'?" in problem.remedy


def test_a_scheme_that_resembles_none_is_told_what_there_is() -> None:
    problem = refused("smoke://shop")
    assert "no broker plugin for 'smoke'; there are plugins for: memory" in problem.text
    assert "memory://" in problem.remedy
