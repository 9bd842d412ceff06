"""The types of values that questions ask for, and the sentences that have a value of the type. Pure.

Types are numbers, amounts of money, shares, quantities with units, dates and names.
"""

# ruff: noqa: RUF001 - question words of several scripts

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from ragsvc.core.answers.synonyms import synonym_starts
from ragsvc.core.text.content_words import content_words
from ragsvc.core.text.late_patterns import late_pattern
from ragsvc.core.text.word_starts import plain_text, word_start

_DIGIT: Final = late_pattern(r"\d")
_NUMBER: Final = late_pattern(r"(?<![^\W_])\d[\d.,]*")

NUMBER_WORDS: Final = frozenset(
    """zero one two three four five six seven eight nine ten eleven twelve twenty thirty forty fifty hundred thousand
    half quarter double once twice first second third eins zwei drei vier fünf sechs sieben acht neun zehn elf zwölf
    hundert halb один два три четыре пять шесть семь восемь девять десять""".split()
)

_CARDINALS: Final = NUMBER_WORDS - frozenset("half quarter double once twice first second third halb".split())
"""The numbers that may stand before things that are counted: "the first boats" and "once a year boats" count none."""

_NO_NUMBER_OF_THINGS: Final = frozenset("once first second".split())

NEGATIONS: Final = frozenset(
    """no not never none nothing neither nor without cannot kein keine keinen keinem keiner nicht nichts nie niemals
    ohne не нет ни без никогда rien aucun aucune sans pas jamais nada ningún ninguna sin nunca free gratis kostenlos
    frei kostenfrei gratuit gratuite gratuits gratuites gratuito gratuita бесплатно""".split()
)

_NO_AMOUNT: Final = NEGATIONS - frozenset(
    "not cannot nor neither never nicht nie niemals не никогда pas jamais".split()
)
"""Negations that state a number: "no fee", "none". "Cannot" states none."""

_NO_LONGER: Final = late_pattern(r"\bno (?:longer|matter|doubt)\b", re.IGNORECASE)

_DATE: Final = late_pattern(
    r"\b(?:1[5-9]|20)\d\d\b(?!-\d{3})|\bwithin \w+ (?:days|weeks|months)\b"
    r"|\b(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*\.? \d",
    re.IGNORECASE,
)

_ASKS_OCCASION: Final = late_pattern(
    r"\bwhen (?:is|are|do|does|should|can|may|must|will|would)\b|\bwann (?:ist|sind|wird|werden|soll|kann|darf|muss)\b",
    re.IGNORECASE,
)
"""Asks for an occasion that comes again, or for a date."""

_OCCASION: Final = late_pattern(
    r"\b(?:when(?:ever)?|if|until|as soon as|daily|weekly|monthly|yearly|noon|midnight|wenn|sobald|täglich"
    r"|(?:mon|tues|wednes|thurs|fri|satur|sun)days?)\b|\b\d{1,2}[:.]\d\d\b|\b\d{1,2} ?[ap]\.?m\b",
    re.IGNORECASE,
)

ASKS_CONDITION: Final = late_pattern(
    r"\bwhen (?:is|are) [^?]{1,80}?\b(?:classified|categori[sz]ed|considered|counted|regarded|deemed|treated|defined"
    r"|required|needed|necessary|allowed|permitted|eligible|entitled)\b",
    re.IGNORECASE,
)
"""Asks under which condition something is so, rather than at which time."""

_CONDITION: Final = late_pattern(
    r"\b(?:if|unless|when(?:ever)?|once|until|before|after|as soon as|provided|in case)\b", re.IGNORECASE
)

_FIGURE: Final = late_pattern(
    r"\b(?:figures?|tables?|sections?|notes?|chapters?)\s*\d[\d.]*|\A\d{1,2}\.\s", re.IGNORECASE
)

_NAME: Final = late_pattern(r"(?<=[\w,;] )[A-Z][\w'’-]+")

ASKS_NUMBER: Final = late_pattern(
    r"\b(?:how (?:many|much|long|old|far|high|large|big|heavy|tall|deep|wide|thick|fast|hot|soon)"
    r"|percent\w*|number of|amount|total|rate|price|cost"
    r"|(?:what|which) (?:\w+ )?(?:is|was|were|are|did|does|has|had)?\s*(?:the )?(?:[\w'\u2019]+ ){0,3}?"
    r"(?:share|proportion"
    r"|population|score|accuracy|frequency|size|length|width|height|weight|margin|ratio|revenue|income|profit|sales"
    r"|ridership|temperature|voltage|speed|capacity|age|wavelength|distance|depth|duration|dose|pressure|density"
    r"|volume|budget|wage|salary|fee|rating|approval)"
    r"|wie ?viele?|сколько)\b|多少|几",
    re.IGNORECASE,
)

ASKS_DATE: Final = late_pattern(
    r"\b(?:when|what (?:year|date|day|month)|which (?:year|date|day|month)|wann|когда)\b", re.IGNORECASE
)

ASKS_MEASURE: Final = late_pattern(r"\bhow (?:heavy|tall|deep|wide|thick|hot)\b", re.IGNORECASE)

_TIME: Final = (
    r"\b(?:second|minute|hour|day|night|week|month|year|decade|semester|term|session|lesson)s?\b"
    r"|\b(?:Sekunde|Minute|Stunde|Tag|Woche|Monat|Jahr|Semester)(?:e?n?|e?s)\b|\b(?:permanent|indefinite|always)\w*"
    r"|\d ?(?:h|hrs?|mins?|secs?|s|yrs?)\b|\b(?:since|until|from)\b.*\d|секунд|минут|час|дн|день|недел|месяц|год|лет"
)

_DISTANCE: Final = (
    r"\d ?(?:[kcm]?m|ft|in|mi|yd)\b|\b(?:met(?:er|re)|kilomet\w+|centimet\w+|mile|feet|foot|inch|inche|yard)s?\b"
)

_LENGTH_OF_TEXT: Final = r"\b(?:words?|characters?|tokens?|pages?|lines?|paragraphs?)\b"

_QUANTITIES: Final = (
    (
        late_pattern(r"\bhow long (?!(?:is|are|was|were)\b)|\bhow long\W*\Z", re.IGNORECASE),
        late_pattern(_TIME, re.IGNORECASE),
    ),
    (
        late_pattern(r"\bhow (?:long (?:is|are|was|were)|far|tall|deep|wide|thick)\b", re.IGNORECASE),
        late_pattern(f"{_TIME}|{_DISTANCE}|{_LENGTH_OF_TEXT}", re.IGNORECASE),
    ),
    (
        late_pattern(r"\bvoltages?\b", re.IGNORECASE),
        late_pattern(r"\d ?[km]?V(?:[AD]C)?\b|\bvolts?\b|(?-i:\bV\b)", re.IGNORECASE),
    ),
    (
        late_pattern(r"\bhow heavy\b|\bhow much (?:does|do|did) .{1,60}\bweigh\b", re.IGNORECASE),
        late_pattern(
            r"\d ?(?:[km]?g|lbs?|oz|t)\b|\b(?:kilo)?gram\w*|\b(?:pound|ton|tonne|ounce|kilo)s?\b", re.IGNORECASE
        ),
    ),
    (
        late_pattern(r"\btemperatures?\b|\bhow (?:hot|cold|warm)\b", re.IGNORECASE),
        late_pattern(r"\d ?[\u00b0\u2103\u2109\u00ba]|\bdegrees?\b|\d ?[CF]\b|\btemperatur", re.IGNORECASE),
    ),
)
"""Quantities that a question may ask for, and the units in which sentences state them."""

ASKS_FIGURE: Final = late_pattern(
    r"\b(?:how many|(?:what|which|in (?:what|which)) (?:year|percentage|percent|share|proportion)|wie ?viele"
    r"|\w+ welchem jahr)\b",
    re.IGNORECASE,
)

ASKS_DIFFERENCE: Final = late_pattern(
    r"\b(?:differences? between|differ(?:s|ed)? from|compared? (?:to|with)(?!\W*\Z)|by how (?:much|many)"
    r"|how (?:much|many) (?:more|fewer|less|higher|lower|older|younger|larger|smaller|longer|shorter)|unterschied)\b",
    re.IGNORECASE,
)

STATES_DIFFERENCE: Final = late_pattern(
    r"\b(?:differ\w*|whereas|while|but|unlike|than|compared|versus|vs|instead|other hand|increas\w*|decreas\w*|points?"
    r"|ris(?:e|es|en|ing)|fall(?:s|en|ing)?|grow(?:s|n|ing)?|improv\w+|reduc\w+"
    r"|by \d|rose|fell|grew|declin\w+|times|twice|half|respectively|unterschied\w*|w\u00e4hrend|aber|als)\b",
    re.IGNORECASE,
)

_ASKS_COUNT: Final = late_pattern(r"\bhow many ((?:[\w'\u2019-]+ ?){1,3})", re.IGNORECASE)

_ASKS_TIMES: Final = late_pattern(r"\bhow many times\b", re.IGNORECASE)

_WORD_OR_CODE: Final = late_pattern(r"[\w-]+")

_LETTER: Final = late_pattern(r"[^\W\d_]")

_ASKS_TIME: Final = late_pattern(r"\b(?:how (?:long|old|soon)|years?|age|duration)\b", re.IGNORECASE)

_YEAR_OR_DAY: Final = late_pattern(
    r"\b(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*\.? \d{1,2}\b(?:, (?:19|20)\d\d\b)?"
    r"|(?<![\d,.])(?:19|20)\d\d(?![\d,.]*\d)",
    re.IGNORECASE,
)

ASKS_MONEY: Final = late_pattern(
    r"\bhow much (?:money\b|.{0,80}?\b(?:costs?|pays?|paid|charged?|spend|spent|earn|earned)\b)"
    r"|\bwhat (?:is|was|are|were) the (?:price|cost|fee|salary)\b"
    r"|\bwhat (?:[\w-]+ )?(?:price|fee|salary|wage) (?:do|does|did|will|would|can|could|is|was)\b",
    re.IGNORECASE,
)

_CURRENCY: Final = (
    r"(?:[$\u20ac\u00a3\u00a5\u20b9]|\b(?:USD|EUR|GBP|CHF|INR|JPY|SGD|Rs\.?|dollars?|euros?|pounds?|francs?|cents?"
    r"|rupees?|yen)(?!\w))"
)

_MONEY: Final = late_pattern(
    rf"{_CURRENCY} ?\d|\d[\d.,]*(?: ?(?:thousand|million|billion|[kKmM]|bn))? ?{_CURRENCY}|\bfree\b|\bno charge\b"
    r"|\b(?:costs?|prices?|fees?|paid|pays?|charges?|salary)\b[^.!?]{0,40}\d(?![\d.,]* ?%)",
    re.IGNORECASE,
)

UNIT_OF_MONEY: Final = late_pattern(rf"{_CURRENCY}|\bin (?:thousands|millions|billions)\b", re.IGNORECASE)

ASKS_SHARE: Final = late_pattern(
    r"\b(?:what|which) (?:percentage|percent|share|proportion)\b"
    r"|\b(?:response|approval|unemployment|inflation|interest|growth|occupancy|literacy|completion|error|success)"
    r" rate\b",
    re.IGNORECASE,
)

_SHARE: Final = late_pattern(
    r"\d ?%|\bper ?cent\b|\b(?:half|thirds?|quarters?|none|majority|all)\b|\w-in-\w|\bin (?:ten|five|four|three)\b",
    re.IGNORECASE,
)

_ASKS_WHICH: Final = r"\b(?:what|which)(?: (?:is|are|was))?(?: the)?(?: (?!of\b)[\w'\u2019-]+){0,3}? "

_CONTACTS: Final = (
    (
        late_pattern(rf"{_ASKS_WHICH}(?:web ?sites?|web ?pages?|web address|urls?)\b", re.IGNORECASE),
        late_pattern(r"https?:|\bwww\.|\b[\w-]+\.(?:com|org|net|edu|gov|info|io|eu|de|uk|sg|fr)\b", re.IGNORECASE),
    ),
    (late_pattern(rf"{_ASKS_WHICH}e-?mails?\b", re.IGNORECASE), late_pattern(r"\S@\S")),
    (
        late_pattern(rf"{_ASKS_WHICH}(?:tele)?phone numbers?\b", re.IGNORECASE),
        late_pattern(r"\d(?:[\s().\u2013/-]{0,3}\d){5}"),
    ),
)
"""What a question for a way to reach someone asks for, and how it is written."""

ASKS_AUTHOR: Final = late_pattern(
    r"\bwho (?:\w+ )?(?:wrote|authored|published|introduced|proposed|developed|presented)\b"
    r"|\b(?:where|(?:which|what) (?:journal|proceedings|conference|venue|year)s?)\b"
    r".{1,100}\b(?:published|appear(?:ed)?)\b"
    r"|\b(?:author|writer)s? of\b|\b(?:written|authored|published|introduced|proposed) by\b",
    re.IGNORECASE,
)

_AMOUNT_AT_END: Final = late_pattern(r"\w.*[\s:][-(]?\d[\d.,]*\)?(?: \(in \w+\))?\Z")

_ASKS_NAME: Final = late_pattern(
    r"\b(?:who(?! (?:can|could|should|may|must)\b)"
    r"(?! (?:is|are|was|were)\b[^?]* (?:for|eligible|allowed|entitled|invited)\W*\Z)"
    r"|(?<!for )whom|whose|wer|wem|wen|кто|кого)\b|谁",
    re.IGNORECASE,
)


def asks_value(question: str) -> bool:
    return any(pattern.search(question) for pattern in (ASKS_DATE, ASKS_NUMBER, _ASKS_NAME, ASKS_MONEY))


def counted_things(question: str) -> re.Pattern[str] | None:
    """Finds a number before the things that a question counts: "300 new episodes" for "how many episodes"."""
    asked = _ASKS_COUNT.search(question)
    words = content_words(asked.group(1)) if asked is not None else []
    starts = [start for word in words[:1] for start in (word_start(word), *synonym_starts(word_start(word))) if start]
    if not starts:
        return None
    things = "|".join(re.escape(start.strip()) for start in starts)
    numbers = "|".join(sorted(_CARDINALS))
    return late_pattern(rf" (?:\d+|{numbers})(?: [^\W\d]\w*){{0,3}} (?:{things})")


def kind_fits(question: str, text: str, asked: Sequence[str], *, is_row: bool, has_unit: bool) -> float:
    """1 if the sentence has a new value of the type asked for, 0 if not, 0.5 without a type.

    Types are numbers, amounts of money, shares, dates, names, conditions and addresses. The unit of a value in the row
    of a table may stand outside the row: ``has_unit`` tells that the text, or the passage of a row, has a currency or a
    scale.
    """
    if _lacks_unit(question, text, is_row=is_row, has_unit=has_unit):
        return 0.0
    form = _CONDITION if ASKS_CONDITION.search(question) else _contact(question)
    if form is not None:
        return 1.0 if form.search(text) else 0.5
    if ASKS_DATE.search(question):
        occasion = _ASKS_OCCASION.search(question) is not None and _OCCASION.search(text) is not None
        return float(occasion or _DATE.search(text) is not None)
    if ASKS_NUMBER.search(question):
        return float(_has_new_number(question, text, asked))
    if _ASKS_NAME.search(question):
        return float(any(name.lower() not in asked for name in _NAME.findall(_DATE.sub(" ", text))))
    return 1.0 if asks_quantity(question) and not is_row else 0.5


def _contact(question: str) -> re.Pattern[str] | None:
    """Finds the address or number of the kind asked for; ``None`` if none is asked for."""
    return next((contact for asks, contact in _CONTACTS if asks.search(question)), None)


def _lacks_unit(question: str, text: str, *, is_row: bool, has_unit: bool) -> bool:
    """Whether a sentence has no amount of money, share, or quantity of the kind asked for."""
    if ASKS_MONEY.search(question) and not _MONEY.search(text) and not (has_unit and _AMOUNT_AT_END.search(text)):
        return True
    if ASKS_SHARE.search(question) and not _SHARE.search(text) and (not is_row or _DATE.search(text)):
        return True
    return not is_row and any(asks.search(question) and not unit.search(text) for asks, unit in _QUANTITIES)


def _has_new_number(question: str, text: str, asked: Sequence[str]) -> bool:
    """Whether a sentence has a number that is not one of the question, the label of a figure, or a date."""
    text = _NO_LONGER.sub(" ", _FIGURE.sub(" ", text))
    for identifier in _identifiers(question):
        text = text.replace(identifier, " ")
    if not _ASKS_TIME.search(question):
        text = _YEAR_OR_DAY.sub(" ", text)
    known = {word for word in asked if _DIGIT.search(word)}
    number_words = NUMBER_WORDS if ASKS_MEASURE.search(question) else NUMBER_WORDS | _NO_AMOUNT
    if not _ASKS_TIME.search(question) and _ASKS_COUNT.search(question) and not _ASKS_TIMES.search(question):
        number_words = number_words - _NO_NUMBER_OF_THINGS
    return bool(set(_NUMBER.findall(text)) - known) or not number_words.isdisjoint(plain_text(text).split())


def _identifiers(question: str) -> list[str]:
    """The words with a digit behind a letter. As one pattern, it would take seconds for a word of 1,200 letters."""
    words = ((word, _LETTER.search(word)) for word in _WORD_OR_CODE.findall(question))
    return [word for word, letter in words if letter is not None and _DIGIT.search(word, letter.end())]


def asks_quantity(question: str) -> bool:
    return any(asks.search(question) for asks, _ in _QUANTITIES)
