"""Finding the model in a form: any slicing, any place, and nothing that two readers could read differently."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragsvc.core.errors import InvalidRequest
from ragsvc.web.passthrough.forms import FieldScanner

BOUNDARY = "boundary-7"


def part(disposition: bytes, value: bytes) -> bytes:
    return b"--boundary-7\r\nContent-Disposition: " + disposition + b"\r\n\r\n" + value + b"\r\n"


MODEL = part(b'form-data; name="model"', b"m\xc3\xbc")
END = b"--boundary-7--\r\n"
noise = st.binary(max_size=60).filter(lambda value: b"\r\n--boundary-7" not in b"\r\n" + value)


@given(st.lists(noise, max_size=3), st.lists(noise, max_size=3), st.lists(st.integers(1, 30), max_size=20))
def test_any_slicing_of_any_form_finds_value_and_place(before, after, sizes) -> None:
    files = [part(b'form-data; name="file"; filename="model"', value) for value in before]
    rest = [part(b'form-data; name="other"', value) for value in after]
    form = b"".join(files) + MODEL + b"".join(rest) + END
    scanner = FieldScanner(BOUNDARY, "model")
    at = 0
    for size in [*sizes, len(form)]:
        scanner.feed(form[at : at + size])
        at += size
    assert (scanner.value, scanner.ended) == ("mü", True)
    assert form[scanner.at :].startswith(b"m\xc3\xbc\r\n--boundary-7")


@pytest.mark.parametrize(
    "form",
    [
        MODEL + MODEL + END,
        part(b"form-data; name*=UTF-8''model", b"x") + END,
        part(b'form-data; filename="x"', b"x") + END,
        b"preamble\r\n" + MODEL + END,
        b"--boundary-7 \r\n" + MODEL[14:] + END,
        part(b'form-data; name="model"', b"\xff") + END,
        part(b'form-data; name="model"', b"x" * 300) + END,
        b"--boundary-7\r\nContent-Disposition: " + b"x" * 9000,
        part(b'form-data; name="a"\r\nContent-Disposition: form-data; name="model"', b"x"),
    ],
)
def test_what_could_be_read_in_two_ways_is_refused(form: bytes) -> None:
    with pytest.raises(InvalidRequest):
        FieldScanner(BOUNDARY, "model").feed(form)


def test_a_long_file_is_not_kept() -> None:
    scanner = FieldScanner(BOUNDARY, "model")
    scanner.feed(b'--boundary-7\r\nContent-Disposition: form-data; name="file"\r\n\r\n')
    for _ in range(200):
        scanner.feed(b"x" * 10_000)
        assert len(scanner._pending) < 100
