"""What has changed between two AsyncAPI documents, so that running consumers or stored messages would not fit."""

from collections.abc import Iterator
from typing import cast

from diator.cli.asyncapi_document import Document

_KINDS = ("type", "format", "enum", "const")


def incompatible_changes(old: Document, new: Document) -> Iterator[str]:
    """Name each change that breaks a consumer of the old events, or a reader of old messages."""
    was, now = _messages(old), _messages(new)
    for name, message in was.items():
        if name not in now:
            yield f"{name}: the event was removed"
            continue
        before, after = (_Schema(whole, _data(found)) for whole, found in ((old, message), (new, now[name])))
        yield from _changes(name, before, after, frozenset())


def _messages(document: Document) -> dict[str, Document]:
    found: dict[str, Document] = document.get("components", {}).get("messages", {})
    return {message.get("name", key): message for key, message in found.items()}


def _data(message: Document) -> Document:
    data: Document = message.get("payload", {}).get("properties", {}).get("data", {})
    return data


class _Schema:
    """A schema, with the document that its references point into."""

    def __init__(self, document: Document, schema: object) -> None:
        self.document = document
        self.schema = _object(schema)
        self.reference: str | None = self.schema.get("$ref")
        followed: set[str] = set()  # references of a document that others wrote may go round in circles
        while (reference := str(self.schema.get("$ref", ""))) and reference not in followed:
            followed.add(reference)
            self.schema = document
            for part in reference.removeprefix("#/").split("/"):
                self.schema = _object(self.schema.get(part))

    def inner(self, schema: object) -> "_Schema":
        return _Schema(self.document, schema)

    @property
    def fields(self) -> Document:
        found: Document = self.schema.get("properties", {})
        return found

    @property
    def required(self) -> frozenset[str]:
        return frozenset(self.schema.get("required", ()))

    @property
    def choices(self) -> list["_Schema"]:
        choices: list[object] = self.schema.get("anyOf") or self.schema.get("oneOf") or []
        return [self.inner(one) for one in choices]

    def kind(self) -> str:
        """What it holds, in words that two versions can be compared by."""
        if self.choices:
            return " or ".join(sorted(one.kind() for one in self.choices))
        return ", ".join(f"{self.schema[name]}" for name in _KINDS if name in self.schema) or "anything"


def _object(value: object) -> Document:
    """A schema as an object; ``true`` and ``false`` are schemas, too."""
    return cast("Document", value) if isinstance(value, dict) else {}


def _changes(path: str, old: _Schema, new: _Schema, seen: frozenset[tuple[str | None, str | None]]) -> Iterator[str]:
    if old.reference is not None and (old.reference, new.reference) in seen:
        return
    seen |= {(old.reference, new.reference)}
    if old.kind() != new.kind():
        yield f"{path}: the type has changed from {old.kind()} to {new.kind()}"
        return
    for name in sorted(old.fields.keys() - new.fields.keys()):
        yield f"{path}.{name}: the field was removed"
    for name in sorted(new.required - old.required):
        how = "is required now" if name in old.fields else "is new and required; give it a default"
        yield f"{path}.{name}: the field {how}"
    for name in sorted(old.fields.keys() & new.fields.keys()):
        yield from _changes(f"{path}.{name}", old.inner(old.fields[name]), new.inner(new.fields[name]), seen)
    for name, text in (("items", "[]"), ("additionalProperties", "{}")):
        if name in old.schema and name in new.schema:
            yield from _changes(f"{path}{text}", old.inner(old.schema[name]), new.inner(new.schema[name]), seen)
    if len(old.choices) == len(new.choices):
        for before, after in zip(old.choices, new.choices, strict=True):
            yield from _changes(path, before, after, seen)
