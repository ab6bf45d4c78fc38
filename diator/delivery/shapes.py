"""Unions of a pydantic model: which of their members can't be told apart once they are JSON."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations, zip_longest
from typing import Any

from diator.delivery.trial import is_a
from diator.engine.hints import show

# Any throughout: a core schema is a dict of dicts, which pydantic may extend, and pydantic may not be installed.
Schema = dict[str, Any]

_INSIDE = ("function-after", "function-before", "function-wrap", "default", "definitions")
_TEXTS = ("bytes", "date", "time", "datetime", "timedelta", "decimal", "uuid", "url", "multi-host-url", "complex")
_PLAIN = {"str": "str", "int": "int", "float": "float", "bool": "bool", "none": "NoneType"}
_ARRAYS = ("list", "tuple", "set", "frozenset", "generator", "call")
_OBJECTS = ("model", "typed-dict", "dataclass", "dict")


def plain(schema: Schema, definitions: Mapping[str, Schema]) -> Schema:
    """What is inside of validators, defaults and references."""
    while True:
        match schema["type"]:
            case "definition-ref":
                schema = definitions[schema["schema_ref"]]
            case "lax-or-strict":
                schema = schema["strict_schema"]
            case "json-or-python":
                schema = schema["json_schema"]
            case kind if kind in _INSIDE:
                schema = schema["schema"]
            case _:
                return schema


class Shapes:
    """Compares core schemas by the JSON that they are written as."""

    def __init__(self, definitions: Mapping[str, Schema]) -> None:
        self._definitions = definitions
        self._compared: set[tuple[int, int]] = set()

    def clash(self, choices: Sequence[Schema]) -> str | None:
        """Two members that look the same, in words; none where every member can be told from the others.

        What is typed ``Any``, or read by code of the user's, is not compared.
        """
        members = [member for choice in choices for member in self._members(choice)]
        for first, second in combinations(members, 2):
            self._compared.clear()
            if self._looks_same(first, second):
                return f"{_name(first)} or {_name(second)}"
        return None

    def _members(self, schema: Schema) -> Iterator[Schema]:
        schema = plain(schema, self._definitions)
        match schema["type"]:
            case "nullable":
                yield {"type": "none"}
                yield from self._members(schema["schema"])
            case "union":
                for choice in schema["choices"]:
                    yield from self._members(choice[0] if is_a(choice, tuple) else choice)
            case "tagged-union":
                for choice in schema["choices"].values():
                    yield from self._members(choice) if is_a(choice, dict) else ()
            case _:
                yield schema

    def _looks_same(self, first: Schema, second: Schema) -> bool:
        """Whether some JSON of one may be read as the other, and is another value then."""
        pair = (id(first), id(second))
        if pair in self._compared:
            return False  # it is being compared further up
        self._compared.add(pair)
        if _is_root(first) or _is_root(second):
            return bool({shape for shape, _ in self._shapes(first)} & {shape for shape, _ in self._shapes(second)})
        kinds = (first["type"], second["type"])
        if all(kind in _ARRAYS for kind in kinds):
            return kinds[0] != kinds[1] or self._items_look_same(first, second)
        if all(kind in _OBJECTS for kind in kinds):
            return self._objects_look_same(first, second)
        return _kind(first) != _kind(second) and self._overlap([first], [second])

    def _any_look_same(self, first: Schema, second: Schema) -> bool:
        return any(self._looks_same(one, other) for one in self._members(first) for other in self._members(second))

    def _items_look_same(self, first: Schema, second: Schema) -> bool:
        mine: Any = first.get("items_schema", first.get("arguments_schema"))
        other: Any = second.get("items_schema", second.get("arguments_schema"))
        if is_a(mine, dict) and is_a(other, dict):
            return self._any_look_same(mine, other)
        if is_a(mine, list) and is_a(other, list):
            pairs: Any = zip_longest(mine, other)
            return all(
                one and another and (one == another or self._any_look_same(one, another)) for one, another in pairs
            )
        return False

    def _objects_look_same(self, first: Schema, second: Schema) -> bool:
        if first["type"] == second["type"] == "dict":
            parts = ("keys_schema", "values_schema")
            return any(
                name in first and name in second and self._any_look_same(first[name], second[name]) for name in parts
            )
        if "dict" in (first["type"], second["type"]):
            return True  # a dict reads whatever an object holds
        if first.get("cls") is second.get("cls") and "cls" in first:
            return False
        return not self._are_told_apart(self._fields(first), self._fields(second))

    def _are_told_apart(self, mine: Mapping[str, Schema], other: Mapping[str, Schema]) -> bool:
        """Whether two classes differ enough: what is written has all its fields, and who knows most of them wins."""
        if mine.keys() - other.keys() and other.keys() - mine.keys():
            return True
        if any(name not in other and _is_required(field) for name, field in mine.items()):
            return True
        if any(name not in mine and _is_required(field) for name, field in other.items()):
            return True
        return any(
            name in other and not self._overlap(self._members(field["schema"]), self._members(other[name]["schema"]))
            for name, field in mine.items()
        )

    def _fields(self, schema: Schema) -> Mapping[str, Schema]:
        inner = plain(schema["schema"], self._definitions) if "schema" in schema else schema
        fields: Any = inner.get("fields", {})  # of a dataclass they are listed, of others they have a name each
        return fields if is_a(fields, dict) else {field["name"]: field for field in fields}

    def _overlap(self, first: Iterator[Schema] | list[Schema], second: Iterator[Schema] | list[Schema]) -> bool:
        """Whether two choices have JSON in common, as far as types and the values of literals and enums tell."""
        mine = {shape for one in first for shape in self._shapes(one)}
        other = [shape for one in second for shape in self._shapes(one)]
        return any(
            shape == there and (value is _ALL or known is _ALL or value == known)
            for shape, value in mine
            for there, known in other
        )

    def _shapes(self, schema: Schema) -> Iterator[tuple[str, Any]]:
        """The types of JSON that a schema is written as, each with the value where there is but one."""
        kind = schema["type"]
        if kind == "literal":
            yield from ((type(value).__name__, value) for value in schema["expected"])
        elif kind == "enum":
            yield from ((type(_value(member)).__name__, _value(member)) for member in schema["members"])
        elif kind in _ARRAYS:
            yield "array", _ALL
        elif _is_root(schema):
            for inner in self._members(schema["schema"]):
                yield from self._shapes(inner)
        elif kind in _OBJECTS:
            yield "object", _ALL
        elif kind in _TEXTS or kind in _PLAIN:
            yield _PLAIN.get(kind, "str"), _ALL


_ALL = object()
"""Any value of a type."""


def _value(member: Any) -> Any:
    """The value of an enum's member, as the type that JSON has for it."""
    value = member.value
    return next((kind(value) for kind in (bool, int, float, str) if isinstance(value, kind)), value)


def _kind(schema: Schema) -> Any:
    """What a scalar is once it was read: literals are values of the plain types."""
    kind = schema["type"]
    return "plain" if kind == "literal" or kind in _PLAIN else schema.get("cls", kind)


def _is_root(schema: Schema) -> bool:
    return bool(schema.get("root_model"))


def _is_required(field: Schema) -> bool:
    return bool(field.get("required", field["schema"]["type"] != "default"))


def _name(schema: Schema) -> str:
    return show(schema["cls"]) if "cls" in schema else str(schema["type"])
