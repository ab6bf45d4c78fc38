"""Testing uses the seams that any hook has: nothing private of the core, which knows nothing of it."""

import ast
from collections.abc import Iterator
from pathlib import Path

import diator

CORE = Path(diator.__file__).parent


def trees(folder: Path) -> Iterator[tuple[str, ast.Module]]:
    for path in sorted(folder.rglob("*.py")):
        yield path.relative_to(CORE).as_posix(), ast.parse(path.read_text())


def at_run_time(tree: ast.Module) -> Iterator[ast.AST]:
    """Everything but what stands below ``if TYPE_CHECKING``."""
    left: list[ast.AST] = [tree]
    while left:
        node = left.pop()
        yield node
        if not (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"):
            left.extend(ast.iter_child_nodes(node))


def imported(node: ast.AST) -> list[str]:
    if isinstance(node, ast.ImportFrom):
        return [node.module or ""]
    return [alias.name for alias in node.names] if isinstance(node, ast.Import) else []


def test_testing_touches_nothing_private() -> None:
    found = [
        f"{name}:{node.lineno} {ast.unparse(node)}"
        for name, tree in trees(CORE / "testing")
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and node.attr.startswith("_")
        and not node.attr.startswith("__")
        and node.attr != "_replace"  # the public method of named tuples
        and ast.unparse(node.value) not in {"self", "super()"}
    ]
    assert not found


def test_the_core_imports_nothing_of_testing() -> None:
    found = [
        f"{name} imports {module}"
        for name, tree in trees(CORE)
        if not name.startswith("testing/")
        for node in at_run_time(tree)
        for module in imported(node)
        if module.startswith("diator.testing")
    ]
    assert not found


def test_hooks_are_imported_one_way() -> None:
    """The public module knows the two others, the base of hooks knows their details, and those know neither."""
    imports = {
        name: {module for node in ast.walk(tree) for module in imported(node) if "hook" in module}
        for name, tree in trees(CORE)
        if name in {"hooks.py", "_hooks.py", "_hook_details.py"}
    }
    assert imports == {
        "hooks.py": {"diator._hooks", "diator._hook_details"},
        "_hooks.py": {"diator._hook_details"},
        "_hook_details.py": set(),
    }
