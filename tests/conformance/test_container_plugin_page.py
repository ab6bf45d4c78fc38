"""The plugin on the page for authors of container plugins passes the suite as the page says."""

import re
import subprocess
import sys
from pathlib import Path

from diator.containers.find import GROUP

PAGE = Path(__file__).parents[2] / "docs" / "plugin-authors" / "writing-a-container-plugin.md"


def blocks(language: str) -> list[str]:
    """The code blocks of the page."""
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def test_the_plugin_of_the_page_passes_the_suite(tmp_path: Path) -> None:
    (tmp_path / "test_page.py").write_text("\n".join(blocks("python")), encoding="utf-8")
    options = ["-q", "-rx", "-W", "error", "-o", "xfail_strict=true", "-p", "no:asyncio"]
    command = [sys.executable, "-m", "pytest", *options, "test_page.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert "the toolbox looks up every parameter" in done.stdout
    assert "without QUALIFIERS: the toolbox has one provider for each type" in done.stdout


def test_the_entry_point_of_the_page_is_in_the_group_that_is_searched() -> None:
    (skeleton,) = blocks("toml")
    assert f'[project.entry-points."{GROUP}"]' in skeleton
