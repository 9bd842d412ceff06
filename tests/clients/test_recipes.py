"""The recipes of the documentation are run as they are printed there, each in the environment of its framework."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from ragsvc.testing.service_runner import ROOT
from tests.clients.catalogue import CLIENTS, Client
from tests.clients.conftest import Workplace, run_program
from tests.support.documentation_pages import FENCE

pytestmark = pytest.mark.timeout(900)  # the first test of an environment installs its packages

PAGE = ROOT / "docs" / "howto" / "use-a-framework.md"
SECTIONS = {
    re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-"): text
    for heading, text in re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", PAGE.read_text(), re.MULTILINE | re.DOTALL)
}
SUFFIXES = {"python": ".py", "javascript": ".mjs"}
WITH_RECIPES = [client for client in CLIENTS if client.recipe]


def test_every_recipe_belongs_to_a_client() -> None:
    assert {client.recipe for client in WITH_RECIPES} == set(SECTIONS)


@pytest.mark.parametrize(
    "client",
    [pytest.param(client, id=client.name) for client in WITH_RECIPES],
)
def test_a_recipe_prints_what_the_page_shows(
    client: Client,
    workplace_of: Callable[[str], Workplace],
    tmp_path: Path,
    record_property: Callable[[str, object], None],
) -> None:
    record_property("client", client.name)
    record_property("feature", "citations by recipe")
    code, shown = FENCE.finditer(SECTIONS[client.recipe])
    assert shown["language"] == "text"
    program = tmp_path / f"recipe_{client.recipe.replace('-', '_')}{SUFFIXES[code['language']]}"
    program.write_text(code["code"], encoding="utf-8")
    workplace = workplace_of(f"recipe {client.name}")
    variables = {"RAGSVC_URL": workplace.service.running.url, "RAGSVC_API_KEY": workplace.key}
    printed = run_program(client.environment, program, variables)
    pattern = ".*?".join(re.escape(part) for part in shown["code"].strip().split("…"))
    assert re.fullmatch(pattern, printed.strip(), re.DOTALL), printed
    assert f"/{workplace.document_id}/content#page=2" in printed or "page 2: The lighthouse lamp" in printed
