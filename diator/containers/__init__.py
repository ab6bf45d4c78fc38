"""Containers: the port that plugins implement (`port`), and how a plugin is found (`find`)."""

from diator._keys import Key
from diator.containers.port import Capability, Container, Lifetime, Resolver, Validation

__all__ = ["Capability", "Container", "Key", "Lifetime", "Resolver", "Validation"]
