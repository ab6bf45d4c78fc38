"""The dishka container for Diator: ``Diator(container=make_async_container(...))``."""

from diator_dishka._container import DishkaContainer

__all__ = ["DishkaContainer"]
