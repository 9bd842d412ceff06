"""Stored providers over restarts, the sealing key, and addresses that a request may name."""

from __future__ import annotations

import shutil
import socket
import stat

import pytest

from ragsvc.core.access.principal import Principal, Scope
from ragsvc.core.errors import (
    ConfigurationError,
    Conflict,
    CryptoFailure,
    InvalidRequest,
    ModelNotFound,
    ModelUnavailable,
    NotFound,
    PolicyDenied,
)
from ragsvc.core.gateway.endpoint_families import Family
from ragsvc.core.gateway.provider_settings import ModelSettings, ProviderSettings
from ragsvc.crypto.value_sealing import SealingKey, SealingKeys, ValueSealer
from ragsvc.providers.caller_base_urls import AllowedBaseUrls, PublicResolver
from ragsvc.providers.openai_upstream import OpenAIUpstream
from ragsvc.providers.policy_engines import RegoFile
from ragsvc.services.access_control import Access
from ragsvc.services.key_administration import Actor, KeyDraft, create_key
from ragsvc.services.model_registry import ModelRegistry
from ragsvc.services.policies import CachedPolicy
from ragsvc.services.provider_administration import ProviderAdministration
from ragsvc.services.provider_routing import Router
from ragsvc.store import tenant_rows
from ragsvc.store.sealing_key import open_sealing_keys
from ragsvc.store.sqlite_database import SqliteDatabase

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend():
    return "asyncio"


def opener(settings, session=None):
    return OpenAIUpstream(settings, session, count_tokens=len)


def administration(database, keys, *configured):
    models = ModelRegistry((), {}, created=0)
    made = ProviderAdministration(
        database,
        sealer=ValueSealer(keys, "providers"),
        models=models,
        configured=configured,
        open_provider=opener,
        require_key=Access(database).require_key,
    )
    return made, models


ADDED = ProviderSettings(name="added", base_url="http://h/v1", api_key="sk-1", models=(ModelSettings("m"),))


async def test_a_key_that_a_deleted_tenant_sent_before_is_not_stored(tmp_path) -> None:
    database = SqliteDatabase(tmp_path / "x.sqlite")
    try:
        made, _ = administration(database, open_sealing_keys(tmp_path))
        await made.load()
        await made.create(ADDED)
        draft = KeyDraft(tenant="acme", label="x", scopes=frozenset({Scope.TENANT_ADMIN}))
        issued = await database.write(lambda connection: create_key(connection, draft, actor=Actor(), now=1))
        actor = Actor(issued.key.id)
        await made.set_key("acme", "added", "sk-before", actor=actor)
        await database.write(lambda connection: tenant_rows.remove_access(connection, "acme"))
        made.forget_keys("acme")
        with pytest.raises(Conflict):
            await made.set_key("acme", "added", "sk-late", actor=actor)
        assert made.key_of("acme", "added") is None
        assert database.read_sync(tenant_rows.tenant_names) == []
    finally:
        database.close()


async def test_providers_and_keys_outlive_a_restart_under_the_same_sealing_key_only(tmp_path) -> None:
    database = SqliteDatabase(tmp_path / "x.sqlite")
    try:
        keys = open_sealing_keys(tmp_path)
        before, _ = administration(database, keys)
        await before.load()
        await before.create(ADDED)
        await before.set_key("acme", "added", "sk-acme")
        after, models = administration(database, open_sealing_keys(tmp_path))
        await after.load()
        assert after.view("added").settings == ADDED
        assert after.key_of("acme", "added") == "sk-acme"
        assert after.key_of("other", "added") is None
        assert models.routes("m")[0].provider_name == "added"
        other, other_models = administration(database, SealingKeys(SealingKey(bytes(32))))
        await other.load()
        assert other.views() == []
        (disabled,) = other.disabled()
        assert disabled.name == "added"
        assert "master.key" in disabled.reason
        with pytest.raises(ModelNotFound):
            other_models.routes("m")
        with pytest.raises(NotFound, match=r"master\.key"):
            other.view("added")
        with pytest.raises(ModelUnavailable):
            other.key_of("acme", "added")
        other.forget_keys("acme")  # the tenant was deleted
        assert other.key_of("acme", "added") is None
        file, models = administration(database, keys, ProviderSettings(name="added", base_url="http://file/v1"))
        await file.load()
        assert file.view("added").source == "config"
        await after.delete("added")
        last, models = administration(database, keys)
        await last.load()
        assert last.views() == []
        assert last.key_of("acme", "added") is None
    finally:
        database.close()


async def test_a_provider_that_cannot_be_opened_is_disabled_with_a_warning_and_can_be_added_again(tmp_path, caplog):
    database = SqliteDatabase(tmp_path / "x.sqlite")
    try:
        before, _ = administration(database, open_sealing_keys(tmp_path))
        await before.load()
        await before.create(ADDED)
        await before.set_key("acme", "added", "sk-acme")
        (tmp_path / "sealing.key").unlink()
        keys = open_sealing_keys(tmp_path)
        after, models = administration(database, keys, ProviderSettings(name="file", base_url="http://f/v1"))
        await after.load()
        assert [view.settings.name for view in after.views()] == ["file"]
        warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
        assert any("provider added is disabled" in text and "sealing.key" in text for text in warnings)
        assert "sk-" not in caplog.text
        await after.create(ADDED)
        assert after.disabled() == []
        router = Router(models, key_of=after.key_of)
        with pytest.raises(ModelUnavailable, match="Store it again"):  # never with the key of the operator
            await router.routes(Principal("key_1", "acme", "label", frozenset()), "m", Family.CHAT)
        await after.set_key("acme", "added", "sk-new")
        assert after.key_of("acme", "added") == "sk-new"
        again, _ = administration(database, keys)
        await again.load()
        assert [view.settings.name for view in again.views()] == ["added"]
    finally:
        database.close()


async def test_stored_providers_that_contradict_the_settings_file_are_disabled(tmp_path) -> None:
    database = SqliteDatabase(tmp_path / "x.sqlite")
    try:
        keys = open_sealing_keys(tmp_path)
        before, _ = administration(database, keys)
        await before.load()
        await before.create(
            ProviderSettings(name="one", base_url="http://h/v1", models=(ModelSettings("m", aliases=("nice",)),))
        )
        clash = ProviderSettings(
            name="file", base_url="http://f/v1", models=(ModelSettings("other", aliases=("nice",)),)
        )
        after, models = administration(database, keys, clash)
        await after.load()
        assert [disabled.name for disabled in after.disabled()] == ["one"]
        assert models.routes("nice")[0].provider_name == "file"
        await after.delete("one")
        last, _ = administration(database, keys)
        await last.load()
        assert (last.views(), last.disabled()) == ([], [])
    finally:
        database.close()


async def test_a_change_keeps_the_breakers_of_others(tmp_path) -> None:
    database = SqliteDatabase(tmp_path / "x.sqlite")
    try:
        made, models = administration(database, SealingKeys(SealingKey(bytes(32))), ADDED)
        await made.load()
        kept = models.routes("m")[0].provider
        await made.create(ProviderSettings(name="second", base_url="http://h2/v1"))
        assert models.routes("m")[0].provider is kept
    finally:
        database.close()


def test_the_sealing_key_file_is_made_once_for_its_user_only(tmp_path) -> None:
    first = open_sealing_keys(tmp_path)
    assert open_sealing_keys(tmp_path).current.key_id == first.current.key_id
    assert [path.name for path in tmp_path.iterdir()] == ["sealing.key"]
    assert stat.S_IMODE((tmp_path / "sealing.key").stat().st_mode) == 0o600
    (tmp_path / "sealing.key").write_text("a passphrase")
    with pytest.raises(ConfigurationError):
        open_sealing_keys(tmp_path)


def test_the_file_of_earlier_releases_keeps_its_name_and_seals(tmp_path) -> None:
    (tmp_path / "master.key").write_text("07" * 32)
    sealed = ValueSealer(SealingKeys(SealingKey(b"\x07" * 32)), "providers").seal(b"secret", place="a")
    assert ValueSealer(open_sealing_keys(tmp_path), "providers").open(sealed, place="a") == b"secret"
    assert [path.name for path in tmp_path.iterdir()] == ["master.key"]


def test_values_of_earlier_releases_open() -> None:
    """Sealed with a key of 32 zero bytes before sealing keys had a type of their own."""
    sealed = bytes.fromhex("013d3cd470cda13d3bcad88f67e37738dab0225f1b7ad2e87f5cf2957adee959c30f96")
    assert ValueSealer(SealingKeys(SealingKey(bytes(32))), "providers").open(sealed, place="a") == b"secret"


@pytest.mark.parametrize(("restored", "present"), [("master.key", "sealing.key"), ("sealing.key", "master.key")])
async def test_a_backup_that_is_restored_over_another_directory_opens(tmp_path, restored, present) -> None:
    """Of the two key files, either may belong to the database that was restored; nothing is lost."""
    backup, folder = tmp_path / "backup", tmp_path / "data"
    backup.mkdir()
    folder.mkdir()
    (backup / restored).write_text("01" * 32)
    (folder / present).write_text("02" * 32)
    database = SqliteDatabase(backup / "x.sqlite")
    before, _ = administration(database, open_sealing_keys(backup))
    await before.load()
    await before.create(ADDED)
    database.close()
    shutil.copytree(backup, folder, dirs_exist_ok=True)

    database = SqliteDatabase(folder / "x.sqlite")
    try:
        for count in (1, 2):  # and again, with values that were sealed since
            after, _ = administration(database, open_sealing_keys(folder))
            await after.load()
            assert len(after.views()) == count
            if count == 1:
                await after.create(ProviderSettings(name="second", base_url="http://h2/v1", api_key="sk-2"))
        assert {path.read_text() for path in folder.glob("*.key")} == {"01" * 32, "02" * 32}
    finally:
        database.close()


def test_an_encrypted_directory_opens_with_its_own_key_and_with_a_file_from_before(tmp_path) -> None:
    derived = SealingKey(b"\x03" * 32)
    assert open_sealing_keys(tmp_path, derived=derived).current is derived
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "sealing.key").write_text("04" * 32)
    keys = open_sealing_keys(tmp_path, derived=derived)
    for key in (derived, SealingKey(b"\x04" * 32)):
        sealed = ValueSealer(SealingKeys(key), "providers").seal(b"secret", place="a")
        assert ValueSealer(keys, "providers").open(sealed, place="a") == b"secret"


def test_a_sealed_value_opens_in_its_place_only() -> None:
    sealer = ValueSealer(SealingKeys(SealingKey(bytes(32))), "providers")
    sealed = sealer.seal(b"secret", place="a")
    assert sealer.open(sealed, place="a") == b"secret"
    for wrong, place in ((sealed, "b"), (sealed[:-1], "a"), (sealed[:-1] + b"\x00", "a"), (b"", "a")):
        with pytest.raises(CryptoFailure):
            sealer.open(wrong, place=place)
    with pytest.raises(CryptoFailure):
        ValueSealer(SealingKeys(SealingKey(bytes(32))), "other").open(sealed, place="a")


class Names:
    """A resolver with fixed answers."""

    def __init__(self, *addresses: str) -> None:
        self.addresses = addresses

    async def resolve(self, host, port=0, family=socket.AF_INET):
        return [{"hostname": host, "host": one, "port": port, "family": family, "proto": 0, "flags": 0}
                for one in self.addresses]  # fmt: skip

    async def close(self) -> None:
        """Nothing is open."""


@pytest.mark.parametrize("private", ["127.0.0.1", "10.1.2.3", "169.254.169.254", "::1", "fd00::1", "::ffff:10.0.0.1",
                                     "100.64.0.1", "64:ff9b::7f00:1", "2002:7f00:1::",
                                     "168.63.129.16", "192.0.0.192", "::ffff:168.63.129.16", "::ffff:192.0.0.192",
                                     "100.100.100.200", "fd00:ec2::254", "64:ff9b::a83f:8110", "64:ff9b:1::a9fe:a9fe",
                                     "64:ff9b::808:808", "::7f00:1", "::ffff:0:7f00:1", "2002:a83f:8110::",
                                     "2001:0:7f00:1::", "fec0::1", "2a00:1450::5efe:7f00:1",
                                     "2a00:1450::200:5efe:a9fe:a9fe"])  # fmt: skip
async def test_a_name_that_leads_inside_is_refused_at_the_moment_of_connecting(private: str) -> None:
    with pytest.raises(PolicyDenied):
        await PublicResolver(Names("93.184.215.14", private)).resolve("api.example.com", 443)
    found = await PublicResolver(Names("93.184.215.14")).resolve("api.example.com", 443)
    assert [one["host"] for one in found] == ["93.184.215.14"]


@pytest.mark.parametrize("public", ["8.8.8.8", "168.63.129.17", "192.0.1.1", "2606:4700::1111", "::ffff:8.8.8.8"])
async def test_a_name_with_a_public_address_is_resolved(public: str) -> None:
    assert await PublicResolver(Names(public)).resolve("api.example.com", 443)


def test_patterns_go_the_public_way_and_plain_hosts_the_other() -> None:
    made = []
    addresses = AllowedBaseUrls(
        ["https://*.example.com/v1", "http://127.0.0.1:9/v1"],
        lambda settings, session: made.append((settings.base_url, session)) or opener(settings),
        session="plain",
        public_session="public",
    )
    first = addresses.provider("https://a.example.com/v1")
    assert addresses.provider("https://a.example.com/v1/") is first
    addresses.provider("http://127.0.0.1:9/v1")
    assert made == [("https://a.example.com/v1", "public"), ("http://127.0.0.1:9/v1", "plain")]
    for wrong in ("https://example.com/v1", "https://a.example.com/v2", "http://a.example.com/v1",
                  "https://a.example.com:444/v1", "https://a.example.com.evil.org/v1"):  # fmt: skip
        with pytest.raises(PolicyDenied):
            addresses.provider(wrong)
    with pytest.raises(InvalidRequest):
        addresses.provider("https://u:p@a.example.com/v1")
    with pytest.raises(ConfigurationError):
        AllowedBaseUrls(["example.com"], opener, session=None, public_session=None)


PRINCIPAL = Principal("key_1", "acme", "label", frozenset())


async def test_a_policy_that_hangs_or_breaks_allows_nothing_and_is_asked_again() -> None:
    asked = []

    async def broken(given):
        asked.append(given)
        raise OSError("gone")

    policy = CachedPolicy(broken, keep_s=60, timeout_s=1)
    for _ in range(2):
        with pytest.raises(ModelUnavailable):
            await policy.allows(PRINCIPAL, "m", Family.CHAT)
    assert len(asked) == 2


async def test_a_policys_decision_holds_briefly_for_its_key_model_and_family() -> None:
    asked, now = [], [0.0]

    async def decide(given):
        asked.append((given["key"]["label"], given["model"], given["family"]))
        return given["model"] != "denied"

    policy = CachedPolicy(decide, keep_s=5, timeout_s=1, clock=lambda: now[0])
    for _ in range(3):
        assert await policy.allows(PRINCIPAL, "m", Family.CHAT)
        assert not await policy.allows(PRINCIPAL, "denied", Family.CHAT)
    assert asked == [("label", "m", "chat"), ("label", "denied", "chat")]
    await policy.allows(PRINCIPAL, "m", Family.OCR)
    assert asked[2:] == [("label", "m", "ocr")]
    now[0] = 5.1
    await policy.allows(PRINCIPAL, "m", Family.CHAT)
    assert asked[3:] == [("label", "m", "chat")]


def test_a_broken_rego_file_stops_the_start(tmp_path) -> None:
    file = tmp_path / "p.rego"
    for text in ("this is no rego", ""):
        file.write_text(text)
        with pytest.raises(ConfigurationError):
            RegoFile(file)
    with pytest.raises(ConfigurationError):
        RegoFile(tmp_path / "missing.rego")
