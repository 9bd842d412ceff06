#!/usr/bin/env bash
# SQLite 3.54.1 (in apsw 3.54.1.0), PRAGMA secure_delete=ON.
#
# Expected: "When secure_delete is on, SQLite overwrites deleted content with zeros." After the commit of a DELETE, and
#   after a checkpoint that truncates the write-ahead log, the file no longer has the deleted value.
# Behaviour: some deleted values stay in the file. When rows are inserted or deleted elsewhere, SQLite moves rows between
#   the pages of a tree; copies of the moved rows stay in the space between a page's cell pointers and its first cell.
#   A later DELETE overwrites the present row only. PRAGMA integrity_check finds nothing. VACUUM removes the copies.
# Output seen: SQLite 3.54.1: 1510 rows deleted, 1 still in the file, ok
#   after VACUUM: 0
#
# Exits with 0 while the behaviour is as described, and with 1 once it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet apsw==3.54.1.0
"$folder/venv/bin/python" - "$folder/test.sqlite" <<'PYTHON'
import pathlib
import random
import sys

import apsw

path = pathlib.Path(sys.argv[1])
database = apsw.Connection(str(path))
database.execute("PRAGMA journal_mode=WAL")
assert database.execute("PRAGMA secure_delete=ON").fetchone() == (1,)
database.execute("CREATE TABLE names (id INTEGER PRIMARY KEY AUTOINCREMENT, kind INT, name TEXT)")
database.execute("CREATE INDEX by_name ON names (kind, name)")
chance = random.Random(1)
kept, deleted = {}, []
for number in range(3000):
    name = f"name{number:07d}" + "y" * chance.randrange(40)
    database.execute("INSERT INTO names (kind, name) VALUES (?, ?)", (chance.randrange(5), name))
    kept[database.last_insert_rowid()] = name
    if chance.random() < 0.5:
        row = chance.choice(sorted(kept))
        database.execute("DELETE FROM names WHERE id = ?", (row,))
        deleted.append(kept.pop(row)[:11].encode())


def left() -> int:
    assert database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone() == (0, 0, 0)
    assert path.with_name("test.sqlite-wal").stat().st_size == 0
    content = path.read_bytes()
    return sum(name in content for name in deleted)


before = left()
(state,) = database.execute("PRAGMA integrity_check").fetchone()
print(f"SQLite {apsw.sqlite_lib_version()}: {len(deleted)} rows deleted, {before} still in the file, {state}")
database.execute("VACUUM")
print("after VACUUM:", left())
raise SystemExit(not (before > 0 and state == "ok" and left() == 0))
PYTHON
