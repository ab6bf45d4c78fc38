"""The pages of the documentation site, before Zensical makes HTML of them."""

import importlib
import re
from pathlib import Path

import pytest

from website.api import public_modules
from website.check import foreign_addresses
from website.pages import SECTIONS, collect_pages, navigation, site_page

pytestmark = pytest.mark.once

GITHUB = "https://github.com/akhundMurad/diator"


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site") / "pages"
    collect_pages(folder)
    return folder


@pytest.mark.parametrize(
    ("link", "on_site"),
    [
        ("../explanation/events.md#ids", "../explanation/events.md#ids"),
        ("../../plugins/diator-redis/README.md", "../plugins/diator-redis.md"),
        ("../../examples/01_commands.py", f"{GITHUB}/blob/main/examples/01_commands.py"),
        ("../../examples", f"{GITHUB}/tree/main/examples"),
        (f"{GITHUB}/blob/main/docs/explanation/events.md", "../explanation/events.md"),
        ("https://www.cloudevents.io", "https://www.cloudevents.io"),
        ("#here", "#here"),
    ],
)
def test_link_leads_to_the_site_or_to_the_repository(link: str, on_site: str) -> None:
    assert site_page(f"see [it]({link})", "how-to/testing.md") == f"see [it]({on_site})"


def test_link_in_a_readme_of_a_plugin_leads_to_the_site() -> None:
    assert site_page("[a](../../docs/index.md)", "plugins/diator-di.md") == "[a](../index.md)"


def test_link_in_code_stays() -> None:
    assert site_page("```md\n[a](none.md)\n```", "index.md") == "```md\n[a](none.md)\n```"


def test_link_to_a_missing_file_is_rejected() -> None:
    with pytest.raises(
        SystemExit, match=r"docs/how-to/testing\.md links to docs/how-to/none\.md, which does not exist"
    ):
        site_page("[a](none.md)", "how-to/testing.md")


def test_hidden_code_is_not_on_the_site() -> None:
    assert site_page("a\n<!--- invisible-code-block: python\nx\n-->\nb", "index.md") == "a\n\n\n\nb"


def test_diagram_loads_mermaid_from_the_site() -> None:
    text = site_page("```mermaid\nflowchart LR\n```\n", "reference/command-line.md")
    assert re.findall(r'<script src="(.*?)">', text) == ["../assets/mermaid.tiny.js"]
    assert "<script" not in site_page("```python\npass\n```\n", "index.md")


def test_every_page_is_in_the_navigation(pages: Path) -> None:
    listed = re.findall(r'= "([^"]+\.md)"', navigation(pages))
    assert sorted(listed) == sorted(path.relative_to(pages).as_posix() for path in pages.rglob("*.md"))
    assert len(set(listed)) == len(listed)


def test_every_folder_of_docs_has_a_section() -> None:
    folders = {path.parent.name for path in (Path(__file__).parents[2] / "docs").glob("*/*.md")}
    assert folders <= set(SECTIONS)


def test_every_public_name_is_in_the_reference(pages: Path) -> None:
    reference = "".join(page.read_text(encoding="utf-8") for page in (pages / "reference" / "api").iterdir())
    headings = set(re.findall(r"^## `(\w+)`", reference, re.MULTILINE))
    for module in public_modules():
        assert set(importlib.import_module(module).__all__) <= headings, module


def test_reference_shows_signatures_errors_and_links(pages: Path) -> None:
    page = (pages / "reference" / "api" / "diator.md").read_text(encoding="utf-8")
    entry = page.partition("### `Diator.worker` {")[2].partition("###")[0]
    assert "concurrency: int | None = None" in entry
    assert "[`ConfigurationError`](diator.md#ConfigurationError)" in entry
    assert "Bases: [`DiatorError`](diator.md#DiatorError)" in page


def test_reference_shows_examples_as_python_and_arguments_as_a_list(pages: Path) -> None:
    page = (pages / "reference" / "api" / "diator.md").read_text(encoding="utf-8")
    entry = page.partition("### `Diator.command` {")[2].partition("###")[0]
    assert "```python\n@app.command\nasync def join_meeting(" in entry
    assert "\n- `timeout`: Seconds " in entry
    assert "def command(*, timeout: float | None = ..., thread: bool = ...) -> CommandHandler" in entry
    assert "Args:" not in page


def test_reference_begins_with_the_core(pages: Path) -> None:
    listed = re.findall(r'"reference/api/([^"]+)\.md"', navigation(pages))
    assert listed == sorted(listed)
    assert listed[0] == "diator"


@pytest.mark.parametrize(
    "html",
    [
        '<script src="https://unpkg.com/a.js"></script>',
        '<link rel="stylesheet" href="https://fonts.googleapis.com/css">',
        '<link rel="preconnect" href="//fonts.gstatic.com">',
        '<img src="http://example.org/a.png">',
        f'<a href="{GITHUB}" data-md-component="source">',
    ],
)
def test_what_loads_from_another_host_is_found(tmp_path: Path, html: str) -> None:
    (tmp_path / "index.html").write_text(html)
    assert len(list(foreign_addresses(tmp_path))) == 1


def test_links_to_follow_and_own_files_are_no_foreign_addresses(tmp_path: Path) -> None:
    links = '<a href="https://example.org">x</a><link rel="canonical" href="https://example.org"><script src="a.js">'
    (tmp_path / "index.html").write_text(links)
    (tmp_path / "a.css").write_text("a { background: url(data:image/png;base64,) }")
    assert list(foreign_addresses(tmp_path)) == []


def test_font_of_a_style_sheet_is_found(tmp_path: Path) -> None:
    (tmp_path / "a.css").write_text("@font-face { src: url(https://fonts.gstatic.com/a.woff2) }")
    assert list(foreign_addresses(tmp_path)) == ["a.css: loads a style or font from another host"]
