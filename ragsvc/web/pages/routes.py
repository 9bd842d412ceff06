"""Routes of the web pages: the same ``index.html`` for each page, and the files that it loads.

They need no key: they hold nothing but the program of the pages, which asks the API for everything else.
"""

from __future__ import annotations

from functools import cache
from typing import Any, Final
from urllib.parse import urlsplit

import anyio.to_thread
from litestar import Request, Response, get
from litestar.params import FromPath

from ragsvc.core.errors import RouteNotFound
from ragsvc.web.auth import AccessRequirement
from ragsvc.web.pages.files import PageFile, PageFiles, load_page_files
from ragsvc.web.public_address import service_url
from ragsvc.web.stored_files import matches_tag

AnyRequest = Request[Any, Any, Any]

PAGE_PATHS: Final = (
    "/",
    "/ask",
    "/documents",
    "/documents/{_:str}",
    "/documents/{_:str}/pages/{__:int}",
    "/playground",
    "/keys",
    "/service",
    "/reference",
    "/sign-in",
)
CONTENT_SECURITY_POLICY: Final = "; ".join(
    (
        "default-src 'self'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' blob: data:",
        "media-src 'self' blob:",
        "object-src 'none'",
        "frame-ancestors 'none'",
        "base-uri 'none'",
        "form-action 'self'",
    )
)
_HEADERS: Final = {
    "content-security-policy": CONTENT_SECURITY_POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=(self), payment=(), usb=()",
}
_ONE_YEAR: Final = "public, max-age=31536000, immutable"
_OPT: Final = {"scope": AccessRequirement.PUBLIC}

_load = cache(load_page_files)


@get(list(PAGE_PATHS), opt=_OPT, include_in_schema=False)
async def show_page(request: AnyRequest) -> Response[bytes]:
    """The page; which one is shown, the path tells the program in it."""
    files = await _files()
    return _answer(request, files.index(urlsplit(service_url(request.scope)).path.rstrip("/")))


@get("/static/pages/{name:path}", opt=_OPT, include_in_schema=False)
async def show_page_file(request: AnyRequest, name: FromPath[str]) -> Response[bytes]:
    """A file that the pages load."""
    file = (await _files()).find(name.removeprefix("/"))
    if file is None:
        raise RouteNotFound("There is no such file of the pages.")
    return _answer(request, file)


async def _files() -> PageFiles:
    files = await anyio.to_thread.run_sync(_load)
    if files is None:
        raise RouteNotFound("The web pages are not part of this installation: they were not built.")
    return files


def _answer(request: AnyRequest, file: PageFile) -> Response[bytes]:
    headers = {
        **_HEADERS,
        "etag": file.etag,
        "cache-control": _ONE_YEAR if file.immutable else "no-cache",
        "vary": "Accept-Encoding",
        "content-type": file.media_type,
    }
    if matches_tag(request.headers.get("if-none-match"), file.etag):
        return Response(b"", status_code=304, headers=headers)
    if file.gzipped is not None and _accepts_gzip(request.headers.get("accept-encoding", "")):
        return Response(file.gzipped, headers={**headers, "content-encoding": "gzip"})
    return Response(file.content, headers=headers)


def _accepts_gzip(header: str) -> bool:
    """Whether ``Accept-Encoding`` names gzip with a weight above 0 (RFC 9110 §12.5.3).

    >>> [_accepts_gzip(header) for header in ("gzip, br", "br;q=1, gzip;q=0.2", "gzip;q=0", "br", "")]
    [True, True, False, False, False]
    """
    for part in header.lower().split(","):
        name, _, weight = part.strip().partition(";")
        if name.strip() == "gzip":
            return weight.replace(" ", "") not in {"q=0", "q=0.0", "q=0.00", "q=0.000"}
    return False


route_handlers = [show_page, show_page_file]
