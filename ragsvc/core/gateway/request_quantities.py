"""What a request of the stateless families uses besides tokens: as expected from the request, then as answered.

Images, seconds, pages and characters are charged at configured prices. A provider states some of them in its answer;
what it does not state is charged as expected.
"""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec
from msgspec import UNSET, Raw, UnsetType

from ragsvc.core.gateway.endpoint_families import Family, UsageScanner
from ragsvc.core.gateway.prices import ONE_REQUEST, Quantities

AUDIO_BYTES_PER_SECOND: Final = 4000
"""A file of 32 kbit/s, as speech is often compressed; the duration of larger files is overestimated."""
_LEAST_AUDIO_SECONDS: Final = 60.0
"""Reserved also for a small file, which may be compressed more strongly."""
DEFAULT_AUDIO_SECONDS: Final = 600.0
DEFAULT_VIDEO_SECONDS: Final = 8.0
DEFAULT_DOCUMENT_PAGES: Final = 10
"""Pages reserved for a document that the provider loads from a URL."""
_BYTES_PER_PAGE: Final = 50_000
_MOST: Final = 1_000_000
_MOST_IMAGES: Final = 10
_SPEECH: Final = "/audio/speech"
_B64: Final = b'"b64_json"'
_URL: Final = b'"url"'
_MADE: Final = b'.completed"'
_PAGE: Final = b'"markdown"'
_MARKS: Final = {Family.IMAGES: (_B64, _URL, _MADE), Family.OCR: (_PAGE,)}
_NUMBER: Final = rb'"?([0-9]{1,9}(?:\.[0-9]{1,9})?)'
_SECONDS: Final = re.compile(rb'"(?:seconds|duration)"\s*:\s*' + _NUMBER)
_PAGES_READ: Final = re.compile(rb'"pages_processed"\s*:\s*([0-9]{1,7})')
_CUE_END: Final = re.compile(rb"-->\s*(?:(\d{1,3}):)?(\d\d):(\d\d)[,.](\d{3})")


class ExpectedQuantities(msgspec.Struct, frozen=True):
    """What a request is expected to use at most, what it uses at least, and what is assumed if the answer is silent.

    ``texts`` is the number of replies, each of which may have the most tokens.
    """

    expected: Quantities = ONE_REQUEST
    least: Quantities = ONE_REQUEST
    assumed: Quantities = ONE_REQUEST
    texts: int = 1

    @property
    def units(self) -> float:
        """The measure with which the tokens of the request grow: seconds, pages, images, else the request."""
        found = self.assumed
        return found.seconds or found.pages or found.images or 1


ONE_CALL: Final = ExpectedQuantities()


class _MediaFields(msgspec.Struct):
    """Fields that say how much a request asks for; a provider refuses wrong values."""

    n: Raw | UnsetType = UNSET
    best_of: Raw | UnsetType = UNSET
    prompt: Raw | UnsetType = UNSET
    input: Raw | UnsetType = UNSET
    seconds: Raw | UnsetType = UNSET
    duration: Raw | UnsetType = UNSET
    duration_seconds: Raw | UnsetType = UNSET
    pages: Raw | UnsetType = UNSET
    document: Raw | UnsetType = UNSET


_FIELDS: Final = msgspec.json.Decoder(_MediaFields)


def expect_quantities(family: Family, path: str, raw: bytes) -> ExpectedQuantities:
    """What a JSON request uses; it takes time for a large one.

    >>> expect_quantities(Family.IMAGES, "/images/generations", b'{"n": 3}').expected.images
    3
    """
    if family not in {Family.COMPLETIONS, Family.IMAGES, Family.AUDIO, Family.VIDEOS, Family.OCR}:
        return ONE_CALL
    try:
        fields = _FIELDS.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return ONE_CALL
    match family:
        case Family.COMPLETIONS:
            found = ExpectedQuantities(texts=_texts(fields))
        case Family.IMAGES:
            found = _certain(Quantities(images=_whole(fields.n) or 1))
        case Family.AUDIO:
            text = _value(fields.input)
            found = _certain(Quantities(characters=len(text) if isinstance(text, str) else 0))
        case Family.VIDEOS:
            asked = (_number(field) for field in (fields.seconds, fields.duration, fields.duration_seconds))
            seconds = next((value for value in asked if value), None)
            found = _certain(Quantities(seconds=(seconds or DEFAULT_VIDEO_SECONDS) * (_whole(fields.n) or 1)))
        case _:
            found = _pages(fields)
    return found


def expect_form_quantities(family: Family, path: str, size_bytes: int | None) -> ExpectedQuantities:
    """What a form uses: seconds by its size; up to ten images, because ``n`` may follow the image."""
    if family is Family.IMAGES:
        one = Quantities(images=1)
        return ExpectedQuantities(Quantities(images=_MOST_IMAGES), one, one)
    if family is not Family.AUDIO or path == _SPEECH:
        return ONE_CALL
    seconds = DEFAULT_AUDIO_SECONDS if size_bytes is None else max(1.0, size_bytes / AUDIO_BYTES_PER_SECOND)
    reserved = Quantities(seconds=max(seconds, _LEAST_AUDIO_SECONDS))
    return ExpectedQuantities(reserved, Quantities(seconds=1.0), Quantities(seconds=seconds))


def scanner_of(family: Family) -> UsageScanner:
    """A scanner for an answer of a family."""
    return UsageScanner(_MARKS.get(family, ()))


def measure_quantities(
    family: Family, path: str, expected: Quantities, answer: UsageScanner, *, has_events: bool
) -> Quantities:
    """What an answer says that was used, else what was expected."""
    head, tail = answer.ends
    match family:
        case Family.IMAGES:
            made = answer.count_of(_MADE) if has_events else max(answer.count_of(_B64), answer.count_of(_URL))
            return msgspec.structs.replace(expected, images=made or expected.images)
        case Family.AUDIO if path != _SPEECH:
            seconds = _stated_seconds(head, tail)
            return expected if seconds is None else msgspec.structs.replace(expected, seconds=seconds)
        case Family.VIDEOS:
            found = _SECONDS.search(head)
            return expected if found is None else msgspec.structs.replace(expected, seconds=float(found[1]))
        case Family.OCR:
            stated = _last(_PAGES_READ, tail) or _last(_PAGES_READ, head)
            pages = answer.count_of(_PAGE) if stated is None else int(stated[1])
            return msgspec.structs.replace(expected, pages=pages or expected.pages)
        case _:
            return expected


def _stated_seconds(head: bytes, tail: bytes) -> float | None:
    found = _last(_SECONDS, tail) if b'"usage"' in tail else None
    found = found or _SECONDS.search(head) or _last(_SECONDS, tail)
    if found is not None:
        return float(found[1])
    cue = _last(_CUE_END, tail)
    if cue is None:
        return None
    return int(cue[1] or 0) * 3600 + int(cue[2]) * 60 + int(cue[3]) + int(cue[4]) / 1000


def _last(pattern: re.Pattern[bytes], text: bytes) -> re.Match[bytes] | None:
    found = None
    for found in pattern.finditer(text):  # noqa: B007 - the last one is returned
        pass
    return found


def _certain(quantities: Quantities) -> ExpectedQuantities:
    return ExpectedQuantities(quantities, quantities, quantities)


def _texts(fields: _MediaFields) -> int:
    """The replies of a completion: ``n`` or ``best_of`` for each prompt. A list of numbers is one prompt."""
    prompts = _value(fields.prompt)
    count = len(prompts) if isinstance(prompts, list) and not isinstance(next(iter(prompts), 0), int) else 1
    return count * max(_whole(fields.n) or 1, _whole(fields.best_of) or 1)


def _pages(fields: _MediaFields) -> ExpectedQuantities:
    """The pages that an OCR request names, else an estimate from its document."""
    asked = _value(fields.pages)
    if isinstance(asked, list) and asked:
        return _certain(Quantities(pages=len(asked)))
    document = b"" if fields.document is UNSET else bytes(fields.document)
    if b"image_url" in document[:200]:
        return _certain(Quantities(pages=1))
    inline = b'"data:' in document or b"base64" in document[:400]
    pages = max(1, len(document) // _BYTES_PER_PAGE) if inline else DEFAULT_DOCUMENT_PAGES
    by_size = Quantities(pages=pages)
    return ExpectedQuantities(by_size, Quantities(pages=1), by_size)


def _value(raw: Raw | UnsetType) -> Any:  # noqa: ANN401 - any JSON
    if raw is UNSET:
        return None
    try:
        return msgspec.json.decode(raw)
    except (msgspec.DecodeError, RecursionError):
        return None


def _number(raw: Raw | UnsetType) -> float | None:
    """A number, also as a text such as ``"8"`` or ``"8s"``."""
    value = _value(raw)
    if isinstance(value, str):
        text = value.strip().removesuffix("s")
        value = float(text) if text.replace(".", "", 1).isdecimal() and text.isascii() else None
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= _MOST:
        return float(value)
    return None


def _whole(raw: Raw | UnsetType) -> int | None:
    value = _number(raw)
    return None if value is None else int(value)
