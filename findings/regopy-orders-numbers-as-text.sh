#!/usr/bin/env bash
# regopy 1.5.2 (rego-cpp), Interpreter.query with built-in functions of Rego.
#
# Expected: max, min and sort of numbers order them as numbers, as the documentation of Open Policy Agent says and its
#   server does: max([9, 10]) is 10, sort([2, 10, 9]) is [2, 9, 10].
# Behaviour: they order the decimal digits as text, so 10 comes before 2 and 9. The comparison operators of the same
#   engine are right: 9 < 10 is true. With numbers of one digit, as in most examples, nothing is noticed.
# Output seen: 9, 10, [10, 2, 9], True
#
# Exits with 0 while the behaviour is as described, and with 1 once it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet regopy==1.5.2
"$folder/venv/bin/python" - <<'PYTHON'
import json

from regopy import Interpreter


def value(expression: str) -> object:
    return json.loads(str(Interpreter().query(f"x := {expression}")))["bindings"]["x"]


seen = [value("max([9, 10])"), value("min([9, 10])"), value("sort([2, 10, 9])"), value("9 < 10")]
print(seen)
raise SystemExit(seen != [9, 10, [10, 2, 9], True])
PYTHON
