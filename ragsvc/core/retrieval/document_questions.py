"""Recognises questions about a page or a document as such: "summarise page 7", "last page", "how many pages?".

Their words are not expected in the passages: the pages that they name are the answer.
"""

# ruff: noqa: RUF001 - words of several scripts are the subject here

from __future__ import annotations

import re
from typing import Final

import msgspec

from ragsvc.core.text.content_words import content_words
from ragsvc.core.text.late_patterns import late_pattern
from ragsvc.core.text.stop_words import FUNCTION_WORDS

MAX_PAGES_ASKED: Final = 20
_LONGEST_QUESTION: Final = 1200
"""Characters; longer texts, for which these patterns take seconds, are not questions about a page or a document."""

_PAGE_WORD: Final = (
    r"(?:pages?|slides?|pp?\.|pgs?\.?|seiten?|folien?|p[áa]g(?:ina)?s?\.?|diapositiv[eao]s?|стр\.|страниц\w*"
    r"|(?<!balance[ -])sheets?(?=\s+(?:no\.?\s*|number\s*)?\d{1,2}\b))"
)
_PAGE: Final = late_pattern(
    rf"\b{_PAGE_WORD}\s*(?:no\.?\s*|number\s*|nr\.?\s*|#\s*|numéro\s*|número\s*)?"
    r"(\d{1,4}|[ivxlc]{1,7}\b(?!['’])|[A-Z]{1,2}-?\d{1,3})"
    r"(?:\s*(-|\u2013|to|bis|through|until|à|au|a|hasta|and|und|и|et|y|,|&|or)\s*(\d{1,4}|[ivxlc]{1,7}\b))?",
    re.IGNORECASE,
)
_PAGE_LIST: Final = late_pattern(
    r"\b(?:pages|slides|seiten|folien|p[áa]ginas)\s+(\d{1,4}(?:\s*(?:,|;|&|\band\b|\bund\b|\bet\b|\by\b)+\s*\d{1,4}){2,})",
    re.IGNORECASE,
)
_SOME_PAGE: Final = late_pattern(rf"{_PAGE_WORD}|[页頁ページ]", re.IGNORECASE)
_RANGE_WORDS: Final = frozenset({"-", "\u2013", "to", "bis", "through", "until", "à", "au", "a", "hasta"})
_CHINESE_DIGITS: Final = "一二三四五六七八九十"
_CHINESE_PAGE: Final = late_pattern(rf"第\s*(\d{{1,4}}|[{_CHINESE_DIGITS}])\s*[页頁ページ]")
_ORDINALS: Final = (
    r"first|erste[nrs]?|перв\w+|premi[èe]re?|primera?",
    r"second|zweite[nrs]?|втор\w+|deuxi[èe]me|seconde|segunda",
    r"third|dritte[nrs]?|треть\w+|troisi[èe]me|tercera",
    r"fourth|vierte[nrs]?|четв[её]рт\w+|quatri[èe]me|cuarta",
    r"fifth|fünfte[nrs]?|пят\w+|cinqui[èe]me|quinta",
    r"sixth|sechste[nrs]?|sixi[èe]me|sexta",
    r"seventh|siebte[nrs]?|septi[èe]me|s[ée]ptima",
    r"eighth|achte[nrs]?|huiti[èe]me|octava",
    r"ninth|neunte[nrs]?|neuvi[èe]me|novena",
    r"tenth|zehnte[nrs]?|dixi[èe]me|d[ée]cima",
)
_CARDINALS: Final = (
    "one|eins|une?|un[oa]",
    "two|zwei|deux|dos|beiden|couple of",
    "three|drei|trois|tres",
    "four|vier|quatre|cuatro",
    "five|fünf|cinq|cinco",
    "six|sechs|seis",
    "seven|sieben|sept|siete",
    "eight|acht|huit|ocho",
    "nine|neun|neuf|nueve",
    "ten|zehn|dix|diez",
)
_NUMBER: Final = rf"\d{{1,2}}|{'|'.join(_CARDINALS)}"
_ORDINAL_PAGE: Final = late_pattern(
    rf"\b(?:(?P<word>{'|'.join(_ORDINALS)})|(?P<nth>\d{{1,4}})(?:st|nd|rd|th|\.|[èe]me|e|ª))\s+{_PAGE_WORD}(?!\w)",
    re.IGNORECASE,
)
_SPELT_PAGE: Final = late_pattern(rf"\b{_PAGE_WORD}\s+({'|'.join(_CARDINALS)})\b", re.IGNORECASE)
_LAST: Final = r"last|final|letzten?|последн\w+|derni[èe]res?|[úu]ltimas?"
_FIRST: Final = r"first|ersten?|premi[èe]res?|primeras?"
_LAST_PAGE: Final = late_pattern(
    rf"\b(?P<before>second[- ]to[- ]last|next[- ]to[- ]last|second[- ]last|last but one|penultimate|vorletzten?"
    rf"|avant[- ]derni[èe]re|pen[úu]ltima)\s+{_PAGE_WORD}(?!\w)|(?P<chinese_before>倒数第二页)"
    rf"|\b(?:{_LAST}|(?<=the )back)\s+{_PAGE_WORD}(?!\w)|最后一页|末页",
    re.IGNORECASE,
)
_LAST_PAGES: Final = late_pattern(
    rf"\b(?:(?:{_LAST})\s+(?P<after>{_NUMBER})|(?P<before>{_NUMBER})\s+(?:{_LAST}))\s+{_PAGE_WORD}(?!\w)"
    rf"|最后(?P<chinese>[两\d{_CHINESE_DIGITS[1:]}])页",
    re.IGNORECASE,
)
_FIRST_PAGES: Final = late_pattern(
    rf"\b(?:(?:{_FIRST})\s+(?P<after>{_NUMBER})|(?P<before>{_NUMBER})\s+(?:{_FIRST}))\s+{_PAGE_WORD}(?!\w)"
    rf"|前(?P<chinese>[两\d{_CHINESE_DIGITS[1:]}])页",
    re.IGNORECASE,
)
_COUNT: Final = late_pattern(
    r"\bhow many (?:pages|slides)\b|\b(?:number|count) of (?:pages|slides)\b|\bpage count\b"
    r"|\bhow long is (?:the|this|that) (?:document|pdf|file|report|paper)\b"
    r"|\bwie ?viele[n]? (?:seiten|folien)\b|\bseitenzahl\b|\bсколько страниц\b|多少页|几页|页数"
    r"|\b(?:combien|nombre) de (?:pages|diapositives)\b|\bcu[áa]ntas p[áa]ginas\b|\bn[úu]mero de p[áa]ginas\b",
    re.IGNORECASE,
)
_SUMMARY: Final = late_pattern(
    r"\bsummar\w+|\boverview\b|\btl;?dr\b|\bgist\b|\bzusammenfass\w*|\bfasse\b|\brésum\w+|\bresum(?:en|e|ir|a)\b"
    r"|总结|概括|概述|摘要",
    re.IGNORECASE,
)
_ABOUT: Final = late_pattern(
    rf"{_SUMMARY.pattern}|\babout\b|\b(?:main|key) (?:points?|topics?|ideas?)\b|\btopics?\b"
    r"|\bcontents?\b|\bpurpose\b|\bdescribe\b|\bwhat (?:kind|type|sort) of (?:document|pdf|file|report|paper|text)\b"
    r"|\btitle\b|\bworum\b|\bwovon\b|\binhalt\w*|\bthema\b|\btitel\b|о ч[её]м|содержани\w+"
    r"|\bde quoi\b|\bsujets?\b|\bcontenu\b|\btitre\b|\bde qué\b|\btema\b|\bcontenido\b|\btítulo\b"
    r"|[讲说]了?什么|关于什么|主题|主要内容|标题",
    re.IGNORECASE,
)
_DOCUMENT: Final = late_pattern(
    r"\b(?:documents?|pdfs?|files?|reports?|papers?|texts?|uploads?|attachments?|this|it|that|dokumente?s?|datei(?:en)?"
    r"|berichts?|es|документ\w*|файл\w*|это\w*|отч[её]т\w*|fichiers?|rapports?|textes?|documentos?|archivos?|informes?"
    r"|textos?|esto)\b|文档|文件|报告|这",
    re.IGNORECASE,
)
_FILE_NAME: Final = late_pattern(
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
    文档 文件 这 讲什么
    next back bottom top verbatim word heading headings title kind type sort here hier denn drei thema titel wovon
    drin enthält zeig zeige zeigt sagt lies sag sage
    dit dis parle trouve trouver contient contenu est-ce y a-t-il a-t quoi agit agit-il il on traite
    résume résumé résumer résumez fais fait faire moi sujet sujets titre fichier rapport texte ici première dernière
    lis montre décris écrit est à avant peux peux-tu pouvez pouvez-vous svp plaît vous tu combien
    dice hay trata habla contiene contenido aparece escrito tema título resume resumen resumir haz hazme dame
    documento archivo informe texto esto aquí página páginas última primera favor puedes puede decirme dime tiene
    cuántas lee muestra""".split()
) | frozenset().union(*(FUNCTION_WORDS[language] for language in ("french", "spanish")))
_ELIDED: Final = late_pattern(r"\b(?:qu|[cdjlmnst])['’](?=\w|\s|\Z)", re.IGNORECASE)
_CHINESE_WITHOUT_TOPIC: Final = late_pattern(
    r"[讲说写]了?[些的]?(?:什么|内容)?|关于什么|总结|概括|概述|摘要|主要|主题|内容|标题|介绍|这[个份篇]?|文档|文件|报告|页数?"
    r"|什么|哪些|告诉我|一下|一共|[请帮我上里面的是有了在些第]"
)


class DocumentQuestion(msgspec.Struct, frozen=True):
    """What a question asks about pages and documents as such.

    ``pages`` are page numbers or printed labels in lower case. ``from_end`` has 1 for the last page, 2 for the page
    before it. ``about`` and ``count`` ask for a description of a document and for its number of pages. ``topic`` tells
    whether the question has other content, by which passages are ranked.
    """

    pages: tuple[str, ...] = ()
    from_end: tuple[int, ...] = ()
    about: bool = False
    count: bool = False
    file_names: tuple[str, ...] = ()
    topic: bool = False

    @property
    def names_pages(self) -> bool:
        return bool(self.pages or self.from_end)


def document_question(query: str) -> DocumentQuestion | None:
    """The pages or documents that a question asks for; ``None`` if it asks for neither.

    >>> document_question("Summarise pages 3 to 5").pages
    ('3', '4', '5')
    >>> document_question("What is on the last page of the report?").from_end
    (1,)
    >>> document_question("What is this document about?").about
    True
    >>> document_question("How much is the deposit?")
    """
    if len(query) > _LONGEST_QUESTION:
        return None
    pages: tuple[str, ...] = ()
    from_end: tuple[int, ...] = ()
    rest = query
    if _SOME_PAGE.search(query):  # most questions name no page: the other patterns take ten times as long
        from_end, rest = _pages_from_end(query)
        pages = tuple(dict.fromkeys(_named_pages(rest)))[:MAX_PAGES_ASKED]
    count = bool(_COUNT.search(query))
    file_names = tuple(name.lower() for name in _FILE_NAME.findall(query))
    if pages or from_end:
        return DocumentQuestion(pages=pages, from_end=from_end, file_names=file_names, topic=_has_topic(rest))
    about = bool(_ABOUT.search(query)) and bool(file_names or _DOCUMENT.search(query))
    if not (count or about or _SUMMARY.search(query)) or _has_topic(rest):
        return None
    return DocumentQuestion(about=not count, count=count, file_names=file_names)


def _pages_from_end(query: str) -> tuple[tuple[int, ...], str]:
    """``DocumentQuestion.from_end``, and the query without the words that say so."""
    if found := _LAST_PAGES.search(query):
        number = min(_number(found["after"] or found["before"] or found["chinese"]), MAX_PAGES_ASKED)
        return tuple(range(number, 0, -1)), _LAST_PAGES.sub(" ", query)
    if found := _LAST_PAGE.search(query):
        return (2 if found["before"] or found["chinese_before"] else 1,), _LAST_PAGE.sub(" ", query)
    return (), query


def _number(written: str) -> int:
    """The number of digits or of a word of ``_CARDINALS`` or ``_ORDINALS``."""
    if written.isdecimal():
        return int(written)
    if written in _CHINESE_DIGITS:
        return _CHINESE_DIGITS.index(written) + 1
    for words in (_CARDINALS, _ORDINALS):
        for number, pattern in enumerate(words, 1):
            if re.fullmatch(pattern, written, re.IGNORECASE):
                return number
    return 2  # the Chinese "a pair of"


def _named_pages(query: str) -> list[str]:
    pages: list[str] = []
    for found in _FIRST_PAGES.finditer(query):
        number = _number(found["after"] or found["before"] or found["chinese"])
        pages.extend(map(str, range(1, min(number, MAX_PAGES_ASKED) + 1)))
    for found in _PAGE_LIST.finditer(query):
        pages.extend(re.findall(r"\d+", found[1]))
    for match in _PAGE.finditer(_PAGE_LIST.sub(" ", query)):
        first, joiner, second = match.groups()
        if not _is_label(first, query[match.end(1) :]):
            continue
        if second and joiner.lower() in _RANGE_WORDS and (first + second).isdigit():
            pages.extend(map(str, range(int(first), min(int(second), int(first) + MAX_PAGES_ASKED) + 1)))
        else:
            pages.extend(page.lower() for page in (first, second) if page)
    for pattern in (_CHINESE_PAGE, _SPELT_PAGE):
        pages.extend(str(_number(page)) for page in pattern.findall(query))
    ordinals = _ORDINAL_PAGE.finditer(_FIRST_PAGES.sub(" ", query))
    pages.extend(match["nth"] or str(_number(match["word"])) for match in ordinals)
    return pages


def _is_label(page: str, following: str) -> bool:
    """Whether the characters after "page" are a number or label: not in "the page I read"."""
    if not page.isalpha() or page.islower():
        return True
    return page.isupper() and (len(page) > 1 or re.match(r"\s*(?:[.,;:!?)]|\Z)", following) is not None)


def _has_topic(query: str) -> bool:
    """Whether words remain that are about the content of a document."""
    text = _FILE_NAME.sub(" ", query)
    for pattern in (_FIRST_PAGES, _PAGE_LIST, _PAGE, _CHINESE_PAGE, _ORDINAL_PAGE, _SPELT_PAGE, _COUNT):
        text = pattern.sub(" ", text)
    text = _ELIDED.sub(" ", _CHINESE_WITHOUT_TOPIC.sub(" ", text))
    return any(word not in _WITHOUT_TOPIC for word in content_words(text))
