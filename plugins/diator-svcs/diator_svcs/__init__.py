"""The svcs container for Diator."""

from diator_svcs._container import SvcsContainer

__all__ = ["SvcsContainer"]
