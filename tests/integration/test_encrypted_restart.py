"""Keys that survive a restart: a request is accepted once, also across a kill of the process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from ragsvc.testing.service_runner import ROOT, RunningService, create_key, service_environment
from tests.support.sealing import OneShot, SealedInference, fetch_hpke_key, fetch_rvenc_key

pytestmark = pytest.mark.model

CHAT = {"model": "local/chat-model", "messages": [{"role": "user", "content": "Hello"}]}
COPIES = 64


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    (tmp_path / "key").write_bytes(os.urandom(32))
    return tmp_path / "data"


def start(data_dir: Path, source: str) -> RunningService:
    settings = {"RAGSVC_ENCRYPTION_KEYS": source, "RAGSVC_ENCRYPTION_KEY_FILE": str(data_dir.parent / "key")}
    return RunningService(data_dir, env=settings)


def send_copies(http: httpx.Client, sealed: OneShot, inference: SealedInference) -> tuple[list[int], list[int]]:
    def send_one_shot(_: int) -> int:
        return http.post("/v1/chat/completions", headers=sealed.headers, content=sealed.body).status_code

    def send_rvenc(_: int) -> int:
        return http.post("/rvenc/chat/completions", json=inference.body).status_code

    with ThreadPoolExecutor(COPIES) as pool:
        one_shots = pool.map(send_one_shot, range(COPIES))
        inferences = pool.map(send_rvenc, range(COPIES))
        return sorted(one_shots), sorted(inferences)


@pytest.mark.parametrize("source", ["derived", "fixed"])
def test_of_64_copies_one_is_accepted_also_across_a_kill(data_dir, source) -> None:
    key = create_key(data_dir)
    first = start(data_dir, source)
    options = {"limits": httpx.Limits(max_connections=COPIES)}
    with first.client(key, **options) as http:
        keys = fetch_hpke_key(http), fetch_rvenc_key(http)
        sealed = OneShot(keys[0], json.dumps(CHAT).encode()), SealedInference(keys[1], json.dumps(CHAT).encode())
        unsent = OneShot(keys[0], json.dumps(CHAT).encode()), SealedInference(keys[1], json.dumps(CHAT).encode())
        accepted_once = [200] + [400] * (COPIES - 1)
        assert send_copies(http, *sealed) == (accepted_once, accepted_once)
    first.kill()
    second = start(data_dir, source)
    with second.client(key, **options) as http:
        assert (fetch_hpke_key(http), fetch_rvenc_key(http)) == keys
        assert send_copies(http, *sealed) == ([400] * COPIES, [400] * COPIES)
        assert send_copies(http, *unsent) == (accepted_once, accepted_once)
    assert second.stop() == 0


def test_keys_in_memory_end_with_the_process(tmp_path) -> None:
    key = create_key(tmp_path / "data")
    first = RunningService(tmp_path / "data")
    with first.client(key) as http:
        public = fetch_hpke_key(http)
        sealed = OneShot(public, json.dumps(CHAT).encode())
    assert first.stop() == 0
    second = RunningService(tmp_path / "data")
    with second.client(key) as http:
        assert fetch_hpke_key(http) != public
        assert http.post("/v1/chat/completions", headers=sealed.headers, content=sealed.body).status_code == 400
    assert second.stop() == 0


def test_the_service_does_not_start_without_the_key_file_that_its_keys_need(tmp_path) -> None:
    environment = service_environment(tmp_path / "data", {"RAGSVC_ENCRYPTION_KEYS": "derived"})
    command = [sys.executable, "-m", "ragsvc", "serve", "--port", "0"]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "encryption_key_file" in done.stderr
