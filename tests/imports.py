"""What a source file imports, read from its text: imports inside functions count too."""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def imports_of(path: Path) -> frozenset[str]:
    """Dotted names: `from a.b import c` is both `a.b` and `a.b.c`, since `c` may be a module."""
    return frozenset(_imports(ast.parse(path.read_text(encoding="utf-8"))))


def _imports(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def rooms_of(path: Path) -> frozenset[str]:
    """First parts of the imports of a file and of the test modules that it imports."""
    seen: set[Path] = set()
    waiting = [path]
    names: set[str] = set()
    while waiting:
        file = waiting.pop()
        seen.add(file)
        for name in imports_of(file):
            module = ROOT / Path(*name.split(".")).with_suffix(".py")
            if name.startswith("tests.") and module.is_file() and module not in seen:
                waiting.append(module)
            names.add(name.split(".")[0])
    return frozenset(names - {"tests"})
