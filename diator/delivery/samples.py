"""Made-up JSON that fits a JSON schema, several variants of it, for a trial of what an app will publish."""

from collections.abc import Iterator, Mapping
from typing import Any

_VARIANTS = 8
_DEEPEST = 40

_TEXT = "A text with Capitals, ümlauts, 12345 and  two spaces, longer than what a column usually takes"
_FORMATS: Mapping[str, tuple[str, ...]] = {
    "date": ("2026-01-02", "1999-12-31"),
    "date-time": ("2026-01-02T03:04:05.678901Z", "2026-01-02T03:04:05.678901", "2026-01-02T03:04:05+02:00"),
    "time": ("03:04:05.678901", "23:59:59"),
    "duration": ("P1DT2H3M4.567891S", "PT0.000001S"),
    "uuid": ("0b3c3c1e-8c1f-4a52-9a4c-3d9d2c1b7f10", "5f0c2f0e-29b5-4d3a-8f3a-0a0b0c0d0e0f"),
    "decimal": ("1.10", "-20"),
    "email": ("someone@example.com",),
    "uri": ("https://example.com/a?b=c", "https://example.com/"),
    "ipv4": ("192.0.2.1",),
    "ipv6": ("2001:db8::1",),
    "ipvanyaddress": ("192.0.2.1",),
    "regex": ("[a-z]+",),
    "base64": ("QSB0ZXh0", "//4A"),
    "base64url": ("QSB0ZXh0", "__4A"),
    "application/json": ("1", "[1]", "{}", '"a"', '[["a"]]'),
}
_KEYS = ("a key", "another", "7", "2026-01-02", "0.5", "2026-01-02T03:04:05Z", "QQ==", "1")
"""Texts that msgspec, which does not say what the keys of a dict are, may read."""

# Any: a JSON schema and JSON itself are anything.


def samples(schema: Mapping[str, Any] | None) -> Iterator[Any]:
    """Make JSON that fits a schema, as far as it says what fits: patterns and validators may still refuse it."""
    maker = _Maker(schema.get("$defs", {}) if schema else {})
    for variant in range(_VARIANTS if schema else 0):
        try:
            yield maker.make(schema, variant, ())
        except RecursionError:  # it has no end, even with fields left out
            return


class _Maker:
    def __init__(self, definitions: Mapping[str, Any]) -> None:
        self.definitions = definitions

    def make(self, schema: Any, variant: int, above: tuple[str, ...]) -> Any:
        """Make one value. ``above`` names the definitions that it stands in, so that it comes to an end."""
        if len(above) > _DEEPEST:
            raise RecursionError
        known: dict[str, Any] = {} if isinstance(schema, (bool, type(None))) else schema  # where anything goes
        if "$ref" in known:
            name = known["$ref"].rpartition("/")[2]
            return self.make(self.definitions.get(name), variant, (*above, name))
        if "const" in known:
            return known["const"]
        if "enum" in known:
            return known["enum"][variant % len(known["enum"])]
        choices = known.get("anyOf") or known.get("oneOf")
        if choices and _is_deep(above):
            choices = [one for one in choices if one == {"type": "null"}] or choices
        if choices:
            return self.make(choices[variant % len(choices)], variant, above)
        return self._typed(known.get("type"), known, variant, above)

    def _typed(self, kind: Any, schema: dict[str, Any], variant: int, above: tuple[str, ...]) -> Any:
        match kind:
            case "object":
                return self._object(schema, variant, above)
            case "array":
                return self._array(schema, variant, above)
            case "boolean":
                return variant % 2 == 0
            case "null":
                return None
            case "integer" | "number":
                return (
                    _number(schema, 7 + variant, 1) if kind == "integer" else _number(schema, 7.56789 + variant, 0.001)
                )
            case _:
                return _string(schema, variant)

    def _object(self, schema: dict[str, Any], variant: int, above: tuple[str, ...]) -> Any:
        required = schema.get("required", ())
        bare = variant == 1 or _is_deep(above)
        made = {
            name: self.make(one, variant, above)
            for name, one in schema.get("properties", {}).items()
            if name in required or not bare
        }
        more = schema.get("additionalProperties")
        if isinstance(more, dict) and (not bare or schema.get("minProperties")):
            names = schema.get("propertyNames")
            key = (
                _KEYS[variant % len(_KEYS)] if names is None else self.make({"type": "string", **names}, variant, above)
            )
            made[str(key)] = self.make(more, variant, above)
        return made

    def _array(self, schema: dict[str, Any], variant: int, above: tuple[str, ...]) -> Any:
        made = [self.make(one, variant, above) for one in schema.get("prefixItems", ())]
        items = schema.get("items")
        if items is not None and items is not False:
            wanted = 0 if _is_deep(above) or variant == 1 else 2
            wanted = max(schema.get("minItems", 0), min(schema.get("maxItems", wanted), wanted))
            made += [self.make(items, variant + at, above) for at in range(wanted - len(made))]
        return made


def _is_deep(above: tuple[str, ...]) -> bool:
    """Whether a value stands inside its like, or so far inside that optional parts are better left out."""
    return len(above) > 6 or len(set(above)) < len(above) - 1


def _number(schema: Mapping[str, Any], wanted: float, step: float) -> float:
    lowest, highest = schema.get("minimum"), schema.get("maximum")
    if "exclusiveMinimum" in schema:
        lowest = schema["exclusiveMinimum"] + step
    if "exclusiveMaximum" in schema:
        highest = schema["exclusiveMaximum"] - step
    multiple = schema.get("multipleOf")
    if multiple:
        wanted = multiple * max(1, round(wanted / multiple))
    if lowest is not None and wanted < lowest:
        wanted = lowest if not multiple else multiple * -(-lowest // multiple)
    if highest is not None and wanted > highest:
        wanted = highest if not multiple else multiple * (highest // multiple)
    return wanted


def _string(schema: Mapping[str, Any], variant: int) -> str:
    kind = schema.get("contentEncoding") or schema.get("format") or schema.get("contentMediaType", "")
    known = _FORMATS.get(kind)
    if known:
        return known[variant % len(known)]
    if "pattern" in schema:
        return "1.10"  # what pydantic writes for Decimal; what fits another pattern can't be told
    text = _TEXT[variant:]
    shortest: int = schema.get("minLength", 0)
    longest: int = schema.get("maxLength", len(text))
    return (text * (shortest // len(text) + 1))[: max(shortest, min(len(text), longest))]
