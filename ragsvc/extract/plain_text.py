"""Reads plain text and Markdown: decodes it, splits it into pages, and finds Markdown headings. Keeps all text."""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from ragsvc.core.documents import Extraction, Heading, Page, ProblemCode
from ragsvc.core.errors import ExtractionFailed, FailureReason
from ragsvc.core.ports.parsing import ExtractionLimits
from ragsvc.extract.problems import merge_problems

_PAGE_CHARACTERS = 3_000
_PRINTED_PAGE_CHARACTERS = 9_000
"""A page between form feeds is split only if it is longer: 66 lines of 132 characters have 8,712."""
_SAMPLE_BYTES = 100_000
_BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_SUPERSETS = {
    "iso8859-1": "cp1252",
    "iso8859-9": "cp1254",
    "iso8859-11": "cp874",
    "shift_jis": "cp932",
    "euc_kr": "cp949",
    "gb2312": "gb18030",
    "gbk": "gb18030",
    "big5": "big5hkscs",
}
"""Encodings that are declared for text in an extension of them. WHATWG Encoding §4.2."""
_NOT_DECLARED = frozenset(("ascii", "idna", "punycode", "unicode_escape", "raw_unicode_escape", "undefined"))
"""Codecs of Python that a declaration does not select: ASCII says nothing about bytes above 127, others are no text."""
_SURROGATES = re.compile(rb"\xed[\xa0-\xaf][\x80-\xbf]\xed[\xb0-\xbf][\x80-\xbf]")
_HIGH_RUN = re.compile(rb"[\x80-\xff]+")
_ASCII_LETTER = re.compile(rb"[A-Za-z]")
_LATIN = frozenset(
    "cp1250 cp1252 cp1254 cp1257 cp1258 cp437 cp850 cp852 cp858 latin_1 latin-1 mac_roman mac_latin2 iso8859_2 "
    "iso8859_3 iso8859_4 iso8859_9 iso8859_10 iso8859_13 iso8859_14 iso8859_15 iso8859_16".split()
)
_FEW_ZEROS = 3
_GOOD_PER_BAD = 2
_CONTROLS = re.compile("[\x00-\x08\x0b\x0e-\x1f\x7f-\x84\x86-\x9f\ud800-\udfff\ufeff]")
_BREAKS = (re.compile(r"\n[^\S\n]*\n"), re.compile(r"\n"), re.compile(r"(?<=[.!?。])\s*"), re.compile(r"\s"))
_ATX = re.compile(r"^ {0,3}(#{1,6})[ \t]+(.+?)(?:[ \t]+#+)?[ \t]*$")
_SETEXT = re.compile(r"^ {0,3}(=+|-{2,})[ \t]*$")
_FENCE = re.compile(r"^ {0,3}(`{3,}|~{3,})")


def read_text(
    path: Path,
    *,
    markdown: bool,
    limits: ExtractionLimits,
    on_progress: Callable[[int, int], None],
    charset: str | None = None,
) -> Extraction:
    """Read a text file. Form feeds separate pages; longer texts are split into pages of about 3,000 characters.

    ``charset`` is the encoding that the upload declared. Bytes that are invalid in the encoding become U+FFFD.

    Raises:
        ExtractionFailed: the file is not text in a known encoding, or blank, or too long.
    """
    decoded = decode(path.read_bytes(), charset=charset)
    text = decoded.text.replace("\r\n", "\n").replace("\r", "\n")
    text = _CONTROLS.sub("", text)
    if not text.strip():
        raise ExtractionFailed(FailureReason.NO_TEXT, "The file contains only white space.")
    truncated = len(text) > limits.max_text_characters
    headings: list[Heading] = []
    pages: list[Page] = []
    for raw in split_virtual_pages(text[: limits.max_text_characters]):
        pages.append(Page(len(pages) + 1, raw))
        if len(pages) > limits.max_pages:
            raise ExtractionFailed(
                FailureReason.TOO_MANY_PAGES, f"The text has more pages than the limit of {limits.max_pages:,}."
            )
    if markdown:
        headings = markdown_headings(pages)
    findings = [(len(pages), ProblemCode.TEXT_TRUNCATED)] if truncated else []
    if decoded.damaged:
        findings += [(page.number, ProblemCode.BAD_CHARACTERS) for page in pages if "\ufffd" in page.text]
    on_progress(len(pages), len(pages))
    return Extraction(
        pages=pages,
        headings=headings,
        problems=merge_problems(findings),
        title=next((heading.title for heading in headings if heading.level == 1), None),
        page_count=len(pages),
    )


class DecodedText(NamedTuple):
    """``damaged``: bytes were invalid in the encoding and became U+FFFD."""

    text: str
    damaged: bool


def decode(data: bytes, *, charset: str | None = None) -> DecodedText:
    """Decode text by its byte order mark, the declared ``charset``, as UTF-8, or in the encoding that is detected.

    Text is UTF-8 although some bytes are invalid in it, if far more multi-byte sequences are valid: text in another
    encoding has hardly any (a capital letter followed by a symbol, in Latin-1).

    Raises:
        ExtractionFailed: the bytes are not text.
    """
    for mark, encoding in _BOMS:
        if data.startswith(mark):
            return _replace_invalid(data, encoding)
    declared = _codec(charset) if charset else None
    if declared is not None and declared != "utf-8":
        return _replace_invalid(data, declared)
    utf8 = _replace_invalid(data, "utf-8")
    if utf8.damaged and _SURROGATES.search(data):
        utf8 = _replace_invalid(_SURROGATES.sub(_joined_surrogates, data), "utf-8")
    if (not utf8.damaged or _is_utf8(data, utf8.text)) and utf8.text.count("\x00") <= max(
        _FEW_ZEROS, len(utf8.text) // 1000
    ):
        return utf8
    sample = data[:_SAMPLE_BYTES]
    if sample.count(0) > len(sample) // 10 and (wide := _utf16_without_mark(sample)) is not None:
        return _replace_invalid(data, wide)
    controls = sum(byte < 9 or 13 < byte < 27 for byte in sample)
    if controls > len(sample) // 100:
        raise ExtractionFailed(FailureReason.NOT_TEXT, "The file was sent as text but contains binary data.")
    from charset_normalizer import from_bytes  # noqa: PLC0415 - slow to import, and most text is UTF-8

    if sample.isascii():  # detection needs bytes that differ between encodings
        first = next(index for index, byte in enumerate(data) if byte > 0x7F)
        sample = data[max(0, first - _SAMPLE_BYTES // 2) :][:_SAMPLE_BYTES]
    best = from_bytes(sample).best()
    encoding = best.encoding if best is not None else "latin-1"
    western = encoding in ("ascii", "utf_8") or (encoding not in _LATIN and _has_accented_words(sample))
    return _replace_invalid(data, "cp1252" if western else encoding)


def _has_accented_words(sample: bytes) -> bool:
    """Whether bytes above 127 are few among ASCII letters; in another script whole words consist of them."""
    runs = _HIGH_RUN.findall(sample)
    short = sum(len(run) <= 2 for run in runs)
    return short >= 0.9 * len(runs) and len(_ASCII_LETTER.findall(sample)) > sum(map(len, runs))


def _joined_surrogates(pair: re.Match[bytes]) -> bytes:
    """The UTF-8 of a character above U+FFFF that a program wrote as two surrogates (CESU-8)."""
    return pair.group().decode("utf-8", "surrogatepass").encode("utf-16", "surrogatepass").decode("utf-16").encode()


def _replace_invalid(data: bytes, encoding: str) -> DecodedText:
    try:
        return DecodedText(data.decode(encoding), damaged=False)
    except UnicodeDecodeError:
        return DecodedText(data.decode(encoding, "replace"), damaged=True)


def _codec(charset: str) -> str | None:
    """Python's name of the codec for a declared charset; ``None`` if it is unknown."""
    try:
        name = codecs.lookup(charset).name
        b"".decode(name)
    except (LookupError, ValueError):
        return None
    return None if name.replace("-", "_") in _NOT_DECLARED else _SUPERSETS.get(name, name)


def _is_utf8(data: bytes, text: str) -> bool:
    """Whether ``text``, decoded as UTF-8 with U+FFFD for invalid bytes, has few of them among its other characters."""
    written = data.count(b"\xef\xbf\xbd")
    invalid = text.count("\ufffd") - written
    valid = len(text) - len(text.encode("ascii", "ignore")) - invalid
    cut_off = invalid == 1 and text.endswith("\ufffd")
    return valid >= _GOOD_PER_BAD * invalid or (cut_off and valid > 0)


def _utf16_without_mark(sample: bytes) -> str | None:
    """UTF-16 of a Western script has zeros only in even or only in odd bytes."""
    even, odd = sample[::2].count(0), sample[1::2].count(0)
    if odd > 9 * even:
        return "utf-16-le"
    return "utf-16-be" if even > 9 * odd else None


def split_virtual_pages(text: str) -> Iterator[str]:
    """Split at form feeds, then into pages of about 3,000 characters at paragraph, line, sentence or word boundaries.

    Blank pages between form feeds count, so that the others keep their numbers; blank pages at the end do not.

    >>> [len(page) for page in split_virtual_pages("word " * 1500)]
    [2999, 2999, 1499]
    """
    sections = text.rstrip().split("\f")
    longest = _PRINTED_PAGE_CHARACTERS if len(sections) > 1 else _PAGE_CHARACTERS + _PAGE_CHARACTERS // 5
    for section in sections:
        start, end = _strip(section, 0, len(section))
        if start == end and len(sections) > 1:
            yield ""
        while start < end:
            cut = end if end - start <= longest else _cut(section, start, end)
            page_start, page_end = _strip(section, start, cut)
            if page_start < page_end:
                yield section[page_start:page_end]
            start = max(cut, start + 1)


def _strip(text: str, start: int, end: int) -> tuple[int, int]:
    while start < end and text[start] == "\n":
        start += 1
    while end > start and text[end - 1].isspace():
        end -= 1
    return start, end


def _cut(text: str, start: int, end: int) -> int:
    if end - start <= _PAGE_CHARACTERS + _PAGE_CHARACTERS // 5:
        return end
    earliest, latest = start + _PAGE_CHARACTERS // 2, start + _PAGE_CHARACTERS
    for border in _BREAKS:
        ends = [found.end() for found in border.finditer(text, earliest, latest)]
        if ends:
            return ends[-1]
    return latest


def markdown_headings(pages: list[Page]) -> list[Heading]:
    """Find ATX (``## Title``) and Setext (underlined) headings outside fenced code. CommonMark §4.2, §4.3."""
    headings: list[Heading] = []
    fence: str | None = None
    for page in pages:
        offset = 0
        previous = ""
        for line in page.text.split("\n"):
            mark = _FENCE.match(line)
            if mark is not None and (fence is None or line.lstrip().startswith(fence)):
                fence = mark.group(1) if fence is None else None
            elif fence is None:
                if (found := _ATX.match(line)) is not None:
                    headings.append(Heading(found.group(2), len(found.group(1)), page.number, offset + found.start(1)))
                elif previous.strip() and not _ATX.match(previous) and (under := _SETEXT.match(line)) is not None:
                    level = 1 if under.group(1)[0] == "=" else 2
                    start = offset - len(previous) - 1
                    headings.append(Heading(previous.strip(), level, page.number, start))
            previous = "" if fence is not None or mark is not None else line
            offset += len(line) + 1
    return headings
