"""Telling hooks what happens; what they raise is logged, and stops nothing."""

from diator._hooks import Telling

__all__ = ["Telling"]
