"""What of a passage's text is worth embedding: its words, without function words and all punctuation but full stops.

An encoder's time grows with tokens, and a third of a report's tokens are "of the" and ", $ ( )". Leaving them out of
what is *embedded* (never of what is stored, quoted, or indexed for words) makes room for longer passages. Hybrid search
of English is as good by it, dense search alone a little worse: ``docs/techniques.md`` has the figures
per set. Questions are embedded as they are.
"""

from __future__ import annotations

import re
from itertools import chain
from typing import Final

FUNCTION_WORDS: Final = frozenset(
    """a an and any are as at be been by for from had has have in is it its may of on or our such that the their these
    this those to was we were which with""".split()
)
"""English words that name nothing; negations, question words and the like are not among them."""

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
    """The text's words on one line, without function words and punctuation; as it is where no word would be left.

    >>> condense("Net sales of the Company ($ 54,671) were up by 2.5%. . . . . 12")
    'Net sales Company 54 671 up 2.5 . 12'
    >>> condense("(To be, or ...)")
    '(To be, or ...)'
    """
    words: list[str] = []
    for word in text.translate(_BLANKED).split():
        bare = word.rstrip(".")
        words.append(word[len(bare) :] if bare.lower() in FUNCTION_WORDS else word)
    condensed = _STOPS.sub(".", " ".join(filter(None, words)))
    return condensed if _WORD.search(condensed) else text
