"""Containers: the port that plugins implement (`port`), how a plugin is found (`find`), and helpers for plugins.

`graph` walks the dependency graph of a library, `closing` contains the rule for closing resources, `keys` converts keys
to hints, and `factories` inspects factories without running them.
"""

from diator._keys import Key
from diator.containers.closing import NOTHING_TO_CLOSE, ResourceStack, close_in_reverse, exit_arguments
from diator.containers.factories import call_error, is_abstract, is_of, is_placeholder, unfinished
from diator.containers.graph import GraphContainer, Need, Provider, Reason, check, require, senders_provide
from diator.containers.keys import hint_of, key_of
from diator.containers.port import (
    Container,
    ContainerCapability,
    ImmediateContainer,
    InspectableContainer,
    Lifetime,
    Resolver,
    ValidationResult,
)

__all__ = [
    "NOTHING_TO_CLOSE",
    "Container",
    "ContainerCapability",
    "GraphContainer",
    "ImmediateContainer",
    "InspectableContainer",
    "Key",
    "Lifetime",
    "Need",
    "Provider",
    "Reason",
    "Resolver",
    "ResourceStack",
    "ValidationResult",
    "call_error",
    "check",
    "close_in_reverse",
    "exit_arguments",
    "hint_of",
    "is_abstract",
    "is_of",
    "is_placeholder",
    "key_of",
    "require",
    "senders_provide",
    "unfinished",
]
