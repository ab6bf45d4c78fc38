"""The command line, ``diator``. Needs the extra ``cli``."""

import sys
from importlib.util import find_spec

__all__ = ["main"]

_LIBRARIES = ("typer", "rich")


def main() -> None:
    """Run the command line; without its libraries, say how to install them, and end with exit code 2."""
    missing = [name for name in _LIBRARIES if find_spec(name) is None]
    if missing:
        sys.stderr.write(
            f"The command line of Diator needs {' and '.join(missing)}. Install it with:\n\n"
            '    pip install "diator[cli]"\n\nor, in a project of uv:\n\n    uv add "diator[cli]"\n'
        )
        raise SystemExit(2)
    reconfigure = getattr(sys.stdout, "reconfigure", None)
    if reconfigure:  # the encoding of a pipe may lack letters that a name in Python may have
        reconfigure(errors="backslashreplace")
    from diator.cli.program import program  # noqa: PLC0415 - imports the libraries that may be missing

    program(prog_name="diator")
