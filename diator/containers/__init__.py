"""Containers: the port that plugins implement (`port`), how a plugin is found (`find`), and what helps to write one.

`closing` has the rule by which resources close, `placeholder` tells factories that give nothing.
"""

from diator._keys import Key
from diator.containers.closing import close_in_reverse, exit_arguments
from diator.containers.placeholder import is_placeholder
from diator.containers.port import Capability, Container, Lifetime, Resolver, Validation

__all__ = [
    "Capability",
    "Container",
    "Key",
    "Lifetime",
    "Resolver",
    "Validation",
    "close_in_reverse",
    "exit_arguments",
    "is_placeholder",
]
