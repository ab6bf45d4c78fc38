"""Containers: the port that plugins implement (`port`), how a plugin is found (`find`), and a help for plugins."""

from diator._keys import Key
from diator.containers.placeholder import is_placeholder
from diator.containers.port import Capability, Container, Lifetime, Resolver, Validation

__all__ = ["Capability", "Container", "Key", "Lifetime", "Resolver", "Validation", "is_placeholder"]
