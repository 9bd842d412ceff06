"""Chunking functions that the parser's child process runs by dotted path: correct functions, and faulty functions."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import json
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from ragsvc.core.documents import Extraction, Passage
from ragsvc.core.ports.parsing import ChunkingOptions, TokenSpans


class WordSpans:
    """Port ``TokenSpans`` with words as tokens."""

    def count(self, texts: Sequence[str]) -> list[int]:
        return [len(text.split()) for text in texts]

    def spans(self, text: str) -> list[tuple[int, int]]:
        return [found.span() for found in re.finditer(r"\S+", text)]


def load_words(path: Path) -> WordSpans:
    return WordSpans()


def split_paragraphs(
    extraction: Extraction, *, options: ChunkingOptions, tokens: TokenSpans, filename: str
) -> list[Passage]:
    passages: list[Passage] = []
    for page in extraction.pages:
        for found in re.finditer(r"\S[\s\S]*?(?=\n\n|\Z)", page.text):
            (count,) = tokens.count([found.group()])
            passages.append(
                Passage(
                    ordinal=len(passages),
                    page=page.number,
                    start=found.start(),
                    end=found.end(),
                    text=found.group(),
                    token_count=count,
                )
            )
    return passages


def make_noise(extraction: Extraction, **_: object) -> list[Passage]:
    print("noise on stdout " * 10_000)  # noqa: T201 - the output is what the test is about
    os.write(1, b"raw noise " * 10_000)
    os.write(2, b"noise on stderr " * 200_000)
    return []


def hang(extraction: Extraction, **_: object) -> list[Passage]:
    while True:
        time.sleep(0.05)


def hang_in_native_code(extraction: Extraction, **_: object) -> list[Passage]:
    """Sleep while holding the interpreter lock, so that no other Python thread of the child runs."""
    ctypes.PyDLL(None).sleep(60)
    return []


def crash(extraction: Extraction, **_: object) -> list[Passage]:
    signal.raise_signal(signal.SIGSEGV)
    return []


def swell(extraction: Extraction, **_: object) -> list[Passage]:
    hoard = []
    while True:
        hoard.append(bytearray(16 << 20))


def swell_and_stay(extraction: Extraction, **_: object) -> list[Passage]:
    """Keep 500 MB allocated after the job, like a memory leak."""
    sys.modules["leak"] = [bytearray(b"x") * (1 << 20) for _ in range(500)]  # type: ignore[assignment]
    return []


def spend_environment(extraction: Extraction, **_: object) -> list[Passage]:
    """Return the child's environment variables and niceness as passages."""
    facts = [*sorted(os.environ), f"nice={os.nice(0)}"]
    return [Passage(index, 1, 0, 0, fact) for index, fact in enumerate(facts)]


def fail(extraction: Extraction, **_: object) -> list[Passage]:
    raise KeyError("a bug in the plan")


def try_attacks(extraction: Extraction, *, options: object, tokens: AttackTargets, filename: str) -> list[Passage]:
    """Do what code in a hostile file would do to the service and its files; return the outcomes as passages."""
    attacks: dict[str, Callable[[], object]] = {
        "read the database": tokens.database.read_bytes,
        "read the sealing key": tokens.sealing_key.read_bytes,
        "list the data directory": lambda: list(tokens.database.parent.iterdir()),
        "write the database": lambda: tokens.database.write_bytes(b""),
        "truncate the database": lambda: os.truncate(tokens.database, 0),
        "delete the database": tokens.database.unlink,
        "change the mode of the database": lambda: tokens.database.chmod(0o777),
        "change the times of the database": lambda: os.utime(tokens.database),
        "link the database": lambda: os.link(tokens.database, tokens.database.with_name("link")),
        "write its own code": lambda: os.close(os.open(__file__, os.O_WRONLY)),
        "write a temporary file": lambda: Path("/tmp/ragsvc-test-attack").write_bytes(b""),  # noqa: S108 - must fail
        "read the environment of the service": lambda: Path(f"/proc/{tokens.service}/environ").read_bytes(),
        "list the files of the service": lambda: list(Path(f"/proc/{tokens.service}/fd").iterdir()),
        "read the memory of the service": lambda: _read_memory(tokens.service),
        "trace the service": lambda: _system_call("ptrace", 16, tokens.service, 0, 0),  # PTRACE_ATTACH
        "signal the service": lambda: os.kill(tokens.service, 0),
        "signal its own group": lambda: os.kill(0, 0),
        "signal through a descriptor": lambda: fcntl.fcntl(2, fcntl.F_SETOWN, tokens.service),
        "limit the service": lambda: resource.prlimit(tokens.service, resource.RLIMIT_NOFILE, (3, 3)),
        "slow the user's processes down": lambda: os.setpriority(os.PRIO_USER, 0, 19),
        "slow the service down": lambda: os.setpriority(os.PRIO_PROCESS, tokens.service, 19),
        "connect over TCP": lambda: socket.create_connection(("127.0.0.1", tokens.port), timeout=1),
        "open a UDP socket": lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM),
        "open a Unix socket": lambda: socket.socket(socket.AF_UNIX, socket.SOCK_STREAM),
        "open a pair of sockets": socket.socketpair,
        "execute a program": lambda: subprocess.run(["/bin/true"], check=True),
        "fork": os.fork,
    }
    return [
        Passage(index, 1, 0, 0, f"{name}: {_outcome(attack)}") for index, (name, attack) in enumerate(attacks.items())
    ]


class AttackTargets(WordSpans):
    """What ``try_attacks`` attacks, read from the file that takes the place of the tokenizer."""

    def __init__(self, path: Path) -> None:
        targets = json.loads(path.read_text())
        self.database = Path(targets["database"])
        self.sealing_key = Path(targets["sealing_key"])
        self.service = int(targets["service"])
        self.port = int(targets["port"])


def _outcome(attack: Callable[[], object]) -> str:
    try:
        attack()
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    return "succeeded"


def _read_memory(pid: int) -> None:
    with Path(f"/proc/{pid}/mem").open("rb") as memory:
        memory.read(0)


def _system_call(name: str, *arguments: int) -> None:
    library = ctypes.CDLL(None, use_errno=True)
    if getattr(library, name)(*map(ctypes.c_long, arguments)) < 0:
        raise OSError(ctypes.get_errno(), name)


def die_of_a_word(
    extraction: Extraction, *, options: ChunkingOptions, tokens: TokenSpans, filename: str
) -> list[Passage]:
    """Kill the process for a file with the text "kill", and never return for "hang"."""
    text = extraction.pages[0].text
    if text == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    while text == "hang":
        time.sleep(0.1)
    return split_paragraphs(extraction, options=options, tokens=tokens, filename=filename)
