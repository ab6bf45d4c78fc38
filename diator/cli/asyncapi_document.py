"""An app's events as an AsyncAPI 3.1 document: https://www.asyncapi.com/docs/reference/specification/v3.1.0."""

import inspect
import re
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from diator.brokers.port import Broker
from diator.delivery.catalog import Catalog, ConsumerConfig, EventType

Document = dict[str, Any]
"""``Any``: the specification nests objects of many kinds."""

_SCHEMAS = "#/components/schemas/{name}"
_CONTENT_TYPE = "application/cloudevents+json"
_OTHERS = re.compile(r"[^\w.-]", re.ASCII)
"""What the name of a component can't hold."""


def document(title: str, version: str, broker: Broker, catalog: Catalog) -> Document:
    """Describe what an app sends and receives. The same app gives the same document."""
    entries = sorted(catalog.event_types.values(), key=lambda entry: entry.contract.name)
    data, schemas = _data_schemas([entry.cls for entry in entries])
    messages = {_key(entry.contract.name): _message(entry, data[entry.cls]) for entry in entries}
    addresses = {entry.topic for entry in entries}
    addresses |= {topic.name for one in catalog.configs for topic in one.subscription.topics}
    found: Document = {
        "asyncapi": "3.1.0",
        "info": {"title": title, "version": version},
        "defaultContentType": _CONTENT_TYPE,
        "servers": _servers(broker),
        "channels": {_key(address): _channel(address, entries) for address in sorted(addresses)},
        "operations": {
            **{_key(f"send.{e.contract.name}"): _send(e) for e in entries if e.cls in catalog.published},
            **dict(_receive(one, topic.name) for one in catalog.configs for topic in one.subscription.topics),
        },
        "components": {"messages": messages, "schemas": dict(sorted(schemas.items()))},
    }
    return {name: part for name, part in found.items() if part}


def _servers(broker: Broker) -> Document:
    """The broker's server, without secrets; none in memory."""
    return {} if broker.address is None else {"broker": {"host": broker.address, "protocol": broker.system}}


def _channel(address: str, entries: Iterable[EventType]) -> Document:
    names = [entry.contract.name for entry in entries if _is_on(entry, address)]
    return {"address": address, "messages": {_key(name): _reference("components/messages", name) for name in names}}


def _is_on(entry: EventType, address: str) -> bool:
    """Whether an event may be on a topic: its own, or that of a former name."""
    return address == entry.topic or (entry.contract.topic is None and address in entry.names)


def _send(entry: EventType) -> Document:
    return {
        "action": "send",
        "channel": _reference("channels", entry.topic),
        "messages": [_reference(f"channels/{_key(entry.topic)}/messages", entry.contract.name)],
    }


def _receive(one: ConsumerConfig, topic: str) -> tuple[str, Document]:
    names = [entry.contract.name for entry in one.entries.values() if _is_on(entry, topic)]
    several = len(one.subscription.topics) > 1
    return _key(f"receive.{one.name}.{topic}" if several else f"receive.{one.name}"), {
        "action": "receive",
        "title": one.name,
        "channel": _reference("channels", topic),
        "messages": [_reference(f"channels/{_key(topic)}/messages", name) for name in dict.fromkeys(names)],
        "x-diator": {
            "subscription": one.name,
            "ordered": one.subscription.ordered,
            "attempts": one.retry.attempts,
            "timeout": float(one.timeout),
        },
    }


def _message(entry: EventType, data: Document) -> Document:
    contract = entry.contract
    terms = {"kind": entry.kind, "version": contract.version, "key": contract.key, "aliases": list(contract.aliases)}
    summary = (inspect.getdoc(entry.cls) or "").partition("\n")[0]
    found = {
        "name": contract.name,
        "title": entry.cls.__name__,
        "summary": "" if summary.startswith(f"{entry.cls.__name__}(") else summary,  # that of a dataclass
        "contentType": _CONTENT_TYPE,
        "payload": {
            "type": "object",
            "required": ["specversion", "id", "source", "type", "data"],
            "properties": {
                "specversion": {"const": "1.0"},
                "id": {"type": "string", "minLength": 1},
                "source": {"type": "string", "minLength": 1},
                "type": {"enum": list(entry.names)},
                "time": {"type": "string", "format": "date-time"},
                "datacontenttype": {"type": "string"},
                "partitionkey": {"type": "string"},
                "data": data,
            },
        },
        "x-diator": {name: value for name, value in terms.items() if value},
    }
    return {name: part for name, part in found.items() if part}


def _data_schemas(classes: Sequence[Any]) -> tuple[dict[Any, Document], Document]:
    """The schema of each class's data, and the schemas that these refer to. ``Any``: what pydantic adds to a class."""
    models = [cls for cls in classes if hasattr(cls, "model_json_schema")]
    others = [cls for cls in classes if cls not in models]
    found, schemas = msgspec.json.schema_components(others, ref_template=_SCHEMAS)
    of = dict(zip(others, found, strict=True))
    for cls in models:
        name = cls.__name__ if cls.__name__ not in schemas else f"{cls.__module__}.{cls.__qualname__}"
        schema = cls.model_json_schema(mode="serialization", ref_template=_SCHEMAS.replace("name", "model"))
        schemas.update(schema.pop("$defs", {}))
        if "$ref" not in schema:  # a model that refers to itself is among its definitions
            schemas[name] = schema
        of[cls] = {"$ref": _SCHEMAS.format(name=name)}
    return of, schemas


def _key(name: str) -> str:
    """The name of a component for a name of any kind."""
    return _OTHERS.sub("_", name)


def _reference(where: str, name: str) -> Document:
    return {"$ref": f"#/{where}/{_key(name)}"}
