"""Diator: a CQRS microframework. Handlers register themselves with decorators on one app object."""

from diator._keys import Named
from diator._places import Place
from diator.app import Diator, Sender
from diator.context import Context, Publish
from diator.engine.maps import EventMap, RequestMap
from diator.engine.stream import Rows, Stream
from diator.errors import (
    CallNextError,
    ConfigurationError,
    ContainerError,
    DependencyCycleError,
    DependencyNotFoundError,
    DiatorError,
    InvalidMessageError,
    LatePublishError,
    LifetimeMismatchError,
    NotProvidedError,
    NotRunningError,
    Problem,
    ScopeClosedError,
    UndeclaredEventError,
    UnknownRequestError,
    UnsupportedRegistrationError,
)
from diator.messages import (
    Command,
    DomainEvent,
    ECSTEvent,
    Event,
    Message,
    NotificationEvent,
    Query,
    Request,
    contract,
)
from diator.middleware import CallNext, LoggingMiddleware, TimeoutMiddleware
from diator.router import Router

__all__ = [
    "CallNext",
    "CallNextError",
    "Command",
    "ConfigurationError",
    "ContainerError",
    "Context",
    "DependencyCycleError",
    "DependencyNotFoundError",
    "Diator",
    "DiatorError",
    "DomainEvent",
    "ECSTEvent",
    "Event",
    "EventMap",
    "InvalidMessageError",
    "LatePublishError",
    "LifetimeMismatchError",
    "LoggingMiddleware",
    "Message",
    "Named",
    "NotProvidedError",
    "NotRunningError",
    "NotificationEvent",
    "Place",
    "Problem",
    "Publish",
    "Query",
    "Request",
    "RequestMap",
    "Router",
    "Rows",
    "ScopeClosedError",
    "Sender",
    "Stream",
    "TimeoutMiddleware",
    "UndeclaredEventError",
    "UnknownRequestError",
    "UnsupportedRegistrationError",
    "contract",
]
