"""What rodi would take, and then not do right."""

import inspect
import sys
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, get_type_hints

import rodi
from typing_extensions import is_protocol

from diator import Named
from diator.containers import Reason, key_of, unfinished
from diator_rodi._registrations import Registrations, class_of, function_of, layers, lifetime_of

_EMPTY: Any = inspect.Parameter.empty
_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)

# Any, in this module: hints and factories are whatever a user registers.


def refusals(registered: Registrations, hint: Any) -> Iterator[Reason]:
    """Yield why rodi can't honor this registration, if it can't."""
    of_hint = list(layers(registered[hint]))
    for layer in of_hint:
        if function_of(layer) is not None:
            yield from _of_function(function_of(layer))
        elif class_of(layer) is not None:
            yield from _of_class(class_of(layer))
        yield from _kept_together(registered.kept.get(class_of(layer), {}), hint)
    if lifetime_of(of_hint[0]) is not lifetime_of(of_hint[-1]):
        reason = f"it is {lifetime_of(of_hint[-1]).value}, but decorated twice, of which rodi makes a singleton"
        yield reason, "decorate it once, with a class that does both"


def _of_function(function: Any) -> Iterator[Reason]:
    kind = unfinished(function)
    if kind:
        reason = f"rodi would give the {kind} itself, and neither run it to its end nor close it"
        yield reason, "register a class, and close it in a middleware; or use a container that closes, such as dishka"
        return
    for parameter, given in zip(parameters_of(function), ("the scope", "the type that is asked for"), strict=False):
        if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
            return
        may_be_scope = given != "the scope" or _is_scope(parameter.annotation)
        if parameter.kind not in _POSITIONAL or parameter.default is not _EMPTY or not may_be_scope:
            reason = f"rodi passes {given} to a factory as {parameter.name!r}, regardless of its hint and default"
            yield reason, "register a factory without parameters, or one that takes the scope: scope.get(...)"


def _of_class(cls: Any) -> Iterator[Reason]:
    if is_protocol(cls):
        yield f"{cls!r} is a protocol", "register a class that implements it"
        return
    passed = [name for name in inspect.signature(cls.__init__).parameters if name not in ("self", "args", "kwargs")]
    try:
        inspect.signature(cls).bind(*passed)
    except (TypeError, ValueError) as error:
        reason = f"rodi passes {passed} to {cls!r} by position, which fails: {error}"
        yield reason, "let the constructor take them by position, or register a factory function"
    for name, hint in (_hints(cls, cls) | _hints(cls, cls.__init__)).items():
        if any(isinstance(mark, Named) for mark in getattr(hint, "__metadata__", ())):
            reason = f"rodi drops the qualifier of {name!r} of {cls!r}"
            yield reason, "hint a class or a NewType of its own there, and register that"


def _kept_together(together: dict[Any, Any], hint: Any) -> Iterator[Reason]:
    others = [key_of(other) for other in together if other != hint]
    ordinary = all(type(layer) is rodi.DynamicResolver for layer in together.values())
    qualified = any(key_of(other).qualifier is not None for other in together)
    if hint in together and others and (qualified or not ordinary):
        names = ", ".join(map(str, others))
        yield (
            f"rodi keeps scoped objects by their class, so that it would give one object for this and {names}",
            "register a subclass for each of them, or a factory function with its return type",
        )


def unexpected(registered: Registrations, hint: Any, need: Any) -> Reason | None:
    """Return why rodi looks for something that it could do without, if it could."""
    if need is _EMPTY:
        return "rodi finds no hint for one of its parameters", "hint each parameter of the constructor"
    for cls in filter(None, map(class_of, layers(registered[hint]))):
        parameters = inspect.signature(cls.__init__).parameters
        for name in _hinted(need, _hints(cls, cls.__init__, extras=False)):
            if parameters[name].default is not _EMPTY:
                reason = f"rodi needs a provider of {key_of(need)} for {name!r}: it does not look at defaults"
                return reason, f"register {key_of(need)}, or a factory function that leaves it out"
        for name in _hinted(need, _hints(cls, cls, extras=False)) - parameters.keys():
            reason = f"rodi needs a provider of {key_of(need)} for the class-level annotation {name!r}"
            return reason, "hint it in __init__ only, or mark it as a ClassVar"
    return None


def parameters_of(function: Any) -> list[inspect.Parameter]:
    """Read the parameters of a factory, with hints that are text evaluated where they can be."""
    try:
        signature = inspect.signature(function, eval_str=True)
    except (NameError, AttributeError, TypeError):
        signature = inspect.signature(function)
    return list(signature.parameters.values())


def _is_scope(hint: Any) -> bool:
    return hint is _EMPTY or hint is Any or hint in rodi.ActivationScope.__mro__ or isinstance(hint, str)


def _hints(cls: Any, owner: Any, *, extras: bool = True) -> dict[str, Any]:
    """Read hints as rodi does, but with what stands in ``Annotated``; none where rodi would fail, or would not read."""
    names = {**vars(sys.modules[cls.__module__]), **getattr(cls, "_globals", {})}
    with suppress(NameError, TypeError, AttributeError):
        hints = get_type_hints(owner, names, getattr(cls, "_locals", None), include_extras=extras)
        return {name: hint for name, hint in hints.items() if name != "return"}
    return {}


def _hinted(need: Any, hints: dict[str, Any]) -> set[str]:
    return {name for name, hint in hints.items() if hint == need}
