#!/usr/bin/env bash
# multipart 2.0.1 (which Litestar needs) and python-multipart 0.0.34 (which the SDK of the Model Context Protocol needs),
# installed together.
#
# Expected: pip reports that both own the name "multipart", or one of them wins: what "import multipart" loads is the
#   file that the import system finds, and the installed files "multipart/…" can be imported.
# Behaviour: pip and "pip check" accept both. The import system finds the package of python-multipart. On import, it looks
#   for a file multipart.py along sys.path and puts that module in its own place. So the module has another file than
#   importlib.util.find_spec says, and the installed multipart/decoders.py cannot be imported. Programs of both kinds
#   work, but tools that do not run code take the wrong one: pyright says that PushMultipartParser does not exist.
# Output seen: __init__.py multipart.py True ModuleNotFoundError
#
# Exits with 0 while the behaviour is as described, and with 1 once it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet multipart==2.0.1 python-multipart==0.0.34
"$folder/venv/bin/pip" check > "$folder/check" || exit 1
"$folder/venv/bin/python" - <<'PYTHON'
import importlib
import importlib.util
from pathlib import Path

found = importlib.util.find_spec("multipart")
multipart = importlib.import_module("multipart")
try:
    importlib.import_module("multipart.decoders")
    submodule = "imported"
except ModuleNotFoundError as error:
    submodule = type(error).__name__
installed = Path(found.origin).with_name("decoders.py").is_file()
seen = [Path(found.origin).name, Path(multipart.__file__).name, installed, submodule]
print(*seen)
raise SystemExit(seen != ["__init__.py", "multipart.py", True, "ModuleNotFoundError"])
PYTHON
