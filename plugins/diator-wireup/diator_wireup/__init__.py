"""The wireup container for Diator."""
