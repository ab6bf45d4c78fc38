"""Finds what a built site would load from other hosts. Links that a reader may follow are no such thing."""

from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

_LOADS = {
    "script": "src",
    "img": "src",
    "iframe": "src",
    "source": "src",
    "video": "src",
    "audio": "src",
    "link": "href",
}
_NOT_LOADED = {"canonical", "alternate", "prev", "next"}


class _Loads(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        address = values.get(_LOADS.get(tag, ""))
        if values.get("data-md-component") == "source":
            self.found.append("the link to the repository asks api.github.com for figures: leave out repo_url")
        if address and address.startswith(("http:", "https:", "//")) and values.get("rel") not in _NOT_LOADED:
            self.found.append(f"<{tag}> loads {address}")


def foreign_addresses(site: Path) -> Iterator[str]:
    """Yield a line for each script, image, style or font that a page or style sheet loads from another host."""
    for page in sorted(site.rglob("*.html")):
        parser = _Loads()
        parser.feed(page.read_text(encoding="utf-8"))
        yield from (f"{page.relative_to(site)}: {found}" for found in parser.found)
    for sheet in sorted(site.rglob("*.css")):
        text = sheet.read_text(encoding="utf-8")
        if "url(http" in text or "@import" in text or "url(//" in text:
            yield f"{sheet.relative_to(site)}: loads a style or font from another host"
