"""Encrypted transports for httpx: ``openai.OpenAI(http_client=httpx.Client(transport=…))`` works unchanged.

``EncryptedTransport`` and ``AsyncEncryptedTransport`` speak one of two modes: ``HpkeStream`` (every route) and
``Rvenc`` (chat only).
"""

from ragsvc.client.hpke_stream import HpkeStream
from ragsvc.client.keys import ServerKey, fingerprint
from ragsvc.client.rvenc import Rvenc
from ragsvc.client.transport import AsyncEncryptedTransport, EncryptedTransport

__all__ = ["AsyncEncryptedTransport", "EncryptedTransport", "HpkeStream", "Rvenc", "ServerKey", "fingerprint"]
