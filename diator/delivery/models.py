"""What pydantic writes otherwise than it reads: found in the core schema of a model, before the first message."""

import enum
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from diator.delivery.hinted import has_subclasses, is_abstract
from diator.delivery.shapes import Schema, Shapes, plain
from diator.delivery.trial import is_a
from diator.engine.hints import show

# Any throughout: see `shapes`.

_TIMES = ("date", "time", "datetime", "timedelta")
_KEYS = (*_TIMES, "str", "int", "float", "bool", "bytes", "decimal", "uuid", "url", "multi-host-url", "complex")
"""Types that pydantic reads from the text of a key."""


class Look:
    """One look at a model: what is wrong with it, each with the field, and what only a trip can tell."""

    def __init__(self, cls: Any) -> None:
        self._cls = cls
        self.untyped = False
        """Whether something in it may be anything, or is written by code of the user's: each event has to be tried."""
        self.has_code = False
        """Whether code of the user's runs when one is made."""
        self.is_early = False
        """Whether something runs before the fields are read: what it hands on is no JSON any more, so that texts have
        to do for dates."""
        self._definitions: dict[str, Schema] = {}
        self._seen: set[int] = set()
        self._gather(cls.__pydantic_core_schema__)
        self._shapes = Shapes(self._definitions)
        self._special: dict[str, Callable[[Schema, str, Mapping[str, Any]], Iterator[str]]] = {
            "lax-or-strict": self._lax_or_strict,
            "json-or-python": self._json_or_python,
            "generator": self._generator,
            "model": self._model,
            "dataclass": self._dataclass,
            "model-fields": self._model_fields,
            "typed-dict": self._typed_dict,
            "dataclass-args": self._dataclass_args,
            "arguments": self._arguments,
            "call": self._call,
            "dict": self._dict,
            "union": self._union,
            "tagged-union": self._tagged_union,
        }
        self.wrong: list[str] = list(dict.fromkeys(self._problems(cls.__pydantic_core_schema__, show(cls), {})))

    def _gather(self, schema: Schema) -> None:
        for one in schema.get("definitions", ()):
            self._definitions[one["ref"]] = one

    def _problems(self, schema: Schema, path: str, config: Mapping[str, Any]) -> Iterator[str]:
        if schema["type"] == "definition-ref":
            schema = self._definitions[schema["schema_ref"]]
        if "ref" in schema and id(schema) in self._seen:
            return
        self._seen.add(id(schema))
        self._code(schema)
        yield from self._special.get(schema["type"], self._other)(schema, path, config)

    def _code(self, schema: Schema) -> None:
        """Note what code runs, and when."""
        kind = schema["type"]
        self.has_code = self.has_code or kind.startswith("function-") or bool(schema.get("post_init"))
        self.has_code = self.has_code or bool(schema.get("custom_init"))
        self.is_early = self.is_early or kind in ("function-before", "function-wrap", "function-plain")
        written = schema.get("serialization")
        if written and not _is_of_pydantic(written.get("function")):
            self.untyped = True
        if kind in ("any", "is-instance", "callable", "function-plain"):
            self.untyped = True

    def _other(self, schema: Schema, path: str, config: Mapping[str, Any]) -> Iterator[str]:
        yield from _leaf(schema, path, config)
        yield from self._inner(schema, path, config)

    def _inner(self, schema: Schema, path: str, config: Mapping[str, Any]) -> Iterator[str]:
        for name in ("schema", "items_schema", "keys_schema", "values_schema", "json_schema", "extras_schema"):
            inner: Any = schema.get(name, ())
            for one in (inner,) if is_a(inner, dict) else inner:
                yield from self._problems(one, path, config)
        for one in schema.get("steps", ()):
            yield from self._problems(one, path, config)

    def _lax_or_strict(self, schema: Schema, path: str, config: Mapping[str, Any]) -> Iterator[str]:
        yield from self._problems(schema["strict_schema"], path, config)

    def _json_or_python(self, schema: Schema, path: str, config: Mapping[str, Any]) -> Iterator[str]:
        if _is_secret(schema):
            yield f"{path} is a secret, which is written as stars"
        yield from self._problems(schema["json_schema"], path, config)

    def _generator(self, _schema: Schema, path: str, _config: Mapping[str, Any]) -> Iterator[str]:
        yield f"{path} is an iterator, of which nothing is left once it was written"

    def _model(self, schema: Schema, path: str, _config: Mapping[str, Any]) -> Iterator[str]:
        own: Mapping[str, Any] = schema.get("config", {})
        self.untyped = self.untyped or own.get("extra_fields_behavior") == "allow"
        self._class(schema["cls"])
        if own.get("extra_fields_behavior") == "allow":
            yield from _leaf({"type": "any"}, path, own)
        yield from self._problems(schema["schema"], path, own)

    def _dataclass(self, schema: Schema, path: str, config: Mapping[str, Any]) -> Iterator[str]:
        self._class(schema["cls"])
        yield from self._problems(schema["schema"], path, schema.get("config", config))

    def _class(self, cls: Any) -> None:
        self.untyped = self.untyped or is_abstract(cls) or (cls is not self._cls and has_subclasses(cls))

    def _model_fields(self, schema: Schema, path: str, config: Mapping[str, Any]) -> Iterator[str]:
        self.untyped = self.untyped or schema.get("extra_behavior") == "allow"
        yield from self._named_fields(schema["fields"].items(), path, config)

    def _typed_dict(self, schema: Schema, path: str, config: Mapping[str, Any]) -> Iterator[str]:
        self.untyped = self.untyped or schema.get("extra_behavior") == "allow"
        yield from self._named_fields(schema["fields"].items(), path, schema.get("config", config))

    def _dataclass_args(self, schema: Schema, path: str, config: Mapping[str, Any]) -> Iterator[str]:
        yield from self._named_fields(((field["name"], field) for field in schema["fields"]), path, config)

    def _named_fields(self, fields: Any, path: str, config: Mapping[str, Any]) -> Iterator[str]:
        for name, field in fields:
            where = f"{path}.{name}"
            if "serialization_exclude_if" in field:
                self.untyped = True
            if field.get("serialization_exclude"):
                yield f"{where} is excluded, so that it does not travel"
            elif field.get("init_only") or field.get("init") is False:
                yield f"{where} is {'only' if field.get('init_only') else 'not'} taken by `__init__`"
            else:
                yield from _renamed(name, field, where, config)
                yield from self._problems(field["schema"], where, config)

    def _arguments(self, schema: Schema, path: str, config: Mapping[str, Any]) -> Iterator[str]:
        for one in schema["arguments_schema"]:  # of a NamedTuple
            yield from self._problems(one["schema"], f"{path}.{one['name']}", config)

    def _call(self, schema: Schema, path: str, config: Mapping[str, Any]) -> Iterator[str]:
        yield from self._problems(schema["arguments_schema"], path, config)

    def _dict(self, schema: Schema, path: str, config: Mapping[str, Any]) -> Iterator[str]:
        keys = schema.get("keys_schema", {"type": "any"})
        wrong = self._key(keys)
        if wrong:
            yield f"{path} has keys ({wrong}) that JSON, where every key is a text, can't tell"
        yield from self._inner(schema, path, config)

    def _key(self, schema: Schema) -> str | None:
        """What is wrong with the keys of a dict; none if they are read as they are written."""
        inner = plain(schema, self._definitions)
        kind = inner["type"]
        if kind == "enum":
            texts = all(isinstance(member.value, str) for member in inner["members"])
            return None if texts or inner.get("sub_type") in ("int", "str") else "enum"
        if kind == "literal":
            return None if all(isinstance(value, str) for value in inner["expected"]) else "literal"
        if kind == "any":
            self.untyped = True
            return None
        return None if kind in _KEYS or kind.startswith("function") else str(kind)

    def _union(self, schema: Schema, path: str, config: Mapping[str, Any]) -> Iterator[str]:
        choices: list[Schema] = [choice[0] if is_a(choice, tuple) else choice for choice in schema["choices"]]
        self.untyped = self.untyped or schema.get("mode") == "left_to_right"  # the first that fits wins, not the best
        clash = self._shapes.clash(choices)
        if clash:
            yield f"{path} may be {clash}, which look the same as JSON"
        for one in choices:
            yield from self._problems(one, path, config)

    def _tagged_union(self, schema: Schema, path: str, config: Mapping[str, Any]) -> Iterator[str]:
        for one in schema["choices"].values():
            if is_a(one, dict):
                yield from self._problems(one, path, config)


def _leaf(schema: Schema, path: str, config: Mapping[str, Any]) -> Iterator[str]:
    kind = schema["type"]
    if kind == "enum" and not all(_is_json(member.value) for member in schema["members"]):
        yield f"{path} is the enum {show(schema['cls'])}, whose values are no JSON"
    elif kind == "literal":
        odd = [value for value in schema["expected"] if isinstance(value, enum.Enum) or not _is_json(value)]
        if odd:
            yield f"{path} is the literal {odd[0]!r}, which is written and not read"
    elif kind == "bytes" and config.get("ser_json_bytes", "utf8") != config.get("val_json_bytes", "utf8"):
        yield f"{path} is written as {config.get('ser_json_bytes', 'utf8')}, and not read so: set val_json_bytes too"
    elif kind in _TIMES and config.get("ser_json_temporal", "iso8601") != "iso8601":
        yield f"{path} is written as a number, which has no time zone and fewer digits: drop ser_json_temporal"
    elif kind == "timedelta" and config.get("ser_json_timedelta", "iso8601") != "iso8601":
        yield f"{path} is written as a number, which has fewer digits: drop ser_json_timedelta"
    elif kind in ("float", "any") and config.get("ser_json_inf_nan", "null") != "null":
        yield f"{path} is written as what JSON has not, NaN or Infinity: drop ser_json_inf_nan"


def _renamed(name: str, field: Schema, path: str, config: Mapping[str, Any]) -> Iterator[str]:
    """Whether a field is read by the name that it is written by."""
    alias: Any = field.get("validation_alias")
    choices: list[Any] = alias if is_a(alias, list) and alias and is_a(alias[0], list) else [alias]
    read = [one[0] if is_a(one, list) and len(one) == 1 else one for one in choices]
    if alias is None or config.get("populate_by_name") or config.get("validate_by_name"):
        read.append(name)
    written = field.get("serialization_alias", name)
    if written not in (read if config.get("validate_by_alias", True) else [name]):
        yield f"{path} is written as {written!r}, and not read by that name"


def _is_secret(schema: Schema) -> bool:
    python: Schema = schema["python_schema"]
    choices = python.get("choices", [python])
    return any(hasattr(one.get("cls"), "get_secret_value") for one in choices if is_a(one, dict))


def _is_json(value: object) -> bool:
    return value is None or isinstance(value, (str, int, float))  # a bool is an int


def _is_of_pydantic(function: Any) -> bool:
    """Whether a function is part of pydantic: those work both ways, but for the few that are looked for above."""
    module: str = getattr(function, "__module__", None) or ""
    return module.partition(".")[0] in ("pydantic", "pydantic_core")


def schema_of(cls: Any) -> dict[str, Any] | None:
    """The JSON schema of what a model reads, for a trial; none where pydantic has none."""
    try:
        found: dict[str, Any] = cls.model_json_schema(by_alias=True, mode="validation")
    except Exception:  # noqa: BLE001 - whatever it raises, there is no trial then
        return None
    return found
