"""Meetings that people join over HTTP, and are welcomed to by a worker."""
