"""Files encrypted at rest: AES-256-GCM in chunks, with a key for each file that a master key wraps.

::

    offset  bytes
    0       8     magic "RAGSVCE1"
    8       4     chunk size, big-endian
    12      76    slot 0: master key id (16), nonce (12), wrapped file key (48)
    88      76    slot 1: the same, or zeros
    164     …     chunks of (chunk size + 16) bytes; the last chunk may be shorter or empty

Chunks use the STREAM construction (Hoang, Reyhanitabar, Rogaway, Vizár 2015): the nonce is a counter and a byte that
marks the last chunk, so chunks cannot be reordered, dropped or truncated. The wrapped file key authenticates magic,
chunk size and a context chosen by the caller (for example a blob's hash), so files cannot be exchanged. A new master
key wraps the file key into the free slot before the old slot is erased: after a crash in between, the file opens with
either master key.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import BinaryIO, Final

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from ragsvc.core.errors import ConfigurationError, CryptoFailure
from ragsvc.crypto import hpke
from ragsvc.crypto.keyring import parse_secret

MAGIC: Final = b"RAGSVCE1"
DEFAULT_CHUNK_BYTES: Final = 64 * 1024
MAX_CHUNK_BYTES: Final = 16 * 1024 * 1024
READ_BYTES: Final = 512 * 1024
"""Plaintext that is read from the file at a time: as many chunks as fit, at least one."""
_KEY_ID_BYTES = 16
_SLOT_BYTES = _KEY_ID_BYTES + hpke.NONCE_BYTES + hpke.KEY_BYTES + hpke.TAG_BYTES
_SLOTS = 2
_PREFIX_BYTES = len(MAGIC) + 4
HEADER_BYTES: Final = _PREFIX_BYTES + _SLOTS * _SLOT_BYTES
_EMPTY_SLOT = bytes(_SLOT_BYTES)
_LABEL = b"ragsvc-at-rest-v1 "


class MasterKey:
    """Wraps file keys, and derives keys for other purposes (such as database values). ``repr`` shows only the id."""

    def __init__(self, secret: bytes) -> None:
        if len(secret) != hpke.KEY_BYTES:
            raise ConfigurationError(["a master key must have 32 bytes"])
        self._prk = hpke.extract(_LABEL + b"master", secret)
        self.key_id = hpke.expand(self._prk, b"id", _KEY_ID_BYTES)
        self._wrap = AESGCM(hpke.expand(self._prk, b"wrap", hpke.KEY_BYTES))

    @classmethod
    def from_bytes(cls, content: bytes) -> MasterKey:
        """Parse the content of a key file or variable (see ``parse_secret``). Raises ``ConfigurationError``."""
        return cls(parse_secret(content))

    def derive(self, purpose: str) -> bytes:
        """Derive a 32-byte key for one purpose; keys of different purposes are independent."""
        return hpke.expand(self._prk, b"purpose " + purpose.encode(), hpke.KEY_BYTES)

    def wrap(self, file_key: bytes, bound: bytes) -> bytes:
        """Return a header slot that contains ``file_key``; ``bound`` is authenticated with it."""
        nonce = os.urandom(hpke.NONCE_BYTES)
        return self.key_id + nonce + self._wrap.encrypt(nonce, file_key, bound)

    def unwrap(self, slot: bytes, bound: bytes) -> bytes:
        """Return the file key from a slot that this master key wrote. Raises ``CryptoFailure``."""
        nonce, wrapped = slot[_KEY_ID_BYTES:][: hpke.NONCE_BYTES], slot[_KEY_ID_BYTES + hpke.NONCE_BYTES :]
        return hpke.open_sealed(self._wrap, nonce, wrapped, bound)

    def __repr__(self) -> str:
        return f"MasterKey(key_id={self.key_id.hex()})"


class MasterKeys:
    """The current master key, which wraps, and older master keys, which only unwrap until files are rewrapped."""

    def __init__(self, current: MasterKey, *older: MasterKey) -> None:
        self.current = current
        self.by_id: Mapping[bytes, MasterKey] = MappingProxyType({key.key_id: key for key in (*older, current)})

    def unwrap(self, header: bytes, context: bytes) -> tuple[bytes, int]:
        """Return ``(file key, chunk size in bytes)`` from a header. Raises ``CryptoFailure``."""
        chunk_bytes, slots = _parse_header(header)
        for slot in slots:
            key = self.by_id.get(slot[:_KEY_ID_BYTES])
            if key is None:
                continue
            try:
                return key.unwrap(slot, _bound(chunk_bytes, context)), chunk_bytes
            except CryptoFailure:  # half-written before a crash; the other slot is intact
                continue
        raise CryptoFailure


def is_encrypted(head: bytes) -> bool:
    """Return whether a file that starts with ``head`` (8 bytes or more) has this format."""
    return head.startswith(MAGIC)


def encrypt_chunks(
    plaintext: Iterable[bytes], keys: MasterKeys, *, context: bytes, chunk_bytes: int = DEFAULT_CHUNK_BYTES
) -> Iterator[bytes]:
    """Encrypt pieces of any size and yield the bytes of the file, header first. Holds one chunk and one piece."""
    file_key = os.urandom(hpke.KEY_BYTES)
    yield _prefix(chunk_bytes) + keys.current.wrap(file_key, _bound(chunk_bytes, context)) + _EMPTY_SLOT
    aead = AESGCM(file_key)
    pending = bytearray()
    index = 0
    for piece in plaintext:
        pending += piece
        while len(pending) > chunk_bytes:  # keeps a full chunk back: it may be the last chunk
            yield aead.encrypt(_chunk_nonce(index, last=False), bytes(pending[:chunk_bytes]), None)
            del pending[:chunk_bytes]
            index += 1
    yield aead.encrypt(_chunk_nonce(index, last=True), bytes(pending), None)


class EncryptingWriter:
    """Encrypts a file while it is written, for a context that is known only at the end (such as the content's hash).

    The header is reserved at first and written by ``finish``; a file that was not finished cannot be opened.
    """

    def __init__(self, file: BinaryIO, keys: MasterKeys, *, chunk_bytes: int = DEFAULT_CHUNK_BYTES) -> None:
        self._file = file
        self._keys = keys
        self._chunk_bytes = chunk_bytes
        self._file_key = os.urandom(hpke.KEY_BYTES)
        self._aead = AESGCM(self._file_key)
        self._pending = bytearray()
        self._index = 0
        file.write(bytes(HEADER_BYTES))

    def write(self, data: bytes | bytearray) -> None:
        self._pending += data
        while len(self._pending) > self._chunk_bytes:  # keeps a full chunk back: it may be the last chunk
            self._seal(self._chunk_bytes, last=False)

    def finish(self, *, context: bytes) -> None:
        """Write the last chunk, then the header. The caller calls ``fsync``."""
        self._seal(len(self._pending), last=True)
        self._file.seek(0)
        bound = _bound(self._chunk_bytes, context)
        self._file.write(_prefix(self._chunk_bytes) + self._keys.current.wrap(self._file_key, bound) + _EMPTY_SLOT)
        self._file.flush()

    def _seal(self, size: int, *, last: bool) -> None:
        self._file.write(self._aead.encrypt(_chunk_nonce(self._index, last=last), bytes(self._pending[:size]), None))
        del self._pending[:size]
        self._index += 1


def encrypt(plaintext: bytes, keys: MasterKeys, *, context: bytes, chunk_bytes: int = DEFAULT_CHUNK_BYTES) -> bytes:
    """Encrypt a plaintext that fits into memory."""
    return b"".join(encrypt_chunks((plaintext,), keys, context=context, chunk_bytes=chunk_bytes))


class EncryptedReader:
    """Random access to an encrypted file; every returned byte is authenticated.

    Opening checks the last chunk, so a file truncated at a chunk boundary is refused before anything is read. Keeps the
    last chunk and the chunk of the last ``read_at`` in memory, and while it iterates ``READ_BYTES`` (or one chunk, if
    that is larger) of ciphertext and of plaintext. Not thread-safe. Does not close ``file``.
    """

    def __init__(self, file: BinaryIO, keys: MasterKeys, *, context: bytes) -> None:
        """Read the header and the last chunk. Raises ``CryptoFailure``."""
        self._file = file
        file.seek(0)
        self.header = file.read(HEADER_BYTES)
        file_key, self._chunk_bytes = keys.unwrap(self.header, context)
        self._aead = AESGCM(file_key)
        body_bytes = file.seek(0, os.SEEK_END) - HEADER_BYTES
        self._sealed_bytes = self._chunk_bytes + hpke.TAG_BYTES
        self._last = max(0, -(-body_bytes // self._sealed_bytes) - 1)
        self._last_chunk = self._read_last_chunk()
        self._cached = (self._last, self._last_chunk)
        self.size_bytes = self._last * self._chunk_bytes + len(self._last_chunk)

    def read_at(self, offset: int, length: int) -> bytes:
        """Return up to ``length`` bytes from ``offset``; fewer at the end. Raises ``CryptoFailure``."""
        if offset < 0 or length < 0:
            raise ValueError("offset and length must not be negative")
        end = min(offset + length, self.size_bytes)
        pieces: list[bytes] = []
        while offset < end:
            index, start = divmod(offset, self._chunk_bytes)
            piece = self._chunk(index)[start : start + end - offset]
            pieces.append(piece)
            offset += len(piece)
        return b"".join(pieces)

    def pieces(self, begin: int = 0, end: int | None = None) -> Iterator[bytes]:
        """Yield the bytes ``[begin, end)``, at most ``READ_BYTES`` or one chunk at a time, ``end`` capped to the size.

        A piece is yielded when all of it is authenticated, and only the chunks of the range are read.

        Raises:
            CryptoFailure: the next piece was altered; those before it are genuine.
        """
        if begin < 0:
            raise ValueError("begin must not be negative")
        end = self.size_bytes if end is None else min(end, self.size_bytes)
        if begin >= end:
            return
        first, last = begin // self._chunk_bytes, (end - 1) // self._chunk_bytes
        position = first * self._chunk_bytes
        for view in self._views(first, last):
            yield bytes(view[max(0, begin - position) : end - position])
            position += len(view)

    def feed(self, consume: Callable[[memoryview], object]) -> None:
        """Pass all of the plaintext to ``consume``, in order, in memory that is valid during each call only.

        Raises:
            CryptoFailure: the file was altered; ``consume`` has received what was genuine before.
        """
        for view in self._views(0, self._last):
            consume(view)

    def __iter__(self) -> Iterator[bytes]:
        """Yield the decrypted chunks in order; an empty last chunk is skipped."""
        for view in self._views(0, self._last):
            for start in range(0, len(view), self._chunk_bytes):
                yield bytes(view[start : start + self._chunk_bytes])

    def _views(self, first: int, last: int) -> Iterator[memoryview]:
        """The plaintext of the chunks from ``first`` to ``last``, ``READ_BYTES`` at a time, authenticated.

        A view is valid until the next: new memory for each would cost as much processor time as the decryption.
        """
        count = max(1, min(READ_BYTES // self._chunk_bytes, last + 1 - first))
        plain = memoryview(bytearray(count * self._chunk_bytes))
        for begin in range(first, last + 1, count):
            end = min(begin + count, last + 1, self._last)  # the last chunk of the file was read when it was opened
            self._decrypt(range(begin, end), plain)
            size = max(0, end - begin) * self._chunk_bytes
            if last == self._last < begin + count:
                plain[size : size + len(self._last_chunk)] = self._last_chunk
                size += len(self._last_chunk)
            yield plain[:size]

    def _decrypt(self, indexes: range, plain: memoryview) -> None:
        if not indexes:
            return
        self._file.seek(HEADER_BYTES + indexes[0] * self._sealed_bytes)
        sealed = memoryview(self._file.read(len(indexes) * self._sealed_bytes))
        if len(sealed) != len(indexes) * self._sealed_bytes:
            raise CryptoFailure  # the file was truncated since it was opened
        for place, index in enumerate(indexes):
            hpke.open_sealed_into(
                self._aead,
                _chunk_nonce(index, last=False),
                sealed[place * self._sealed_bytes :][: self._sealed_bytes],
                plain[place * self._chunk_bytes :][: self._chunk_bytes],
            )

    def _chunk(self, index: int) -> bytes:
        if self._cached[0] != index:
            self._cached = (index, bytes(next(self._views(index, index))))
        return self._cached[1]

    def _read_last_chunk(self) -> bytes:
        self._file.seek(HEADER_BYTES + self._last * self._sealed_bytes)
        nonce = _chunk_nonce(self._last, last=True)
        chunk = hpke.open_sealed(self._aead, nonce, self._file.read(self._sealed_bytes), b"")
        if self._last and not chunk:
            raise CryptoFailure
        return chunk


def decrypt_chunks(file: BinaryIO, keys: MasterKeys, *, context: bytes) -> Iterator[bytes]:
    """Decrypt a file chunk by chunk from the start. Raises ``CryptoFailure``."""
    yield from EncryptedReader(file, keys, context=context)


def add_key(file: BinaryIO, keys: MasterKeys, *, context: bytes) -> None:
    """Wrap the file key with the current master key as well, and keep the old slot: the first half of ``rewrap``.

    Raises:
        CryptoFailure: no known master key opens the header.
    """
    file.seek(0)
    header = file.read(HEADER_BYTES)
    file_key, chunk_bytes = keys.unwrap(header, context)
    bound = _bound(chunk_bytes, context)
    slots = _parse_header(header)[1]
    if not any(_opens(keys.current, slot, bound) for slot in slots):
        _write_slot(file, 1 if _opens_any(keys, slots[0], bound) else 0, keys.current.wrap(file_key, bound))


def has_two_keys(file: BinaryIO) -> bool:
    """Return whether a file is between ``add_key`` and the end of ``rewrap``.

    Raises:
        CryptoFailure: the file has another header.
    """
    file.seek(0)
    return _EMPTY_SLOT not in _parse_header(file.read(HEADER_BYTES))[1]


def rewrap(file: BinaryIO, keys: MasterKeys, *, context: bytes) -> bool:
    """Wrap the file key with the current master key only, in place; the content is not rewritten.

    ``file`` is open for reading and writing. Each step is synced before the next, so a crash loses nothing and a second
    run completes the work. Returns whether the file was changed.

    Raises:
        CryptoFailure: no known master key opens the header.
    """
    file.seek(0)
    header = file.read(HEADER_BYTES)
    _, chunk_bytes = keys.unwrap(header, context)
    bound = _bound(chunk_bytes, context)
    slots = _parse_header(header)[1]
    if _EMPTY_SLOT in slots and any(_opens(keys.current, slot, bound) for slot in slots):
        return False
    add_key(file, keys, context=context)
    file.seek(0)
    slots = _parse_header(file.read(HEADER_BYTES))[1]
    keep = next(index for index, slot in enumerate(slots) if _opens(keys.current, slot, bound))
    _write_slot(file, 1 - keep, _EMPTY_SLOT)
    return True


def _opens(key: MasterKey, slot: bytes, bound: bytes) -> bool:
    if slot[:_KEY_ID_BYTES] != key.key_id:
        return False
    try:
        key.unwrap(slot, bound)
    except CryptoFailure:
        return False
    return True


def _opens_any(keys: MasterKeys, slot: bytes, bound: bytes) -> bool:
    return any(_opens(key, slot, bound) for key in keys.by_id.values())


def _write_slot(file: BinaryIO, index: int, slot: bytes) -> None:
    file.seek(_PREFIX_BYTES + index * _SLOT_BYTES)
    file.write(slot)
    file.flush()
    descriptor = _descriptor(file)
    if descriptor is not None:
        os.fsync(descriptor)


def _descriptor(file: BinaryIO) -> int | None:
    """The file descriptor, ``None`` for a file in memory, which needs no ``fsync``."""
    try:
        return file.fileno()
    except io.UnsupportedOperation:
        return None


def _prefix(chunk_bytes: int) -> bytes:
    if not 1 <= chunk_bytes <= MAX_CHUNK_BYTES:
        raise ValueError("chunk_bytes must be between 1 byte and 16 MiB")
    return MAGIC + chunk_bytes.to_bytes(4, "big")


def _parse_header(header: bytes) -> tuple[int, tuple[bytes, bytes]]:
    if len(header) != HEADER_BYTES or not is_encrypted(header):
        raise CryptoFailure
    chunk_bytes = int.from_bytes(header[len(MAGIC) : _PREFIX_BYTES], "big")
    if not 1 <= chunk_bytes <= MAX_CHUNK_BYTES:
        raise CryptoFailure
    first, second = header[_PREFIX_BYTES:][:_SLOT_BYTES], header[_PREFIX_BYTES + _SLOT_BYTES :]
    return chunk_bytes, (first, second)


def _bound(chunk_bytes: int, context: bytes) -> bytes:
    return _LABEL + b"file" + _prefix(chunk_bytes) + hashlib.sha256(context).digest()


def _chunk_nonce(index: int, *, last: bool) -> bytes:
    return bytes(3) + index.to_bytes(8, "big") + (b"\x01" if last else b"\x00")
