"""What the public modules export is all there, sorted, documented, and leaves nothing out."""

import importlib
import inspect
import pkgutil
from types import GenericAlias, ModuleType, UnionType

import pytest

import diator
from diator import errors

PUBLIC = [
    "diator",
    "diator.brokers",
    "diator.cli",
    "diator.containers",
    "diator.stores",
    "diator.testing",
    "diator_conformance",
]

every_module = pytest.mark.parametrize("module", [importlib.import_module(name) for name in PUBLIC], ids=PUBLIC)


def exported(module: ModuleType) -> dict[str, object]:
    names: list[str] = module.__all__
    return {name: getattr(module, name) for name in names}


def test_every_package_that_exports_names_is_looked_at_here() -> None:
    packages = [found.name for found in pkgutil.iter_modules(diator.__path__, "diator.") if found.ispkg]
    assert {name for name in packages if hasattr(importlib.import_module(name), "__all__")} == {
        name for name in PUBLIC if name.startswith("diator.")
    }


@every_module
def test_names_are_sorted_and_all_there(module: ModuleType) -> None:
    names: list[str] = module.__all__
    assert names == sorted(set(names), key=lambda name: (not name.isupper(), name))  # constants first
    assert [name for name in names if not hasattr(module, name)] == []


@every_module
def test_no_public_name_is_left_out(module: ModuleType) -> None:
    public = {name: thing for name, thing in vars(module).items() if not name.startswith("_")}
    ours = {name for name, thing in public.items() if getattr(thing, "__module__", "").startswith("diator")}
    aliases = {name for name, thing in exported(module).items() if isinstance(thing, (UnionType, GenericAlias))}
    assert ours | aliases == {*module.__all__}


@every_module
def test_names_are_exported_as_they_are_defined(module: ModuleType) -> None:
    for name, thing in exported(module).items():
        assert isinstance(thing, GenericAlias) or getattr(thing, "__name__", name) == name


def own_doc(name: str, thing: object) -> str:
    """The docstring that somebody wrote: neither inherited nor made by ``dataclass`` or ``NamedTuple``."""
    doc = vars(thing).get("__doc__") if inspect.isclass(thing) else thing.__doc__
    doc = doc or ""
    return "" if doc.startswith((f"{name}(", "An enumeration.", "Create a collection")) else doc


@every_module
def test_every_exported_name_is_documented(module: ModuleType) -> None:
    assert [name for name, thing in exported(module).items() if not own_doc(name, thing)] == []


@every_module
def test_every_public_method_is_documented(module: ModuleType) -> None:
    bare = [
        f"{name}.{method}"
        for name, thing in exported(module).items()
        if inspect.isclass(thing) and not name.endswith("Suite")  # whose methods are tests; their names speak
        for method, function in vars(thing).items()
        if not method.startswith("_") and isinstance(function, (type(own_doc), property, classmethod, staticmethod))
        if not function.__doc__
    ]
    assert bare == []


def test_every_error_is_exported_and_drawn_in_the_tree() -> None:
    assert errors.__doc__ is not None
    for name, thing in vars(errors).items():
        if inspect.isclass(thing) and issubclass(thing, errors.DiatorError):
            assert name in diator.__all__
            assert f" {name} " in errors.__doc__.replace("\n", " ")
            assert name.endswith("Error")


def test_errors_that_stand_for_an_error_of_python_are_that_too() -> None:
    assert issubclass(diator.InvalidMessageError, TypeError)
    assert issubclass(diator.HandlerNotFoundError, LookupError)
    assert issubclass(diator.NotProvidedError, LookupError)
    assert issubclass(diator.DependencyNotFoundError, LookupError)
