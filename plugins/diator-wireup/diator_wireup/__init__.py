"""The wireup container for Diator: ``Diator(container=create_async_container(...))``."""

from diator_wireup._container import WireupContainer

__all__ = ["WireupContainer"]
