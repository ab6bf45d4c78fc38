"""Drivers: the same few works, done with one library each, in an environment that has this library alone."""
