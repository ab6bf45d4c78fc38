"""Classes of events that come after the start, and classes that another one has taken the place of."""

import importlib
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import attrs
import pytest

from diator import Command, ConfigurationError, Diator, NotificationEvent, Publish
from diator.testing import record


@dataclass(frozen=True)
class Go(Command[None]):
    pass


def app_of(base: Any) -> Diator:
    """An app that handles and publishes a base of events."""
    app = Diator("meetings", broker="memory://")

    async def audit(event: Any) -> None: ...

    app.add_event_handler(audit, base)
    app.publishes(base)
    return app


def slotted() -> tuple[Any, ...]:
    class Base(NotificationEvent): ...

    @dataclass(frozen=True, slots=True)
    class Joined(Base):
        user: int

    @dataclass(frozen=True, slots=True)
    class Renamed(Joined):
        name: str = ""

    return Base, Renamed


def defined() -> tuple[Any, ...]:
    class Base(NotificationEvent): ...

    @attrs.define
    class Joined(Base):
        user: int

    @attrs.define
    class Renamed(Joined):
        name: str = ""

    return Base, Renamed


def defined_again() -> tuple[Any, ...]:
    """As by a cell of a notebook that runs again."""

    class Base(NotificationEvent): ...

    def cell() -> object:
        @dataclass(frozen=True)
        class Joined(Base):
            user: int

        return Joined

    return Base, cell(), cell(), cell()


@pytest.mark.parametrize("define", [slotted, defined, defined_again])
def test_superseded_classes_do_not_count(define: Callable[[], tuple[Any, ...]]) -> None:
    base, *kept = define()
    assert kept
    assert not app_of(base).check()


def test_a_superseded_class_does_not_count_when_its_successor_has_another_base(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where classes are looked up by name, their order among the subclasses decides nothing."""
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    (tmp_path / "superseded_base.py").write_text(
        "from diator import NotificationEvent\n\nclass Base(NotificationEvent): ...\nclass Middle(Base): ...\n"
    )
    module = tmp_path / "superseded_events.py"
    text = "from dataclasses import dataclass\nfrom superseded_base import Base, Middle\n"
    text += "\n@dataclass(frozen=True)\nclass Joined(Middle):\n    user: int\n"
    module.write_text(text)
    first = importlib.import_module("superseded_events")
    kept = first.Joined
    module.write_text(text.replace("(Middle)", "(Base)"))
    importlib.invalidate_caches()
    sys.modules.pop("superseded_events")
    second = importlib.import_module("superseded_events")
    assert second.Joined is not kept
    assert not app_of(sys.modules["superseded_base"].Base).check()


async def test_reloaded_events_reach_the_handler_of_their_base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Base(NotificationEvent): ...

    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    (tmp_path / "reloaded_events.py").write_text(
        "import sys\nfrom dataclasses import dataclass\n\nBase = sys.base_of_the_test\n\n"
        "@dataclass(frozen=True)\nclass Joined(Base):\n    user: int\n"
    )
    monkeypatch.setattr(sys, "base_of_the_test", Base, raising=False)
    module = importlib.import_module("reloaded_events")
    kept = module.Joined
    importlib.reload(module)
    assert module.Joined is not kept
    app, seen = Diator("meetings", broker="memory://"), list[Any]()

    @app.on_event
    async def audit(event: Base) -> None:
        seen.append(event)

    async with app.testing() as session:
        await session.publish(module.Joined(1))
        await session.settled()
    assert seen == [module.Joined(1)]


async def test_an_event_that_its_handler_would_miss_fails_and_is_handled_after_the_next_start() -> None:
    class Base(NotificationEvent): ...

    @dataclass(frozen=True)
    class Known(Base):
        number: int = 0

    app, seen, late = Diator("meetings", broker="memory://"), list[Any](), list[Any]()

    @app.on_event
    async def audit(event: Base) -> None:
        seen.append(event)

    @app.command
    async def go(command: Go, publish: Publish[Base]) -> None:
        publish(late[0]())

    async with app:

        @dataclass(frozen=True)
        class Lazy(Base):
            number: int = 0

        late.append(Lazy)
        await app.publish(Known())
        for _ in range(2):
            with pytest.raises(ConfigurationError, match=r"Lazy was published, .* audit, which handles Base"):
                await app.publish(Lazy())
            with pytest.raises(ConfigurationError, match="Lazy was published"):
                await app.send(Go())
        with pytest.raises(ConfigurationError) as caught:
            await app.publish(Known(), Lazy())
        (problem,) = caught.value.problems
        assert problem.code == "late-event"
        assert __name__ in problem.fix
        assert problem.location is not None
    async with app.testing() as session:
        await session.publish(Known(1), Lazy(2))
        await session.settled()
    assert seen == [Known(1), Lazy(2)]
    seen.clear()
    async with app, app.worker():
        with record(app) as recorded:
            await app.publish(Lazy(3))
        assert len(recorded.published) == 1


async def test_a_problem_of_a_late_class_is_told_at_the_next_start() -> None:
    class Base(NotificationEvent): ...

    @dataclass(frozen=True)
    class Known(Base):
        number: int = 0

    app = Diator("meetings", broker="memory://")
    app.publishes(Base)
    async with app:
        pass

    @dataclass(frozen=True)
    class Strange(Base):
        inner: object

    with pytest.raises(ConfigurationError, match="Strange"):
        async with app:
            pass
    assert len(app.check()) == 1, (Known, Strange)  # which are kept alive until here
