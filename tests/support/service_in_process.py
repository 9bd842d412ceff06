"""The whole service in this process: its real application, database, models and parsers, without a socket."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Self

import httpx
from anyio.from_thread import BlockingPortal, start_blocking_portal

from ragsvc.config import Settings
from ragsvc.core.access.principal import Scope
from ragsvc.core.ids import TenantId
from ragsvc.services.key_administration import Actor, KeyDraft
from ragsvc.web.service_app import create_service
from ragsvc.wiring.services import Services, open_services
from tests.support.command import at_data


class ServiceInProcess:
    """A service over a data directory, in an event loop of its own thread; leaving the ``with`` block closes it."""

    def __init__(self, data_dir: Path, **settings: str) -> None:
        named = {f"RAGSVC_{name.upper()}": value for name, value in settings.items()}
        self.settings = Settings.from_env({**at_data(data_dir), "RAGSVC_ACCESS_LOG": "false", **named})
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            self.portal: BlockingPortal = stack.enter_context(start_blocking_portal())
            self.services: Services = stack.enter_context(
                self.portal.wrap_async_context_manager(open_services(self.settings))
            )
            app = create_service(self.services)
            stack.enter_context(self.portal.wrap_async_context_manager(app.lifespan()))
            client = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost")
            self._client = stack.enter_context(self.portal.wrap_async_context_manager(client))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def request(self, method: str, path: str, *, key: str, headers: dict[str, str] | None = None, **options: object):
        """Send a request with a key; returns the response with its whole body."""

        async def send() -> httpx.Response:
            sent = {"authorization": f"Bearer {key}", **(headers or {})}
            return await self._client.request(method, path, headers=sent, **options)  # type: ignore[arg-type]

        return self.portal.call(send)

    def new_key(self, tenant: str, *scopes: Scope) -> str:
        """The text of a new key without limits."""
        limits = self.services.keys.limits(requests_per_minute=None, requests_per_hour=None)
        draft = KeyDraft(tenant=TenantId(tenant), label="test", scopes=frozenset(scopes), limits=limits)

        async def create() -> str:
            return (await self.services.keys.create(draft, actor=Actor())).text or ""

        return self.portal.call(create)
