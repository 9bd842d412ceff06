"""The files of ``docs/deploy/``: each is valid for its program, and the service works behind the proxies."""

from __future__ import annotations

import configparser
import datetime
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dockerfile
import httpx
import pytest
import yaml
from check_jsonschema.cli import main as check_jsonschema
from click.testing import CliRunner
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from ragsvc.config import Settings
from ragsvc.testing.sample_pdfs import text_pdf
from ragsvc.testing.service_runner import ROOT, RunningService, create_key
from tests.support.upstream_server import serving_upstream

DEPLOY = ROOT / "docs" / "deploy"
PAGE = (ROOT / "docs" / "howto" / "deploy.md").read_text(encoding="utf-8")
UNITS = sorted(path.name for path in DEPLOY.glob("ragsvc*.service"))


def needs(program: str) -> str:
    """The path of a program; skips the test where it is not installed."""
    found = shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
    if found is None:
        pytest.skip(f"{program} is not installed")
    return found


def run(*command: object, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(part) for part in command],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, **environment},
    )


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@pytest.mark.parametrize("path", sorted(DEPLOY.iterdir()), ids=lambda path: path.name)
def test_the_page_shows_each_file_as_it_is(path: Path) -> None:
    if path.suffix != ".dockerignore":
        assert path.name in PAGE
        assert f"\n{path.read_text(encoding='utf-8')}```\n" in PAGE


# -- the container ------------------------------------------------------------------------------------------------


def instructions() -> list[dockerfile.Command]:
    return list(dockerfile.parse_file(str(DEPLOY / "Dockerfile")))


def stages() -> dict[str, list[dockerfile.Command]]:
    """The instructions of each stage by name, after those of the stage that it continues; the last is the default."""
    found: dict[str, list[dockerfile.Command]] = {}
    for command in instructions():
        if command.cmd.upper() == "FROM":
            base, _, name = command.value
            found[name] = list(found.get(base, ()))
        next(reversed(found.values())).append(command)
    return found


def last_stage() -> list[dockerfile.Command]:
    return next(reversed(stages().values()))


def test_the_full_image_is_the_default_and_the_slim_one_installs_no_models() -> None:
    found = stages()
    assert list(found)[-1] == "full"
    installed = {
        name: " ".join(
            text for command in found[f"build-{name}"] if command.cmd.upper() == "RUN" for text in command.value
        )
        for name in ("slim", "full")
    }
    assert "models" in installed["full"].split()
    assert "models" not in installed["slim"].split()
    for name in ("slim", "full"):
        (copied,) = [command for command in found[name] if command.cmd.upper() == "COPY"]
        assert copied.flags == (f"--from=build-{name}",)
    kept = [command.original for command in found["slim"] if command.cmd.upper() not in {"COPY", "FROM"}]
    assert kept == [command.original for command in found["full"] if command.cmd.upper() not in {"COPY", "FROM"}]


def test_the_dockerfile_keeps_the_rules_of_hadolint() -> None:
    """The numbers are those of hadolint's rules, which needs a program that no package registry has."""
    found = instructions()
    names = [command.cmd.upper() for command in found]
    assert names.count("FROM") == len(stages()) == 5
    built = set(stages())
    for command in found:
        text = " ".join(command.value)
        match command.cmd.upper():
            case "FROM":
                image = command.value[0]
                if image in built:
                    continue
                assert ":" in image, "DL3006: a tag"
                assert not image.endswith(":latest"), "DL3007: no moving tag"
            case "RUN":
                assert "sudo" not in text, "DL3004"
                assert "apt-get" not in text or "rm -rf /var/lib/apt/lists" in text, "DL3009"
                assert not re.search(r"\bcd /", text), "DL3003: WORKDIR"
                assert " | " not in text, "DL4006: a failure inside a pipe is lost"
                assert "pip install" not in text or "--constraint" in text, "DL3013: pinned versions"
            case "WORKDIR":
                assert command.value[0].startswith("/"), "DL3000"
            case "ENTRYPOINT" | "CMD":
                assert command.json, "DL3025: signals must reach the service"
            case name:
                assert name not in {"ADD", "MAINTAINER"}, "DL3020, DL4000"
    assert any("PIP_NO_CACHE_DIR=1" in command.original for command in found), "DL3042"
    users = [command.value[0] for command in last_stage() if command.cmd.upper() == "USER"]
    assert users
    assert not users[-1].startswith(("root", "0")), "DL3002"
    assert [command.cmd.upper() for command in last_stage()].count("HEALTHCHECK") == 1


def test_what_the_dockerfile_copies_is_in_its_context() -> None:
    allowed = [line[1:] for line in (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines() if line[:1] == "!"]
    copied = [
        source
        for command in instructions()
        if command.cmd.upper() == "COPY" and not command.flags
        for source in command.value[:-1]
    ]
    assert sorted(copied) == sorted(allowed)
    assert all((ROOT / source).exists() for source in copied)


def test_the_variables_of_the_image_are_settings_and_its_health_check_works(tmp_path: Path) -> None:
    pairs = {}
    for command in last_stage():
        if command.cmd.upper() == "ENV":
            values = command.value
            pairs |= {values[i]: values[i + 1] for i in range(0, len(values), 2)}
    settings = Settings.from_env({name: value for name, value in pairs.items() if name.startswith("RAGSVC_")})
    assert (settings.host, settings.log_format) == ("0.0.0.0", "json")  # noqa: S104 - inside a container
    volumes = next(command.value for command in last_stage() if command.cmd.upper() == "VOLUME")
    assert str(settings.data_dir) in volumes
    (check,) = [command for command in last_stage() if command.cmd.upper() == "HEALTHCHECK"]
    assert check.value[:3] == ("CMD", "python", "-c")
    done = run(sys.executable, "-c", check.value[3], RAGSVC_PORT=str(free_port()))
    assert done.returncode != 0
    assert "refused" in done.stderr.lower()


@pytest.mark.model
def test_the_health_check_of_the_image_succeeds_on_a_service_that_is_ready(service: RunningService) -> None:
    (check,) = [command for command in last_stage() if command.cmd.upper() == "HEALTHCHECK"]
    assert check.value[:3] == ("CMD", "python", "-c")
    done = run(sys.executable, "-c", check.value[3], RAGSVC_PORT=str(httpx.URL(service.url).port))
    assert done.returncode == 0, done.stderr


def test_the_compose_file_agrees_with_its_schema_and_with_the_files_that_it_names() -> None:
    arguments = ["--builtin-schema", "vendor.compose-spec", str(DEPLOY / "compose.yaml")]
    done = CliRunner().invoke(check_jsonschema, arguments)
    assert done.exit_code == 0, done.output
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    ragsvc, caddy = compose["services"]["ragsvc"], compose["services"]["caddy"]
    build = ragsvc["build"]
    assert (DEPLOY / build["context"] / build["dockerfile"]).resolve() == DEPLOY / "Dockerfile"
    named = {volume.split(":")[0] for service in (ragsvc, caddy) for volume in service["volumes"]}
    for source in named:
        assert source in compose["volumes"] or (DEPLOY / source).is_file(), source
    for variable in set(caddy["environment"]):
        assert f"{{${variable}:" in (DEPLOY / "Caddyfile").read_text()
    grace = float(ragsvc["stop_grace_period"].removesuffix("s"))
    assert grace > Settings().shutdown_grace_s
    assert (ragsvc["read_only"], ragsvc["cap_drop"]) == (True, ["ALL"])
    assert "ports" not in ragsvc  # only the proxy is reachable


def test_a_wrong_compose_file_is_found(tmp_path: Path) -> None:
    wrong = tmp_path / "compose.yaml"
    wrong.write_text((DEPLOY / "compose.yaml").read_text().replace("read_only: true", "readonly: true"))
    done = CliRunner().invoke(check_jsonschema, ["--builtin-schema", "vendor.compose-spec", str(wrong)])
    assert done.exit_code == 1
    assert "readonly" in done.output


# -- systemd ------------------------------------------------------------------------------------------------------


@pytest.fixture
def units(tmp_path: Path) -> Path:
    """The units, with a program that exists on this machine."""
    for path in DEPLOY.glob("ragsvc*.*"):
        if path.suffix in {".service", ".timer"}:
            text = path.read_text().replace("/opt/ragsvc/bin/ragsvc", "/bin/true")
            (tmp_path / path.name).write_text(text)
    return tmp_path


def test_systemd_accepts_the_units(units: Path) -> None:
    analyze = needs("systemd-analyze")
    paths = sorted(units.iterdir())
    assert len(paths) == 3
    done = run(analyze, "verify", *paths)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    broken = units / "ragsvc.service"
    broken.write_text(broken.read_text().replace("StateDirectoryMode=0700", "StateDirectoryMod=0700"))
    assert "StateDirectoryMod" in run(analyze, "verify", broken).stderr


@pytest.mark.parametrize("unit", UNITS)
def test_the_units_are_confined(units: Path, unit: str) -> None:
    done = run(needs("systemd-analyze"), "security", "--offline=true", "--no-pager", units / unit)
    exposure = re.search(r"exposure level for \S+: ([\d.]+)", done.stdout)
    assert exposure, done.stdout + done.stderr
    assert float(exposure[1]) < (2.5 if unit == "ragsvc.service" else 6.0)


def test_the_unit_lets_answers_finish_and_agrees_with_the_settings() -> None:
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment]
    unit.read(DEPLOY / "ragsvc.service")
    settings = Settings.from_env({"RAGSVC_CONFIG": str(DEPLOY / "ragsvc.toml")})
    assert float(unit["Service"]["TimeoutStopSec"]) > settings.shutdown_grace_s
    assert settings.data_dir == Path("/var/lib") / unit["Service"]["StateDirectory"]
    assert settings.log_format == "json"


# -- proxies ------------------------------------------------------------------------------------------------------


def test_caddy_accepts_the_caddyfile() -> None:
    caddy = needs("caddy")
    done = run(caddy, "validate", "--adapter", "caddyfile", "--config", DEPLOY / "Caddyfile")
    assert done.returncode == 0, done.stderr
    done = run(caddy, "fmt", "--diff", DEPLOY / "Caddyfile")
    assert not [line for line in done.stdout.splitlines() if line[:1] in {"+", "-"}]


def certificate(folder: Path) -> None:
    """A self-signed certificate for 127.0.0.1, as nginx reads it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.oid.NameOID.COMMON_NAME, "rag.example.com")])
    now = datetime.datetime.now(datetime.UTC)
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .sign(key, hashes.SHA256())
    )
    (folder / "fullchain.pem").write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    (folder / "privkey.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )


def nginx_configuration(folder: Path, *, port: int, upstream: str) -> Path:
    """The site of the page in a whole configuration, on another port and with a certificate of ours."""
    certificate(folder)
    site = (DEPLOY / "nginx.conf").read_text()
    for old, new in (
        ("listen 443 ssl", f"listen 127.0.0.1:{port} ssl"),
        ("/etc/letsencrypt/live/rag.example.com", str(folder)),
        ("http://127.0.0.1:8080", upstream),
    ):
        assert old in site
        site = site.replace(old, new)
    paths = " ".join(
        f"{name}_temp_path {folder}/{name};" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    path = folder / "nginx.conf"
    path.write_text(
        f"pid {folder}/nginx.pid;\nerror_log {folder}/error.log;\ndaemon off;\nworker_processes 1;\n"
        f"events {{}}\nhttp {{\naccess_log off;\n{paths}\n{site}}}\n"
    )
    return path


def test_nginx_accepts_the_site(tmp_path: Path) -> None:
    path = nginx_configuration(tmp_path, port=free_port(), upstream="http://127.0.0.1:8080")
    done = run(needs("nginx"), "-t", "-c", path)
    assert done.returncode == 0, done.stderr
    assert "[warn]" not in done.stderr.replace('the "user" directive', "")


@contextmanager
def proxy(kind: str, folder: Path, upstream: str) -> Iterator[str]:
    """A proxy in front of ``upstream``; yields its address."""
    port = free_port()
    environment = dict(os.environ)
    if kind == "nginx":
        command = [needs("nginx"), "-c", str(nginx_configuration(folder, port=port, upstream=upstream))]
        url = f"https://127.0.0.1:{port}"
    else:
        command = [needs("caddy"), "run", "--adapter", "caddyfile", "--config", str(DEPLOY / "Caddyfile")]
        url = f"http://127.0.0.1:{port}"
        environment |= {
            "RAGSVC_SITE": f"http://127.0.0.1:{port}",
            "RAGSVC_UPSTREAM": upstream.removeprefix("http://"),
            "XDG_DATA_HOME": str(folder),
            "XDG_CONFIG_HOME": str(folder),
            "CADDY_ADMIN": f"127.0.0.1:{free_port()}",
        }
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 20
        while True:
            try:
                httpx.get(f"{url}/livez", verify=False, timeout=5).raise_for_status()  # noqa: S501 - our own certificate
                break
            except httpx.HTTPError:
                assert process.poll() is None, "the proxy ended"
                assert time.monotonic() < deadline, "the proxy does not answer"
                time.sleep(0.05)
        yield url
    finally:
        process.terminate()
        process.wait(20)


@pytest.mark.model
@pytest.mark.parametrize("kind", ["caddy", "nginx"])
def test_streams_and_uploads_pass_the_proxy_and_metrics_do_not(
    kind: str, service: RunningService, tmp_path: Path
) -> None:
    needs(kind)
    data_dir = tmp_path / "data"
    data_dir.mkdir()
    (data_dir / "models").symlink_to(service.data_dir / "models")
    key = create_key(data_dir)
    with serving_upstream() as upstream:
        upstream.chunk_delay_s = 0.3
        (tmp_path / "ragsvc.toml").write_text(
            f'[[providers]]\nname = "up"\nbase_url = "{upstream.url}"\nmodels = ["real-model"]\n'
        )
        running = RunningService(data_dir, env={"RAGSVC_CONFIG": str(tmp_path / "ragsvc.toml")})
        try:
            with (
                proxy(kind, tmp_path, running.url) as url,
                httpx.Client(
                    base_url=url,
                    headers={"authorization": f"Bearer {key}"},
                    verify=False,  # noqa: S501 - our own certificate
                    timeout=60,
                ) as http,
            ):
                assert http.get("/readyz").status_code == 200
                assert http.get("/metrics").status_code == 403
                assert httpx.get(f"{running.url}/metrics").status_code == 200
                body = {"model": "real-model", "stream": True, "messages": [{"role": "user", "content": "Hello"}]}
                with http.stream("POST", "/v1/chat/completions", json=body) as reply:
                    arrivals = [time.monotonic() for line in reply.iter_lines() if line.startswith("data: {")]
                assert len(arrivals) >= 4
                assert arrivals[-1] - arrivals[0] > 0.5, "the proxy holds the answer back"
                pages = [[f"Page {number} of a long report, line {line}." for line in range(40)] for number in range(9)]
                report = text_pdf(pages) + b"\n%" + b" " * 8_000_000  # more than the default limits of proxies
                upload = http.post(
                    "/v1/rag/documents",
                    params={"filename": "report.pdf"},
                    content=report,
                    headers={"content-type": "application/pdf"},
                )
                assert upload.status_code == 201, upload.text
                assert upload.json()["bytes"] == len(report)
                big = http.post("/v1/rag/documents", content=b"%PDF-1.4" + bytes(54_000_000))
                assert big.status_code == 413
        finally:
            assert running.stop() == 0
