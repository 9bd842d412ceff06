"""The modules that ``ragsvc.client`` imports, directly or through others, found without importing them."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

ROOT: Final = Path(__file__).resolve().parent.parent.parent
PACKAGE: Final = "ragsvc"
CLIENT: Final = "ragsvc.client"


class Closure(NamedTuple):
    """Modules of the package with their files, and the top-level names of the packages that they need."""

    modules: dict[str, Path]
    needs: frozenset[str]


def client_closure(root: Path = ROOT) -> Closure:
    """The closure of all modules of ``ragsvc.client``."""
    modules: dict[str, Path] = {}
    needs: set[str] = set()
    folder = root / CLIENT.replace(".", "/")
    waiting = [CLIENT, *(f"{CLIENT}.{path.stem}" for path in sorted(folder.glob("*.py")) if path.stem != "__init__")]
    while waiting:
        name = waiting.pop()
        file = file_of(name, root)
        if name in modules or file is None:
            continue
        modules[name] = file
        waiting += [name.rsplit(".", count)[0] for count in range(1, name.count(".") + 1)]
        for imported in _imports(file):
            if imported.split(".")[0] == PACKAGE:
                waiting.append(imported)
            else:
                needs.add(imported.split(".")[0])
    return Closure(dict(sorted(modules.items())), frozenset(needs - sys.stdlib_module_names))


def file_of(module: str, root: Path) -> Path | None:
    """The file of a module or package; ``None`` for a name inside a module."""
    path = root / module.replace(".", "/")
    return next((file for file in (path / "__init__.py", path.with_suffix(".py")) if file.is_file()), None)


def _imports(file: Path) -> Iterator[str]:
    """Names of modules, and of what is imported from them, which may be modules too; also in functions."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            if node.module is None or node.level:
                raise ValueError(f"{file}: a relative import")
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
