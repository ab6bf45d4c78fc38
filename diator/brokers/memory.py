"""The broker in memory (`memory://`)."""

class MemoryBroker:
    """Written next."""
