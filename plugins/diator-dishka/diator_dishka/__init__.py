"""The dishka container for Diator."""
