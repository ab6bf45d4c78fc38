"""What PyPI gets to show of each distribution: its metadata, and its README, whose links must work there."""

import re
from collections.abc import Iterator
from email.message import Message
from importlib.metadata import distribution
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FOLDERS = {"diator": ROOT} | {folder.name: folder for folder in sorted((ROOT / "plugins").iterdir())}
REPOSITORY = "https://github.com/akhundMurad/diator"
RAW = "https://raw.githubusercontent.com/akhundMurad/diator/main/"
README = (ROOT / "README.md").read_text(encoding="utf-8")

pytestmark = pytest.mark.once


@pytest.fixture(params=list(FOLDERS))
def name(request: pytest.FixtureRequest) -> str:
    found: str = request.param
    return found


@pytest.fixture
def metadata(name: str) -> Message:
    found = distribution(name).metadata
    assert isinstance(found, Message)
    return found


def test_a_distribution_tells_what_it_is_and_where_it_comes_from(name: str, metadata: Message) -> None:
    urls = dict(line.split(", ") for line in metadata.get_all("Project-URL", []))
    where = "" if name == "diator" else f"/tree/main/plugins/{name}"
    assert urls == {
        "Homepage": REPOSITORY,
        "Documentation": f"{REPOSITORY}/tree/main/docs",
        "Changelog": f"{REPOSITORY}/blob/main/CHANGELOG.md",
        "Issues": f"{REPOSITORY}/issues",
        "Source": f"{REPOSITORY}{where}",
    }
    assert metadata["Summary"].endswith(".")
    assert len(metadata["Keywords"].split(",")) > 2
    assert metadata["Description-Content-Type"] == "text/markdown"


def test_a_distribution_names_the_versions_of_python_that_it_supports(metadata: Message) -> None:
    assert metadata["Requires-Python"] == ">=3.10"
    classifiers = metadata.get_all("Classifier", [])
    versions = [line.rpartition(" ")[2] for line in classifiers if re.search(r"Python :: 3\.\d+$", line)]
    assert versions == ["3.10", "3.11", "3.12", "3.13", "3.14"]
    assert {"Typing :: Typed", "Framework :: AsyncIO"} <= set(classifiers)


def test_a_distribution_carries_the_license(name: str, metadata: Message) -> None:
    assert (metadata["License-Expression"], metadata.get_all("License-File")) == ("MIT", ["LICENSE"])
    assert (FOLDERS[name] / "LICENSE").read_text() == (ROOT / "LICENSE").read_text()


def test_all_distributions_have_one_version_and_the_changelog_has_it() -> None:
    (version,) = {distribution(name).version for name in FOLDERS}
    assert re.search(rf"^## {re.escape(version)}\b", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)


def test_the_links_of_a_readme_work_on_pypi(name: str) -> None:
    page = (FOLDERS[name] / "README.md").read_text(encoding="utf-8")
    broken = [link for link in links(page) if not (works(link) or (link.startswith("#") and anchored(link, page)))]
    assert not broken, "write https://... or #heading, of a file or a heading that exists"


def links(page: str) -> Iterator[str]:
    """The targets of links, images, definitions of links, and HTML; not those in code."""
    text = re.sub(r"```.*?```|`[^`\n]*`|<!--.*?-->", "", page, flags=re.DOTALL)
    for found in re.finditer(r"\]\(<?([^)>\s]+)|^\[[^\]]+\]:\s*(\S+)|(?:href|src)=\"([^\"]*)\"", text, re.MULTILINE):
        yield found[1] or found[2] or found[3]
    defined = {label.lower() for label in re.findall(r"^\[([^\]]+)\]:", text, re.MULTILINE)}
    for label in re.findall(r"\]\[([^\]]+)\]", text):
        if label.lower() not in defined:
            yield f"[{label}]"


def works(link: str) -> bool:
    """Whether it leads out of the page, and into a file or folder that exists if it leads into the repository."""
    if link.startswith(RAW):
        return (ROOT / link.removeprefix(RAW)).is_file()
    inside = re.fullmatch(rf"{REPOSITORY}/(blob|tree)/main/([^#]+)(#.+)?", link)
    if not inside:
        return link.startswith("https://")
    kind, path, heading = inside.groups()
    file = ROOT / path
    if kind == "tree":
        return file.is_dir() and not heading
    return file.is_file() and (not heading or anchored(heading, file.read_text(encoding="utf-8")))


def anchored(link: str, page: str) -> bool:
    """Whether a page has the heading, as GitHub and PyPI make names of headings."""
    text = re.sub(r"^```.*?^```", "", page, flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return link[1:] in {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize(
    "page",
    [
        "[a](docs/index.md)",
        "![a](flow.svg)",
        "[a][b]\n\n[b]: ../docs/index.md",
        "[a][b]",
        '<img src="flow.svg">',
        f"[a]({REPOSITORY}/blob/main/docs/no-such.md)",
        f"[a]({REPOSITORY}/blob/main/docs)",
        f"[a]({REPOSITORY}/blob/main/README.md#no-such-heading)",
        f"[a]({RAW}docs/no-such.svg)",
        "# There\n\n[a](#elsewhere)",
    ],
)
def test_a_dead_link_is_found(page: str) -> None:
    (link,) = links(page)
    assert not works(link)
    assert not (link.startswith("#") and anchored(link, page))


def test_the_commands_of_the_readme_are_those_that_ci_runs() -> None:
    section = README.partition("## Try it from the repository")[2].partition("\n## ")[0]
    commands = re.findall(r"^```\n(.+?)\n```", section, re.MULTILINE | re.DOTALL)
    script = (ROOT / ".ci" / "run").read_text()
    assert len(commands) == 4
    assert [command for command in commands if f"\n{command}" not in script] == []


def test_the_releases_workflow_is_the_one_that_the_page_describes() -> None:
    workflow = (ROOT / ".github" / "workflows" / "release.yml").read_text()
    page = (ROOT / "docs" / "contributing" / "release.md").read_text(encoding="utf-8")
    assert "name: pypi" in workflow
    assert 'uvx "twine>=6.1,<7" check --strict dist/*' in workflow
    assert 'uvx "twine>=6.1,<7" check --strict dist/*' in page
