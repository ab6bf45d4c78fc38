"""What Diator costs over Redis, against redis-py and other libraries: ``python -m benchmarks.redis``."""
