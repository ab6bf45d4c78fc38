"""The svcs container for Diator."""
