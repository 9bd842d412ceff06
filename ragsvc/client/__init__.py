"""Clients of a running service, and encrypting transports for httpx.

``Client`` and ``AsyncClient`` have typed methods for documents, search, answers, keys and tenants.
``EncryptedTransport`` and ``AsyncEncryptedTransport`` encrypt requests, of these clients or of ``openai.OpenAI``, in
two modes: ``HpkeStream`` (every route) and ``Rvenc`` (chat completions only).

The distribution ``ragsvc-client`` has the same modules as the package ``ragsvc_client``, without the service.
"""

from ragsvc.client.answers import Answer, AnswerCitation
from ragsvc.client.async_client import AsyncClient, AsyncStreamedAnswer
from ragsvc.client.attestation_check import attested
from ragsvc.client.calls import Pause
from ragsvc.client.hpke_stream_mode import HpkeStream
from ragsvc.client.records import (
    BalanceRecord,
    BookmarkRecord,
    BoxesRecord,
    BoxRecord,
    CollectionRecord,
    DocumentCountRecord,
    DocumentDeletionRecord,
    DocumentFailure,
    DocumentRecord,
    DocumentsSnapshotRecord,
    HitScores,
    KeyChangeRecord,
    KeyRecord,
    NewKey,
    OwnKeyRecord,
    PageProblem,
    PageRecord,
    PassageHit,
    PassageHits,
    PassageRecord,
    QuotaRecord,
    RemovedData,
    TenantRecord,
    UploadedDocument,
    UsageRecord,
    UsageRecords,
)
from ragsvc.client.rvenc_mode import Rvenc
from ragsvc.client.server_keys import ServerKey, fingerprint
from ragsvc.client.service_errors import (
    AnswerInterrupted,
    AuthenticationFailed,
    BadRequest,
    BalanceUsedUp,
    ConflictingState,
    DocumentUnfinished,
    PermissionDenied,
    ResourceNotFound,
    ServiceBusy,
    ServiceError,
    ServiceFault,
    ServiceUnreachable,
    StatusError,
    TooManyRequests,
    UnexpectedAnswer,
    UnreadableUpload,
)
from ragsvc.client.sync_client import Client, StreamedAnswer
from ragsvc.client.transport import AsyncEncryptedTransport, EncryptedTransport
from ragsvc.core.errors import ConfigurationError, CryptoFailure
from ragsvc.crypto.rvenc import EncryptionKeys, generate_encryption_keys

__all__ = [
    "Answer",
    "AnswerCitation",
    "AnswerInterrupted",
    "AsyncClient",
    "AsyncEncryptedTransport",
    "AsyncStreamedAnswer",
    "AuthenticationFailed",
    "BadRequest",
    "BalanceRecord",
    "BalanceUsedUp",
    "BookmarkRecord",
    "BoxRecord",
    "BoxesRecord",
    "Client",
    "CollectionRecord",
    "ConfigurationError",
    "ConflictingState",
    "CryptoFailure",
    "DocumentCountRecord",
    "DocumentDeletionRecord",
    "DocumentFailure",
    "DocumentRecord",
    "DocumentUnfinished",
    "DocumentsSnapshotRecord",
    "EncryptedTransport",
    "EncryptionKeys",
    "HitScores",
    "HpkeStream",
    "KeyChangeRecord",
    "KeyRecord",
    "NewKey",
    "OwnKeyRecord",
    "PageProblem",
    "PageRecord",
    "PassageHit",
    "PassageHits",
    "PassageRecord",
    "Pause",
    "PermissionDenied",
    "QuotaRecord",
    "RemovedData",
    "ResourceNotFound",
    "Rvenc",
    "ServerKey",
    "ServiceBusy",
    "ServiceError",
    "ServiceFault",
    "ServiceUnreachable",
    "StatusError",
    "StreamedAnswer",
    "TenantRecord",
    "TooManyRequests",
    "UnexpectedAnswer",
    "UnreadableUpload",
    "UploadedDocument",
    "UsageRecord",
    "UsageRecords",
    "attested",
    "fingerprint",
    "generate_encryption_keys",
]
