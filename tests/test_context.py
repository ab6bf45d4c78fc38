"""The context of a message is plain data, and its headers can't be changed."""

import copy
import dataclasses
import json
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from diator import Command, Context, Diator


@dataclass(frozen=True)
class Ask(Command[Context]):
    pass


@dataclass(frozen=True)
class AskFurther(Command[Context]):
    pass


async def received(command: Command[Context]) -> Context:
    """A context as a handler gets it."""
    app = Diator()

    @app.command
    async def ask(command: Ask, context: Context) -> Context:
        return context

    @app.command
    async def ask_further(command: AskFurther, here: Diator, context: Context) -> Context:
        return await here.send(Ask())

    async with app:
        sender = app.using(headers={"x-tenant": "acme", "traceparent": "00-1-2-01"}, correlation_id="c")
        return await sender.send(command)


COMMANDS = pytest.mark.parametrize("command", [Ask(), AskFurther()], ids=lambda one: type(one).__name__)


def pickled(protocol: int) -> Callable[[Context], Context]:
    def copied(context: Context) -> Context:
        again: Context = pickle.loads(pickle.dumps(context, protocol))
        return again

    return copied


def replaced(context: Context) -> Context:
    return dataclasses.replace(context)


PROTOCOLS = range(2, pickle.HIGHEST_PROTOCOL + 1)
WAYS: list[Callable[[Context], Context]] = [copy.copy, copy.deepcopy, replaced, *map(pickled, PROTOCOLS)]


@COMMANDS
@pytest.mark.parametrize("way", WAYS)
async def test_a_copy_is_equal_and_still_cannot_be_changed(command: Any, way: Callable[[Context], Context]) -> None:
    context = await received(command)
    again = way(context)
    assert again == context
    assert hash(again) == hash(context)
    with pytest.raises(TypeError, match="can't be changed"):
        again.headers["x-tenant"] = "other"  # type: ignore[index]  # pyright: ignore[reportIndexIssue]  # wrong on purpose


@COMMANDS
async def test_a_context_becomes_a_dict_that_json_can_carry(command: Any) -> None:
    context = await received(command)
    as_dict = dataclasses.asdict(context)
    assert Context(**as_dict) == context
    assert json.loads(json.dumps(as_dict)) == as_dict
    assert dataclasses.astuple(context)[3] == context.headers


async def test_headers_cannot_be_changed_in_any_way() -> None:
    headers: Any = Context(message_id="a", correlation_id="b", headers={"x-tenant": "acme"}).headers
    changes: list[Callable[[], object]] = [
        lambda: headers.update(x="y"),
        lambda: headers.pop("x-tenant"),
        headers.popitem,
        headers.clear,
        lambda: headers.setdefault("x", "y"),
        lambda: headers.__delitem__("x-tenant"),
        lambda: headers.__ior__({"x": "y"}),
    ]
    for change in changes:
        with pytest.raises(TypeError, match="can't be changed"):
            change()
    assert headers == {"x-tenant": "acme"}
    assert headers | {"x": "y"} == {"x-tenant": "acme", "x": "y"}


def test_headers_of_a_context_are_apart_from_the_mapping_that_it_was_made_with() -> None:
    given = {"x-tenant": "acme"}
    context = Context(message_id="a", correlation_id="b", headers=given)
    given["x-tenant"] = "other"
    assert context.headers == {"x-tenant": "acme"}
    assert dataclasses.replace(context, headers={}) == Context(message_id="a", correlation_id="b")
