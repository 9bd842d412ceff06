# What ragsvc uses of the package "multipart" (https://multipart.readthedocs.io). The package "python-multipart", which
# the MCP SDK needs, installs a folder of the same name, in which type checkers look first; at run time it gives way.

from collections.abc import Iterator
from typing import Self

class MultipartError(ValueError): ...
class ParserLimitReached(MultipartError): ...

class MultipartSegment:
    headerlist: list[tuple[str, str]]
    name: str | None
    filename: str | None
    content_type: str | None
    charset: str | None
    complete: bool
    @property
    def size(self) -> int: ...
    def header(self, name: str, default: str | None = ...) -> str | None: ...

class PushMultipartParser:
    def __init__(
        self,
        boundary: str | bytes,
        content_length: int = ...,
        max_header_size: int = ...,
        max_header_count: int = ...,
        max_segment_size: float = ...,
        max_segment_count: float = ...,
        header_charset: str = ...,
        strict: bool = ...,
    ) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(self, *exc: object) -> None: ...
    def parse(self, chunk: bytes | bytearray) -> Iterator[MultipartSegment | bytes | None]: ...
    def close(self, check_complete: bool = ...) -> None: ...

def parse_options_header(header: str, options: dict[str, str] | None = ...) -> tuple[str, dict[str, str]]: ...
