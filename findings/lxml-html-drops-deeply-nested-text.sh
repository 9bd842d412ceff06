#!/usr/bin/env bash
# lxml 6.1.3 (libxml2 as bundled in its wheel), lxml.html.HTMLParser with its defaults.
#
# Expected: an HTML page of valid, well-nested elements is parsed whole, or the parser raises an error. The parser is
#   documented as one that recovers from broken pages, and this page is not broken.
# Behaviour: with 256 or more nested elements, the innermost text and everything after it are missing. Nothing is
#   raised; only parser.error_log has "Excessive depth in document: 256, use XML_PARSE_HUGE option". With
#   huge_tree=True the limit is 2,048. Pages of some generators nest deeper than 256.
# Output seen: 200 'start core end' / 300 'start' / 300 with huge_tree 'start core end' / 3000 with huge_tree 'start'
#
# Exits with 0 while the behaviour is as described, and with 1 once it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet lxml==6.1.3
"$folder/venv/bin/python" - <<'PYTHON'
import lxml.html


def text(depth: int, **options: bool) -> str:
    page = f"<p>start</p>{'<div>' * depth} core {'</div>' * depth}<p>end</p>"
    root = lxml.html.document_fromstring(page, parser=lxml.html.HTMLParser(**options))
    return " ".join(root.text_content().replace("start", "start ").split())


seen = [text(200), text(300), text(300, huge_tree=True), text(3000, huge_tree=True)]
print(seen)
raise SystemExit(seen != ["start core end", "start", "start core end", "start"])
PYTHON
