"""``ragsvc open``: a link to the pages of a running service that signs in once."""

from __future__ import annotations

import json
import subprocess
import sys
from urllib.parse import urlsplit

import httpx
import pytest

from ragsvc.testing.service_runner import ROOT, RunningService, service_environment

pytestmark = pytest.mark.model


def ragsvc_open(service: RunningService, key: str, *options: str, **changes: str) -> subprocess.CompletedProcess[str]:
    environment = service_environment(service.data_dir, {})
    environment |= {"RAGSVC_URL": service.url, "RAGSVC_API_KEY": key, **changes}
    command = [sys.executable, "-m", "ragsvc", "open", *options]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, env=environment, timeout=120)


def signed_in(service: RunningService, url: str) -> httpx.Response:
    """What the page behind a link does."""
    address = urlsplit(url)
    assert f"{address.scheme}://{address.netloc}" == service.url
    assert address.path == "/sign-in"
    assert httpx.get(url).headers["content-type"].startswith("text/html")
    return httpx.post(f"{service.url}/v1/session", json={"code": address.fragment.removeprefix("code=")})


def test_the_link_alone_is_printed_and_signs_in_once(service: RunningService) -> None:
    done = ragsvc_open(service, service.admin_key)
    assert done.returncode == 0, done.stderr
    (url,) = done.stdout.splitlines()
    assert "within 10 minutes" in done.stderr
    opened = signed_in(service, url)
    assert (opened.status_code, opened.json()["key"]["tenant"]) == (200, "operator")
    assert signed_in(service, url).status_code == 401


def test_a_program_reads_the_link_as_json(service: RunningService) -> None:
    done = ragsvc_open(service, service.admin_key, "--json")
    link = json.loads(done.stdout)
    assert link["object"] == "session.link"
    assert signed_in(service, link["url"]).status_code == 200


def test_a_wrong_key_or_no_service_is_a_failure_with_a_reason(service: RunningService) -> None:
    wrong = ragsvc_open(service, "rag_000000000000_wrong")
    assert (wrong.returncode != 0, wrong.stdout) == (True, "")
    assert "Incorrect API key" in wrong.stderr
    nowhere = ragsvc_open(service, service.admin_key, RAGSVC_URL="")
    assert (nowhere.returncode != 0, nowhere.stdout) == (True, "")
    assert "--url" in nowhere.stderr


def test_without_a_browser_the_link_is_printed(service: RunningService) -> None:
    done = ragsvc_open(service, service.admin_key, "--browser", BROWSER="/nonexistent/browser", PATH="/nonexistent")
    assert done.returncode != 0
    assert signed_in(service, done.stdout.splitlines()[0]).status_code == 200
    assert "no browser could be started" in done.stderr
