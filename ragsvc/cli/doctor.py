"""``ragsvc doctor``: checks the installation, the data directory, and that the indexes agree with the database."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import anyio.to_thread
import msgspec
from rich.console import Console
from rich.markup import escape

from ragsvc.cli.doctor_copy import examined_copy
from ragsvc.cli.failures import CommandFailed
from ragsvc.cli.logs import log_to_standard_error
from ragsvc.cli.output import Output
from ragsvc.cli.target import Target, keep_private, remote
from ragsvc.config import Settings
from ragsvc.core.errors import RagsvcError
from ragsvc.store.data_keys import DataKeys
from ragsvc.store.directory_lock import DataDirectoryLock
from ragsvc.store.document_rows import count_by_status, list_collections
from ragsvc.wiring import health_checks
from ragsvc.wiring.health_checks import Check, CheckState
from ragsvc.wiring.services import open_services

_COLOURS = {CheckState.OK: "green", CheckState.WARN: "yellow", CheckState.FAIL: "red"}


class DoctorReport(msgspec.Struct, frozen=True, kw_only=True):
    """All checks; ``ok`` if none failed."""

    object: str = "doctor.report"
    ok: bool
    checks: list[Check]


async def doctor(target: Target, output: Output, *, deep: bool) -> None:
    """Run all checks. Raises ``CommandFailed`` if a check failed."""
    checks: list[Check] = []

    def note(check: Check) -> None:
        checks.append(check)
        if not output.as_json:
            _show(check, output.out)

    for check in health_checks.installation():
        note(check)
    if target.url is not None:
        for check in await _service(target.url):
            note(check)
    else:
        await _data(target, note, deep=deep)
    failed = sum(check.state is CheckState.FAIL for check in checks)
    output.result(DoctorReport(ok=not failed, checks=checks), lambda _: None)
    if failed:
        raise CommandFailed(f"{failed} of {len(checks)} checks failed", code="unhealthy")


async def _data(target: Target, note: Callable[[Check], None], *, deep: bool) -> None:
    settings = target.settings()
    keep_private()
    log_to_standard_error("error")

    def take(found: Iterator[Check]) -> bool:
        """Note the checks; returns whether none failed."""
        states = list[CheckState]()
        for check in found:
            states.append(check.state)
            note(check)
        return CheckState.FAIL not in states

    has_model = take(health_checks.model(settings))
    folder, locked = health_checks.data_directory(settings.data_dir)
    take(iter(folder))
    take(health_checks.upgrade_copies(settings.data_dir))
    if settings.database_url is not None:
        take(await anyio.to_thread.run_sync(health_checks.postgres, settings.database_url))
        note(Check("indexes", CheckState.WARN, "not compared: doctor reads the file of a database, not PostgreSQL"))
        return
    if not health_checks.database_file(settings.data_dir).is_file():
        note(Check("database", CheckState.OK, "does not exist yet; the first start creates it"))
        return
    keys = await anyio.to_thread.run_sync(settings.open_data_keys)
    note(health_checks.encryption(settings.data_dir, settings.master_key_file))
    if locked:
        take(await _examine(settings.data_dir, settings, keys, deep=deep))
        note(Check("indexes", CheckState.WARN, "not compared: a running service holds the data directory"))
        return
    lock = DataDirectoryLock(settings.data_dir)
    try:
        lock.acquire()
        with examined_copy(settings.data_dir) as copy:
            is_sound = take(await _examine(copy, settings, keys, deep=deep))
            if not is_sound or not has_model:
                reason = "the embedding model cannot be read" if is_sound else "the database or its files are damaged"
                note(Check("indexes", CheckState.WARN, f"not compared: {reason}"))
            elif not await anyio.to_thread.run_sync(health_checks.has_newest_schema, copy, keys):
                note(Check("indexes", CheckState.WARN, "not compared: the comparison would upgrade the database"))
            else:
                examined = msgspec.structs.replace(
                    settings, data_dir=copy, files_url=None
                )  # the copy must not touch files
                take(iter(await _indexes(examined)))
    except CommandFailed as failure:
        take(await _examine(settings.data_dir, settings, keys, deep=deep))
        note(Check("indexes", CheckState.WARN, f"not compared: {failure.message}"))
    except OSError as error:
        note(Check("indexes", CheckState.WARN, f"not compared: the directory cannot be copied ({error.strerror})"))
    finally:
        lock.release()


async def _examine(database_dir: Path, settings: Settings, keys: DataKeys | None, *, deep: bool) -> Iterator[Check]:
    """Check the database in ``database_dir``, and the stored files if the database is sound."""

    def examine() -> list[Check]:
        checks = list(health_checks.database(database_dir, keys))
        if any(check.state is CheckState.FAIL for check in checks):
            return checks
        checks += health_checks.files(settings, keys, database_dir=database_dir, deep=deep)
        if deep:
            checks += health_checks.texts(database_dir, keys)
        return checks

    return iter(await anyio.to_thread.run_sync(examine))


async def _indexes(settings: Settings) -> list[Check]:
    """Open the services of a copy as ``ragsvc serve`` does, and compare each collection's indexes with its rows."""
    try:
        async with open_services(settings) as services:
            services.ingest.drain()
            started = time.monotonic()
            await services.batcher.embed_query("Does the embedding model answer?")
            milliseconds = (time.monotonic() - started) * 1000
            checks = [
                Check("embedding", CheckState.OK, f"{services.embedder.runtime}, a query in {milliseconds:.0f} ms")
            ]
            for collection in await services.database.read(list_collections):
                report = await anyio.to_thread.run_sync(services.indexes.verify, collection.id)
                name = f"index {collection.tenant}/{collection.name}"
                if report.ok:
                    words = f"{report.passages} passages ({report.kind}), vectors and terms agree with the database"
                    checks.append(Check(name, CheckState.OK, words))
                else:
                    checks.append(
                        Check(name, CheckState.FAIL, f"differs from the database ({report}); run 'ragsvc reindex'")
                    )
            counts = await services.database.read(count_by_status)
    except RagsvcError as error:
        return [Check("start", CheckState.FAIL, error.message)]
    failed = counts.get("failed", 0)
    words = ", ".join(f"{count} {status}" for status, count in sorted(counts.items())) or "none"
    hint = "; 'ragsvc documents list --status failed' shows the reasons" if failed else ""
    checks.append(Check("documents", CheckState.WARN if failed else CheckState.OK, words + hint))
    return checks


async def _service(url: str) -> list[Check]:
    checks: list[Check] = []
    async with remote(url) as client:
        steps = (("service", "/livez"), ("ready", "/readyz"), ("key", "/v1/models"))
        for name, path in steps:
            started = time.monotonic()
            try:
                await client.request("GET", path, timeout_s=30)
            except CommandFailed as failure:
                checks.append(Check(name, CheckState.FAIL, failure.message))
                break
            checks.append(Check(name, CheckState.OK, f"{path} answers in {(time.monotonic() - started) * 1000:.0f} ms"))
    return checks


def _show(check: Check, console: Console) -> None:
    colour = _COLOURS[check.state]
    console.print(f"[{colour}]{check.state.value:<5}[/] {escape(f'{check.name:<24}')} {escape(check.words)}")
