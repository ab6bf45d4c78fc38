"""For tests: private servers of PostgreSQL and MariaDB, which can be killed, suspended and restarted.

``places`` contains what the tests of this package share.
"""

from diator_sqlalchemy.testing.servers import REQUIRED_VARIABLE, DatabaseServer, MariaDBServer, PostgresServer

__all__ = [
    "REQUIRED_VARIABLE",
    "DatabaseServer",
    "MariaDBServer",
    "PostgresServer",
]
