"""The rodi container for Diator."""
