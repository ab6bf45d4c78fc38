"""What plugins of containers share: what is known of a factory without running it, and the walk below keys."""

import contextlib
import functools
from collections.abc import AsyncIterator, Collection, Generator, Iterator
from typing import Any

import pytest

from diator import ConfigurationError
from diator.containers import (
    ContainerCapability,
    GraphContainer,
    Key,
    Lifetime,
    Need,
    Provider,
    Reason,
    call_error,
    require,
    unfinished,
)
from diator.errors import DependencyNotFoundError, UnsupportedRegistrationError


async def coroutine() -> int:
    return 1


def generator() -> Generator[int, None, None]:
    yield 1


async def async_generator() -> AsyncIterator[int]:
    yield 1


class Asks:
    async def __call__(self) -> int:
        return 1


@pytest.mark.parametrize(
    ("factory", "kind"),
    [
        (coroutine, "coroutine"),
        (functools.partial(coroutine), "coroutine"),
        (Asks(), "coroutine"),
        (generator, "generator"),
        (async_generator, "async generator"),
        (contextlib.contextmanager(generator), "context manager"),
        (Asks, None),
        (int, None),
        (lambda: 1, None),
    ],
)
def test_what_a_call_leaves_to_do_is_named(factory: Any, kind: str | None) -> None:
    assert unfinished(factory) == kind


def test_why_a_factory_cannot_be_called_is_told() -> None:
    def of(one: int, *, other: int) -> int:
        return one + other

    assert call_error(of, 1, other=2) is None
    assert isinstance(call_error(of, 1), TypeError)


class Shop(GraphContainer):
    """Providers by name; each says what it needs."""

    def __init__(self, **needs: list[tuple[str, str | None]]) -> None:
        self._needs = needs

    def provider(self, key: Key, provided: Collection[Key] = (), /) -> "Thing | None":
        return Thing(self, key, self._needs[key.hint]) if key.hint in self._needs else None


class Thing(Provider):
    def __init__(self, shop: Shop, key: Key, names: list[tuple[str, str | None]]) -> None:
        super().__init__(key, Lifetime.SCOPED)
        self._shop, self._names = shop, names

    def needs(self) -> Iterator[Need]:
        for name, default in self._names:
            yield Need(Key(name), self._shop.provider(Key(name)), default)

    def warnings(self) -> Iterator[Reason]:
        if self.key.hint == "odd":
            yield "it is odd", "make it even"


class WithoutValues(Shop):
    capabilities = ~ContainerCapability.PROVIDED_VALUES


def test_a_factory_that_needs_a_provided_value_is_rejected_if_values_do_not_reach_factories() -> None:
    needs: dict[str, list[tuple[str, str | None]]] = {"tenant": [("user", None)], "tolerant": [("user", "user")]}
    keys, provided = [Key("tenant"), Key("tolerant"), Key("user")], [Key("user")]
    assert not Shop(**needs).validate(keys, provided).errors
    (error,) = WithoutValues(**needs).validate(keys, provided).errors
    assert isinstance(error, DependencyNotFoundError)
    assert (error.key, error.path) == (Key("user"), (Key("tenant"),))


def test_an_error_and_a_warning_are_told_once_for_each_key_that_leads_to_them() -> None:
    shop = Shop(one=[("odd", None)], two=[("odd", None)], odd=[("gone", None), ("gone", None)])
    found = shop.validate([Key("one"), Key("two")], ())
    assert [(type(one), getattr(one, "path", ())) for one in found.errors] == [
        (DependencyNotFoundError, (Key("one"), Key("odd"))),
        (DependencyNotFoundError, (Key("two"), Key("odd"))),
    ]
    assert [type(one) for one in found.warnings] == [UnsupportedRegistrationError]


def test_a_default_is_neither_missing_nor_reached() -> None:
    shop = Shop(one=[("gone", "parameter")], round=[("round", None), ("one", None)])
    assert shop.validate([Key("one")], ()) == ([], [])
    assert not shop.reaches([Key("one")], Key("gone"))
    assert shop.reaches([Key("round")], Key("one")), "past a circle"
    assert not shop.reaches([Key("round")], Key("elsewhere"))


def test_a_container_of_another_library_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"expected builtins.dict, got 5 .*\n?.*pass a dict"):
        require(5, dict, "pass a dict")
