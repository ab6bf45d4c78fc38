"""Outbox and inbox for Diator in the database that handlers write to through SQLAlchemy."""

from diator_sqlalchemy._store import SQLAlchemyStore
from diator_sqlalchemy._tables import add_tables

__all__ = [
    "SQLAlchemyStore",
    "add_tables",
]
