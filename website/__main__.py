"""Builds the documentation site, or serves it: ``uv run --group docs python -m website [serve]``.

It needs Python 3.11 or newer. The site is written to ``.site/html``.
"""

import argparse
import subprocess
import sys

from website.check import foreign_addresses
from website.pages import ROOT, collect_pages, navigation

SITE = ROOT / ".site"


def prepare() -> None:
    """Write the pages, and the configuration with the navigation."""
    collect_pages(SITE / "pages")
    head, project, rest = (ROOT / "zensical.toml").read_text(encoding="utf-8").partition("[project]\n")
    config = f"{head}{project}{navigation(SITE / 'pages')}{rest}"
    (SITE / "zensical.toml").write_text(config, encoding="utf-8")


def run(*arguments: str) -> int:
    """Run Zensical."""
    return subprocess.run(
        [sys.executable, "-m", "zensical", *arguments, "-f", "zensical.toml"], cwd=SITE, check=False
    ).returncode


def main() -> int:
    """Build or serve, and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m website", description="Build the documentation site, or serve it.")
    help_text = "build writes the site to .site/html (default); serve shows it at http://localhost:8000"
    parser.add_argument("action", nargs="?", choices=["build", "serve"], default="build", help=help_text)
    action = parser.parse_args().action
    prepare()
    if action == "serve":
        return run("serve")
    status = run("build", "--strict", "--clean")
    foreign = list(foreign_addresses(SITE / "html"))
    sys.stderr.writelines(f"{problem}\n" for problem in foreign)
    return status or bool(foreign)


if __name__ == "__main__":
    sys.exit(main())
