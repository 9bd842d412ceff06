"""Checks a page with axe-core, and that it fits its width."""

from __future__ import annotations

from importlib.resources import files
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Page

_TAGS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
_RUN = """async (tags) => {
  const found = await axe.run(document, { runOnly: { type: "tag", values: tags } });
  return found.violations.map((violation) => ({
    id: violation.id,
    help: violation.help,
    nodes: violation.nodes.map((node) => node.target.join(" ") + ": " + node.failureSummary),
  }));
}"""


def violations(page: Page) -> list[str]:
    """What axe-core finds against WCAG 2.2 AA and good practice, in words; for the state that the page shows now."""
    # evaluated by the test driver and not loaded by the page: its Content-Security-Policy stays as it is
    page.evaluate((files("axe_playwright_python") / "axe.min.js").read_text(encoding="utf-8"))
    found = page.evaluate(_RUN, _TAGS)
    return [f"{violation['id']}: {violation['help']}\n  " + "\n  ".join(violation["nodes"]) for violation in found]


def assert_accessible(page: Page) -> None:
    found = violations(page)
    assert not found, f"{page.url}\n" + "\n".join(found)


def assert_fits_width(page: Page) -> None:
    """The page does not scroll sideways."""
    wide = page.evaluate(
        """() => [...document.querySelectorAll("body *")]
            .filter((element) => element.getBoundingClientRect().right > innerWidth + 1)
            .filter((element) => document.documentElement.scrollWidth > innerWidth)
            .map((element) => element.tagName + "." + element.className).slice(0, 5)"""
    )
    overflow = page.evaluate("document.documentElement.scrollWidth - innerWidth")
    assert overflow <= 0, f"{page.url} is {overflow} px too wide: {wide}"


def settle(page: Page) -> None:
    """Wait until the page shows no sign of loading. It may keep a stream open, so that its network is never idle."""
    page.locator("main .spinner").first.wait_for(state="detached")
