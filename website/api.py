"""Writes the reference from docstrings: a page for each public module, with the names in its ``__all__``."""

import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import griffe

ROOT = Path(__file__).parents[1]
WITHOUT_PAGE = {"diator.cli", "servicebus_test_server"}
"""The command line has a page of its own, and the server for tests is no part of Diator."""

_Object = griffe.Object | griffe.Alias
_CODE = re.compile(r"(?<!`)`([A-Za-z_][\w.]*)`(?!`)")
_ARGUMENTS = re.compile(r"^Args:\n((?: {4}.*\n?)+)", re.MULTILINE)
_INDENTED = re.compile(r"^ {4}.*\n?(?:\n* {4}.*\n?)*", re.MULTILINE)
_FENCED = re.compile(r"^(```.*?^```$)", re.MULTILINE | re.DOTALL)


def public_modules() -> dict[str, griffe.Module]:
    """Return the modules that declare public names, by name; those that only repeat others' names are left out."""
    folders = [ROOT, *sorted(path for path in (ROOT / "plugins").iterdir() if path.is_dir())]
    loader = griffe.GriffeLoader(search_paths=folders)
    packages = [
        "diator",
        *(path.name for folder in folders[1:] for path in folder.glob("*/") if (path / "py.typed").exists()),
    ]
    loaded = [cast("griffe.Module", loader.load(package)) for package in packages]
    loader.resolve_aliases(external=False)
    modules = [module for package in loaded for module in _with_submodules(package) if public_names(module)]
    found: dict[str, griffe.Module] = {}
    documented: set[str] = set()
    for module in modules:
        names = {member.canonical_path for member in public_names(module)}
        if module.path not in WITHOUT_PAGE and not names <= documented:
            found[module.path] = module
            documented |= names
    return found


def _with_submodules(module: griffe.Module) -> Iterator[griffe.Module]:
    yield module
    for member in module.modules.values():
        if not member.is_alias and not member.is_private and member.name != "tests":
            yield from _with_submodules(member)


def public_names(module: griffe.Module) -> list[_Object]:
    """Return what a module exports, in the order of ``__all__``."""
    return [module.members[str(name)] for name in module.exports or ()]


def write_reference(folder: Path) -> None:
    """Write the pages into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    modules = public_modules()
    pages = Pages(modules)
    for name, module in modules.items():
        (folder / f"{name}.md").write_text(pages.page(module), encoding="utf-8")


class Pages:
    """Turns modules to pages that link to each other's names."""

    def __init__(self, modules: dict[str, griffe.Module]) -> None:
        self._places: dict[str, str] = {}
        """The page and anchor of each name: whole, such as ``Diator.send``, and alone, such as ``Diator``."""
        for module in modules.values():
            for name in public_names(module):
                self._places.setdefault(name.name, f"{module.path}.md#{name.name}")
                for member in _members(name):
                    self._places.setdefault(f"{name.name}.{member.name}", f"{module.path}.md#{name.name}.{member.name}")

    def page(self, module: griffe.Module) -> str:
        """Return the page of a module."""
        about = _first_paragraph(module.docstring)
        parts = [f"# {module.path}", self._prose(about, ""), f"```python\nimport {module.path}\n```"]
        for name in public_names(module):
            parts += self._entry(name, name.name, 2)
            for member in _members(name):
                parts += self._entry(member, f"{name.name}.{member.name}", 3)
        return "\n\n".join(part for part in parts if part) + "\n"

    def _entry(self, name: _Object, title: str, level: int) -> Iterator[str]:
        yield f"{'#' * level} `{title}` {{ #{title} }}"
        yield f"```python\n{_signature(name)}\n```"
        bases = [str(base).partition("[")[0] for base in cast("griffe.Class", name).bases] if name.is_class else []
        if linked := [f"[`{base}`]({self._places[base]})" for base in bases if base in self._places]:
            yield f"Bases: {', '.join(linked)}"
        yield self._prose(name.docstring.value if name.docstring else "", title)

    def _prose(self, docstring: str, title: str) -> str:
        """Return a docstring as Markdown: code between single backticks, names with links, ``::`` before a block."""
        plain = re.sub(
            r"``(.+?)``", lambda found: f"`` {found[1]} ``" if "`" in found[1] else f"`{found[1]}`", docstring
        )
        plain = re.sub(r"(^|\w)::$", lambda found: f"{found[1]}:" if found[1] else "", plain, flags=re.MULTILINE)
        owner = title.partition(".")[0]

        def linked(found: re.Match[str]) -> str:
            whole = found[1]
            place = (
                self._places.get(f"{owner}.{whole}")
                or self._places.get(whole)
                or self._places.get(whole.rpartition(".")[2])
            )
            return f"[{found[0]}]({place})" if place and whole != title else found[0]

        prose = _INDENTED.sub(_fenced, _ARGUMENTS.sub(_listed_arguments, plain))
        return "".join(part if part.startswith("```") else _CODE.sub(linked, part) for part in _FENCED.split(prose))


def _listed_arguments(section: re.Match[str]) -> str:
    """Return the section ``Args:`` of a docstring as a list."""
    entries = re.sub(r"^ {4}(\w+): ", r"- `\1`: ", section[1], flags=re.MULTILINE)
    return re.sub(r"^ {8}", "  ", entries, flags=re.MULTILINE)


def _fenced(example: re.Match[str]) -> str:
    return f"```python\n{textwrap.dedent(example[0]).strip()}\n```\n"


def _first_paragraph(docstring: griffe.Docstring | None) -> str:
    return docstring.value.partition("\n\n")[0] if docstring else ""


def _members(name: _Object) -> list[_Object]:
    """Return the documented public members of a class, and of its bases that have no entry of their own."""
    if not name.is_class:
        return []
    return [member for member in name.all_members.values() if not member.name.startswith("_") and member.docstring]


def _signature(name: _Object) -> str:
    if name.is_function:
        return _function(cast("griffe.Function", name))
    if name.is_class:
        return _class(cast("griffe.Class", name))
    attribute = cast("griffe.Attribute", name)
    annotation = f": {_unquoted(attribute.annotation)}" if attribute.annotation is not None else ""
    value = f" = {attribute.value}" if attribute.value is not None else ""
    return f"{attribute.name}{annotation}{value}"


def _function(function: griffe.Function) -> str:
    overloads = function.overloads or []
    # Of many overloads, the last one has the options. What implements them accepts anything.
    shown = overloads[-1:] if len(overloads) > 3 else overloads or [function]
    return "\n".join(_with_parameters(one, f"{_prefix(function)}{function.name}", one.returns) for one in shown)


def _prefix(function: griffe.Function) -> str:
    return "async def " if "async" in function.labels else "def "


def _class(cls: griffe.Class) -> str:
    if not any(parameter.name != "self" for parameter in cls.parameters):
        return f"class {cls.name}"
    return _with_parameters(cls, f"class {cls.name}", None)


def _with_parameters(owner: griffe.Function | griffe.Class, head: str, returns: object) -> str:
    parameters = [*_listed(owner.parameters)]
    tail = f" -> {_unquoted(returns)}" if returns is not None else ""
    line = f"{head}({', '.join(parameters)}){tail}"
    if len(line) <= 100:
        return line
    return f"{head}(\n" + "".join(f"    {parameter},\n" for parameter in parameters) + f"){tail}"


def _listed(parameters: griffe.Parameters) -> Iterator[str]:
    kinds = griffe.ParameterKind
    before: griffe.ParameterKind | None = None
    for parameter in parameters:
        kind = parameter.kind
        if parameter.name in {"self", "cls"}:
            continue
        if before is kinds.positional_only and kind is not kinds.positional_only:
            yield "/"
        if kind is kinds.keyword_only and before not in {kinds.keyword_only, kinds.var_positional}:
            yield "*"
        before = kind
        stars = {kinds.var_positional: "*", kinds.var_keyword: "**"}.get(kind or kinds.positional_or_keyword, "")
        annotation = f": {_unquoted(parameter.annotation)}" if parameter.annotation is not None else ""
        has_default = parameter.default is not None and not stars
        default = (f" = {parameter.default}" if annotation else f"={parameter.default}") if has_default else ""
        yield f"{stars}{parameter.name}{annotation}{default}"
    if before is kinds.positional_only:
        yield "/"


def _unquoted(annotation: object) -> str:
    text = str(annotation)
    return text[1:-1] if re.fullmatch(r"([\"']).*\1", text) and "Literal" not in text else text
