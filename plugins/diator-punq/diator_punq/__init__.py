"""The punq container for Diator."""
