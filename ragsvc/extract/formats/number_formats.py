"""Writes numbers and dates as a spreadsheet displays them, by their number format (ECMA-376 part 1, §18.8.30).

A file does not store the reader's language: decimals have a point, thousands a comma, and the formats that stand for
the reader's short date are written as ISO 8601.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable
from decimal import ROUND_HALF_UP, Decimal
from fractions import Fraction
from functools import lru_cache
from operator import eq, ge, gt, le, lt, ne
from typing import Final

import msgspec

GENERAL: Final = "General"
_LOCAL_DATE: Final = "yyyy-mm-dd"
BUILT_IN: Final = {
    0: GENERAL,
    1: "0",
    2: "0.00",
    3: "#,##0",
    4: "#,##0.00",
    5: "$#,##0_);($#,##0)",
    6: "$#,##0_);[Red]($#,##0)",
    7: "$#,##0.00_);($#,##0.00)",
    8: "$#,##0.00_);[Red]($#,##0.00)",
    9: "0%",
    10: "0.00%",
    11: "0.00E+00",
    12: "# ?/?",
    13: "# ??/??",
    14: _LOCAL_DATE,
    15: "d-mmm-yy",
    16: "d-mmm",
    17: "mmm-yy",
    18: "h:mm AM/PM",
    19: "h:mm:ss AM/PM",
    20: "h:mm",
    21: "h:mm:ss",
    22: f"{_LOCAL_DATE} h:mm",
    **dict.fromkeys((*range(27, 32), 36, *range(50, 59)), _LOCAL_DATE),
    **dict.fromkeys((32, 33, 34, 35), "h:mm:ss"),
    37: "#,##0_);(#,##0)",
    38: "#,##0_);[Red](#,##0)",
    39: "#,##0.00_);(#,##0.00)",
    40: "#,##0.00_);[Red](#,##0.00)",
    41: '_(* #,##0_);_(* (#,##0);_(* "-"_);_(@_)',
    42: '_($* #,##0_);_($* (#,##0);_($* "-"_);_(@_)',
    43: '_(* #,##0.00_);_(* (#,##0.00);_(* "-"??_);_(@_)',
    44: '_($* #,##0.00_);_($* (#,##0.00);_($* "-"??_);_(@_)',
    45: "mm:ss",
    46: "[h]:mm:ss",
    47: "mm:ss.0",
    48: "##0.0E+0",
    49: "@",
}
"""Formats that a file refers to by number without defining them."""

_MONTHS: Final = (
    *("January", "February", "March", "April", "May", "June"),
    *("July", "August", "September", "October", "November", "December"),
)
_DAYS: Final = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_TOKEN: Final = re.compile(
    r'"([^"]*)"?|\\(.)|_(.)|\*(.)|\[([^\]]*)\]|(General)|(AM/PM|A/P|am/pm|a/p)|(\.0+(?=[^0#?]|$))'
    r"|([yY]+|[mM]+|[dD]+|[hH]+|[sS]+|e+|g+|b+)|(.)",
    re.DOTALL,
)
_CONDITION: Final = re.compile(r"(<=|>=|<>|<|>|=)\s*(-?\d+(?:\.\d+)?)\Z")
_DIGITS: Final = re.compile(r"[0#?]")
_ELAPSED: Final = re.compile(r"(h+|m+|s+)\Z", re.IGNORECASE)
_DATE_LETTERS: Final = re.compile(r"[ymdhse]", re.IGNORECASE)
_QUOTED: Final = re.compile(r'"[^"]*"?|\\.|_.|\*.|\[(?!(?:h+|m+|s+)\])[^\]]*\]', re.IGNORECASE | re.DOTALL)
_NOT_ZERO: Final = re.compile(r"[1-9]")
_MAX_SERIAL: Final = 2_958_466.0
_BASE_1900: Final = datetime.datetime(1899, 12, 30)  # noqa: DTZ001 - spreadsheets have no time zones
_BASE_1904: Final = datetime.datetime(1904, 1, 1)  # noqa: DTZ001 - as above
_LEAP_DAY_BUG: Final = 60


class _Section(msgspec.Struct, frozen=True):
    code: str
    condition: tuple[str, float] | None
    is_date: bool


def display(value: float, code: str, *, from_1904: bool = False) -> str:
    """A number as its cell shows it.

    >>> display(0.0725, "0.00%"), display(7, "000"), display(-1234.5, '#,##0.00 "EUR";[Red]-#,##0.00 "EUR"')
    ('7.25%', '007', '-1,234.50 EUR')
    >>> display(46085, "d mmmm yyyy"), display(0.1 + 0.2, "General"), display(1.25, "[h]:mm")
    ('4 March 2026', '0.3', '30:00')
    """
    if code == GENERAL:
        return _general(value)
    sections = _sections(code)
    section, unsigned = _choose(sections, value)
    if section is None:
        return _general(value)
    if section.is_date:
        return _date(value, section.code, from_1904=from_1904)
    text = _number(abs(value), section.code)
    return f"-{text}" if value < 0 and not unsigned and _NOT_ZERO.search(text) else text


def display_text(text: str, code: str) -> str:
    """A text as its cell shows it: a format may have words around it.

    >>> display_text("12", '"Item "@'), display_text("007", "0")
    ('Item 12', '007')
    """
    section = next((section for section in _sections(code) if "@" in section.code), None)
    if section is None or section.code == "@":
        return text
    return "".join(text if literal is None else literal for literal in _literals(section.code)).strip()


@lru_cache(maxsize=512)
def _sections(code: str) -> tuple[_Section, ...]:
    parts, current, index = [], "", 0
    while index < len(code):
        character = code[index]
        if character == '"':
            end = code.find('"', index + 1)
            end = len(code) if end < 0 else end
            current += code[index : end + 1]
            index = end
        elif character == "\\":
            current += code[index : index + 2]
            index += 1
        elif character == ";":
            parts.append(current)
            current = ""
        else:
            current += character
        index += 1
    return tuple(map(_section, [*parts, current]))


def _section(code: str) -> _Section:
    found = next((match for match in map(_CONDITION.match, re.findall(r"\[([^\]]*)\]", code)) if match), None)
    bare = _QUOTED.sub("", code).replace("General", "").replace("AM/PM", "h").replace("A/P", "h")
    is_date = _DATE_LETTERS.search(re.sub(r"[eE][+-]", "", bare)) is not None
    return _Section(code, (found[1], float(found[2])) if found else None, is_date)


def _choose(sections: tuple[_Section, ...], value: float) -> tuple[_Section | None, bool]:
    """The section for a value, and whether it writes the sign itself. ``None``: no section applies."""
    conditions = [section for section in sections if section.condition is not None]
    if conditions:
        for section in sections[:3]:
            if section.condition is None:
                return section, False
            if _holds(value, *section.condition):
                return section, value < 0 and section.condition[0] in ("<", "<=", "=")
        return None, False
    numeric = [section for section in sections if "@" not in section.code] or list(sections)
    if value < 0 and len(numeric) > 1:
        return numeric[1], True
    if value == 0 and len(numeric) > 2:
        return numeric[2], True
    return numeric[0], False


def _holds(value: float, operator: str, limit: float) -> bool:
    return _OPERATORS[operator](value, limit)


_OPERATORS: Final[dict[str, Callable[[float, float], bool]]] = {
    "<": lt,
    "<=": le,
    ">": gt,
    ">=": ge,
    "<>": ne,
    "=": eq,
}


def _general(value: float) -> str:
    if value == int(value) and abs(value) < 1e15:
        return str(int(value))
    text = f"{value:.10g}"
    return text.upper().replace("E+0", "E+").replace("E-0", "E-") if "e" in text else text


def _bracketed(text: str) -> str:
    """The symbol of a currency in brackets, as in ``[$€-407]``; colours, conditions and languages show nothing."""
    return text[1:].partition("-")[0] if text.startswith("$") else ""


def _literal(found: re.Match[str]) -> str | None:
    """The literal text of a token; ``None`` for digits, letters and other characters with a meaning."""
    quoted, escaped, blank, fill, bracket, *_ = found.groups()
    if quoted is not None or escaped is not None:
        return quoted if quoted is not None else escaped
    if blank is not None:
        return " "
    if fill is not None:
        return ""
    return None if bracket is None else _bracketed(bracket)


def _literals(code: str) -> list[str | None]:
    """The literal texts of a section for texts, in order; ``None`` where the text stands."""
    found = [(match.group(), _literal(match)) for match in _TOKEN.finditer(code)]
    return [None if part == "@" else part if literal is None else literal for part, literal in found]


def _number(value: float, code: str) -> str:
    parts: list[str] = []
    pattern = ""
    for match in _TOKEN.finditer(code):
        literal = _general(value) if match.group() == GENERAL else _literal(match)
        if literal is None:
            pattern += match.group()
        else:
            pattern += chr(0xE000 + len(parts))
            parts.append(literal)
    text = _digits(value, pattern)
    return "".join(
        parts[ord(character) - 0xE000] if 0xE000 <= ord(character) < 0xE000 + len(parts) else character
        for character in text
    ).strip()


def _digits(value: float, pattern: str) -> str:
    """Fill the digits of a pattern whose literals are private-use characters."""
    found = list(_DIGITS.finditer(pattern))
    if not found:
        return pattern.replace("@", _general(value))
    first, last = found[0].start(), found[-1].end()
    if "/" in pattern[first:last]:
        return _fraction(value, pattern, first, last)
    exact = Decimal(repr(value)) * Decimal(100) ** pattern.count("%")
    exponent = re.search(r"[eE]([+-])", pattern[first:last])
    if exponent is not None:
        mantissa = pattern[first : first + exponent.start()]
        after = pattern[first + exponent.end() :]
        return pattern[:first] + _scientific(exact, mantissa, exponent[1], after)
    scale = re.match(r",+", pattern[last:])
    if scale is not None:
        exact = exact.scaleb(-3 * len(scale.group()))
        pattern = pattern[:last] + pattern[last + len(scale.group()) :]
    return pattern[:first] + _placed(exact, pattern[first:last]) + pattern[last:]


def _placed(value: Decimal, pattern: str) -> str:
    """A number in a pattern of digit places, such as ``#,##0.00``; literals between the places stay."""
    whole, point, decimals = pattern.partition(".")
    places = len(_DIGITS.findall(decimals))
    rounded = value.quantize(Decimal(1).scaleb(-places), rounding=ROUND_HALF_UP)
    digits, _, fraction = f"{rounded:f}".partition(".")
    digits = digits.lstrip("0")
    thousands = re.search(r"[0#?],[0#?]", whole) is not None
    left = _whole(digits, whole.replace(",", ""), thousands=thousands)
    if not point:
        return left
    fraction = fraction.ljust(places, "0")
    right, index = "", 0
    optional = [match.group() for match in _DIGITS.finditer(decimals)]
    shown = places
    while shown and optional[shown - 1] in "#?" and fraction[shown - 1] == "0":
        shown -= 1
    for character in decimals:
        if _DIGITS.match(character):
            right += fraction[index] if index < shown else ""
            index += 1
        else:
            right += character
    return f"{left}.{right}" if right or "0" in optional else f"{left}."


def _whole(digits: str, pattern: str, *, thousands: bool) -> str:
    """Digits of a whole number put into places from the right, with zeros for ``0``."""
    places = [index for index, character in enumerate(pattern) if _DIGITS.match(character)]
    result: list[str] = []
    count = 0

    def put(digit: str) -> None:
        nonlocal count
        if thousands and count and count % 3 == 0:
            result.append(",")
        result.append(digit)
        count += 1

    rest = digits
    for index in range(len(pattern) - 1, -1, -1):
        character = pattern[index]
        if not _DIGITS.match(character):
            result.append(character)
            continue
        if places and index == places[0]:
            for digit in reversed(rest):
                put(digit)
            if not rest and character == "0":
                put("0")
            rest = ""
        elif rest:
            put(rest[-1])
            rest = rest[:-1]
        elif character == "0":
            put("0")
    return "".join(reversed(result))


def _scientific(value: Decimal, mantissa: str, sign: str, after: str) -> str:
    places = len(_DIGITS.findall(mantissa.partition(".")[2]))
    power = value.adjusted() if value else 0
    width = len(_DIGITS.findall(mantissa.partition(".")[0]))
    if width > 1:
        power -= power % width
    scaled = value.scaleb(-power).quantize(Decimal(1).scaleb(-places), rounding=ROUND_HALF_UP)
    if scaled >= 10**width and width == 1:
        power, scaled = power + 1, scaled / 10
    digits = len(_DIGITS.findall(after))
    mark = "-" if power < 0 else "+" if sign == "+" else ""
    rest = _DIGITS.sub("", after)
    return f"{_placed(scaled, mantissa)}E{mark}{abs(power):0{max(1, digits)}d}{rest}"


def _fraction(value: float, pattern: str, first: int, last: int) -> str:
    before, _, after = pattern[first:last].partition("/")
    fixed = re.match(r"\s*(\d+)", after)
    most = int(fixed[1]) if fixed and int(fixed[1]) else 10 ** max(1, len(_DIGITS.findall(after))) - 1
    exact = Fraction(repr(value))
    has_whole = re.search(r"[0#?]\D*\s[0#?]", before) is not None
    whole = int(exact) if has_whole else 0
    part = exact - whole
    near = Fraction(round(part * most), most) if fixed and int(fixed[1]) else part.limit_denominator(most)
    if near == 1 and has_whole:
        whole, near = whole + 1, Fraction(0)
    written = f"{near.numerator}/{near.denominator}" if near else "0" if not has_whole else ""
    text = " ".join(filter(None, [str(whole) if whole or (has_whole and not near) else "", written]))
    return pattern[:first] + text + pattern[last:]


# -- dates -----------------------------------------------------------------------------------------------------


def _moment(value: float, *, from_1904: bool) -> datetime.datetime | None:
    if not 0 <= value < _MAX_SERIAL:
        return None
    if not from_1904 and value < _LEAP_DAY_BUG:
        value += 1  # the dates of spreadsheets count a 29 February 1900
    return (_BASE_1904 if from_1904 else _BASE_1900) + datetime.timedelta(
        days=int(value), milliseconds=round((value - int(value)) * 86_400_000)
    )


def _date(value: float, code: str, *, from_1904: bool) -> str:
    moment = _moment(value, from_1904=from_1904)
    if moment is None:
        return _general(value)
    tokens = list(_TOKEN.finditer(code))
    if not any(token[_DECIMALS] for token in tokens):  # without decimals, seconds are rounded
        moment = (moment + datetime.timedelta(milliseconds=500)).replace(microsecond=0)
    shown = _Moment(moment, value, twelve=any(token[_HALF] is not None for token in tokens))
    return "".join(_date_token(shown, tokens, index) for index in range(len(tokens))).strip()


class _Moment(msgspec.Struct, frozen=True):
    """A point in time, its number, and whether hours count to twelve."""

    time: datetime.datetime
    number: float
    twelve: bool


_BRACKET: Final = 5
_HALF: Final = 7
_DECIMALS: Final = 8
_LETTERS: Final = 9
_OTHER: Final = 10


def _date_token(moment: _Moment, tokens: list[re.Match[str]], index: int) -> str:
    token = tokens[index]
    elapsed = _ELAPSED.match(token[_BRACKET] or "")
    literal = _elapsed(moment.number, elapsed[1]) if elapsed is not None else _literal(token)
    if literal is not None:
        return literal
    if token[_HALF] is not None:
        first, _, second = token[_HALF].partition("/")
        return first if moment.time.hour < 12 else second
    if token[_DECIMALS] is not None:
        return f".{moment.time.microsecond:06d}"[: len(token[_DECIMALS])]
    letters = token[_LETTERS]
    if letters is None:
        return "" if token[_OTHER] in (None, "@") else token[_OTHER]
    if letters[0] in "mM" and len(letters) <= 2 and _beside_time(tokens, index):
        return f"{moment.time.minute:0{len(letters)}d}"
    return _date_part(moment, letters.lower())


def _beside_time(tokens: list[re.Match[str]], index: int) -> bool:
    """Whether ``m`` means minutes: it follows hours or precedes seconds."""
    before = next(filter(None, map(_time_letters, reversed(tokens[:index]))), "")
    after = next(filter(None, map(_time_letters, tokens[index + 1 :])), "")
    return before[:1].lower() == "h" or after[:1].lower() == "s"


def _time_letters(token: re.Match[str]) -> str:
    bracket = token[_BRACKET] or ""
    return token[_LETTERS] or (bracket if _ELAPSED.match(bracket) else "")


def _elapsed(value: float, letters: str) -> str:
    seconds = round(value * 86_400)
    total = {"h": seconds // 3600, "m": seconds // 60, "s": seconds}[letters[0].lower()]
    return f"{total:0{len(letters)}d}"


def _date_part(moment: _Moment, letters: str) -> str:
    time, count = moment.time, len(letters)
    match letters[0]:
        case "y":
            text = f"{time.year % 100:02d}" if count <= 2 else f"{time.year:04d}"
        case "e":
            text = f"{time.year:04d}"
        case "m":
            name = _MONTHS[time.month - 1]
            text = {1: f"{time.month}", 2: f"{time.month:02d}", 3: name[:3], 5: name[:1]}.get(count, name)
        case "d":
            name = _DAYS[time.weekday()]
            text = {1: f"{time.day}", 2: f"{time.day:02d}", 3: name[:3]}.get(count, name)
        case "h":
            hour = (time.hour % 12 or 12) if moment.twelve else time.hour
            text = f"{hour:0{min(count, 2)}d}"
        case "s":
            text = f"{time.second:0{min(count, 2)}d}"
        case _:
            text = ""
    return text
