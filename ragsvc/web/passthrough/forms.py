"""Streams forms to a provider: reads up to the field ``model``, then passes the rest on as it arrives.

The bytes are not changed, except for the value of ``model`` if the provider has another name for it. Forms are parsed
more strictly than RFC 7578 demands, and to their end, so that no provider can read another ``model`` than this parser.
The scanner is our own because it needs the byte offset of the value, which form parsers do not give.
"""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Callable, Mapping
from typing import IO, Final, Self

import anyio.to_thread
from multipart import parse_options_header

from ragsvc.core.defaults import MAX_MODEL_NAME_LENGTH
from ragsvc.core.errors import InvalidRequest
from ragsvc.core.gateway.retrieval_fields import meant_retrieval_field, unsupported_retrieval
from ragsvc.core.validation import check_text_length, invalid_value, missing_value

_HEADER_LIMIT: Final = 8192
_VALUE_LIMIT_BYTES: Final = 4 * MAX_MODEL_NAME_LENGTH  # UTF-8 takes up to 4 bytes a character
_MEMORY_BYTES: Final = 1 << 20
_PORTION_BYTES: Final = 256 << 10
_MAX_BOUNDARY: Final = 70  # RFC 2046 §5.1.1


class FieldScanner:
    r"""Finds a field in a ``multipart/form-data`` stream that is sliced anywhere.

    >>> scanner = FieldScanner("b", "model")
    >>> scanner.feed(b'--b\r\nContent-Disposition: form-data; name="model"\r\n\r\ngpt')
    >>> scanner.feed(b'-x\r\n--b--\r\n')
    >>> scanner.value, scanner.at, scanner.ended
    ('gpt-x', 53, True)
    """

    def __init__(self, boundary: str, field: str, *, refuse: Callable[[str], None] | None = None) -> None:
        """``refuse`` is called with the name of each field, and raises an error for a field that is not accepted."""
        if not 0 < len(boundary) <= _MAX_BOUNDARY or not boundary.isascii():
            raise InvalidRequest("The header 'Content-Type' of the form has no valid boundary.", param="Content-Type")
        self._delimiter = b"\r\n--" + boundary.encode()
        self._field = field
        self._refuse = refuse
        self._pending = b"\r\n"  # the first delimiter has no line break before it
        self._offset = -2
        """Offset of ``_pending`` in the stream."""
        self._step = self._preamble
        self._collecting: bytes | None = None
        self.value: str | None = None
        self.at = 0
        """Offset of the value in the stream, in bytes."""
        self.ended = False

    def feed(self, piece: bytes) -> None:
        """Take the next slice. Raises ``InvalidRequest`` if the form is malformed or has the field twice."""
        if self.ended:
            return  # an epilogue, which is ignored
        self._pending += piece
        while not self.ended and self._step():
            continue

    def _drop(self, count: int) -> None:
        self._pending = self._pending[count:]
        self._offset += count

    def _preamble(self) -> bool:
        if len(self._pending) < len(self._delimiter):
            return False
        if not self._pending.startswith(self._delimiter):
            raise _malformed("it does not begin with its boundary")
        self._drop(len(self._delimiter))
        self._step = self._after_delimiter
        return True

    def _after_delimiter(self) -> bool:
        if len(self._pending) < 2:
            return False
        if self._pending.startswith(b"--"):
            self.ended = True
            return False
        if not self._pending.startswith(b"\r\n"):
            raise _malformed("a boundary is not followed by a line break")
        self._step = self._headers
        return True

    def _headers(self) -> bool:
        end = self._pending.find(b"\r\n\r\n")
        if end < 0 or end > _HEADER_LIMIT:
            if len(self._pending) > _HEADER_LIMIT:
                raise _malformed("the header of a part is too long")
            return False
        name = _field_name(self._pending[2:end])
        if self._refuse is not None:
            self._refuse(name)
        named = name == self._field
        self._drop(end + 4)
        if named:
            if self.value is not None:
                raise InvalidRequest(f"The form has the field '{self._field}' twice.", param=self._field)
            self._collecting, self.at = b"", self._offset
        self._step = self._value
        return True

    def _value(self) -> bool:
        end = self._pending.find(self._delimiter)
        taken = end if end >= 0 else max(0, len(self._pending) - len(self._delimiter) + 1)
        if self._collecting is not None:
            self._collecting += self._pending[:taken]
            if len(self._collecting) > _VALUE_LIMIT_BYTES:
                raise invalid_value(self._field, f"Expected `str` of length <= {MAX_MODEL_NAME_LENGTH}")
        self._drop(taken)
        if end < 0:
            return False
        if self._collecting is not None:
            self.value, self._collecting = _text(self._collecting, self._field), None
        self._drop(len(self._delimiter))
        self._step = self._after_delimiter
        return True


def _field_name(header: bytes) -> str:
    names: list[str] = []
    for line in header.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.strip().lower() == b"content-disposition":
            _, options = parse_options_header(value.decode("utf-8", "replace").strip())
            if any(option.endswith("*") and option.startswith("name") for option in options):
                raise _malformed("the name of a part is given as 'name*'")
            names.append(options.get("name", ""))
    if len(names) != 1 or not names[0]:
        raise _malformed("a part has no name, or several")
    return names[0]


def _text(value: bytes, field: str) -> str:
    try:
        text = value.decode()
    except UnicodeDecodeError as error:
        raise invalid_value(field, "Expected UTF-8") from error
    check_text_length(field, text, maximum=MAX_MODEL_NAME_LENGTH)
    return text


def _malformed(problem: str) -> InvalidRequest:
    return InvalidRequest(f"The form cannot be read: {problem}.")


class StreamedForm:
    """A form that is passed on while it arrives; an async context manager."""

    def __init__(
        self,
        source: AsyncIterator[bytes],
        *,
        route: str,
        boundary: str,
        content_type: str,
        length: int | None,
        may_use_disk: bool = True,
    ) -> None:
        """``may_use_disk``: ``False`` for encrypted requests, whose plaintext must not be written to disk."""
        self._source = source
        self._route = route
        self._boundary = boundary.encode()
        self._scanner = FieldScanner(boundary, "model", refuse=self._refuse_retrieval)
        self._content_type = content_type
        self.length = length
        self._spool: IO[bytes] = tempfile.SpooledTemporaryFile(max_size=_MEMORY_BYTES if may_use_disk else 0)  # noqa: SIM115 - closed by __aexit__
        self._kept = 0
        self.spent = False
        """Whether bytes were sent that are not buffered, so that the form cannot be sent again."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await anyio.to_thread.run_sync(self._spool.close)

    async def read_model(self, default: str | None = None) -> str:
        """Read up to ``model``; a form without it is read to its end, and gets the default as its first field.

        Raises:
            InvalidRequest: the form is malformed, or has no model and there is no default.
        """
        while self._scanner.value is None and not self._scanner.ended:
            try:
                piece = await anext(self._source)
            except StopAsyncIteration:
                break
            self._scanner.feed(piece)
            self._kept += len(piece)
            if self._kept > _MEMORY_BYTES:
                await anyio.to_thread.run_sync(self._spool.write, piece)
            else:
                self._spool.write(piece)
        model = self._scanner.value or default
        if not model:
            raise missing_value("model")
        return model

    def _refuse_retrieval(self, name: str) -> None:
        """Refuse a field that asks for documents. Raises ``UnsupportedParameter``."""
        if meant_retrieval_field(name):
            raise unsupported_retrieval(name, self._route)

    def for_model(self, model: str) -> tuple[AsyncIterator[bytes], Mapping[str, str]]:
        """The form with the provider's name of the model, and its headers."""
        headers = {"Content-Type": self._content_type}
        old, new = (self._scanner.value or "").encode(), model.encode()
        if self._scanner.value is None:
            new = b'--%s\r\nContent-Disposition: form-data; name="model"\r\n\r\n%s\r\n' % (self._boundary, new)
        if self.length is not None:
            headers["Content-Length"] = str(self.length - len(old) + len(new))
        return _FormAttempt(self, old, new), headers

    async def pieces(self, old: bytes, new: bytes) -> AsyncIterator[bytes]:
        """The buffered bytes with the name replaced, then the rest as it arrives, checked to its end."""
        at = 0
        for limit, insert in ((self._scanner.at, new), (self._kept, b"")):
            while at < limit:
                piece = await anyio.to_thread.run_sync(self._read, at, min(_PORTION_BYTES, limit - at))
                at += len(piece)
                yield piece
            if insert:
                at += len(old)
                yield insert
        while True:
            self.spent = True  # set before the wait: a piece that arrives while the attempt is cancelled is lost
            try:
                piece = await anext(self._source)
            except StopAsyncIteration:
                break
            self._scanner.feed(piece)
            yield piece
        if not self._scanner.ended:
            raise _malformed("it ends too early")

    def _read(self, at: int, count: int) -> bytes:
        self._spool.seek(at)
        return self._spool.read(count)


class _FormAttempt:
    """An attempt to send a form; ``failure`` is an error while reading the form, which the provider did not cause."""

    def __init__(self, form: StreamedForm, old: bytes, new: bytes) -> None:
        self._pieces = form.pieces(old, new)
        self.failure: Exception | None = None

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        try:
            return await anext(self._pieces)
        except StopAsyncIteration:
            raise
        except Exception as error:
            self.failure = error
            raise
