"""The reference pages list what the code has, no more and no less; links of all pages lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest

from ragsvc.cli.failures import ExitCode
from ragsvc.core.access.principal import Scope
from ragsvc.core.documents import ProblemCode
from ragsvc.core.errors import FailureReason
from ragsvc.core.gateway.provider_settings import ModelSettings, ProviderSettings
from ragsvc.testing.service_runner import ROOT
from scripts.documentation import reference
from tests.support.documentation_pages import FENCE, PAGES, SKIP, page_name

_HOW_TO_UPDATE = "the code has changed; scripts/reference brings the tables up to date"
README = ROOT / "README.md"
REFERENCE = ROOT / "docs" / "reference"
DOCS = ROOT / "docs"


@pytest.mark.parametrize("name", reference.TABLES)
def test_a_table_says_what_the_code_says(name: str) -> None:
    page, make = reference.TABLES[name]
    text = (DOCS / page).read_text(encoding="utf-8")
    assert f"<!-- table: {name} -->\n\n{make()}\n\n<!-- end: {name} -->\n" in text, _HOW_TO_UPDATE


def test_the_tables_have_an_entry_for_everything() -> None:
    settings = reference.settings_table().count("\n| ")
    assert settings == len(reference.Settings.__struct_fields__)
    assert reference.routes_table().count("\n| `") > 60
    assert reference.refused_table().count("\n| `") > 15
    assert reference.errors_table().count("\n| ") >= 24
    assert reference.commands_reference().count("## ragsvc") >= 18
    assert len(reference.declared_metrics()) >= 13
    assert reference.outdated() == []


@pytest.mark.parametrize(
    ("page", "name", "codes"),
    [
        ("errors.md", "failures", [reason.value for reason in FailureReason]),
        ("errors.md", "problems", [code.value for code in ProblemCode]),
        ("api.md", "scopes", [scope.value for scope in Scope]),
        ("cli.md", "exit-codes", [str(int(code)) for code in ExitCode]),
    ],
)
def test_a_table_written_by_hand_has_every_code_once(page: str, name: str, codes: list[str]) -> None:
    assert [cells[0] for cells in _rows(page, name)] == codes


@pytest.mark.parametrize(("name", "kind"), [("provider", ProviderSettings), ("model", ModelSettings)])
def test_the_fields_of_providers_are_listed_with_their_defaults(name: str, kind: type[msgspec.Struct]) -> None:
    expected = []
    for field in msgspec.structs.fields(kind):
        default = (
            field.default_factory() if field.default is msgspec.NODEFAULT and not field.required else field.default
        )
        shown = "required" if field.required else reference.shown_value(default).strip("`")
        expected.append((field.name, shown))
    assert [tuple(cells[:2]) for cells in _rows("settings.md", name)] == expected


def test_files_that_the_architecture_names_exist() -> None:
    text = (DOCS / "architecture.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`((?:[a-z_]+/)+[a-z_]+\.py)`", text))
    assert len(named) >= 30
    assert sorted(name for name in named if not (ROOT / "ragsvc" / name).is_file()) == []


def test_the_readme_is_short() -> None:
    assert len(README.read_text(encoding="utf-8").splitlines()) <= 160


@pytest.mark.parametrize("path", PAGES, ids=page_name)
def test_links_lead_to_pages_and_headings(path: Path) -> None:
    text = FENCE.sub("", path.read_text(encoding="utf-8"))
    dead = []
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        file = (path.parent / name).resolve() if name else path
        if not file.exists() or (anchor and anchor not in _anchors(file)):
            dead.append(target)
    assert dead == []


@pytest.mark.parametrize("path", PAGES, ids=page_name)
def test_files_that_a_page_names_exist(path: Path) -> None:
    named = set(re.findall(r"`((?:tests|scripts|fixtures|ragsvc|docs)/[\w./-]+\w)`", path.read_text(encoding="utf-8")))
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []


@pytest.mark.parametrize("path", PAGES, ids=page_name)
def test_no_placeholder_is_left(path: Path) -> None:
    text = re.sub(r"RAGSVC_\w+|VENDOR_API_KEY", "", path.read_text(encoding="utf-8"))
    assert re.findall(r"\b(?:TODO|TBD|FIXME|[A-Z]{4,}_[A-Z_]{4,})\b", text) == []


@pytest.mark.parametrize("path", PAGES, ids=page_name)
def test_blocks_name_their_language_and_skipped_ones_a_reason(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert [match.group() for match in FENCE.finditer(text) if not match["language"]] == []
    assert [match.group() for match in SKIP.finditer(text) if not re.fullmatch(r' "[^"]{8,}" ', match["reason"])] == []


def _rows(page: str, name: str) -> list[list[str]]:
    """The body of the table after ``<!-- checked: NAME -->``, cells without code marks."""
    _, _, rest = (REFERENCE / page).read_text(encoding="utf-8").partition(f"<!-- checked: {name} -->\n\n")
    table = rest.split("\n\n")[0].splitlines()
    return [[cell.strip().strip("`") for cell in line.strip("|").split("|")] for line in table[2:]]


def _anchors(file: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", file.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}
