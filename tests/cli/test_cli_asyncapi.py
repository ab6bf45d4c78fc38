"""``diator asyncapi``: the document, and what it says of changes."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from tests.cli.prompt import run, write

SHOP = '''
from pydantic import BaseModel
app = Diator("orders", broker="redis://user:secret@localhost:6379/0")

@dataclass(frozen=True)
class Line:
    article: str
    count: int = 1

@contract("orders.placed", key="order_id", aliases=("orders.ordered",))
@dataclass(frozen=True)
class OrderPlaced(NotificationEvent):
    """A customer has placed an order."""
    order_id: int
    lines: list[Line]
    note: str | None = None

@contract("orders.paid", version=2, topic="payments")
class OrderPaid(BaseModel, ECSTEvent):
    amount: int
    parts: dict[str, "OrderPaid"] = {}

@contract("elsewhere.shipped:all")
@dataclass(frozen=True)
class Shipped(NotificationEvent):
    order_id: int

@dataclass
class Place(Command[None]): ...

@app.command
async def place(command: Place, publish: Publish[OrderPlaced | OrderPaid]) -> None: ...
@app.on_event
async def confirm(event: OrderPlaced | Shipped) -> None: ...
'''


def described(folder: Path, source: str = SHOP, *options: str) -> dict[str, Any]:
    write(folder, source)
    done = run(folder, "asyncapi", "meetings:app", *options)
    assert (done.code, done.stderr) == (0, "")
    found: dict[str, Any] = yaml.safe_load(done.stdout)
    return found


def test_it_describes_what_is_sent_and_received(tmp_path: Path) -> None:
    found = described(tmp_path, SHOP, "--api-version", "1.2.3")
    assert (found["asyncapi"], found["info"]) == ("3.1.0", {"title": "orders", "version": "1.2.3"})
    assert found["servers"] == {"broker": {"host": "localhost:6379", "protocol": "redis"}}
    assert {name: list(channel["messages"]) for name, channel in found["channels"].items()} == {
        "elsewhere.shipped_all": ["elsewhere.shipped_all"],
        "orders.ordered": ["orders.placed"],
        "orders.placed": ["orders.placed"],
        "payments": ["orders.paid"],
    }
    assert found["channels"]["elsewhere.shipped_all"]["address"] == "elsewhere.shipped:all"
    assert {name: one["action"] for name, one in found["operations"].items()} == {
        "send.orders.paid": "send",
        "send.orders.placed": "send",
        "receive.orders.confirm.orders.placed": "receive",
        "receive.orders.confirm.orders.ordered": "receive",
        "receive.orders.confirm.elsewhere.shipped_all": "receive",
    }
    placed = found["components"]["messages"]["orders.placed"]
    assert (placed["title"], placed["summary"]) == ("OrderPlaced", "A customer has placed an order.")
    assert placed["x-diator"] == {
        "kind": "notification",
        "version": 1,
        "key": "order_id",
        "aliases": ["orders.ordered"],
    }
    assert "secret" not in json.dumps(found)


def test_json_holds_the_same(tmp_path: Path) -> None:
    found = described(tmp_path)
    done = run(tmp_path, "asyncapi", "meetings:app", "--json")
    assert json.loads(done.stdout) == found


@pytest.mark.parametrize(
    ("message", "data"),
    [
        ("orders.placed", {"order_id": 7, "lines": [{"article": "tea", "count": 2}], "note": None}),
        ("orders.paid", {"amount": 5, "parts": {"a": {"amount": 2, "parts": {}}}}),
    ],
)
def test_the_schemas_fit_what_stands_on_the_wire(tmp_path: Path, message: str, data: dict[str, Any]) -> None:
    document = described(tmp_path)
    schema = {**document["components"]["messages"][message]["payload"], "components": document["components"]}
    event = {"specversion": "1.0", "id": "1", "source": "orders", "type": message, "data": data}
    jsonschema.validate(event, schema)
    for wrong in ({**event, "type": "other"}, {**event, "data": {**data, **dict.fromkeys(data, "x")}}, {"data": data}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(wrong, schema)


PARSER = os.environ.get("DIATOR_TEST_ASYNCAPI_PARSER")
VALIDATE = """
import {Parser} from '@asyncapi/parser';
import fs from 'fs';
const found = await new Parser().validate(fs.readFileSync(0, 'utf8'));
for (const one of found) console.log(one.code, one.path.join('.'), one.message);
"""


@pytest.mark.once
@pytest.mark.skipif(
    PARSER is None,
    reason="npm install --prefix DIR @asyncapi/parser@3.6.3, then set DIATOR_TEST_ASYNCAPI_PARSER=DIR",
)
def test_the_official_parser_finds_no_fault(tmp_path: Path) -> None:
    assert PARSER is not None
    script = Path(PARSER) / "validate.mjs"
    script.write_text(VALIDATE)
    text = json.dumps(described(tmp_path))
    done = subprocess.run(["node", script], input=text, capture_output=True, text=True, check=False, timeout=120)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize(
    ("before", "after", "change"),
    [
        ("note: str | None = None", "", "orders.placed.note: the field was removed"),
        (
            "order_id: int\n    lines",
            "order_id: str\n    lines",
            "orders.placed.order_id: the type has changed from integer to string",
        ),
        (
            "lines: list[Line]",
            "lines: list[Line]\n    customer: int",
            "orders.placed.customer: the field is new and required; give it a default",
        ),
        (
            "lines: list[Line]\n    note: str | None = None",
            "lines: list[Line]\n    note: str | None",
            "orders.placed.note: the field is required now",
        ),
        (
            "note: str | None = None",
            "note: str = ''",
            "orders.placed.note: the type has changed from null or string to string",
        ),
        ("    count: int = 1", "", "orders.placed.lines[].count: the field was removed"),
        ('"orders.placed", key', '"orders.taken", key', "orders.placed: the event was removed"),
        ("lines: list[Line]", "lines: list[Line]\n    customer: int = 0", None),
        ("    amount: int", "    amount: int | None = None", "orders.paid.amount: the type has changed"),
    ],
)
def test_incompatible_changes_are_named(tmp_path: Path, before: str, after: str, change: str | None) -> None:
    write(tmp_path, SHOP)
    old = tmp_path / "asyncapi.yaml"
    old.write_text(run(tmp_path, "asyncapi", "meetings:app").stdout)
    same = run(tmp_path, "asyncapi", "meetings:app", "--check", str(old))
    assert (same.code, same.stdout) == (0, "no incompatible changes\n")
    assert before in SHOP
    write(tmp_path, SHOP.replace(before, after, 1), "changed")
    done = run(tmp_path, "asyncapi", "changed:app", "--check", str(old))
    assert done.code == (0 if change is None else 1)
    assert all(line.startswith(change or "no incompatible changes") for line in done.stdout.splitlines())
    as_json = run(tmp_path, "asyncapi", "changed:app", "--check", str(old), "--json")
    assert json.loads(as_json.stdout) == (done.stdout.splitlines() if change else [])


@pytest.mark.parametrize("text", [None, "a: [", "openapi: 3.1.0"])
def test_what_is_no_document_is_a_usage_error(tmp_path: Path, text: str | None) -> None:
    write(tmp_path, SHOP)
    if text is not None:
        (tmp_path / "old.yaml").write_text(text)
    done = run(tmp_path, "asyncapi", "meetings:app", "--check", str(tmp_path / "old.yaml"))
    assert done.code == 2
    assert "old.yaml" in done.stderr


def test_an_app_without_a_broker_has_nothing_to_describe(tmp_path: Path) -> None:
    write(tmp_path, "app = Diator('orders')")
    done = run(tmp_path, "asyncapi", "meetings:app")
    assert done.code == 1
    assert "has no message broker" in done.stderr
