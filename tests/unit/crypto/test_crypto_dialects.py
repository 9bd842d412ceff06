"""The Oryxen document's code samples, run unchanged, and the order in which dialects are tried."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from ragsvc.core.errors import CryptoFailure
from ragsvc.crypto import hpke, sample_key_schedules, sealed_headers
from ragsvc.crypto.sample_key_schedules import ALL_DIALECTS, ONLY_RFC9180, KeyScheduleDialect
from tests.support.crypto import FIXTURES, KEY


def adapt(sample: str, origin: str) -> str:
    """Replace only host and key in the sample."""
    text = (FIXTURES / sample).read_text()
    assert text.count("https://api.oryxen.ai") == 1
    return text.replace("https://api.oryxen.ai", origin).replace("oryxen_your_key", KEY)


def run_sample(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)


def test_the_documents_python_sample_works(server):
    done = run_sample([sys.executable, "-c", adapt("oryxen_sample.py.txt", server.origin)])
    assert "echo: hi" in done.stdout, done.stderr
    assert server.application.dialects == [KeyScheduleDialect.SAMPLE_PYTHON]
    assert b'"content": "hi"' in server.application.decrypted[0]


def test_the_documents_javascript_sample_works(server, node, tmp_path):
    sample = tmp_path / "sample.mjs"
    sample.write_text(adapt("oryxen_sample.mjs.txt", server.origin))
    done = run_sample([node, "--no-warnings", str(sample)])
    assert "chatcmpl-1" in done.stdout, done.stderr
    assert server.application.dialects == [KeyScheduleDialect.SAMPLE_JAVASCRIPT]


def test_the_samples_are_refused_when_only_the_standard_is_accepted():
    private_key = X25519PrivateKey.generate()
    for dialect in (KeyScheduleDialect.SAMPLE_JAVASCRIPT, KeyScheduleDialect.SAMPLE_PYTHON):
        enc, sealed = seal_in(dialect, private_key, b"question")
        with pytest.raises(CryptoFailure):
            sample_key_schedules.open_by_trial(
                enc, sealed, private_key=private_key, info=sealed_headers.INFO, accepted=ONLY_RFC9180
            )
        accepted = ALL_DIALECTS - {dialect}
        with pytest.raises(CryptoFailure):
            sample_key_schedules.open_by_trial(
                enc, sealed, private_key=private_key, info=sealed_headers.INFO, accepted=accepted
            )


def seal_in(dialect: KeyScheduleDialect, private_key: X25519PrivateKey, plaintext: bytes) -> tuple[bytes, bytes]:
    public = private_key.public_key().public_bytes_raw()
    ephemeral = X25519PrivateKey.generate()
    enc = ephemeral.public_key().public_bytes_raw()
    dh = hpke.diffie_hellman(ephemeral, public)
    schedule = sample_key_schedules.schedule_dialect(dialect, dh, enc, public, sealed_headers.INFO)
    return enc, hpke.SenderContext(schedule, enc).seal(plaintext)


@pytest.mark.parametrize("dialect", list(KeyScheduleDialect))
def test_the_response_uses_the_dialect_of_the_request(dialect):
    private_key = X25519PrivateKey.generate()
    enc, sealed = seal_in(dialect, private_key, b"question")
    opened = sample_key_schedules.open_by_trial(enc, sealed, private_key=private_key, info=sealed_headers.INFO)
    assert (opened.dialect, opened.plaintext) == (dialect, b"question")
    assert "question" not in repr(opened)


def test_the_three_dialects_share_no_key():
    private_key = X25519PrivateKey.generate()
    public = private_key.public_key().public_bytes_raw()
    dh = bytes(range(32))
    keys = {
        sample_key_schedules.schedule_dialect(dialect, dh, public, public, sealed_headers.INFO).key
        for dialect in KeyScheduleDialect
    }
    assert len(keys) == 3


def test_a_sample_dialect_has_no_exporter_and_so_no_stream():
    private_key = X25519PrivateKey.generate()
    enc, sealed = seal_in(KeyScheduleDialect.SAMPLE_PYTHON, private_key, b"question")
    opened = sample_key_schedules.open_by_trial(enc, sealed, private_key=private_key, info=sealed_headers.INFO)
    with pytest.raises(RuntimeError):
        opened.context.export(b"label", 32)


def test_standard_contexts_open_by_trial():
    private_key = X25519PrivateKey.generate()
    sender = hpke.set_up_sender(private_key.public_key().public_bytes_raw(), sealed_headers.INFO)
    opened = sample_key_schedules.open_by_trial(
        sender.enc, sender.seal(b"{}", b"bound"), private_key=private_key, info=sealed_headers.INFO, aad=b"bound"
    )
    assert opened.dialect is KeyScheduleDialect.RFC9180
    assert json.loads(sender.open_response(opened.context.seal_response(b'{"ok": true}'))) == {"ok": True}
