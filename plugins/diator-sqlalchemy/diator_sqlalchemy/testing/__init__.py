"""For tests: private servers of PostgreSQL and MariaDB that may be killed, stopped and started again.

``places`` is what the tests of this package share.
"""

from diator_sqlalchemy.testing.servers import REQUIRED_VARIABLE, DatabaseServer, MariaDBServer, PostgresServer

__all__ = [
    "REQUIRED_VARIABLE",
    "DatabaseServer",
    "MariaDBServer",
    "PostgresServer",
]
