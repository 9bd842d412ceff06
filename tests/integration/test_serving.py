"""``ragsvc serve`` as a process: the port opens at once, TLS, Unix sockets, systemd, the end of the grace period."""

import asyncio
import datetime
import http.client
import json
import socket
import ssl
import subprocess
import sys
import time

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from ragsvc.testing.service_runner import ROOT, RunningService, create_key, service_environment
from tests.support.upstream_server import serving

pytestmark = [pytest.mark.model, pytest.mark.timeout(240)]


class Started:
    """A service from its first line of output on, which may not be ready yet."""

    def __init__(self, data_dir, *options, env=None, pass_fds=()):
        self.process = subprocess.Popen(
            [sys.executable, "-m", "ragsvc", "serve", "--json", *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=service_environment(data_dir, env),
            pass_fds=pass_fds,
        )

    def __enter__(self):
        self.listening = json.loads(self.process.stdout.readline())
        assert self.listening["event"] == "listening"
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.rest, self.errors = self.process.communicate(timeout=60)

    def wait_ready(self):
        line = json.loads(self.process.stdout.readline())
        assert line["event"] == "ready"


def test_the_port_opens_before_the_service_is_ready(tmp_path):
    with Started(tmp_path, "--port", "0") as started, httpx.Client(base_url=started.listening["url"]) as client:
        assert client.get("/livez").json() == {"status": "alive"}
        early = client.get("/readyz")
        assert early.status_code == 503
        assert early.json()["status"] == "not_ready"
        assert early.json()["reasons"]["service"]
        refused = client.post("/v1/chat/completions", json={})
        assert refused.status_code == 503
        assert refused.json()["error"]["code"] == "service_starting"
        assert refused.headers["retry-after"]
        seen = set()
        deadline = time.monotonic() + 120
        while (reply := client.get("/readyz")).status_code == 503 and time.monotonic() < deadline:
            seen |= set(reply.json()["reasons"].values())
            time.sleep(0.02)
        assert reply.json() == {"status": "ready", "reasons": {}}
        assert any("embedding model" in reason for reason in seen)
        assert client.post("/v1/chat/completions", json={}).status_code == 401


def test_a_browser_sees_a_page_that_reloads_itself_while_the_service_starts(tmp_path):
    browser = {"accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
    with Started(tmp_path, "--port", "0") as started, httpx.Client(base_url=started.listening["url"]) as client:
        early = client.get("/ask", headers={**browser, "accept-language": "de-DE,de;q=0.9,en;q=0.8"})
        assert (early.status_code, early.headers["content-type"]) == (503, "text/html; charset=utf-8")
        assert early.headers["cache-control"] == "no-store"
        assert '<html lang="de">' in early.text
        assert '<meta http-equiv="refresh" content="2">' in early.text
        assert "<h1>The service is starting</h1>" in client.get("/", headers=browser).text
        assert client.get("/v1/models").json()["error"]["code"] == "service_starting"
        assert client.post("/ask", headers=browser).json()["error"]["code"] == "service_starting"
        started.wait_ready()
        assert client.get("/ask", headers=browser).status_code == 200


def test_a_signal_during_the_start_ends_it(tmp_path):
    with Started(tmp_path, "--port", "0") as started:
        pass
    assert started.process.returncode == 0
    assert '"stopped"' in started.rest


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tls")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    built = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    (folder / "cert.pem").write_bytes(built.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return folder


def test_https(tmp_path, certificate):
    options = ("--ssl-certfile", str(certificate / "cert.pem"), "--ssl-keyfile", str(certificate / "key.pem"))
    with Started(tmp_path, "--port", "0", "--host", "0.0.0.0", *options) as started:  # noqa: S104 - the warning for it
        assert started.listening["url"].startswith("https://")
        port = int(started.listening["url"].rpartition(":")[2])
        context = ssl.create_default_context(cafile=certificate / "cert.pem")
        connection = http.client.HTTPSConnection("localhost", port, context=context, timeout=30)
        connection.request("GET", "/livez")
        assert connection.getresponse().read() == b'{"status":"alive"}'
        connection.close()
    assert "plain text" not in started.errors


def test_a_certificate_that_cannot_be_used_is_one_line(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "ragsvc", "serve", "--port", "0", "--ssl-certfile", str(tmp_path / "none.pem")],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env=service_environment(tmp_path),
        timeout=60,
    )
    assert done.returncode == 2
    assert "ssl_certfile" in done.stderr
    assert "Traceback" not in done.stderr


def test_listening_beyond_loopback_without_tls_is_warned_of(tmp_path):
    with Started(tmp_path, "--port", "0", "--host", "0.0.0.0") as started:  # noqa: S104 - the warning for it
        pass
    assert "plain text" in started.errors
    with Started(tmp_path, "--port", "0") as started:
        pass
    assert "plain text" not in started.errors


def ask(connection):
    with connection:
        connection.settimeout(30)
        connection.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        return connection.recv(65_536)


def test_a_unix_socket(tmp_path):
    path = tmp_path / "ragsvc.sock"
    left_behind = socket.socket(socket.AF_UNIX)
    left_behind.bind(str(path))  # of a process that was killed
    left_behind.close()
    with Started(tmp_path / "data", "--unix-socket", str(path)) as started:
        client = socket.socket(socket.AF_UNIX)
        client.connect(str(path))
        assert ask(client).startswith(b"HTTP/1.1 200 ")
        assert path.stat().st_mode & 0o777 == 0o660
    assert started.process.returncode == 0
    assert not path.exists()


def test_sockets_and_notifications_of_systemd(tmp_path):
    heard = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    heard.bind(str(tmp_path / "notify"))
    heard.settimeout(120)
    listener = socket.create_server(("127.0.0.1", 0))
    # as systemd does: the descriptor is 3, and LISTEN_PID the process that is started
    program = (
        "import os, sys; os.dup2(int(sys.argv[1]), 3); os.environ['LISTEN_PID'] = str(os.getpid());"
        "os.execv(sys.executable, [sys.executable, '-m', 'ragsvc', 'serve', '--json'])"
    )
    environment = service_environment(
        tmp_path / "data",
        {"LISTEN_FDS": "1", "NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "2000000"},
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(listener.fileno())],
        stdout=subprocess.PIPE,
        cwd=ROOT,
        env=environment,
        pass_fds=(listener.fileno(),),
    )
    messages = []
    try:
        address = listener.getsockname()
        listener.close()
        assert json.loads(process.stdout.readline())["url"] == f"http://127.0.0.1:{address[1]}"
        assert ask(socket.create_connection(address)).startswith(b"HTTP/1.1 200 ")
        while not any("READY=1" in message for message in messages):
            messages.append(heard.recv(4096).decode())
    finally:
        process.terminate()
        process.communicate(timeout=60)
    heard.settimeout(1)
    while "STOPPING=1" not in messages[-1]:
        messages.append(heard.recv(4096).decode())
    assert any("embedding model" in message for message in messages)
    assert any(message == "WATCHDOG=1" for message in messages)
    heard.close()


async def endless(scope, receive, send):
    """A provider whose stream does not end."""
    while (await receive()).get("more_body"):
        pass
    head = b'data: {"id":"x","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,'
    headers = [(b"content-type", b"text/event-stream")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    while True:
        body = head + b'"delta":{"content":"w "},"finish_reason":null}]}\n\n'
        await send({"type": "http.response.body", "body": body, "more_body": True})
        await asyncio.sleep(0.1)


def test_a_stream_that_outlasts_the_grace_period_ends_with_an_error_event(tmp_path):
    with serving(endless, timeout_graceful_shutdown=1) as (url, _server):
        config = tmp_path / "ragsvc.toml"
        config.write_text(f'shutdown_grace_s = 1.0\n[[providers]]\nname = "p"\nbase_url = "{url}/v1"\nmodels = ["m"]\n')
        key = create_key(tmp_path / "data", settings={"RAGSVC_CONFIG": str(config)})
        service = RunningService(tmp_path / "data", env={"RAGSVC_CONFIG": str(config)}, start_timeout_s=120)
        body = {"model": "m", "stream": True, "messages": [{"role": "user", "content": "x"}]}
        with service.client(key) as client, client.stream("POST", "/v1/chat/completions", json=body) as reply:
            lines = reply.iter_lines()
            assert next(lines).startswith("data: ")
            service.process.terminate()
            events = [json.loads(line[6:]) for line in lines if line.startswith("data: {")]
        assert events[-1]["error"]["code"] == "shutting_down"
        assert service._reap() == 0
