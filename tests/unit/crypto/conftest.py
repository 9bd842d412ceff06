"""Fixtures of the encryption tests."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator

import pytest
from crypto_support import NODE_FOLDER, EncryptedServer, NodePeer, RunningServer, in_memory_keyring
from filelock import FileLock


@pytest.fixture(scope="session")
def node() -> str:
    """Node's path, with the peers installed from the checked-in lock file."""
    path = shutil.which("node")
    if path is None:
        pytest.skip("Node is not installed, so there is no independent JavaScript peer")
    stamp = NODE_FOLDER / "node_modules" / ".package-lock.json"
    lock_file = NODE_FOLDER / "package-lock.json"
    with FileLock(NODE_FOLDER / ".install.lock"):
        if not stamp.exists() or stamp.stat().st_mtime < lock_file.stat().st_mtime:
            subprocess.run(["npm", "ci"], cwd=NODE_FOLDER, check=True, capture_output=True, timeout=100)
            stamp.touch()
    return path


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
def server() -> Iterator[RunningServer]:
    """A running encrypted server with keys in memory."""
    running = RunningServer(EncryptedServer(in_memory_keyring()))
    yield running
    running.close()
