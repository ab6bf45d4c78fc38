"""The di container for Diator."""
