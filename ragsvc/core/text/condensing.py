"""Condenses a passage for embedding: removes function words, and punctuation except full stops.

The time of an encoder grows with the number of tokens, and a third of a report's tokens are words such as "of the" and
signs such as ", $ ( )". Removing them from the *embedded* text makes room for longer passages; the stored text, quotes
and the lexical index keep them. Hybrid search of English is as good as with whole texts, dense search alone is slightly
worse (figures per data set: ``docs/techniques.md``). Questions are embedded unchanged.
"""

from __future__ import annotations

import re
from itertools import chain
from typing import Final

from ragsvc.core.text.stop_words import CONDENSED_WORDS

_BLANKED: Final = dict.fromkeys(
    chain(
        (code for code in range(0x80) if chr(code) != "." and not chr(code).isalnum()),
        (code for code in range(0x80, 0x100) if code != 0xAD and not chr(code).isalnum()),  # soft hyphens join
        range(0x2010, 0x205F),  # dashes, quotation marks, bullets
        range(0x20A0, 0x20D0),  # currencies
        range(0x2190, 0x2C00),  # arrows, mathematics, boxes, shapes
        (0x3001, 0x3002, 0x3003, *range(0x3008, 0x3021)),  # Chinese and Japanese
        (*range(0xFF01, 0xFF10), *range(0xFF1A, 0xFF21)),
    ),
    " ",
)
_STOPS: Final = re.compile(r"\.(?:\s*\.)+")
_WORD: Final = re.compile(r"\w")


def condense(text: str) -> str:
    """The text's words on one line, without function words and punctuation; unchanged if no word would remain.

    >>> condense("Net sales of the Company ($ 54,671) were up by 2.5%. . . . . 12")
    'Net sales Company 54 671 up 2.5 . 12'
    >>> condense("(To be, or ...)")
    '(To be, or ...)'
    """
    words: list[str] = []
    for word in text.translate(_BLANKED).split():
        bare = word.rstrip(".")
        words.append(word[len(bare) :] if bare.lower() in CONDENSED_WORDS else word)
    condensed = _STOPS.sub(".", " ".join(filter(None, words)))
    return condensed if _WORD.search(condensed) else text
