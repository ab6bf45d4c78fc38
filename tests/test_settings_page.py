"""docs/reference/settings.md has every setting with its default."""

import inspect
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from diator import Diator, Retry
from diator.brokers import MemoryBroker
from diator.brokers.find import KNOWN

PAGE = (Path(__file__).parents[1] / "docs" / "reference" / "settings.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("heading", "owner"),
    [
        ("## The app", Diator.__init__),
        ("## Handlers", Diator.add_event_handler),
        ("## Retry policies", Retry.__init__),
        ("### The broker in memory", MemoryBroker.__init__),
    ],
)
def test_page_has_each_setting_and_its_default(heading: str, owner: Callable[..., object]) -> None:
    section = re.split(r"^##", PAGE.partition(f"\n{heading}\n")[2], maxsplit=1, flags=re.MULTILINE)[0]
    written = dict(re.findall(r"^\| `(\w+)` \| `(.*?)` \|", section, re.MULTILINE))
    parameters = inspect.signature(owner).parameters.values()
    options = [one for one in parameters if one.name not in {"self", "handler", "event"}]
    assert written == {one.name: repr(one.default) for one in options}


def test_page_has_the_address_of_each_broker() -> None:
    section = PAGE.partition("\n## Addresses of brokers\n")[2]
    assert [scheme for scheme in KNOWN if f"`{scheme}://`" not in section] == []
