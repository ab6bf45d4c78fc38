"""The page about the app names everything that an app, and the errors, offer."""

from pathlib import Path

import diator
from diator import Diator, Sender

PAGE = (Path(__file__).parents[1] / "docs" / "reference" / "app.md").read_text()


def test_the_page_names_every_public_method_of_the_app() -> None:
    names = {name for cls in (Diator, Sender) for name in dir(cls) if not name.startswith("_") and hasattr(cls, name)}
    assert {name for name in names if f"app.{name}" not in PAGE} == set()


def test_the_page_names_every_error_but_those_below_container_error() -> None:
    errors = [getattr(diator, name) for name in diator.__all__ if name.endswith("Error")]
    named = [error.__name__ for error in errors if diator.ContainerError not in error.__mro__[1:]]
    assert [name for name in named if f"`{name}`" not in PAGE] == []
