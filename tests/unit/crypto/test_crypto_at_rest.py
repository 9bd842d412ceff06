"""Encryption at rest: round trips, truncated and changed files, random access, and rotation across crashes."""

from __future__ import annotations

import io
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ragsvc.core.errors import ConfigurationError, CryptoFailure
from ragsvc.crypto import at_rest
from ragsvc.crypto.at_rest import EncryptedReader, MasterKey, MasterKeys

OLD, NEW = MasterKey(bytes([1]) * 32), MasterKey(bytes([2]) * 32)
KEYS = MasterKeys(OLD)
CONTEXT = b"blob:1"


def seal(plaintext: bytes, *, keys: MasterKeys = KEYS, chunk_bytes: int = 16) -> bytes:
    return at_rest.encrypt(plaintext, keys, context=CONTEXT, chunk_bytes=chunk_bytes)


def open_whole(content: bytes, keys: MasterKeys = KEYS, context: bytes = CONTEXT) -> bytes:
    return b"".join(at_rest.decrypt_chunks(io.BytesIO(content), keys, context=context))


@given(pieces=st.lists(st.binary(max_size=50), max_size=8), chunk_bytes=st.integers(1, 40))
def test_pieces_of_any_size_round_trip(pieces, chunk_bytes):
    content = b"".join(at_rest.encrypt_chunks(pieces, KEYS, context=CONTEXT, chunk_bytes=chunk_bytes))
    plaintext = b"".join(pieces)
    assert open_whole(content) == plaintext
    assert at_rest.is_encrypted(content)
    chunks = max(1, -(-len(plaintext) // chunk_bytes))
    assert len(content) == at_rest.HEADER_BYTES + len(plaintext) + 16 * chunks


@given(size=st.integers(0, 200), offset=st.integers(0, 220), length=st.integers(0, 220))
def test_random_access_equals_a_slice_of_the_plaintext(size, offset, length):
    plaintext = bytes(index % 251 for index in range(size))
    reader = EncryptedReader(io.BytesIO(seal(plaintext)), KEYS, context=CONTEXT)
    assert reader.size_bytes == size
    assert reader.read_at(offset, length) == plaintext[offset : offset + length]


@pytest.mark.parametrize("size", [0, 5, 16, 32, 40])
def test_every_truncation_and_extension_is_refused_when_opening(size):
    content = seal(bytes(size))
    for cut in [content[:end] for end in range(len(content))] + [
        content + b"\0",
        content + bytes(16),
        content + bytes(32),
    ]:
        with pytest.raises(CryptoFailure):
            EncryptedReader(io.BytesIO(cut), KEYS, context=CONTEXT)


def test_every_flipped_byte_that_is_in_use_is_refused():
    content = seal(b"x" * 40)
    unused = range(88, at_rest.HEADER_BYTES)  # slot 1 is empty and ignored
    for position in set(range(len(content))) - set(unused):
        changed = bytearray(content)
        changed[position] ^= 0x55
        with pytest.raises(CryptoFailure):
            open_whole(bytes(changed))


def test_chunks_cannot_be_swapped_nor_files_exchanged():
    content = seal(b"a" * 16 + b"b" * 16 + b"c" * 16)
    head, body = content[: at_rest.HEADER_BYTES], content[at_rest.HEADER_BYTES :]
    chunks = [body[start : start + 32] for start in range(0, len(body), 32)]
    for order in ([1, 0, 2], [0, 2], [2], [0, 1, 1, 2]):
        with pytest.raises(CryptoFailure):
            open_whole(head + b"".join(chunks[index] for index in order))
    with pytest.raises(CryptoFailure):
        open_whole(content, context=b"blob:2")
    other = seal(b"z" * 48)
    with pytest.raises(CryptoFailure):
        open_whole(head + other[at_rest.HEADER_BYTES :])


def test_the_same_plaintext_never_encrypts_to_the_same_bytes():
    assert seal(b"same")[at_rest.HEADER_BYTES :] != seal(b"same")[at_rest.HEADER_BYTES :]


def test_rewrapping_moves_a_file_to_the_new_key_without_touching_its_content(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(seal(b"content" * 10))
    before = path.read_bytes()
    with path.open("r+b") as file:
        assert at_rest.rewrap(file, MasterKeys(NEW, OLD), context=CONTEXT)
    after = path.read_bytes()
    assert before[at_rest.HEADER_BYTES :] == after[at_rest.HEADER_BYTES :]
    assert open_whole(after, MasterKeys(NEW)) == b"content" * 10
    with pytest.raises(CryptoFailure):
        open_whole(after, MasterKeys(OLD))
    with path.open("r+b") as file:
        assert not at_rest.rewrap(file, MasterKeys(NEW, OLD), context=CONTEXT)
        assert at_rest.rewrap(file, MasterKeys(OLD, NEW), context=CONTEXT)  # and back, through the other slot
    assert open_whole(path.read_bytes(), KEYS) == b"content" * 10


class CrashingFile(io.BytesIO):
    """Fails after ``budget`` written bytes: the rest of that write and all later writes are lost."""

    def __init__(self, content: bytes, budget: int) -> None:
        super().__init__(content)
        self.budget = budget

    def write(self, data):
        written = super().write(data[: self.budget])
        self.budget -= written
        if written < len(data):
            raise OSError("power lost")
        return written


def test_a_crash_at_any_byte_of_a_rewrap_leaves_a_file_that_opens_and_can_be_finished():
    rotated = MasterKeys(NEW, OLD)
    for slots_used in (0, 1):
        content = seal(b"content")
        if slots_used:  # the current master key is in slot 1
            file = io.BytesIO(content)
            at_rest.rewrap(file, MasterKeys(MasterKey(bytes(32)), OLD), context=CONTEXT)
            at_rest.rewrap(file, MasterKeys(OLD, MasterKey(bytes(32))), context=CONTEXT)
            content = file.getvalue()
        for budget in range(2 * 76):
            file = CrashingFile(content, budget)
            with pytest.raises(OSError, match="power lost"):
                at_rest.rewrap(file, rotated, context=CONTEXT)
            assert open_whole(file.getvalue(), rotated) == b"content"
            finished = io.BytesIO(file.getvalue())
            at_rest.rewrap(finished, rotated, context=CONTEXT)
            assert open_whole(finished.getvalue(), MasterKeys(NEW)) == b"content"
            assert OLD.key_id not in finished.getvalue()


def test_a_file_of_an_unknown_key_is_refused():
    with pytest.raises(CryptoFailure):
        open_whole(seal(b"content"), MasterKeys(NEW))
    with pytest.raises(CryptoFailure):
        at_rest.rewrap(io.BytesIO(seal(b"content")), MasterKeys(NEW), context=CONTEXT)


def test_derived_keys_are_stable_and_independent():
    purposes = [OLD.derive("database"), OLD.derive("snapshots"), NEW.derive("database"), OLD.key_id]
    assert len(set(purposes)) == 4
    assert OLD.derive("database") == MasterKey.from_bytes(bytes([1]) * 32).derive("database")
    assert repr(OLD) == f"MasterKey(key_id={OLD.key_id.hex()})"


def test_master_keys_are_read_from_bytes_or_refused():
    assert MasterKey.from_bytes(b"01" * 32 + b"\n").key_id == OLD.key_id
    for bad in (b"", b"passphrase", bytes(31)):
        with pytest.raises(ConfigurationError):
            MasterKey.from_bytes(bad)
    with pytest.raises(ConfigurationError):
        MasterKey(bytes(31))


def test_absurd_chunk_sizes_are_refused():
    for size in (0, at_rest.MAX_CHUNK_BYTES + 1):
        with pytest.raises(ValueError, match="16 MiB"):
            seal(b"", chunk_bytes=size)
        header = at_rest.MAGIC + size.to_bytes(4, "big") + seal(b"")[12:]
        with pytest.raises(CryptoFailure):
            open_whole(header)


def test_a_large_file_streams_in_one_chunk_of_memory(tmp_path):
    path = tmp_path / "large"
    piece = os.urandom(1 << 20)
    with path.open("wb") as file:
        file.writelines(at_rest.encrypt_chunks((piece for _ in range(8)), KEYS, context=CONTEXT))
    with path.open("rb") as file:
        reader = EncryptedReader(file, KEYS, context=CONTEXT)
        assert reader.size_bytes == 8 << 20
        assert reader.read_at((5 << 20) - 3, 6) == piece[-3:] + piece[:3]
        assert max(map(len, reader)) == at_rest.DEFAULT_CHUNK_BYTES


LARGE = bytes(range(251)) * 6_000  # 1.5 MB: several reads of several chunks, and a last chunk that is not full


def large_reader(content: bytes) -> EncryptedReader:
    return EncryptedReader(io.BytesIO(content), KEYS, context=CONTEXT)


@settings(deadline=None, max_examples=40)  # each example encrypts 1.5 MB
@given(
    begin=st.integers(0, len(LARGE) + 10),
    length=st.integers(0, len(LARGE) + 10),
    chunk_bytes=st.sampled_from([at_rest.DEFAULT_CHUNK_BYTES, 200_000, at_rest.READ_BYTES + 1]),
)
def test_the_pieces_of_a_range_are_a_slice_of_the_plaintext_and_bounded(begin, length, chunk_bytes):
    reader = large_reader(seal(LARGE, chunk_bytes=chunk_bytes))
    pieces = list(reader.pieces(begin, begin + length))
    assert b"".join(pieces) == LARGE[begin : begin + length]
    assert all(0 < len(piece) <= max(at_rest.READ_BYTES, chunk_bytes) for piece in pieces)


@pytest.mark.parametrize("size", [0, 1, 16, 17, 32])
def test_pieces_and_feed_give_the_whole_plaintext(size):
    plaintext = bytes(range(size))
    fed: list[bytes] = []
    large_reader(seal(plaintext)).feed(lambda view: fed.append(bytes(view)))
    assert b"".join(fed) == b"".join(large_reader(seal(plaintext)).pieces()) == plaintext


def test_the_pieces_before_an_altered_chunk_are_genuine_and_nothing_of_its_own_piece_is_returned():
    content = bytearray(seal(LARGE, chunk_bytes=at_rest.DEFAULT_CHUNK_BYTES))
    altered = at_rest.HEADER_BYTES + 12 * (at_rest.DEFAULT_CHUNK_BYTES + 16) + 5  # in the second read of 8 chunks
    content[altered] ^= 1
    pieces, fed, iterated = [], [], []
    with pytest.raises(CryptoFailure):
        pieces.extend(large_reader(bytes(content)).pieces())
    with pytest.raises(CryptoFailure):
        large_reader(bytes(content)).feed(lambda view: fed.append(bytes(view)))
    with pytest.raises(CryptoFailure):
        iterated.extend(large_reader(bytes(content)))
    for genuine in (pieces, fed, iterated):
        assert b"".join(genuine) == LARGE[: at_rest.READ_BYTES]


def test_a_range_reads_only_its_own_chunks():
    chunk = at_rest.DEFAULT_CHUNK_BYTES
    content = bytearray(seal(LARGE, chunk_bytes=chunk))
    for index in (0, 3, 6, 12):
        content[at_rest.HEADER_BYTES + index * (chunk + 16)] ^= 1
    reader = large_reader(bytes(content))
    assert b"".join(reader.pieces(4 * chunk + 9, 6 * chunk)) == LARGE[4 * chunk + 9 : 6 * chunk]
    with pytest.raises(CryptoFailure):
        list(reader.pieces(4 * chunk + 9, 6 * chunk + 1))


def test_a_file_that_is_truncated_while_it_is_read_is_refused():
    file = io.BytesIO(seal(LARGE, chunk_bytes=at_rest.DEFAULT_CHUNK_BYTES))
    pieces = EncryptedReader(file, KEYS, context=CONTEXT).pieces()
    assert next(pieces) == LARGE[: at_rest.READ_BYTES]
    file.truncate(at_rest.HEADER_BYTES + 9 * (at_rest.DEFAULT_CHUNK_BYTES + 16))
    with pytest.raises(CryptoFailure):
        next(pieces)
