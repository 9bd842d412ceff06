"""Files of requests: decoded from base64 in any form, the same in small and large bodies."""

from __future__ import annotations

import base64
import itertools
import json
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragsvc.core.errors import InvalidRequest, TooLarge
from ragsvc.core.gateway.chat import decode_chat_request, decode_large_chat_request
from ragsvc.core.gateway.request_files import inline_file

LIMIT = 10_000_000


def any_limit(_model: str) -> int:
    return 10_000_000


def pieces_of(text: str, cuts: list[int]) -> list[str]:
    borders = sorted({0, len(text), *(cut % (len(text) + 1) for cut in cuts)})
    return [text[begin:end] for begin, end in itertools.pairwise(borders)]


@given(
    data=st.binary(min_size=1, max_size=400),
    cuts=st.lists(st.integers(0, 1000), max_size=6),
    url_safe=st.booleans(),
    padded=st.booleans(),
    line=st.sampled_from([0, 4, 19, 76]),
)
def test_base64_is_read_in_both_alphabets_with_line_ends_and_in_any_pieces(data, cuts, url_safe, padded, line):
    encoded = (base64.urlsafe_b64encode if url_safe else base64.b64encode)(data).decode()
    encoded = encoded if padded else encoded.rstrip("=")
    if line:
        encoded = "\r\n".join(encoded[begin : begin + line] for begin in range(0, len(encoded), line))
    file = inline_file(pieces_of(encoded, cuts), filename="a.bin", param="p", limit_bytes=400)
    assert file.data == data


@given(
    text=st.text(st.sampled_from("AB+/=\u00e9 @"), min_size=1, max_size=24),
    cuts=st.lists(st.integers(0, 30), max_size=4),
)
def test_the_cut_into_pieces_never_decides_whether_base64_is_valid(text, cuts):
    def outcome(pieces):
        try:
            return inline_file(pieces, filename=None, param="p", limit_bytes=100).data
        except InvalidRequest as error:
            return error.param

    assert outcome(pieces_of(text, cuts)) == outcome([text])


@pytest.mark.parametrize(
    ("text", "data", "media_type"),
    [
        ("data:application/pdf;base64,QUJD", b"ABC", "application/pdf"),
        ("data:;base64,QUJD", b"ABC", ""),
        ("DATA:Text/Plain;charset=utf-8;base64,QUJD", b"ABC", "text/plain"),
        ("data:text/plain,A%20B", b"A B", "text/plain"),
        ("data:text/plain;charset=ISO-8859-1;base64,QUJD", b"ABC", "text/plain; charset=iso-8859-1"),
        ("data:text/plain;charset=nonsense;base64,QUJD", b"ABC", "text/plain"),
        ("data:application/pdf;charset=ISO-8859-1;base64,QUJD", b"ABC", "application/pdf"),
        ("  QUJD\n", b"ABC", ""),
    ],
)
def test_data_urls_and_bare_base64(text, data, media_type):
    file = inline_file([text], filename="../x.pdf", param="p", limit_bytes=10)
    assert (file.data, file.media_type, file.filename) == (data, media_type, "x.pdf")


@pytest.mark.parametrize(
    "text", ["data:application/pdf", "data:x;base64", "QUJ", "QUJD=", "Q===", "QQ==QQ==", "QUJD%", "é" * 8]
)
def test_other_texts_are_refused(text):
    if text == "QUJ":
        assert inline_file([text], filename=None, param="p", limit_bytes=9).data == b"AB"
        return
    with pytest.raises(InvalidRequest) as refused:
        inline_file([text], filename=None, param="p", limit_bytes=10)
    assert refused.value.param == "p.file_data"


def test_a_file_beyond_the_limit_is_refused_before_its_end_is_decoded():
    decoded = 0

    def pieces():
        nonlocal decoded
        for _ in range(100):
            decoded += 1
            yield "QUJD" * 1000

    with pytest.raises(TooLarge) as refused:
        inline_file(pieces(), filename=None, param="p", limit_bytes=5000)
    assert decoded == 2
    assert (refused.value.limit_bytes, refused.value.param) == (5000, "p.file_data")


def body_of(*files: dict, text: str = "What?", **fields: object) -> bytes:
    content = [*({"type": "file", "file": file} for file in files), {"type": "text", "text": text}]
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": content}]
    return json.dumps({"model": "m", "messages": messages, **fields}).encode()


FILES = st.lists(
    st.one_of(
        st.builds(
            lambda data, name: {"file_data": base64.b64encode(data).decode(), "filename": name},
            st.binary(min_size=1, max_size=9000),
            st.sampled_from(["a.pdf", "ü.txt", None]),
        ),
        st.just({"file_id": "file-1", "file_data": None}),
    ),
    min_size=1,
    max_size=4,
)


@given(files=FILES, text=st.sampled_from(["x", "é" * 5000]), pass_files=st.booleans())
def test_large_bodies_give_the_same_files_as_small_ones(files, text, pass_files):
    body = body_of(*files, text=text, temperature=0.5)
    small = decode_chat_request(body, pass_files=pass_files)
    large = decode_large_chat_request(body, max_prompt_characters=any_limit, pass_files=pass_files)
    assert small.files == large.files
    assert json.loads(small.raw) == json.loads(large.raw)
    if not pass_files:
        assert small.request == large.request
    kept = [file for file in files if not (pass_files and file.get("file_data"))]
    assert [file.data for file in small.files] == [
        base64.b64decode(file["file_data"]) if file.get("file_data") else None for file in kept
    ]
    sent = json.loads(small.raw)["messages"][1]["content"]
    assert [part["type"] for part in sent].count("file") == len(files) - len(kept)
    assert "file-1" not in small.raw.decode()
    assert json.loads(small.raw)["temperature"] == 0.5


def test_escaped_slashes_and_types_are_read():
    data = b"\xff\xff\xff\xff" * 2000
    encoded = base64.b64encode(data).decode().replace("/", "\\/")
    raw = (
        '{"model":"m","messages":[{"role":"user","content":[{"\\u0074ype":"f\\u0069le","file":{"file_data":"'
        + encoded
        + '"}}]}]}'
    ).encode()
    for call in (decode_chat_request(raw), decode_large_chat_request(raw, max_prompt_characters=any_limit)):
        assert call.files[0].data == data
        assert b"file_data" not in call.raw


def test_files_count_as_no_characters_of_the_prompt():
    body = body_of({"file_data": "QUJD" * 100_000})
    call = decode_large_chat_request(body, max_prompt_characters=lambda _: 1000)
    assert len(call.files[0].data) == 300_000


def test_a_large_body_is_not_kept_and_its_file_is_decoded_once():
    body = body_of({"file_data": "QUJD" * 2_000_000})
    tracemalloc.start()
    call = decode_large_chat_request(body, max_prompt_characters=any_limit)
    _, peak = tracemalloc.get_traced_memory()
    kept = sum(stat.size for stat in tracemalloc.take_snapshot().statistics("filename"))
    tracemalloc.stop()
    assert len(call.raw) < 1000
    assert kept < 6_500_000  # the file has 6 MB
    assert peak < 22_000_000  # the file twice while it is copied, and the body without it


@pytest.mark.parametrize(
    ("file", "param"),
    [
        ({}, "messages[1].content[0].file.file_data"),
        ({"file_data": "", "file_id": ""}, "messages[1].content[0].file.file_data"),
        ({"file_data": "QUJD", "file_id": "file-1"}, "messages[1].content[0].file"),
        ({"file_data": "data:application/pdf;base64,"}, "messages[1].content[0].file.file_data"),
        ({"file_id": "f" * 129}, "messages[1].content[0].file.file_id"),
        ({"file_id": "f" * 5000}, "messages[1].content[0].file.file_id"),
        ({"file_data": "QUJD", "filename": "n" * 513}, "messages[1].content[0].file.filename"),
        ({"file_data": "QUJD", "filename": "n" * 5000}, "messages[1].content[0].file.filename"),
        ({"file_data": 7}, "messages[1].content[0].file.file_data"),
    ],
)
def test_a_malformed_part_is_refused_alike_in_small_and_large_bodies(file, param):
    messages = []
    for decode in (decode_chat_request, lambda raw: decode_large_chat_request(raw, max_prompt_characters=any_limit)):
        with pytest.raises(InvalidRequest) as refused:
            decode(body_of(file))
        messages.append(refused.value.message)
        assert refused.value.param in (
            param,
            f"messages[...].content[...].{param.rpartition('file.')[2]}",
            "messages[...].content[...].file.file_data",
        )
    assert messages[0] == messages[1]
