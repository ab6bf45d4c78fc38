"""How pydantic carries a model.

What whole events that are made up can't show is tried with parts of them: each choice of a union, each value of an enum
or a literal, and each kind of key.
"""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

import msgspec

from diator.delivery.differences import differences, is_a, reason_of, short
from diator.delivery.samples import samples
from diator.engine.hints import format_hint

# Any throughout: a core schema is a dict of dicts, which pydantic may extend, and pydantic may not be installed.
Schema = dict[str, Any]


class Model:
    """How pydantic carries one model. Raises what pydantic raises for what has no JSON schema."""

    def __init__(self, cls: Any) -> None:
        cls.model_rebuild()
        self._serializer = cls.__pydantic_serializer__
        self._validate = cls.__pydantic_validator__.validate_json
        self.wrong = list(dict.fromkeys(_Parts(cls).problems()))
        self.is_exact = None
        """Validators and serializers of the class may do anything: each event is read again."""
        self.schema: dict[str, Any] | None = None
        if not self.wrong:
            cls.model_json_schema(mode="serialization")
            self.schema = cls.model_json_schema(mode="validation")

    @staticmethod
    def can_carry(hint: Any) -> None:
        """Raise what pydantic raises for a hint that has no JSON schema."""
        from pydantic import ConfigDict, create_model  # noqa: PLC0415 - may not be installed

        made: Any = create_model("Made", __config__=ConfigDict(arbitrary_types_allowed=True), field=(hint, ...))
        made.model_json_schema(mode="serialization")

    def write(self, event: Any, **options: Any) -> bytes:
        """Write an event, by the names that it is read by."""
        data: bytes = self._serializer.to_json(event, by_alias=True, round_trip=True, warnings=False, **options)
        _syntax.decode(data)  # pydantic writes NaN, which is no JSON, where it was told to
        return data

    def write_field(self, event: Any, name: str) -> bytes:
        """Write one field of an event."""
        return self.write(event, include={name})

    def read(self, data: bytes | msgspec.Raw) -> Any:
        """Read an event, as leniently as its model says."""
        return self._validate(bytes(data))

    def make(self, data: bytes) -> Any:
        """Read for a trial what may not be named or typed as it is written."""
        try:
            return self._validate(data, strict=False, by_alias=True, by_name=True)
        except TypeError:  # pydantic before 2.11 has one of both names only
            return self._validate(data, strict=False)

    def plain(self, event: Any) -> Any:
        """What the JSON of an event stands for."""
        return self._serializer.to_python(event, mode="json", by_alias=True, round_trip=True, warnings=False)


_syntax = msgspec.json.Decoder(msgspec.Raw)


class _Parts:
    """Tries the parts of a model."""

    def __init__(self, cls: Any) -> None:
        self._name = format_hint(cls)
        self._schema: Schema = cls.__pydantic_core_schema__
        self._definitions: list[Schema] = self._schema.get("definitions", [])
        self._by_name = {one["ref"]: one for one in self._definitions}
        self._seen: set[str] = set()

    def problems(self) -> Iterator[str]:
        yield from self._walk(self._schema, self._name, {})

    def _walk(self, schema: Any, path: str, config: Mapping[str, Any]) -> Iterator[str]:
        if is_a(schema, list) or is_a(schema, tuple):
            for one in schema:
                yield from self._walk(one, path, config)
        elif is_a(schema, dict):
            if schema.get("type") == "definition-ref":
                schema = self._by_name[schema["schema_ref"]]
            ref = schema.get("ref")
            if ref is None or ref not in self._seen:
                self._seen.add(str(ref))
                yield from self._node(schema, path, schema.get("config", config))

    def _node(self, schema: Schema, path: str, config: Mapping[str, Any]) -> Iterator[str]:
        if config.get("ser_json_inf_nan") == "constants" and schema.get("type") in ("float", "any"):
            yield f"{path} is written as what JSON has not, NaN or Infinity: drop ser_json_inf_nan"
        if "serialization" not in schema:
            yield from self._tried(schema, path, config)
        for name in _INSIDE[schema.get("type") in ("json-or-python", "lax-or-strict")]:
            inner: Any = schema.get(name, ())
            yield from self._walk(
                list(inner.values()) if name == "choices" and is_a(inner, dict) else inner, path, config
            )
        fields: Any = schema.get("fields", ())  # of a dataclass they are listed, of others they have a name each
        for name, one in (
            fields.items() if is_a(fields, dict) else [(one["name"], one) for one in fields if is_a(one, dict)]
        ):
            yield from self._walk(one, f"{path}.{name}", config)

    def _tried(self, schema: Schema, path: str, config: Mapping[str, Any]) -> Iterator[str]:
        """Send each value that can be made of a part there and back."""
        if schema.get("type") not in _TRIED:
            return
        validator, serializer = self._built(schema, config)
        for before in self._values(schema, config):
            try:
                data = serializer.to_json(before, by_alias=True, round_trip=True, warnings=False)
                found = differences(before, validator.validate_json(data))
            except Exception as error:  # noqa: BLE001 - raised by validators and serializers of the class
                found = [("", f"can be {short(before)}, which can't be read as it is written: {reason_of(error)}")]
            if found:
                yield f"{path}{found[0][0]} {found[0][1]}"
                return

    def _values(self, schema: Schema, config: Mapping[str, Any]) -> Iterator[Any]:
        """What a part can hold: of unions, what each choice makes of the JSON of any."""
        kind = schema["type"]
        if kind in ("enum", "literal"):
            yield from schema["members" if kind == "enum" else "expected"]
        elif kind == "dict":
            keys = schema.get("keys_schema", {"type": "str"})
            for key in self._made(keys, self._samples(keys), config):
                with suppress(TypeError):  # it can't be hashed, and is no key then
                    yield {key: 1}
        else:
            given: Any = schema["choices"]
            several = given.values() if is_a(given, dict) else given
            choices: list[Schema] = [one[0] if is_a(one, tuple) else one for one in several]
            known = [sample for choice in choices for sample in self._samples(choice)]
            for choice in choices:
                yield from self._made(choice, known, config)

    def _samples(self, schema: Schema) -> list[Any]:
        from pydantic.json_schema import GenerateJsonSchema  # noqa: PLC0415 - may not be installed

        try:
            return list(samples(GenerateJsonSchema(by_alias=True).generate(self._whole(schema), "validation")))
        except Exception:  # noqa: BLE001 - any error: there is nothing to try then
            return []

    def _made(self, schema: Schema, known: list[Any], config: Mapping[str, Any]) -> Iterator[Any]:
        validator, _ = self._built(schema, config)
        for sample in known:
            with suppress(Exception):  # it is of another choice, or validators refuse it
                yield validator.validate_json(msgspec.json.encode(sample), strict=False)

    def _built(self, schema: Schema, config: Mapping[str, Any]) -> tuple[Any, Any]:
        from pydantic_core import SchemaSerializer, SchemaValidator  # noqa: PLC0415 - may not be installed

        whole: Any = self._whole({**schema, "values_schema": {"type": "any"}} if schema["type"] == "dict" else schema)
        given: Any = dict(config)
        return SchemaValidator(whole, given), SchemaSerializer(whole, given)

    def _whole(self, schema: Schema) -> Any:
        return {"type": "definitions", "schema": schema, "definitions": self._definitions}


_TRIED = ("enum", "literal", "dict", "union", "tagged-union")
_INSIDE = (
    ("schema", "items_schema", "keys_schema", "values_schema", "extras_schema", "arguments_schema", "choices", "steps"),
    ("json_schema", "strict_schema"),
)
"""Where parts stand, and where where pydantic reads JSON otherwise than objects."""
