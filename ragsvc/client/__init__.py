"""Encrypting transports for httpx, also for ``openai.OpenAI(http_client=httpx.Client(transport=…))``.

``EncryptedTransport`` and ``AsyncEncryptedTransport`` support two modes: ``HpkeStream`` (every route) and ``Rvenc``
(chat completions only).
"""

from ragsvc.client.hpke_stream_mode import HpkeStream
from ragsvc.client.rvenc_mode import Rvenc
from ragsvc.client.server_keys import ServerKey, fingerprint
from ragsvc.client.transport import AsyncEncryptedTransport, EncryptedTransport

__all__ = ["AsyncEncryptedTransport", "EncryptedTransport", "HpkeStream", "Rvenc", "ServerKey", "fingerprint"]
