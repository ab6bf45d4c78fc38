"""Puts one bug after the other into a copy of the repository, and tells which ones the tests find.

``python -m tests.mutations`` tries all, ``python -m tests.mutations NAME...`` those whose names begin so. The tests run
without a bug first, as a test that fails anyway finds nothing. The status is 1 where a bug survives.
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.mutations.mutation import Mutation
from tests.mutations.redis import REDIS
from tests.mutations.worker import WORKER

ROOT = Path(__file__).resolve().parents[2]
TIMEOUT = 300.0
"""Seconds after which tests that do not end have found the bug."""


def main(prefixes: Sequence[str]) -> int:
    """Try mutations, and tell how many survived."""
    chosen = [one for one in (*WORKER, *REDIS) if not prefixes or one.name.startswith(tuple(prefixes))]
    if not chosen:
        print(f"no mutation begins with {', '.join(prefixes)}")
        return 2
    with a_copy() as copy:
        tests = list(dict.fromkeys(test for one in chosen for test in one.tests))
        if (failed := tested(copy, tests, TIMEOUT * 10)) and tested(copy, tests, TIMEOUT * 10):  # a machine may be busy
            print(f"the tests fail without a mutation: {failed}")
            return 2
        survivors = [one for one in chosen if not is_caught(copy, one)]
    print(f"{len(chosen) - len(survivors)} of {len(chosen)} were caught")
    for one in survivors:
        print(f"  survived: {one.name}: {one.breaks}")
    return bool(survivors)


def is_caught(copy: Path, mutation: Mutation) -> bool:
    """Put one bug in, run its tests, and take it out again."""
    file = copy / mutation.file
    before = file.read_text(encoding="utf-8")
    file.write_text(mutation.applied(copy), encoding="utf-8")
    try:
        failed = tested(copy, mutation.tests, TIMEOUT)
    finally:
        file.write_text(before, encoding="utf-8")
    print(f"{'caught  ' if failed else 'SURVIVED'}  {mutation.name}: {failed or mutation.breaks}", flush=True)
    return bool(failed)


def tested(copy: Path, tests: Sequence[str], timeout: float) -> str:
    """Run tests in the copy; give what failed first, or nothing."""
    command = [sys.executable, "-B", "-m", "pytest", "-q", "-x", "--tb=no"]
    command += ["-p", "no:cacheprovider", "-p", "tests.mutations.unshrunk", *tests]
    running = subprocess.Popen(
        command, cwd=copy, env=environment(copy), stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        output, _ = running.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        return f"the tests do not end within {timeout:g} s"
    finally:
        if running.poll() is None:  # with the servers that the tests have started
            os.killpg(running.pid, signal.SIGKILL)
            running.communicate()
    if running.returncode not in (0, 1):
        raise RuntimeError(f"pytest could not run {tests}:\n{output}")
    failed = [line for line in output.splitlines() if line.startswith(("FAILED", "ERROR"))]
    return "" if running.returncode == 0 else (failed or output.splitlines())[0]


@contextmanager
def a_copy() -> Generator[Path]:
    """Copy what git knows of, as it is in the working tree, and see that it is the copy that Python imports."""
    with tempfile.TemporaryDirectory(prefix="diator-mutations-") as folder:
        copy = Path(folder)
        listed = subprocess.check_output(["git", "ls-files", "-z", "-co", "--exclude-standard"], cwd=ROOT, text=True)
        for name in filter(None, listed.split("\0")):
            if (ROOT / name).is_file():
                (copy / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, copy / name)
        show = "import diator, diator_redis; print(diator.__file__, diator_redis.__file__, sep='\\n')"
        found = subprocess.check_output([sys.executable, "-c", show], cwd=copy, env=environment(copy), text=True)
        for file in found.splitlines():
            if not Path(file).is_relative_to(copy):
                raise RuntimeError(f"{file} would be tested, and not the copy in {copy}")
        yield copy


def environment(copy: Path) -> dict[str, str]:
    """Give variables under which Python, in whatever process, imports what is in the copy."""
    paths = [str(copy), *sorted(str(path) for path in copy.glob("plugins/*"))]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTHONDONTWRITEBYTECODE": "1"}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
