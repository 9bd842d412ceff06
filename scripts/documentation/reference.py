"""Generates parts of ``docs/`` from the code: tables of the reference, and the list of modules.

The text around them is written by hand.

A table is placed between ``<!-- table: NAME -->`` and ``<!-- end: NAME -->``. ``scripts/reference`` writes all tables;
``scripts/reference --check`` fails if a page differs from the code.
"""

from __future__ import annotations

import ast
import inspect
import re
import sys
import textwrap
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import typer.main
from litestar import Litestar
from litestar.handlers import HTTPRouteHandler

import ragsvc
from ragsvc.cli.commands import app as command_line
from ragsvc.config import Settings
from ragsvc.core import errors
from ragsvc.web import openapi
from ragsvc.web.app import FOUNDATION_ROUTES
from ragsvc.web.auth import AccessRequirement, requirement_of
from ragsvc.web.errors import RENDERINGS
from ragsvc.web.routes.endpoint_families import stateful_routes
from ragsvc.web.service_app import ROUTES
from tests.clients import catalogue as clients

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
NEVER_SENT = (
    errors.Forbidden,
    errors.DataDirectoryLocked,
    errors.BackupDamaged,
    errors.ConfigurationError,
    errors.ExtractionFailed,
    errors.DocumentUnreadable,
)
"""Errors whose code no HTTP response carries: a base class, two errors at the start, and two errors of a single
document (``DocumentUnreadable`` is sent with the reason as its code)."""


class Metric(NamedTuple):
    """A metric as the code declares it."""

    name: str
    kind: str
    labels: tuple[str, ...]
    help: str


def settings_table() -> str:
    """The settings with their defaults and docstrings."""
    defaults = Settings()
    rows = ["| variable | default | meaning |", "|---|---|---|"]
    for name, words in field_docstrings(Settings).items():
        shown = "`[[providers]]`" if name == "providers" else f"`RAGSVC_{name.upper()}`"
        value = None if name == "providers" else getattr(defaults, name)
        rows.append(f"| {shown} | {shown_value(value)} | {_inline(words)} |")
    return "\n".join(rows)


def errors_table() -> str:
    """The error codes with their status and meaning."""
    rows = ["| status | `code` | meaning |", "|---|---|---|"]
    sent = [
        (rendering.status, kind.code, _summary(inspect.getdoc(kind)))
        for kind, rendering in RENDERINGS.items()
        if kind not in NEVER_SENT
    ]
    rows += [f"| {status} | `{code}` | {words} |" for status, code, words in sorted(sent)]
    return "\n".join(rows)


def routes_table() -> str:
    """Every route that is not refused, with the scope that it requires."""
    rows = ["| route | scope | |", "|---|---|---|"]
    refused = {path for path, _ in refused_paths()}
    for path, method, handler in _routes():
        if path in refused and not handler.summary:
            continue
        need = requirement_of(handler.opt)
        scope = (
            {AccessRequirement.PUBLIC: "none", AccessRequirement.ANY_KEY: "any"}[need]
            if need in (AccessRequirement.PUBLIC, AccessRequirement.ANY_KEY)
            else " or ".join(f"`{name}`" for name in need.value.split(" or "))
        )
        summary = handler.summary or ("The OpenAPI document" if path.startswith("/schema") else "")
        rows.append(f"| `{method} {path}` | {scope} | {summary} |")
    return "\n".join(rows)


def refused_table() -> str:
    """The routes that are refused by name."""
    rows = ["| route | methods |", "|---|---|"]
    rows += [f"| `{path}` | {', '.join(methods)} |" for path, methods in sorted(refused_paths())]
    return "\n".join(rows)


def commands_reference() -> str:
    """A section for each command: what it does, and its options."""
    return "\n\n".join(_command_sections(typer.main.get_command(command_line), "ragsvc"))


def metrics_table() -> str:
    """Every metric that the package declares."""
    rows = ["| metric | type | labels | meaning |", "|---|---|---|---|"]
    rows += [
        f"| `{metric.name}` | {metric.kind} | {', '.join(f'`{label}`' for label in metric.labels)} | {metric.help} |"
        for metric in declared_metrics()
    ]
    return "\n".join(rows)


def modules_list() -> str:
    """A section for each folder of the package: its purpose, and the first sentence of each module's docstring."""
    package = Path(ragsvc.__file__).parent
    sections = []
    for folder in sorted({path.parent for path in package.rglob("*.py")}):
        if folder.name == "versions":  # the migrations are numbered files, not modules that other modules import
            continue
        lines = [
            f"- `{path.stem}`: {_module_sentence(path)}"
            for path in sorted(folder.glob("*.py"))
            if path.stem not in ("__init__", "__main__")
        ]
        heading = f"### {folder.relative_to(package.parent).as_posix()}"
        sections.append("\n\n".join([heading, _module_sentence(folder / "__init__.py"), "\n".join(lines)]))
    return "\n\n".join(sections)


TABLES: dict[str, tuple[str, Callable[[], str]]] = {
    "settings": ("reference/settings.md", settings_table),
    "errors": ("reference/errors.md", errors_table),
    "routes": ("reference/api.md", routes_table),
    "refused": ("reference/api.md", refused_table),
    "commands": ("reference/cli.md", commands_reference),
    "metrics": ("reference/metrics.md", metrics_table),
    "clients": ("reference/clients.md", clients.table),
    "modules": ("architecture.md", modules_list),
}
"""Page and generator of each table."""


def render(page: str, text: str) -> str:
    """The page's text with newly generated tables.

    Raises:
        ValueError: a table's markers are missing or repeated.
    """
    for name, (table_page, generate) in TABLES.items():
        if table_page != page:
            continue
        marked = re.compile(rf"(?<=<!-- table: {name} -->\n).*?(?=<!-- end: {name} -->)", re.DOTALL)
        table = f"\n{generate()}\n\n"
        text, count = marked.subn(lambda _, table=table: table, text)
        if count != 1:
            raise ValueError(f"{page} needs the markers of the table '{name}' exactly once")
    return text


def outdated() -> list[str]:
    """Pages whose tables differ from the code."""
    pages = sorted({page for page, _ in TABLES.values()})
    return [page for page in pages if render(page, text := _read(page)) != text]


@cache
def declared_metrics() -> list[Metric]:
    """Metrics that modules of the package declare with literal names, sorted by name."""
    found: dict[str, Metric] = {}
    for path in sorted(Path(ragsvc.__file__).parent.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and (metric := _metric(node)) is not None:
                found[metric.name] = metric
    return [found[name] for name in sorted(found)]


def refused_paths() -> list[tuple[str, tuple[str, ...]]]:
    """Paths of families that are refused by name, with the refused methods."""
    app = Litestar(route_handlers=list(stateful_routes), openapi_config=None, logging_config=None)
    return [
        (route.path_format, tuple(sorted(map(str, handler.http_methods))))
        for route in app.routes
        for handler in getattr(route, "route_handlers", ())
        if handler.http_methods != {"OPTIONS"}
    ]


def field_docstrings(kind: type) -> dict[str, str]:
    """The docstrings that follow the fields of a struct, in order."""
    body = ast.parse(textwrap.dedent(inspect.getsource(kind))).body[0]
    assert isinstance(body, ast.ClassDef)
    found: dict[str, str] = {}
    for field, docstring in zip(body.body, body.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
            assert isinstance(docstring, ast.Expr)
            assert isinstance(docstring.value, ast.Constant)
            found[field.target.id] = " ".join(str(docstring.value.value).split())
    assert set(found) == set(kind.__struct_fields__)
    return found


def shown_value(value: Any) -> str:
    """A default as the tables show it."""
    if value is None:
        return "none"
    if isinstance(value, msgspec.Struct):
        return f"`{msgspec.json.encode(value).decode()}`"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`" if value != "" else "none"


def _routes() -> list[tuple[str, str, HTTPRouteHandler]]:
    """Path, method and handler of every route, sorted by path and method."""
    handlers = [*FOUNDATION_ROUTES, *ROUTES]
    app = Litestar(
        route_handlers=[*handlers, *openapi.schema_routes(handlers)], openapi_config=None, logging_config=None
    )
    found = [
        (route.path_format, str(method), handler)
        for route in app.routes
        for handler in getattr(route, "route_handlers", ())
        for method in handler.http_methods - {"OPTIONS"}
    ]
    return sorted(found, key=lambda entry: entry[:2])


def _command_sections(command: Any, name: str) -> Iterator[str]:
    arguments = [parameter for parameter in command.params if parameter.param_type_name == "argument"]
    options = [parameter for parameter in command.params if parameter.param_type_name == "option"]
    usage = " ".join([name, *(argument.metavar or argument.name.upper() for argument in arguments)])
    parts = [f"## {name}", _paragraph(command.help), f"`{usage}`" if arguments else ""]
    rows = ["| option | default | |", "|---|---|---|"]
    rows += [
        f"| {', '.join(f'`{flag}`' for flag in option.opts)} | {_option_default(option)} | {_inline(option.help)} |"
        for option in options
        if not option.hidden
    ]
    if len(rows) > 2:
        parts.append("\n".join(rows))
    yield "\n\n".join(part for part in parts if part)
    for child in getattr(command, "commands", {}).values():
        yield from _command_sections(child, f"{name} {child.name}")


def _option_default(option: Any) -> str:
    return "" if option.default in (None, False) else f"`{option.default}`"


def _metric(call: ast.Call) -> Metric | None:
    """The metric that a call declares: ``Gauge…("ragsvc_…", "help", [labels])``."""
    function = call.func.id if isinstance(call.func, ast.Name) else getattr(call.func, "attr", "")
    kind = next((kind for kind in ("counter", "gauge", "histogram", "summary") if kind in function.lower()), None)
    texts = [argument.value for argument in call.args[:2] if isinstance(argument, ast.Constant)]
    if kind is None or len(texts) != 2 or not str(texts[0]).startswith("ragsvc_"):
        return None
    keywords = {keyword.arg: keyword.value for keyword in call.keywords}
    listed = keywords.get("labels", keywords.get("labelnames", call.args[2] if len(call.args) > 2 else None))
    labels = tuple(ast.literal_eval(listed)) if isinstance(listed, ast.List | ast.Tuple) else ()
    name = str(texts[0]).removesuffix("_total") + "_total" if kind == "counter" else str(texts[0])
    return Metric(name, kind, labels, str(texts[1]))


def _module_sentence(path: Path) -> str:
    """The first sentence of a module's docstring."""
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return re.split(r"(?<=[.!?)])\s+(?=[A-Z`])", _summary(docstring))[0]


def _summary(docstring: str | None) -> str:
    return _paragraph((docstring or "").split("\n\n")[0])


def _paragraph(text: str | None) -> str:
    return "\n\n".join(" ".join(part.split()) for part in (text or "").replace("``", "`").split("\n\n"))


def _inline(text: str | None) -> str:
    return " ".join((text or "").replace("``", "`").replace("|", "\\|").split())


def _read(page: str) -> str:
    return (DOCS / page).read_text(encoding="utf-8")


def main() -> int:
    """Write all tables; with ``--check``, only list the pages that are out of date."""
    if "--check" in sys.argv[1:]:
        pages = outdated()
        for page in pages:
            print(f"docs/{page} differs from the code; run scripts/reference", file=sys.stderr)
        return 1 if pages else 0
    for page in sorted({page for page, _ in TABLES.values()}):
        (DOCS / page).write_text(render(page, _read(page)), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
