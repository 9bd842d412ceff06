"""What tenants may store: collections, documents and bytes, checked in the transaction that would add something."""

from __future__ import annotations

import msgspec
from sqlalchemy import Connection

from ragsvc.core.errors import QuotaExceeded
from ragsvc.core.ids import TenantId
from ragsvc.store import document_rows, file_rows, tenant_rows
from ragsvc.store.tenant_rows import TenantLimits

_UNCHECKED = TenantLimits()


class TenantQuotas(msgspec.Struct, frozen=True):
    """The limits of tenants for which an operator has set no others; ``None`` means unlimited."""

    defaults: TenantLimits = _UNCHECKED

    def of(self, connection: Connection, tenant: TenantId) -> TenantLimits:
        """The limits that apply to a tenant."""
        own = tenant_rows.tenant_limits(connection, tenant) or _UNCHECKED
        given = {name: value for name, value in msgspec.structs.asdict(own).items() if value is not None}
        return msgspec.structs.replace(self.defaults, **given)

    def check_collection(self, connection: Connection, tenant: TenantId, collection: str) -> None:
        """Check that a tenant may have a collection of this name. Raises ``QuotaExceeded``, which names the limit."""
        self._check_collections(connection, tenant, collection, self.of(connection, tenant))

    def check_document(
        self, connection: Connection, tenant: TenantId, collection: str, size_bytes: int, *, count: int = 1
    ) -> None:
        """Check that a tenant may store ``count`` documents more; ``size_bytes`` is 0 if their files are stored.

        Raises:
            QuotaExceeded: names the limit.
        """
        limits = self.of(connection, tenant)
        self._check_collections(connection, tenant, collection, limits)
        if limits.max_documents is None and limits.max_bytes is None:
            return
        documents, _ = tenant_rows.count_documents(connection, tenant)
        if limits.max_documents is not None and documents + count > limits.max_documents:
            raise QuotaExceeded(
                f"The tenant '{tenant}' has {documents} documents and may have {limits.max_documents}. Delete "
                "documents, or ask the operator for a higher limit."
            )
        self._check_bytes(connection, tenant, size_bytes, limits)

    def check_file(self, connection: Connection, tenant: TenantId, size_bytes: int) -> None:
        """Check that a tenant may store one more file. It may have as many files as documents.

        Raises:
            QuotaExceeded: names the limit.
        """
        limits = self.of(connection, tenant)
        if limits.max_documents is not None:
            files = file_rows.count_uploaded_files(connection, tenant)
            if files >= limits.max_documents:
                raise QuotaExceeded(
                    f"The tenant '{tenant}' has {files} files and may have {limits.max_documents}. Delete files, or "
                    "ask the operator for a higher limit."
                )
        self._check_bytes(connection, tenant, size_bytes, limits)

    def check_bytes(self, connection: Connection, tenant: TenantId, size_bytes: int) -> None:
        """Check that a tenant may store so many bytes more. Raises ``QuotaExceeded``."""
        self._check_bytes(connection, tenant, size_bytes, self.of(connection, tenant))

    def _check_bytes(self, connection: Connection, tenant: TenantId, size_bytes: int, limits: TenantLimits) -> None:
        if limits.max_bytes is None:
            return
        stored_bytes = tenant_rows.stored_bytes(connection, tenant)
        if stored_bytes + size_bytes > limits.max_bytes:
            raise QuotaExceeded(
                f"The tenant '{tenant}' stores {stored_bytes} bytes and may store {limits.max_bytes}; this file has "
                f"{size_bytes}. Delete documents or files, or ask the operator for a higher limit."
            )

    def _check_collections(
        self, connection: Connection, tenant: TenantId, collection: str, limits: TenantLimits
    ) -> None:
        if limits.max_collections is None or document_rows.has_collection(connection, tenant, collection):
            return
        count = tenant_rows.count_collections(connection, tenant)
        if count >= limits.max_collections:
            raise QuotaExceeded(
                f"The tenant '{tenant}' has {count} collections and may have {limits.max_collections}. Delete a "
                "collection, or ask the operator for a higher limit.",
                param="collection",
            )
