"""The check: what would fail, or would not mean what it seems to mean, when keys are resolved."""

import contextlib
import inspect
from collections.abc import Callable, Collection, Iterator
from types import UnionType
from typing import Any, Union, cast, get_args, get_origin

from di._utils.inspect import is_async_gen_callable, is_gen_callable  # what di itself decides by
from di.api.dependencies import CacheKey
from typing_extensions import is_protocol

from diator.containers import Key, Validation
from diator.errors import (
    ContainerError,
    DependencyCycleError,
    DependencyNotFoundError,
    LifetimeMismatchError,
    UnsupportedRegistrationError,
)
from diator_di._wiring import Found, Wiring

Above = tuple[Found, ...]


class Check:
    """Walks the providers below keys, for scopes that may be given the ``provided`` ones."""

    def __init__(self, wiring: Wiring, provided: Collection[Key]) -> None:
        self._wiring = wiring
        self._provided = provided
        self._errors: list[ContainerError] = []
        self._warnings: dict[tuple[Key, str], ContainerError] = {}
        self._kept: dict[CacheKey, Found] = {}
        self._seen: set[CacheKey] = set()

    def run(self, keys: Collection[Key]) -> Validation:
        """Walk below all of these keys."""
        for key in keys:
            self._seen.clear()  # so that each key that leads to an error is told
            self._visit(self._wiring.find(key), ())
        return Validation(self._errors, list(self._warnings.values()))

    def _visit(self, found: Found, above: Above) -> None:
        key, provider, path = found.key, found.provider, [one.key for one in above]
        is_brought = key in self._provided
        if above and self._outlives(above[-1], found, is_brought):
            self._errors.append(LifetimeMismatchError(above[-1].key, key))
        elif not found.chosen:
            if not is_brought:
                self._unchosen(found, above)
        elif provider.call in (one.provider.call for one in above):
            start = [one.provider.call for one in above].index(provider.call)
            self._errors.append(DependencyCycleError([*path[start:], key]))
        elif not self._refused(found) and provider.cache_key not in self._seen:
            self._seen.add(provider.cache_key)
            for need in self._needs(found):
                self._visit(need, (*above, found))

    def _outlives(self, keeper: Found, found: Found, is_brought: bool) -> bool:
        scopes, unit = self._wiring.scopes, self._wiring.unit
        scope = unit if is_brought else found.provider.scope
        return (found.chosen or is_brought) and scope in scopes[scopes.index(keeper.provider.scope) + 1 :]

    def _unchosen(self, found: Found, above: Above) -> None:
        if found.optional:
            union = get_origin(found.key.hint) in (Union, UnionType)
            for member in (found.key._replace(hint=hint) for hint in get_args(found.key.hint) if union):
                if self._wiring.find(member).chosen:
                    reason = f"it gets its default for {found.key}, though {member} is bound"
                    self._warn(above[-1].key, reason, f"hint {member} alone; the default may stay")
        elif found.key.hint is inspect.Parameter.empty:
            self._refuse(above[-1].key, f"{above[-1].provider.call!r} has a parameter without a hint", "hint it")
        else:
            self._errors.append(DependencyNotFoundError(found.key, [one.key for one in above]))

    def _refused(self, found: Found) -> bool:
        refusals = list(_refusals(found, self._wiring))
        for reason, remedy in refusals:
            self._refuse(found.key, reason, remedy)
        if refusals:
            return True
        if found.overridden:
            reason = f"the bind of its type overrides Marker({found.overridden.call!r})"
            self._warn(found.key, reason, "drop the marker, or bind what it names, to override that alone")
        kept = self._kept.setdefault(found.provider.cache_key, found)
        if kept.provider.scope != found.provider.scope:
            reason = f"{kept.key} has the same provider in the scope {kept.provider.scope!r}, and di would mix them up"
            self._refuse(found.key, reason, "give both the same scope, or write a function of its own for each")
        return False

    def _needs(self, found: Found) -> list[Found]:
        call = found.provider.call
        assert call is not None
        try:
            needs = list(self._wiring.needs(found.provider))
        except Exception as error:  # noqa: BLE001 - whatever reading hints raises
            reason = f"di can't tell what {call!r} needs: {error}"
            self._refuse(found.key, reason, "correct its parameters and their hints, or bind a function that makes it")
            return []
        if not needs and _wants_arguments(call):
            self._refuse(found.key, f"{call!r} wants arguments, and di would pass none", "drop wire=False")
        return needs

    def _refuse(self, key: Key, reason: str, remedy: str) -> None:
        self._errors.append(UnsupportedRegistrationError(key, reason, remedy))

    def _warn(self, key: Key, reason: str, remedy: str) -> None:
        self._warnings[key, reason] = UnsupportedRegistrationError(key, reason, remedy)


def _refusals(found: Found, wiring: Wiring) -> Iterator[tuple[str, str]]:
    """Tell why di cannot honour a provider, if it cannot, and what to do instead."""
    # Any: whatever was given to a `Dependent`.
    provider, call, unit = found.provider, cast("Any", found.provider.call), wiring.unit
    if provider.scope not in wiring.scopes:
        reason = f"{call!r} has the scope {provider.scope!r}, which is none of {', '.join(map(repr, wiring.scopes))}"
        yield reason, f"give it one, as in scope={unit!r}, or name yours: DiContainer(..., scopes=...)"
    if type(call).__hash__ is None:
        yield f"di keeps objects by what makes them, and {call!r} can't be hashed", "bind a function that makes it"
    elif isinstance(call, type) and (inspect.isabstract(call) or is_protocol(call)):
        yield f"{call!r} is abstract", "bind a class that implements it"
    elif isinstance(call, type) and call.__module__ == "builtins":
        yield f"di would make an empty {call.__qualname__}", "bind a function that gives the value"
    elif getattr(call, "__globals__", {}).get("__name__") == contextlib.__name__:
        yield f"{call!r} gives a context manager, which di takes for a generator", "drop its decorator"
    elif not provider.use_cache and provider.scope != unit and (is_gen_callable(call) or is_async_gen_callable(call)):
        yield "each use would open one that stays open until the app ends", f"give it the scope {unit!r}"


def _wants_arguments(call: Callable[..., object]) -> bool:
    try:
        inspect.signature(call).bind()
    except TypeError:
        return True
    except ValueError:  # it has no signature, and somebody knew that
        return False
    return False
