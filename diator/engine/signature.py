"""The only code that inspects functions: which parameters a handler has, and what each is hinted.

Structure comes from `inspect.signature`; values are evaluated one parameter at a time, so that one hint that can't be
resolved names one parameter, and a bad return hint never stands in the way of injection.
"""

import dis
import functools
import inspect
import sys
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from typing_extensions import Format, get_annotations

from diator._locations import MAX_DECORATORS
from diator.engine.hints import evaluate, format_hint, substitute, substitutions
from diator.engine.returns import row_of

EMPTY: Any = inspect.Parameter.empty


class Unresolved(NamedTuple):
    """A hint that could not be evaluated."""

    annotation: str
    reason: Exception
    known: tuple[Mapping[str, object], ...]
    """The names that the hint could see."""

    @property
    def fix(self) -> str:
        """The next step for the author of the hint."""
        from difflib import get_close_matches  # noqa: PLC0415 - slow to import, and needed for an error only

        missing = getattr(self.reason, "name", None) if isinstance(self.reason, NameError) else None
        if missing is None:
            return "correct the hint; it is evaluated when the app starts"
        close = get_close_matches(missing, [name for names in self.known for name in names], n=1)
        guess = f"did you mean {close[0]!r}? Otherwise " if close else ""
        how = f"import {missing!r} at run time (not under TYPE_CHECKING), and above the handler if it is a local name"
        return guess + how


class Parameter(NamedTuple):
    """One parameter of a handler or of its constructor."""

    name: str
    keyword: bool
    """Whether it can only be passed by name."""
    default: Any
    """``EMPTY`` where there is none."""
    hint: Any
    """Evaluated; ``EMPTY`` where there is none; `Unresolved` where it could not be."""

    def __str__(self) -> str:
        if self.hint is EMPTY:
            return self.name
        return f"{self.name}: {self.hint.annotation if isinstance(self.hint, Unresolved) else format_hint(self.hint)}"


class Signature(NamedTuple):
    """What the hints of one handler or middleware say."""

    parameters: tuple[Parameter, ...]
    """Of the function, or of ``handle``; the message first."""
    constructor: tuple[Parameter, ...]
    """Of the class, where the handler is one."""
    returns: Any
    """Evaluated; ``EMPTY`` where there is none or it could not be."""
    call_kind: str
    """How calling it runs: ``async``, ``sync``, ``async generator`` or ``generator``."""
    events: Any
    """The hint of the class's ``events``; ``EMPTY`` where it has none, ``None`` where ``events`` has no hint."""

    result_unresolved: bool = False
    """Whether the hint of the result could not be evaluated."""
    unreadable: Exception | None = None
    """The error that inspecting it raised."""

    @property
    def is_stream(self) -> bool:
        """Whether a query handler with it gives rows one by one."""
        return self.call_kind == "async generator" or row_of(self.returns) is not None

    @property
    def unresolved(self) -> Iterator[Parameter]:
        """The parameters whose hints could not be evaluated."""
        return (p for p in (*self.constructor, *self.parameters) if isinstance(p.hint, Unresolved))


NOTHING = Signature((), (), EMPTY, "sync", EMPTY)
"""What can be read of something that is no function."""


def read_signature(target: Any, names: Mapping[str, object]) -> Signature:
    """Read a function, method, partial, callable object, or class with ``handle``; ``names`` are local to it."""
    if not isinstance(target, type):
        parameters, returns, result_unresolved = _read(target, names)
        return Signature(parameters, (), returns, call_kind_of(target), EMPTY, result_unresolved)
    constructor, _, _ = _read(target, names)
    handle = getattr(target, "handle", None)
    if not callable(handle):
        return NOTHING
    parameters, returns, result_unresolved = _read(handle, names, target)
    if inspect.isfunction(handle) and not isinstance(_written(target, "handle"), staticmethod):
        parameters = parameters[1:]
    return Signature(
        parameters, constructor, returns, call_kind_of(handle), _events_hint(target, names), result_unresolved
    )


def _written(cls: type, name: str) -> Any:
    """What stands under a name in a class or its bases, as it was written; none if nothing does."""
    return next((vars(base)[name] for base in cls.__mro__ if name in vars(base)), None)


def _read(target: Any, names: Mapping[str, object], of: type | None = None) -> tuple[tuple[Parameter, ...], Any, bool]:
    function, owner = annotated_function(target)
    if function in (object.__init__, object.__new__):
        return (), EMPTY, False
    scope = _Scope(function, of or owner, names)
    found = tuple(
        Parameter(p.name, p.kind is p.KEYWORD_ONLY, p.default, scope.hint(p.name)) for p in _structure(target, function)
    )
    returns = scope.hint("return")
    result_unresolved = isinstance(returns, Unresolved)
    return found, EMPTY if result_unresolved else returns, result_unresolved


def _events_hint(cls: type, names: Mapping[str, object]) -> Any:
    """The hint of ``events``, written as a property or as an attribute. One that can't be resolved counts as none."""
    found = _written(cls, "events")
    if isinstance(found, property):
        hint = _Scope(found.fget, cls, names).hint("return")
    else:
        hints = [_Scope(base, cls, names).hint("events") for base in cls.__mro__ if "events" in _annotations(base)]
        if found is None and not hints and not _assigns_events(cls):
            return EMPTY
        hint = hints[0] if hints else EMPTY
    return None if hint is EMPTY or isinstance(hint, Unresolved) else hint


def _assigns_events(cls: type) -> bool:
    """Whether a constructor says ``self.events = ...``, which a class that declares no ``events`` may do as well."""
    written = (vars(base).get("__init__") for base in cls.__mro__)
    codes = (getattr(init, "__code__", None) for init in written)
    return any(
        step.opname == "STORE_ATTR" and step.argval == "events"
        for code in codes
        if code is not None and "events" in code.co_names
        for step in dis.get_instructions(code)
    )


def annotated_function(target: Any) -> tuple[Any, type | None]:
    """The function that carries the annotations of a target, and the class it belongs to."""
    owner: type | None = None
    for _ in range(MAX_DECORATORS):
        if isinstance(target, type):
            return _constructor(target), target
        if isinstance(target, functools.partial):
            target = target.func
        elif inspect.ismethod(target):
            instance = target.__self__
            owner = instance if isinstance(instance, type) else type(instance)
            target = target.__func__
        elif hasattr(target, "__wrapped__"):
            target = target.__wrapped__
        elif not inspect.isroutine(target) and callable(target):
            owner, target = type(target), type(target).__call__
        else:
            break
    return target, owner


def is_wrapped(target: Any) -> bool:
    """Whether a decorator stands between the hints of a handler, or of its ``handle``, and what is called."""
    if isinstance(target, type):
        target = getattr(target, "handle", None)
    while isinstance(target, functools.partial):
        target = target.func
    return hasattr(target if inspect.isroutine(target) else type(target).__call__, "__wrapped__")


def _constructor(cls: type) -> Any:
    init, new = _written(cls, "__init__"), _written(cls, "__new__")
    made_by_new = init is object.__init__ and new is not object.__new__
    return getattr(new, "__func__", new) if made_by_new else init


def call_kind_of(target: Any) -> str:
    """How calling a target runs: ``async``, ``sync``, ``async generator`` or ``generator``."""
    while isinstance(target, functools.partial):
        target = target.func
    if not (inspect.isroutine(target) or isinstance(target, type)) and callable(target):
        target = type(target).__call__
    if inspect.iscoroutinefunction(target):
        return "async"
    if inspect.isasyncgenfunction(target):
        return "async generator"
    return "generator" if inspect.isgeneratorfunction(target) else "sync"


def _structure(target: Any, function: Any) -> list[inspect.Parameter]:
    """The parameters that a caller passes, without ``*args`` and ``**kwargs``."""
    if isinstance(target, type):  # inspect would ask a metaclass with __call__
        parameters = list(_signature(function).parameters.values())[1:]
    else:
        parameters = list(_signature(target).parameters.values())
    bound = target.keywords if isinstance(target, functools.partial) else {}
    kept = [p for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    return [p for p in kept if p.name not in bound]


def _signature(target: Any) -> inspect.Signature:
    try:
        if sys.version_info >= (3, 14):  # by default it evaluates, and a name under TYPE_CHECKING raises
            return inspect.signature(target, annotation_format=Format.FORWARDREF)
        return inspect.signature(target)
    except ValueError:  # some functions written in C do not tell
        return inspect.Signature()


class _Scope:
    """The names that the annotations of one function, or of one class, can see."""

    __slots__ = ("annotations", "fields", "globals", "names", "substitutions")

    def __init__(self, annotated_function: Any, owner: type | None, names: Mapping[str, object]) -> None:
        self.annotations = _annotations(annotated_function)
        self.names = names
        self.substitutions = substitutions(owner) if owner else {}
        self.fields: dict[str, dict[str, Any]] = {}
        if isinstance(annotated_function, type):
            self.globals = _module(annotated_function)
        else:
            self.globals = getattr(annotated_function, "__globals__", {})
            # An __init__ that was generated (dataclasses, attrs) has annotations from the modules of several classes.
            if owner and _is_generated(annotated_function):
                self.globals, self.fields = _module(owner), _field_modules(owner)
        if sys.version_info >= (3, 12) and (parameters := _type_parameters(annotated_function, owner)):
            self.names = {**names, **parameters}

    def hint(self, name: str) -> Any:
        annotation = self.annotations.get(name, EMPTY)
        if annotation is EMPTY:
            return EMPTY
        try:
            found = evaluate(annotation, self.fields.get(name, self.globals), self.names)
        except Exception as error:  # noqa: BLE001 - an annotation is code of the user's: anything may come out of it
            text = annotation if isinstance(annotation, str) else repr(annotation)
            return Unresolved(text, error, (self.fields.get(name, self.globals), self.names))
        return substitute(found, self.substitutions) if self.substitutions else found


def _is_generated(function: Any) -> bool:
    code = getattr(function, "__code__", None)
    return code is not None and code.co_filename.startswith("<")


def _annotations(annotated_function: Any) -> dict[str, Any]:
    if sys.version_info < (3, 14) and not isinstance(annotated_function, type):
        return getattr(annotated_function, "__annotations__", {})
    return get_annotations(annotated_function, format=Format.FORWARDREF)


def _module(cls: type) -> dict[str, Any]:
    module = sys.modules.get(cls.__module__)
    return vars(module) if module else {}


def _field_modules(owner: type) -> dict[str, dict[str, Any]]:
    """For each annotated field of a class, the names of the module whose class declares it."""
    return {name: _module(base) for base in reversed(owner.__mro__) for name in _annotations(base)}


def _type_parameters(annotated_function: Any, owner: type | None) -> dict[str, object]:
    """What ``class Handler[T]`` and ``def handle[T]`` name: annotations that are kept as text can't see them."""
    classes = [] if owner is None else [cls for cls in owner.__mro__ if _defines(cls, annotated_function)]
    found = [
        parameter for thing in (*classes, annotated_function) for parameter in getattr(thing, "__type_params__", ())
    ]
    return {parameter.__name__: parameter for parameter in found}


def _defines(cls: type, annotated_function: Any) -> bool:
    return cls is annotated_function or vars(cls).get(getattr(annotated_function, "__name__", "")) is annotated_function
