"""Measures Diator over Redis, prints a table and writes RESULTS-redis.md; ends with 1 where a target is missed."""

import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

from diator_redis.testing import RedisServer
from redis import Redis

from benchmarks.contest import compete, conclude, options_of, system
from benchmarks.redis.matches import MATCHES

RESULTS = Path(__file__).parent.parent / "RESULTS-redis.md"
ROUNDS = 9
HEAD = """\
# Results over Redis

Written by `python -m benchmarks.redis`, on {system}, Redis {server}, {packages}. The
[README](README.md#over-redis) says how each figure comes about."""


def main() -> int:
    """Run from the command line."""
    options = options_of("benchmarks.redis", __doc__)
    if sys.hexversion < 0x030B0000:
        print("The targets and the libraries that are raced are for Python 3.11 and newer; nothing was measured.")
        return 0 if options.quick else 2
    matches = [match for match in MATCHES if options.only in f"{match.what} / {match.against}"]
    with RedisServer() as server:
        compete(matches, server.url, options, ROUNDS, quick_count=200)
        client: Any = Redis(port=server.port)
        version_of_server: str = client.info("server")["redis_version"]
    packages = ", ".join(f"{name} {version(name)}" for name in ("redis", "hiredis"))
    return conclude(
        matches, HEAD.format(system=system(), server=version_of_server, packages=packages), options, RESULTS
    )


if __name__ == "__main__":
    sys.exit(main())
