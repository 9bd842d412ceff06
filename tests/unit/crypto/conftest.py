"""Fixtures of the encryption tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from ragsvc.store.replay_claims import CLAIMS_FILE_NAME, SqliteClaims
from tests.support.crypto import EncryptedServer, NodePeer, RunningServer, in_memory_keyring


@pytest.fixture
def node_peer(node: str) -> Iterator[Callable[[], NodePeer]]:
    """Start peers; they end with the test."""
    peers: list[NodePeer] = []

    def start() -> NodePeer:
        peers.append(NodePeer(node))
        return peers[-1]

    yield start
    for peer in peers:
        peer.close()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RunningServer]:
    """A running encrypted server with keys in memory."""
    with closing(SqliteClaims(tmp_path / CLAIMS_FILE_NAME, outlives_process=False)) as claims:
        running = RunningServer(EncryptedServer(in_memory_keyring(), claims))
        yield running
        running.close()
