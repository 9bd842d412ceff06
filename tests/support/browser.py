"""A page in a browser: ``fetch`` with the rules of the Fetch standard for requests to another origin.

Written from the standard (§4.8 CORS-preflight fetch, §4.9 CORS check, filtered responses), not from the service.
"""

from __future__ import annotations

from collections.abc import Mapping

import httpx

SAFELISTED_METHODS = {"GET", "HEAD", "POST"}
SAFELISTED_TYPES = {"application/x-www-form-urlencoded", "multipart/form-data", "text/plain"}
SAFELISTED_RESPONSE_HEADERS = {
    "cache-control",
    "content-language",
    "content-length",
    "content-type",
    "expires",
    "last-modified",
    "pragma",
}


class NetworkError(Exception):
    """What a script sees as ``TypeError: Failed to fetch``."""


class PageResponse:
    """A response as a script sees it: status, body, and only the headers that are exposed to it."""

    def __init__(self, reply: httpx.Response, *, credentials: bool) -> None:
        self.status = reply.status_code
        self.content = reply.content
        exposed = _names(reply.headers.get("access-control-expose-headers", ""))
        everything = "*" in exposed and not credentials
        self.headers = httpx.Headers(
            [
                (name, value)
                for name, value in reply.headers.multi_items()
                if name.lower() in SAFELISTED_RESPONSE_HEADERS | exposed or everything
            ]
        )

    def json(self):
        return httpx.Response(200, content=self.content).json()


class Page:
    """A page of ``origin``, whose requests go through ``client``. ``preflights`` counts the questions asked."""

    def __init__(self, origin: str, client: httpx.Client) -> None:
        self.origin = origin
        self._client = client
        self.preflights = 0

    def fetch(
        self,
        url: str,
        *,
        method: str = "GET",
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        credentials: bool = False,
    ) -> PageResponse:
        """Send a request with ``mode: cors``. Raises ``NetworkError`` where a browser hides the response."""
        given = {name.lower(): value for name, value in (headers or {}).items()}
        unsafe = sorted(name for name, value in given.items() if not _is_safelisted(name, value))
        if method not in SAFELISTED_METHODS or unsafe:
            self._ask(url, method, unsafe, credentials=credentials)
        reply = self._client.request(method, url, headers={**given, "origin": self.origin}, content=body)
        self._check(reply, credentials=credentials)
        return PageResponse(reply, credentials=credentials)

    def _ask(self, url: str, method: str, unsafe: list[str], *, credentials: bool) -> None:
        self.preflights += 1
        question = {"origin": self.origin, "access-control-request-method": method, "accept": "*/*"}
        if unsafe:
            question["access-control-request-headers"] = ",".join(unsafe)
        reply = self._client.request("OPTIONS", url, headers=question)
        self._check(reply, credentials=credentials)
        if not reply.is_success:
            raise NetworkError(f"the preflight has status {reply.status_code}")
        methods = {name.strip() for name in reply.headers.get("access-control-allow-methods", "").split(",")}
        if method not in methods | SAFELISTED_METHODS and ("*" not in methods or credentials):
            raise NetworkError(f"the method {method} is not allowed")
        allowed = _names(reply.headers.get("access-control-allow-headers", ""))
        for name in unsafe:
            covered = "*" in allowed and not credentials and name != "authorization"
            if name not in allowed and not covered:
                raise NetworkError(f"the header {name} is not allowed")

    def _check(self, reply: httpx.Response, *, credentials: bool) -> None:
        values = reply.headers.get_list("access-control-allow-origin")
        if len(values) != 1:
            raise NetworkError(f"{len(values)} headers Access-Control-Allow-Origin")
        if values == ["*"] and not credentials:
            return
        if values != [self.origin]:
            raise NetworkError(f"the response is shared with {values[0]}")
        if credentials and reply.headers.get_list("access-control-allow-credentials") != ["true"]:
            raise NetworkError("the response is not shared with credentials")


def _names(value: str) -> set[str]:
    return {name.strip().lower() for name in value.split(",") if name.strip()}


def _is_safelisted(name: str, value: str) -> bool:
    if name == "content-type":
        return value.partition(";")[0].strip().lower() in SAFELISTED_TYPES
    return name in {"accept", "accept-language", "content-language"}
