"""Each claim succeeds once, over threads and restarts, and is kept at least as long as its key."""

from __future__ import annotations

import os
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest

from ragsvc.core.errors import ShuttingDown
from ragsvc.crypto.replay import ReplayClaim
from ragsvc.store.replay_claims import PRUNE_AFTER_S, SqliteClaims


def claim(digest: bytes = b"d" * 32, *, key_id: str = "k", expires_at: float | None = 1000.0) -> ReplayClaim:
    return ReplayClaim(key_id=key_id, digest=digest, expires_at=expires_at)


def test_of_many_threads_one_wins_each_claim(tmp_path):
    digests = [os.urandom(32) for _ in range(20)]
    with closing(SqliteClaims(tmp_path / "c.sqlite", outlives_process=True)) as claims, ThreadPoolExecutor(16) as pool:
        outcomes = list(pool.map(lambda digest: (digest, claims.submit(claim(digest)).result(10)), digests * 16))
    winners = [digest for digest, won in outcomes if won]
    assert sorted(winners) == sorted(digests)


def test_claims_of_lasting_keys_survive_and_those_of_memory_do_not(tmp_path):
    for outlives_process in (True, False):
        path = tmp_path / f"{outlives_process}.sqlite"
        with closing(SqliteClaims(path, outlives_process=outlives_process)) as claims:
            assert claims.submit(claim()).result(10)
            assert not claims.submit(claim()).result(10)
            assert claims.submit(claim(key_id="other")).result(10)
        with closing(SqliteClaims(path, outlives_process=outlives_process)) as claims:
            assert claims.submit(claim()).result(10) is not outlives_process


def test_claims_go_a_while_after_their_key_and_never_before(tmp_path):
    path = tmp_path / "c.sqlite"
    with closing(SqliteClaims(path, outlives_process=True)) as claims:
        claims.submit(claim(b"old" + bytes(29), expires_at=1000.0)).result(10)
        claims.submit(claim(b"for good" + bytes(24), expires_at=None)).result(10)
        claims.prune(1000.0 + PRUNE_AFTER_S)
        assert not claims.submit(claim(b"old" + bytes(29), expires_at=1000.0)).result(10)
        claims.prune(1001.0 + PRUNE_AFTER_S)
    with closing(sqlite3.connect(path)) as rows:
        assert rows.execute("SELECT substr(digest, 1, 8) FROM claims").fetchall() == [(b"for good",)]


def test_a_closed_store_accepts_nothing(tmp_path):
    claims = SqliteClaims(tmp_path / "c.sqlite", outlives_process=True)
    claims.close()
    with pytest.raises(ShuttingDown):
        claims.submit(claim())
