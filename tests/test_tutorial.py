"""The tutorial, as a reader follows it: from an empty folder, page after page, with every file saved and command run.

A block with a title is a file, or a change of one; ``<!-- undo FILE -->`` takes the last change back. A ``console``
block has commands after ``$`` and what they print, where ``...`` stands for any lines. With a title it is another
terminal, in which a command keeps running until ``^C``; what it prints is compared without regard to order.
"""

import difflib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Generator, Iterator
from importlib.metadata import metadata
from pathlib import Path
from typing import NamedTuple

import pytest
from diator_redis.testing import RedisServer

FOLDER = Path(__file__).parent.parent / "docs" / "tutorial"
PAGES = sorted(FOLDER.glob("[0-9]-*.md"))
BLOCK = re.compile(r'^```(\w+)(?: title="([^"]+)")?\n(.*?)^```$|^<!-- undo (\S+) -->$', re.MULTILINE | re.DOTALL)
TIMEOUT = 300.0
VARIABLE = {
    r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d(?:[,.]\d+)?(?:\+00:00)?": "TIME",
    r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b": "UUID",
    r"\b[0-9a-f]{32}\b": "TRACE",
    r"\b\d{13}-\d+\b": "ENTRY",
    r"\bin [\d.e-]+ ?s\b(?: \(\d+:\d\d:\d\d\))?": "in SECONDS",
    r"\bfor [\d.]+ s\b": "for SECONDS",
    r"localhost:\d+": "localhost:PORT",
}


class Block(NamedTuple):
    location: str
    language: str
    title: str | None
    text: str


def blocks_of(page: Path) -> Iterator[Block]:
    source = page.read_text()
    for found in BLOCK.finditer(source):
        location = f"{page.name}:{source.count(chr(10), 0, found.start()) + 1}"
        language, title, text, undone = found.groups()
        yield Block(location, language or "undo", title or undone, text or "")


def steps_of(text: str) -> Iterator[tuple[str | None, list[str]]]:
    """Each command of a console with the lines below it; the command is None for lines that come before the first."""
    command: str | None = None
    lines: list[str] = []
    for line in text.splitlines():
        if line == "^C" or line.startswith("$ "):
            if command or lines:
                yield command, lines
            command, lines = line.removeprefix("$ "), []
        else:
            lines.append(line)
    yield command, lines


def readable(lines: list[str]) -> list[str]:
    """The lines without what differs between runs; empty ones are left out."""
    text = "\n".join(line.rstrip() for line in lines if line.strip())
    for pattern, name in VARIABLE.items():
        text = re.sub(pattern, name, text)
    return text.splitlines()


class Terminal:
    """A terminal in which one command runs at a time."""

    def __init__(self, folder: Path, log: Path) -> None:
        self.folder, self.log = folder, log
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, command: str) -> None:
        assert self.process is None, f"something else still runs in this terminal, so that {command!r} can't"
        with self.log.open("wb") as output:
            self.process = subprocess.Popen(
                command, shell=True, cwd=self.folder, start_new_session=True, stdout=output, stderr=output
            )

    def wait(self) -> list[str]:
        assert self.process is not None
        self.process.wait(TIMEOUT)
        self.process = None
        return self.lines()

    def interrupt(self) -> None:
        assert self.process is not None
        os.killpg(self.process.pid, signal.SIGINT)
        self.wait()

    def kill(self) -> None:
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def lines(self) -> list[str]:
        return readable(self.log.read_text().splitlines())


class Reader:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.before: dict[str, str] = {}
        self.terminals: dict[str, Terminal] = {}

    def follow(self, page: Path) -> None:
        for block in blocks_of(page):
            try:
                self.do(block)
            except AssertionError as error:
                raise AssertionError(f"{block.location}: {error}") from None

    def do(self, block: Block) -> None:
        if block.language == "console":
            for command, lines in steps_of(block.text):
                self.type(block.title, command, readable(lines))
        elif block.language == "undo":
            assert block.title is not None
            (self.folder / block.title).write_text(self.before[block.title])
        elif block.title is not None:
            self.save(block.title, block)
        else:
            assert block.language in {"sh", "mermaid"}, f"the block {block.language!r} is never run"

    def save(self, name: str, block: Block) -> None:
        path = self.folder / name
        text = block.text
        if block.language == "diff":
            text = self.before[name] = path.read_text()
            old, new = ("".join(self.sided(block.text, sign)) for sign in "-+")
            assert text.count(old) == 1, f"{name} does not have these lines once:\n{old}"
            text = text.replace(old, new)
        path.write_text(text)

    def sided(self, diff: str, sign: str) -> Iterator[str]:
        return (line[1:] or "\n" for line in diff.splitlines(keepends=True) if line[0] in f" {sign}\n")

    def type(self, title: str | None, command: str | None, expected: list[str]) -> None:
        terminal = self.terminals.setdefault(title or "", Terminal(self.folder, self.folder / f".{title}.log"))
        if command == "^C":
            terminal.interrupt()
        elif command is not None:
            terminal.start(command)
        if title is None:
            expect_exactly(expected, terminal.wait())
        else:
            expect_all(expected, terminal)

    def close(self) -> None:
        for terminal in self.terminals.values():
            terminal.kill()


def expect_exactly(expected: list[str], printed: list[str]) -> None:
    pattern = "".join(r"(?:.*\n)*?" if line.strip() == "..." else re.escape(line) + r"\n" for line in expected)
    if re.fullmatch(pattern, "".join(f"{line}\n" for line in printed)) is None:
        raise AssertionError("\n".join(difflib.unified_diff(expected, printed, "on the page", "printed", lineterm="")))


def expect_all(expected: list[str], terminal: Terminal) -> None:
    deadline = time.monotonic() + TIMEOUT
    while missing := [line for line in expected if line.strip() != "..." and line not in terminal.lines()]:
        ended = terminal.process is not None and terminal.process.poll() is not None
        if ended or time.monotonic() > deadline:
            raise AssertionError("\n".join(["missing:", *missing, "printed:", *terminal.lines()]))
        time.sleep(0.1)


@pytest.fixture
def reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Generator[Reader]:
    with RedisServer() as server:
        monkeypatch.setenv("REDIS_URL", server.url)
        monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=os.pathsep)
        monkeypatch.setenv("PYTHONUNBUFFERED", "1")  # as on a terminal
        monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")  # a file may change twice in a second
        reader = Reader(tmp_path)
        try:
            yield reader
        finally:
            reader.close()


@pytest.mark.once
def test_the_tutorial_prints_what_it_shows(reader: Reader) -> None:
    for page in PAGES:
        reader.follow(page)
        assert [name for name, terminal in reader.terminals.items() if terminal.process] == [], page.name


def test_the_tutorial_installs_extras_that_exist() -> None:
    commands = [block.text for page in PAGES for block in blocks_of(page) if block.language == "sh"]
    extras = {extra for names in re.findall(r"diator\[([^]]+)]", "".join(commands)) for extra in names.split(",")}
    assert extras <= set(metadata("diator").get_all("Provides-Extra") or ())
    assert {"cli", "dishka"} <= extras


def test_the_tutorial_lists_its_pages_in_order() -> None:
    linked = re.findall(r"^\d\. \[[^]]+]\(([^)]+)\)", (FOLDER / "index.md").read_text(), re.MULTILINE)
    assert linked == [page.name for page in PAGES]
