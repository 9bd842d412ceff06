#!/usr/bin/env bash
# uvloop 0.23.0, asyncio.create_subprocess_exec without preexec_fn.
#
# Expected: as with asyncio's own loop and with subprocess.Popen, where nothing of Python runs between the fork and the
#   program unless preexec_fn is set: "after_in_child" functions of os.register_at_fork are not called, and objects of
#   the parent's other threads (threading.local values, with their finalizers) do not end in the child.
# Behaviour: under uvloop the child calls the "after_in_child" functions and ends the states of the other threads before
#   it executes the program. Finalizers of their threading.local values run in the child, and may wait for locks that a
#   thread of the parent held at the fork; the parent's event loop waits for the child to execute the program.
# Output seen: asyncio: fork hooks 0, finalizers of another thread 0
#   uvloop: fork hooks 1, finalizers of another thread 1
#
# Exits with 0 while the behaviour is as described, and with 1 once it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet uvloop==0.23.0
"$folder/venv/bin/python" - "$folder/notes" <<'PYTHON'
import asyncio
import os
import sys
import threading
import weakref

import uvloop

parent = os.getpid()
notes = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
local, started, done = threading.local(), threading.Event(), threading.Event()


class Value:
    pass


def note(what: bytes) -> None:
    if os.getpid() != parent:
        os.write(notes, what)


def keep_a_value() -> None:
    local.value = Value()
    weakref.finalize(local.value, note, b"finalizer\n").atexit = False
    started.set()
    done.wait()


os.register_at_fork(after_in_child=lambda: note(b"hook\n"))
thread = threading.Thread(target=keep_a_value)
thread.start()
started.wait()


async def run_true() -> None:
    process = await asyncio.create_subprocess_exec("true")
    assert await process.wait() == 0


seen = []
for name, new_loop in (("asyncio", asyncio.new_event_loop), ("uvloop", uvloop.new_event_loop)):
    os.truncate(sys.argv[1], 0)
    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(run_true())
    with open(sys.argv[1], "rb") as lines:
        text = lines.read()
    seen.append((text.count(b"hook"), text.count(b"finalizer")))
    print(f"{name}: fork hooks {seen[-1][0]}, finalizers of another thread {seen[-1][1]}")
done.set()
thread.join()
raise SystemExit(seen != [(0, 0), (1, 1)])
PYTHON
