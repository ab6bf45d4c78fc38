"""The rodi container for Diator: ``Diator(container=rodi.Container())``."""

from diator_rodi._container import RodiContainer

__all__ = ["RodiContainer"]
