"""Recognises questions about a page or a document as such: "summarise page 7", "last page", "how many pages?".

Their words are not expected in the passages: the pages that they name are the answer.
"""

# ruff: noqa: RUF001 - words of several scripts are the subject here

from __future__ import annotations

import re
from typing import Final

import msgspec

from ragsvc.core.text.content_words import content_words

MAX_PAGES_ASKED: Final = 20

_PAGE_WORD: Final = r"(?:pages?|slides?|pp?\.|seiten?|стр\.|страниц\w*)"
_PAGE: Final = re.compile(
    rf"\b{_PAGE_WORD}\s*(?:no\.?\s*|number\s*|nr\.?\s*|#\s*)?(\d{{1,4}}|[ivxlc]{{1,7}}\b(?!')|[A-Z]{{1,2}}-?\d{{1,3}})"
    r"(?:\s*(-|\u2013|to|bis|through|until|and|und|и|,|&|or)\s*(\d{1,4}|[ivxlc]{1,7}\b))?",
    re.IGNORECASE,
)
_CHINESE_PAGE: Final = re.compile(r"第\s*(\d{1,4})\s*[页頁ページ]")
_NUMBER_WORDS: Final = (
    "one first erste[nrs]? перв\\w+",
    "two second zweite[nrs]? втор\\w+",
    "three third dritte[nrs]? треть\\w+",
    "four fourth vierte[nrs]? четв[её]рт\\w+",
    "five fifth fünfte[nrs]? пят\\w+",
    "six sixth sechste[nrs]?",
    "seven seventh siebte[nrs]?",
    "eight eighth achte[nrs]?",
    "nine ninth neunte[nrs]?",
    "ten tenth zehnte[nrs]?",
)
_ORDINAL_PAGE: Final = re.compile(
    r"\b(?:the\s+|der\s+|die\s+)?("
    + "|".join(f"(?P<n{number}>{words.replace(' ', '|')})" for number, words in enumerate(_NUMBER_WORDS, 1))
    + rf"|(?P<nth>\d{{1,4}})(?:st|nd|rd|th|\.))\s+{_PAGE_WORD}\b",
    re.IGNORECASE,
)
_SPELT_PAGE: Final = re.compile(
    rf"\b{_PAGE_WORD}\s+(one|two|three|four|five|six|seven|eight|nine|ten)\b", re.IGNORECASE
)
_LAST_PAGE: Final = re.compile(
    rf"\b(?P<before>second[- ]to[- ]last|second[- ]last|last but one|penultimate|vorletzten?)\s+{_PAGE_WORD}\b"
    rf"|\b(?:last|final|letzten?|последн\w+)\s+{_PAGE_WORD}\b|最后一页",
    re.IGNORECASE,
)
_COUNT: Final = re.compile(
    r"\bhow many (?:pages|slides)\b|\b(?:number|count) of (?:pages|slides)\b|\bpage count\b"
    r"|\bhow long is (?:the|this|that) (?:document|pdf|file|report|paper)\b"
    r"|\bwie ?viele seiten\b|\bseitenzahl\b|\bсколько страниц\b|多少页|几页",
    re.IGNORECASE,
)
_ABOUT: Final = re.compile(
    r"\babout\b|\bsummar\w+|\boverview\b|\b(?:main|key) (?:points?|topics?|ideas?)\b|\btl;?dr\b|\bgist\b|\btopics?\b"
    r"|\bcontents?\b|\bpurpose\b|\bdescribe\b|\bworum\b|\bzusammenfass\w*|\bfasse\b|\binhalt\w*|о ч[её]м|содержани\w+"
    r"|讲什么|关于什么|总结|概括",
    re.IGNORECASE,
)
_DOCUMENT: Final = re.compile(
    r"\b(?:documents?|pdfs?|files?|reports?|papers?|texts?|uploads?|attachments?|this|it|that|dokumente?s?|datei(?:en)?"
    r"|berichts?|es|документ\w*|файл\w*|это\w*|отч[её]т\w*)\b|文档|文件|这",
    re.IGNORECASE,
)
_FILE_NAME: Final = re.compile(
    r"[^\s\"'“”„«»]+\.(?:pdf|md|txt|docx?|pptx?|xlsx?|html?|epub|csv|eml|png|jpe?g|tiff?)\b", re.IGNORECASE
)
_WITHOUT_TOPIC: Final = frozenset(
    """page pages slide slides p. pp. p pp seite seiten number no content contents text summarize summarise summary
    summaries summarized summarised summarizing overview describe explain read quote written write stand stands steht
    stehen zusammen zusammenfassung zusammenfassen fasse inhalt document documents pdf pdfs file files report reports
    paper papers dokument dokuments dokumente datei bericht berichts main points point key topic topics brief briefly
    short shortly kurz mention mentioned information info first last final second-to-last everything whole entire full
    total long contain contains count many much happens present presented appear appears found gist tl dr tldr ideas
    idea purpose deal deals cover covers covered uploaded attached handelt geht worum letzte letzten vorletzte
    vorletzten hat gibt страница страницы странице страниц стр документ документе документа файл файле содержание
    последняя последней написано сколько this it that these those its diesem dieser dieses diese dies compare
    one two three four five six seven eight nine ten
    second third fourth fifth sixth seventh eighth ninth tenth penultimate sentence sentences paragraph words bitte
    please help could get got let know make made ich mir uns want wants need would like question looking look see
    文档 文件 这个文档讲什么 这 讲什么""".split()
)


class DocumentQuestion(msgspec.Struct, frozen=True):
    """What a question asks about pages and documents as such.

    ``pages`` are page numbers or printed labels in lower case. ``from_end`` is 1 for the last page, 2 for the page
    before it. ``about`` and ``count`` ask for a description of a document and for its number of pages. ``topic`` tells
    whether the question has other content, by which passages are ranked.
    """

    pages: tuple[str, ...] = ()
    from_end: int | None = None
    about: bool = False
    count: bool = False
    file_names: tuple[str, ...] = ()
    topic: bool = False

    @property
    def names_pages(self) -> bool:
        return bool(self.pages) or self.from_end is not None


def document_question(query: str) -> DocumentQuestion | None:
    """The pages or documents that a question asks for; ``None`` if it asks for neither.

    >>> document_question("Summarise pages 3 to 5").pages
    ('3', '4', '5')
    >>> document_question("What is on the last page of the report?").from_end
    1
    >>> document_question("What is this document about?").about
    True
    >>> document_question("How much is the deposit?")
    """
    found = _LAST_PAGE.search(query)
    from_end = None if found is None else 2 if found["before"] else 1
    rest = _LAST_PAGE.sub(" ", query)
    pages = tuple(dict.fromkeys(_named_pages(rest)))[:MAX_PAGES_ASKED]
    count = bool(_COUNT.search(query))
    file_names = tuple(name.lower() for name in _FILE_NAME.findall(query))
    topic = _has_topic(rest)
    if pages or from_end is not None:
        return DocumentQuestion(pages=pages, from_end=from_end, file_names=file_names, topic=topic)
    about = bool(_ABOUT.search(query)) and bool(file_names or _DOCUMENT.search(query))
    if topic or not (count or about):
        return None
    return DocumentQuestion(about=about and not count, count=count, file_names=file_names)


def _named_pages(query: str) -> list[str]:
    pages: list[str] = []
    for match in _PAGE.finditer(query):
        first, joiner, second = match.groups()
        if first.isalpha() and not re.fullmatch(r"[ivxlc]+", first):
            continue  # a printed label in capitals, such as "page I", is rare, and "page I read" is not
        if second and joiner.lower() in {"-", "\u2013", "to", "bis", "through", "until"} and (first + second).isdigit():
            pages.extend(map(str, range(int(first), min(int(second), int(first) + MAX_PAGES_ASKED) + 1)))
        else:
            pages.extend(page.lower() for page in (first, second) if page)
    pages.extend(_CHINESE_PAGE.findall(query))
    for match in _ORDINAL_PAGE.finditer(query):
        number = match["nth"] or next(str(n) for n in range(1, len(_NUMBER_WORDS) + 1) if match[f"n{n}"])
        pages.append(number)
    for word in _SPELT_PAGE.findall(query):
        pages.extend(str(n) for n, words in enumerate(_NUMBER_WORDS, 1) if words.startswith(f"{word.lower()} "))
    return pages


def _has_topic(query: str) -> bool:
    """Whether words remain that are about the content of a document."""
    text = _FILE_NAME.sub(" ", query)
    for pattern in (_PAGE, _CHINESE_PAGE, _ORDINAL_PAGE, _SPELT_PAGE, _COUNT):
        text = pattern.sub(" ", text)
    text = re.sub(r"讲什么|关于什么|总结|概括|这个?|文档|文件|页", " ", text)
    return any(word not in _WITHOUT_TOPIC for word in content_words(text))
