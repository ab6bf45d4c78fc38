"""Traces and metrics of Diator with OpenTelemetry: ``Diator(..., hooks=[OpenTelemetry()])``."""

from diator_opentelemetry._hooks import OpenTelemetry

__all__ = ["OpenTelemetry"]
