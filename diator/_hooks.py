"""The base of hooks. It stands apart from what they are told, which apps without hooks need not import."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from diator.hooks import Handled, Parked, Published, Received, Retried, Settled


class Hooks:
    """Override what you want to know, and pass an instance: ``Diator(..., hooks=[MyHooks()])``.

    Each method gets one object with the details and runs where the thing happens, so it must be quick. What it raises
    is logged, and changes nothing.
    """

    def published(self, details: "Published", /) -> None:
        """Events were handed to the broker."""

    def received(self, details: "Received", /) -> None:
        """Messages were taken from the broker."""

    def handled(self, details: "Handled", /) -> None:
        """A handler has ended."""

    def retried(self, details: "Retried", /) -> None:
        """A message will be delivered again."""

    def parked(self, details: "Parked", /) -> None:
        """A message becomes a dead letter."""

    def settled(self, details: "Settled", /) -> None:
        """The broker has taken down an outcome."""
