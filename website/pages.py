"""Collects the pages of the site: those of ``docs/``, the plugins' READMEs, and the reference made from docstrings.

The sources stay plain Markdown whose links work in the repository. Here links to files that are not on the site get the
address of the repository, and pages with a diagram load Mermaid from the site itself.
"""

import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import TypeAlias

from website.api import write_reference

ROOT = Path(__file__).parents[1]
REPOSITORY = "https://github.com/akhundMurad/diator"
MERMAID = "assets/mermaid.tiny.js"
SECTIONS = {
    "tutorial": "Tutorial",
    "how-to": "How-to guides",
    "reference": "Reference",
    "reference/api": "API",
    "explanation": "Explanation",
    "plugins": "Plugins",
    "plugin-authors": "For plugin authors",
    "contributing": "For contributors",
}
"""The folders of the site, in the order of the navigation. A folder in another one is a part of its section."""

Entries: TypeAlias = "Sequence[Mapping[str, Entries | str]]"
"""Pages by their titles, and sections by theirs, in order."""

_LINK = re.compile(r"(\]\()([^)\s]+)(\))")
_FENCE = re.compile(r"^(```.*?^```)", re.MULTILINE | re.DOTALL)
_HIDDEN = re.compile(r"<!---.*?-->", re.DOTALL)
_TITLE = re.compile(r"^# (.+)$", re.MULTILINE)
_ELSEWHERE = ("http://", "https://", "mailto:", "#")


def collect_pages(target: Path) -> None:
    """Write all pages of the site into the folder ``target``, which is emptied first."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(ROOT / "docs", target)
    for readme in sorted((ROOT / "plugins").glob("*/README.md")):
        page = target / "plugins" / f"{readme.parent.name}.md"
        page.parent.mkdir(exist_ok=True)
        shutil.copy(readme, page)
    for page in target.rglob("*.md"):
        place = page.relative_to(target).as_posix()
        page.write_text(site_page(page.read_text(encoding="utf-8"), place), encoding="utf-8")
    write_reference(target / "reference" / "api")
    shutil.copytree(ROOT / "website" / "assets", target / "assets", dirs_exist_ok=True)


def navigation(pages: Path) -> str:
    """Return the setting ``nav`` of Zensical: a section for each folder, its pages by the names of their files."""
    return f"nav = {_inline([{'Home': 'index.md'}, *_sections(pages, '')])}\n"


def _sections(pages: Path, parent: str) -> "Iterator[Mapping[str, Entries | str]]":
    for folder, title in SECTIONS.items():
        if str(PurePosixPath(folder).parent) == (parent or ".") and (pages / folder).is_dir():
            files = [path.relative_to(pages).as_posix() for path in (pages / folder).glob("*.md")]
            files.sort(key=lambda path: (not path.endswith("/index.md"), path.removesuffix(".md")))
            yield {title: [*({_title(pages / path): path} for path in files), *_sections(pages, folder)]}


def _title(page: Path) -> str:
    found = _TITLE.search(_FENCE.sub("", page.read_text(encoding="utf-8")))
    if found is None:
        raise SystemExit(f"{page} has no title: begin it with a line such as '# Title'")
    return found[1].replace("`", "")


def _inline(value: "Entries | str") -> str:
    """Return entries of the navigation in TOML."""
    if isinstance(value, str):
        return json.dumps(value)
    entries = (f"{json.dumps(title)} = {_inline(inner)}" for entry in value for title, inner in entry.items())
    return f"[{', '.join(f'{{ {entry} }}' for entry in entries)}]"


def _page_of(path: str) -> str | None:
    """Return the page of the site that a file of the repository is, or none."""
    docs, plugin = PurePosixPath("docs"), re.fullmatch(r"plugins/([^/]+)/README\.md", path)
    if plugin:
        return f"plugins/{plugin[1]}.md"
    return str(PurePosixPath(path).relative_to(docs)) if PurePosixPath(path).is_relative_to(docs) else None


def _source_of(page: str) -> str:
    """Return the file of the repository that a page of the site was."""
    plugin = re.fullmatch(r"plugins/([^/]+)\.md", page)
    return f"plugins/{plugin[1]}/README.md" if plugin else f"docs/{page}"


def site_page(text: str, page: str) -> str:
    """Return the text of a page, whose place on the site is ``page``, as the site needs it."""
    blank = _HIDDEN.sub(lambda found: "\n" * found[0].count("\n"), text)  # warnings keep their lines
    parts = _FENCE.split(blank)
    linked = [part if part.startswith("```") else _LINK.sub(_relinked(page), part) for part in parts]
    diagrams = any(part.startswith("```mermaid") for part in parts)
    script = f'\n<script src="{_relative(MERMAID, page)}"></script>\n' if diagrams else ""
    return "".join(linked) + script


def _relinked(page: str) -> Callable[[re.Match[str]], str]:
    source = PurePosixPath(_source_of(page))

    def relinked(found: re.Match[str]) -> str:
        target, _, anchor = found[2].partition("#")
        own = re.fullmatch(rf"{REPOSITORY}/(?:blob|tree)/main/(.+)", target)
        if own:
            path = own[1]
        elif not target or found[2].startswith(_ELSEWHERE):
            return found[0]
        else:
            path = os.path.normpath(source.parent / target)
        return f"{found[1]}{_address(path, page)}{'#' * bool(anchor)}{anchor}{found[3]}"

    return relinked


def _address(path: str, page: str) -> str:
    on_site = _page_of(path)
    if on_site is not None and (ROOT / path).is_file():
        return _relative(on_site, page)
    if not (ROOT / path).exists():
        raise SystemExit(f"{_source_of(page)} links to {path}, which does not exist: correct the link")
    kind = "tree" if (ROOT / path).is_dir() else "blob"
    return f"{REPOSITORY}/{kind}/main/{path}"


def _relative(path: str, page: str) -> str:
    return os.path.relpath(path, PurePosixPath(page).parent)
