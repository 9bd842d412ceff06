#!/usr/bin/env bash
# tantivy 0.27.0 (the Python binding), Index in a directory.
#
# Expected: an idle index costs memory and file handles at most. A reader with reload_policy "manual" loads new commits
#   only when it is asked to, so that nothing has to watch the directory.
# Behaviour: opening an index starts a thread, before any search, which lasts as long as the index is referenced. A
#   reader configured as "manual" does not end it: 50 idle indexes are 50 threads either way. A server with an index
#   for each tenant or collection meets its limit of threads without any load.
# Output seen: 50 threads after opening, 50 with manual readers, 0 once the indexes are dropped
#
# Exits with 0 while the behaviour is as described, and with 1 once it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet tantivy==0.27.0
"$folder/venv/bin/python" - "$folder" <<'PYTHON'
import sys
import time
from pathlib import Path

import tantivy

COUNT = 50


def threads() -> int:
    return len(list(Path("/proc/self/task").iterdir()))


builder = tantivy.SchemaBuilder()
builder.add_text_field("body")
schema = builder.build()
before = threads()
indexes = []
for number in range(COUNT):
    path = Path(sys.argv[1], str(number))
    path.mkdir()
    indexes.append(tantivy.Index(schema, path=str(path)))
opened = threads() - before
for index in indexes:
    index.config_reader(reload_policy="manual")
    index.reload()
    index.searcher()
time.sleep(2)
manual = threads() - before
indexes.clear()
del index
time.sleep(2)
dropped = threads() - before
print(f"{opened} threads after opening, {manual} with manual readers, {dropped} once the indexes are dropped")
raise SystemExit((opened, manual, dropped) != (COUNT, COUNT, 0))
PYTHON
