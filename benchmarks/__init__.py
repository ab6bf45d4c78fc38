"""Measures what Diator costs: `python -m benchmarks`."""
