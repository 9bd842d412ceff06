"""Chunking functions that the parser's child process runs by dotted path: correct functions, and faulty functions."""

from __future__ import annotations

import ctypes
import os
import re
import signal
import sys
import time
from collections.abc import Sequence
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
