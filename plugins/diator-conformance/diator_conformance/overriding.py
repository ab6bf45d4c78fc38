"""What all suites share: a case may be overridden only as an expected failure, with a reason."""

from collections.abc import Callable
from typing import Any, TypeVar

import pytest

# Any: cases take what their suites pass to them.
F = TypeVar("F", bound=Callable[..., Any])

_MARK = "diator_case"


def own_case(run: F) -> F:
    """Make a case of a test method."""
    setattr(run, _MARK, True)
    return run


class Suite:
    """The base of the suites."""

    def __init_subclass__(cls, **kwargs: object) -> None:
        """Ensure that overridden cases are marked as expected failures with a reason."""
        super().__init_subclass__(**kwargs)
        for name, value in vars(cls).items():
            replaced = any(hasattr(getattr(base, name, None), _MARK) for base in cls.__mro__[1:])
            if replaced and not _has_xfail_with_reason(value):
                text = f"{cls.__qualname__}.{name} replaces a case of the suite"
                raise TypeError(f'{text}; mark it with @pytest.mark.xfail(reason="why it cannot pass"), or remove it')


def _has_xfail_with_reason(case: object) -> bool:
    marks: list[pytest.Mark] = getattr(case, "pytestmark", [])
    return any(mark.name == "xfail" and mark.kwargs.get("reason") for mark in marks)
