"""The punq container for Diator: ``Diator(container=punq.Container())``."""

from diator_punq._container import PunqContainer

__all__ = ["PunqContainer"]
