"""SIGKILL at any moment: the next start replays from whole files, and never has to throw one away."""

from __future__ import annotations

import logging
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from ragsvc.core.ports.embedding import EmbeddingModel
from ragsvc.index.registry import IndexRegistry
from ragsvc.index.restore import IndexOptions
from ragsvc.testing.memory_index_source import MemorySource

DIMENSION = 16
MODEL = EmbeddingModel("test", DIMENSION, 128, "fingerprint")
OPTIONS = IndexOptions(flat_limit=100, tail_rows=64)


def change(source, turn):
    """The same history in parent and child: documents of 40 passages, every third one deleted again."""
    vectors = np.random.default_rng(turn).standard_normal((40, DIMENSION)).astype(np.float32)
    source.add_document(1, [f"turn{turn} part{i}" for i in range(40)], vectors)
    if turn % 3 == 2:
        source.delete_document(1, turn - 1)


def run_until_killed(root):
    source = MemorySource(DIMENSION)
    start = int((Path(root) / "turn").read_text())
    for turn in range(start):
        change(source, turn)
    registry = IndexRegistry(Path(root) / "derived", source, model=MODEL, options=OPTIONS, background=False)
    for turn in range(start, 10_000):
        change(source, turn)
        (Path(root) / "next").write_text(str(turn + 1))
        (Path(root) / "next").rename(Path(root) / "turn")
        registry.catch_up(1)
        registry.get(1).improve()
        registry.get(1).snapshot()
        print(turn, flush=True)  # noqa: T201 - tells the parent that the first turn is done


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_a_kill_at_any_moment_costs_a_replay_and_nothing_else(tmp_path, caplog):
    dice = random.Random(11)  # noqa: S311 - when to kill, not a secret
    (tmp_path / "turn").write_text("0")
    for _ in range(4):
        child = subprocess.Popen([sys.executable, __file__, str(tmp_path)], stdout=subprocess.PIPE, text=True)
        child.stdout.readline()
        time.sleep(dice.uniform(0, 0.5))
        child.kill()
        child.wait()
        child.stdout.close()
        source = MemorySource(DIMENSION)
        for turn in range(int((tmp_path / "turn").read_text())):
            change(source, turn)
        with caplog.at_level(logging.WARNING):
            registry = IndexRegistry(tmp_path / "derived", source, model=MODEL, options=OPTIONS, background=False)
            report = registry.verify(1)
            registry.close()
        assert report.ok, report
        assert caplog.messages == []


if __name__ == "__main__":
    run_until_killed(sys.argv[1])
