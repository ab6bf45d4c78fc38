"""Telling hooks what happens; what they raise is logged, and stops nothing."""

import logging
from collections.abc import Callable, Iterable
from typing import Any

from diator._hooks import NAMES, Hooks

logger = logging.getLogger("diator")


class Telling:
    """The hooks of one app. What nobody overrides costs one look-up."""

    def __init__(self, hooks: Iterable[Hooks] = ()) -> None:
        self._heard: dict[str, list[Callable[[Any], None]]] = {name: [] for name in NAMES}
        for hook in hooks:
            self.add(hook)

    def add(self, hook: Hooks) -> None:
        """Tell one more."""
        for name, heard in self._heard.items():
            if getattr(type(hook), name) is not getattr(Hooks, name):
                heard.append(getattr(hook, name))

    def remove(self, hook: Hooks) -> None:
        """Tell it no more."""
        for name, heard in self._heard.items():
            self._heard[name] = [method for method in heard if getattr(method, "__self__", None) is not hook]

    def hears(self, name: str) -> bool:
        """Whether anybody wants to know, so that details need not be made for nobody."""
        return bool(self._heard[name])

    def tell(self, name: str, details: object) -> None:
        """Tell everybody who wants to know."""
        for method in self._heard[name]:
            try:
                method(details)
            except KeyboardInterrupt:
                raise
            except BaseException:  # a hook must not affect a message, nor cancel its publisher
                logger.exception("the hook %s of %s failed", name, type(getattr(method, "__self__", method)).__name__)
