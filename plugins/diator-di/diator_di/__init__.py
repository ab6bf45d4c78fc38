"""The di container for Diator: ``Diator(container=di.Container())``."""

from diator_di._container import DiContainer

__all__ = ["DiContainer"]
